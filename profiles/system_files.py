"""Files in which the system tells its state, below /proc and /sys; any of them may be missing."""

from pathlib import Path


def text(path: Path) -> str:
    """What the file says, without blanks around it; "" where it is not there or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> float | None:
    """The number that the file holds; None where it is not there, may not be read, or holds something else."""
    try:
        return float(text(path))
    except ValueError:
        return None
