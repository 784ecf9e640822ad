"""Buffers, a stream and timing events on a GPU: through pycuda, torch, or the driver itself, whichever is there."""

import ctypes
import importlib.util
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from profiles.measure import Array
from profiles.runners import cuda_driver


class Memory(Protocol):
    """What a runner needs of a GPU. Close it when done: it holds the buffers."""

    name: str
    stream: int  # handle of the stream that everything runs in

    def allocate(self, size: int) -> int:
        """Address of a new buffer of `size` bytes."""
        ...

    def upload(self, address: int, array: Array) -> None:
        """Copy a contiguous array to the device and wait."""
        ...

    def download(self, array: Array, address: int) -> None:
        """Copy into a contiguous array from the device and wait."""
        ...

    def elapsed_ms(self, work: Callable[[], None]) -> float:
        """Milliseconds between an event before and one after `work` in the stream, on the GPU's own clock."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


def memory() -> Memory:
    """The first road that is there: pycuda, torch with CUDA, the driver.

    Raises:
        ProfileError: there is no GPU.
    """
    if importlib.util.find_spec("pycuda") is not None:
        return Pycuda()
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return Torch()
    return Driver()


class Pycuda:
    """Through pycuda, in the device's primary context, which TensorRT uses too."""

    name = "pycuda"

    def __init__(self) -> None:
        import pycuda.driver as cuda

        cuda.init()
        self._cuda = cuda
        self._context = cuda.Device(0).retain_primary_context()
        self._context.push()
        self._stream = cuda.Stream()
        self.stream = int(self._stream.handle)
        self._buffers: list[Any] = []

    def allocate(self, size: int) -> int:
        buffer = self._cuda.mem_alloc(max(size, 1))
        self._buffers.append(buffer)
        return int(buffer)

    def upload(self, address: int, array: Array) -> None:
        self._cuda.memcpy_htod_async(address, array, self._stream)
        self._stream.synchronize()

    def download(self, array: Array, address: int) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._stream)
        self._stream.synchronize()

    def elapsed_ms(self, work: Callable[[], None]) -> float:
        start, end = self._cuda.Event(), self._cuda.Event()
        start.record(self._stream)
        work()
        end.record(self._stream)
        end.synchronize()
        return float(end.time_since(start))

    def close(self) -> None:
        for buffer in self._buffers:
            buffer.free()
        self._buffers.clear()
        self._context.pop()


class Torch:
    """Through torch's allocator and streams."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self._torch = torch
        torch.cuda.init()  # type: ignore[no-untyped-call]
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.stream = int(self._stream.cuda_stream)
        self._buffers: dict[int, Any] = {}

    def allocate(self, size: int) -> int:
        buffer = self._torch.empty(max(size, 1), dtype=self._torch.uint8, device="cuda")
        self._buffers[buffer.data_ptr()] = buffer
        return int(buffer.data_ptr())

    def upload(self, address: int, array: Array) -> None:
        data = self._torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
        with self._torch.cuda.stream(self._stream):
            self._buffers[address][: data.numel()].copy_(data)
        self._stream.synchronize()

    def download(self, array: Array, address: int) -> None:
        with self._torch.cuda.stream(self._stream):
            data = self._buffers[address][: array.nbytes].cpu()
        self._stream.synchronize()
        np.copyto(array, data.numpy().view(array.dtype).reshape(array.shape))

    def elapsed_ms(self, work: Callable[[], None]) -> float:
        start = self._torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = self._torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        start.record(self._stream)
        work()
        end.record(self._stream)
        end.synchronize()
        return float(start.elapsed_time(end))

    def close(self) -> None:
        self._buffers.clear()


class Driver:
    """Through the CUDA driver's own functions; nothing needs to be installed."""

    name = "the CUDA driver"

    def __init__(self) -> None:
        library = cuda_driver.driver()
        if library is None:
            cuda_driver.check(100, "cuInit (no device)")
        self._library: Any = library
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ctypes.c_int(0))
        self._call("cuCtxSetCurrent", context)
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(1))  # not blocked by the default stream
        self._stream = stream
        self.stream = int(stream.value or 0)
        self._events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in self._events:
            self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        self._buffers: list[int] = []

    def allocate(self, size: int) -> int:
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self._buffers.append(address.value)
        return address.value

    def upload(self, address: int, array: Array) -> None:
        source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, size, self._stream)
        self._call("cuStreamSynchronize", self._stream)

    def download(self, array: Array, address: int) -> None:
        goal, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", goal, ctypes.c_uint64(address), size, self._stream)
        self._call("cuStreamSynchronize", self._stream)

    def elapsed_ms(self, work: Callable[[], None]) -> float:
        start, end = self._events
        self._call("cuEventRecord", start, self._stream)
        work()
        self._call("cuEventRecord", end, self._stream)
        self._call("cuEventSynchronize", end)
        elapsed = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(elapsed), start, end)
        return float(elapsed.value)

    def close(self) -> None:
        for address in self._buffers:
            self._call("cuMemFree_v2", ctypes.c_uint64(address))
        self._buffers.clear()
        for event in self._events:
            self._call("cuEventDestroy_v2", event)
        self._call("cuStreamDestroy_v2", self._stream)
        self._call("cuDevicePrimaryCtxRelease_v2", ctypes.c_int(0))

    def _call(self, name: str, *arguments: Any) -> None:
        cuda_driver.check(int(getattr(self._library, name)(*arguments)), name)
