"""The few functions of the CUDA driver that a runner needs, through ctypes: they are there wherever a GPU is."""

import ctypes
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from profiles.errors import ProfileError

MAJOR, MINOR, MULTIPROCESSORS, INTEGRATED = 75, 76, 16, 18  # CUdevice_attribute
_THIS_THREAD = 1  # CUstreamCaptureMode: calls of other threads are none of its business
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
    major, minor = _attribute(MAJOR), _attribute(MINOR)
    return None if major is None else f"{major}.{minor}"


def multiprocessors() -> int | None:
    """Streaming multiprocessors of the first GPU that are switched on; None where there is no GPU."""
    return _attribute(MULTIPROCESSORS)


def is_integrated() -> bool:
    """Whether the first GPU shares its memory with the processor, as a Jetson's does."""
    return bool(_attribute(INTEGRATED))


def device_name() -> str:
    """That of the first GPU, as its driver calls it."""
    return _text("cuDeviceGetName") or "no GPU"


def bus_id() -> str:
    """Where the first GPU sits, such as "0000:65:00.0"; "" where it does not say."""
    return _text("cuDeviceGetPCIBusId")


def memory_bytes() -> int | None:
    """All memory of the first GPU; None where there is no GPU."""
    library = driver()
    if library is None:
        return None
    size = ctypes.c_size_t()
    check(library.cuDeviceTotalMem_v2(ctypes.byref(size), 0), "cuDeviceTotalMem_v2")
    return size.value


def free_bytes() -> int | None:
    """Memory that nobody uses now, on the GPU of this thread's context; None where there is none."""
    library = driver()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if library is None or library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) != 0:
        return None
    return free.value


def description() -> str:
    """The first GPU in words: name, compute capability, multiprocessors, memory, version of its driver's CUDA."""
    library = driver()
    if library is None:
        return device_name()
    version = ctypes.c_int()
    check(library.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    parts = [f"compute capability {compute_capability()}", f"{multiprocessors()} multiprocessors"]
    parts.append(f"{(memory_bytes() or 0) / 2**30:.1f} GiB")
    return f"{device_name()} ({', '.join(parts)}, driver for CUDA {cuda})"


class Graph:
    """Work of one stream, recorded once and started again as a whole (a CUDA graph).

    Args:
        work: starts everything in the stream, and must have run there before.
        stream: handle of a stream that is not the default one.

    Raises:
        ProfileError: the work cannot be recorded, because it waits for the GPU or allocates memory.
    """

    def __init__(self, work: Callable[[], None], stream: int, library: Any = None) -> None:
        self._library = cast(Any, library or driver())
        self._stream = ctypes.c_void_p(stream)
        self._executable = ctypes.c_void_p()
        recorded = ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(_THIS_THREAD))
        try:
            work()
        finally:
            # A capture that is left open would make every later call in this stream fail.
            status = self._library.cuStreamEndCapture(self._stream, ctypes.byref(recorded))
        check(status, "cuStreamEndCapture")
        try:
            flags = ctypes.c_ulonglong(0)
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), recorded, flags)
        finally:
            self._call("cuGraphDestroy", recorded)

    def launch(self) -> None:
        """Start it."""
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Free it."""
        self._call("cuGraphExecDestroy", self._executable)

    def _call(self, name: str, *arguments: Any) -> None:
        check(int(getattr(self._library, name)(*arguments)), name)


def check(status: int, what: str) -> None:
    """Refuse a call that did not succeed.

    Raises:
        ProfileError: naming the call and the driver's status.
    """
    if status != 0:
        raise ProfileError(
            f"the CUDA driver answered {what} with status {status}", fix="check the GPU with nvidia-smi or tegrastats"
        )


def _attribute(attribute: int) -> int | None:
    library = driver()
    if library is None:
        return None
    value = ctypes.c_int()
    check(library.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0), "cuDeviceGetAttribute")
    return value.value


def _text(call: str) -> str:
    library = driver()
    if library is None:
        return ""
    text = ctypes.create_string_buffer(256)
    check(getattr(library, call)(text, len(text), 0), call)
    return text.value.decode(errors="replace")
