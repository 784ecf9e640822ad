"""Everything that must hold before a commit: format, lint, types, tests. Stops at the first that does not.

.venv/bin/python tools/check.py            the tests run in as many processes as there are cores, four at most
.venv/bin/python tools/check.py -n 0 -x    what follows goes to pytest: one process, and stop at the first failure
"""

import importlib.util
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
MOST = 4  # processes of tests; each holds about 1 GiB


def main() -> int:
    """Run the checks in order; the exit status of the first that fails."""
    for name, arguments in CHECKS:
        start = time.monotonic()
        print(f"== {name}", flush=True)
        more = [*_spread(), *sys.argv[1:]] if name == "tests" else []
        found = subprocess.run([sys.executable, "-m", *arguments, *more], cwd=ROOT, env=_one_thread_each())
        print(
            f"== {name}: {'ok' if found.returncode == 0 else 'failed'} ({time.monotonic() - start:.0f} s)", flush=True
        )
        if found.returncode != 0:
            return found.returncode
    return 0


def _spread() -> list[str]:
    """How many processes share the tests. Arguments after the script's own win."""
    count = min(len(os.sched_getaffinity(0)), MOST)
    if count == 1:
        return []
    if importlib.util.find_spec("xdist") is None:
        print("== tests: in one process; python tools/setup.py --dev installs pytest-xdist for more", flush=True)
        return []
    return ["-n", str(count)]


def _one_thread_each() -> dict[str, str]:
    """Processes fill the cores; threads of each would only wait for each other."""
    return {"OMP_NUM_THREADS": "1", **os.environ}


if __name__ == "__main__":
    sys.exit(main())
