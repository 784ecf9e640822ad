"""Everything that must hold before a commit: format, lint, types, tests. Stops at the first that does not.

.venv/bin/python tools/check.py
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKS = (
    ("format", ("ruff", "format", "--check", "--quiet", ".")),
    ("lint", ("ruff", "check", "--quiet", ".")),
    ("types", ("mypy",)),
    ("tests", ("pytest",)),
)


def main() -> int:
    """Run the checks in order; the exit status of the first that fails."""
    for name, arguments in CHECKS:
        start = time.monotonic()
        print(f"== {name}", flush=True)
        found = subprocess.run([sys.executable, "-m", *arguments, *_more(name)], cwd=ROOT, env=os.environ)
        print(
            f"== {name}: {'ok' if found.returncode == 0 else 'failed'} ({time.monotonic() - start:.0f} s)", flush=True
        )
        if found.returncode != 0:
            return found.returncode
    return 0


def _more(name: str) -> list[str]:
    """Arguments after the script's own go to pytest."""
    return sys.argv[1:] if name == "tests" else []


if __name__ == "__main__":
    sys.exit(main())
