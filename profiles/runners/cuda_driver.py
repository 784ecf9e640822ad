"""The few functions of the CUDA driver that a runner needs, through ctypes: they are there wherever a GPU is."""

import ctypes
import sys
from functools import lru_cache

from profiles.errors import ProfileError

MAJOR, MINOR = 75, 76  # CUdevice_attribute: compute capability
_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@lru_cache(maxsize=1)
def driver() -> "ctypes.CDLL | None":
    """The driver library, initialised; None where there is none or no GPU answers."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    count = ctypes.c_int()
    if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    return library


def compute_capability() -> str | None:
    """That of the first GPU, such as "8.7"; None where there is no GPU."""
    library = driver()
    if library is None:
        return None
    parts = []
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int()
        check(library.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0), "cuDeviceGetAttribute")
        parts.append(str(value.value))
    return ".".join(parts)


def device_name() -> str:
    """That of the first GPU, as its driver calls it."""
    library = driver()
    if library is None:
        return "no GPU"
    text = ctypes.create_string_buffer(256)
    check(library.cuDeviceGetName(text, len(text), 0), "cuDeviceGetName")
    return text.value.decode(errors="replace")


def check(status: int, what: str) -> None:
    """Refuse a call that did not succeed.

    Raises:
        ProfileError: naming the call and the driver's status.
    """
    if status != 0:
        raise ProfileError(
            f"the CUDA driver answered {what} with status {status}", fix="check the GPU with nvidia-smi or tegrastats"
        )
