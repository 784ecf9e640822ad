"""Whether another process is still there, asked by those who share a file with it."""

import os
import platform
from pathlib import Path

import psutil


def place_of_this() -> str:
    """Processes of one place see each other's process numbers: one boot, one process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def birth_of(pid: int) -> str:
    """When the process began, in its place's own measure; "" where it is gone. Numbers are used again, births not."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if words[0] in "ZX" else words[19]  # a zombie has ended; field 22 of the line, in ticks since boot
    except OSError:
        pass
    if Path("/proc/self").exists():
        return ""
    try:
        return str(psutil.Process(pid).create_time())  # type: ignore[no-untyped-call]
    except psutil.NoSuchProcess:
        return ""
