"""Make `.venv` with everything that a user (or, with --dev, a developer) needs. Python 3.11 and pip are enough.

python3 tools/setup.py          the package with TensorRT-RTX, which builds engines without a GPU
python3 tools/setup.py --dev    the same with the test tools
"""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv"
PYTHON = PLACE / "bin" / "python"
OLDEST = (3, 11)


def main() -> int:
    """Create the environment and install into it; what is there already is kept."""
    if sys.version_info < OLDEST:
        print(f"setup: this is Python {sys.version.split()[0]}; use Python 3.11 or later", file=sys.stderr)
        return 2
    if not PYTHON.exists():
        venv.create(PLACE, with_pip=True)
    # torch comes first and pinned: whatever depends on it then finds it there, and brings no other build.
    torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    extras = "tensorrt-rtx,dev" if "--dev" in sys.argv[1:] else "tensorrt-rtx"
    pip("install", "-c", "constraints.txt", torch)
    pip("install", "-c", "constraints.txt", "-e", f".[{extras}]")
    print(f"setup: ready; {PLACE.relative_to(ROOT)}/bin/compress --help")
    return 0


def pip(*arguments: str) -> None:
    """Run the environment's pip in the repository's root."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
