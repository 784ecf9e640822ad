"""The most memory that this process held while something ran."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets the peak to what is held now


@dataclass
class Peak:
    """Filled in when the watching ends."""

    extra_bytes: int | None = None  # above what was held at its beginning; None where the system does not tell


@contextmanager
def peak() -> Iterator[Peak]:
    """Watch the resident memory of the whole process, libraries that are loaded meanwhile included.

    Linux only: elsewhere, and where the peak cannot be reset, `extra_bytes` stays None.
    """
    found = Peak()
    before = _kib("VmRSS")
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        before = None
    try:
        yield found
    finally:
        after = _kib("VmHWM")
        if before is not None and after is not None:
            found.extra_bytes = max(after - before, 0) * 1024


def _kib(key: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    return None
