"""What this machine has for workers: cores, memory, GPUs; in a container, what the container has."""

import os
import sys
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Cores that this process may use."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _read(CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        allowed = min(allowed, max(1, int(quota[0]) // int(quota[1])))
    return allowed


def free_memory_bytes() -> int:
    """What can be taken without swapping."""
    free = int(psutil.virtual_memory().available)  # type: ignore[no-untyped-call]
    limit, used = _read(CGROUP / "memory.max").strip(), _read(CGROUP / "memory.current").strip()
    return max(0, min(free, int(limit) - int(used))) if limit.isdigit() and used.isdigit() else free


def gpu_names() -> tuple[str, ...]:
    """Names of CUDA devices as CUDA_VISIBLE_DEVICES takes them; found without loading CUDA."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(name for name in given.split(",") if name and name != "-1")
    found = Path("/proc/driver/nvidia/gpus")
    return tuple(str(number) for number in range(len(list(found.iterdir())))) if found.is_dir() else ()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
