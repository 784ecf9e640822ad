"""Buffers, a stream and timing events on a GPU: through pycuda, torch, cuda-python or the driver itself."""

import ctypes
import importlib
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

    def host(self, shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> Array:
        """A new array in pinned memory of the host, which the GPU reads and writes without a stop."""
        ...

    def copy_in(self, address: int, array: Array) -> None:
        """Start copying a contiguous array to the device, in the stream. It must live until `wait`."""
        ...

    def copy_out(self, array: Array, address: int) -> None:
        """Start copying into a contiguous array from the device, in the stream."""
        ...

    def wait(self) -> None:
        """Wait until the stream is done."""
        ...

    def elapsed_ms(self, work: Callable[[], None]) -> float:
        """Milliseconds between an event before and one after `work` in the stream, on the GPU's own clock."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


def memory() -> Memory:
    """The first road that is there: pycuda, torch with CUDA, cuda-python, the driver.

    Raises:
        ProfileError: there is no GPU.
    """
    if importlib.util.find_spec("pycuda") is not None:
        return Pycuda()
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return Torch()
    runtime = cuda_python()
    return Driver() if runtime is None else CudaPython(runtime)


def cuda_python() -> Any:
    """cuda-python's module of the CUDA runtime (12 and 13, or its older place); None where it is not installed."""
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


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

    def host(self, shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> Array:
        made: Array = self._cuda.pagelocked_empty(shape, dtype)
        return made

    def copy_in(self, address: int, array: Array) -> None:
        self._cuda.memcpy_htod_async(address, array, self._stream)

    def copy_out(self, array: Array, address: int) -> None:
        self._cuda.memcpy_dtoh_async(array, address, self._stream)

    def wait(self) -> None:
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
    """Through torch's allocators and streams."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self._torch = torch
        torch.cuda.init()  # type: ignore[no-untyped-call]
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.stream = int(self._stream.cuda_stream)
        self._buffers: dict[int, Any] = {}
        self._pinned: dict[int, Any] = {}
        self._moving: list[Any] = []  # what a copy on its way reads from

    def allocate(self, size: int) -> int:
        buffer = self._torch.empty(max(size, 1), dtype=self._torch.uint8, device="cuda")
        self._buffers[buffer.data_ptr()] = buffer
        return int(buffer.data_ptr())

    def host(self, shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> Array:
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        data = self._torch.empty(max(size, 1), dtype=self._torch.uint8, pin_memory=True)
        self._pinned[data.data_ptr()] = data
        made: Array = data.numpy()[:size].view(dtype).reshape(shape)
        return made

    def copy_in(self, address: int, array: Array) -> None:
        data = self._pinned.get(array.ctypes.data)
        if data is None:
            data = self._torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy())
            self._moving.append(data)
        with self._torch.cuda.stream(self._stream):
            self._buffers[address][: array.nbytes].copy_(data[: array.nbytes], non_blocking=True)

    def copy_out(self, array: Array, address: int) -> None:
        data = self._pinned.get(array.ctypes.data)
        with self._torch.cuda.stream(self._stream):
            if data is not None:
                data[: array.nbytes].copy_(self._buffers[address][: array.nbytes], non_blocking=True)
                return
            found = self._buffers[address][: array.nbytes].cpu()
        np.copyto(array, found.numpy().view(array.dtype).reshape(array.shape))

    def wait(self) -> None:
        self._stream.synchronize()
        self._moving.clear()

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
        self._pinned.clear()


class CudaPython:
    """Through cuda-python; every function of it returns its status first."""

    name = "cuda-python"

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._ok(runtime.cudaSetDevice(0), "cudaSetDevice")
        self._stream = self._ok(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking), "cudaStreamCreate")
        self.stream = int(self._stream)
        self._events = [self._ok(runtime.cudaEventCreate(), "cudaEventCreate") for _ in range(2)]
        self._buffers: list[Any] = []
        self._pinned: list[Any] = []

    def allocate(self, size: int) -> int:
        address = self._ok(self._runtime.cudaMalloc(max(size, 1)), "cudaMalloc")
        self._buffers.append(address)
        return int(address)

    def host(self, shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> Array:
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        address = self._ok(self._runtime.cudaMallocHost(max(size, 1)), "cudaMallocHost")
        self._pinned.append(address)
        return _array_at(int(address), size, shape, dtype)

    def copy_in(self, address: int, array: Array) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._ok(
            self._runtime.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, self._stream),
            "cudaMemcpyAsync",
        )

    def copy_out(self, array: Array, address: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._ok(
            self._runtime.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, self._stream),
            "cudaMemcpyAsync",
        )

    def wait(self) -> None:
        self._ok(self._runtime.cudaStreamSynchronize(self._stream), "cudaStreamSynchronize")

    def elapsed_ms(self, work: Callable[[], None]) -> float:
        start, end = self._events
        self._ok(self._runtime.cudaEventRecord(start, self._stream), "cudaEventRecord")
        work()
        self._ok(self._runtime.cudaEventRecord(end, self._stream), "cudaEventRecord")
        self._ok(self._runtime.cudaEventSynchronize(end), "cudaEventSynchronize")
        return float(self._ok(self._runtime.cudaEventElapsedTime(start, end), "cudaEventElapsedTime"))

    def close(self) -> None:
        for address in self._buffers:
            self._ok(self._runtime.cudaFree(address), "cudaFree")
        for address in self._pinned:
            self._ok(self._runtime.cudaFreeHost(address), "cudaFreeHost")
        self._buffers.clear()
        self._pinned.clear()
        for event in self._events:
            self._ok(self._runtime.cudaEventDestroy(event), "cudaEventDestroy")
        self._events.clear()
        self._ok(self._runtime.cudaStreamDestroy(self._stream), "cudaStreamDestroy")

    def _ok(self, answer: Any, what: str) -> Any:
        status, *values = answer
        cuda_driver.check(int(status), what)
        return values[0] if values else None


class Driver:
    """Through the CUDA driver's own functions; nothing needs to be installed."""

    name = "the CUDA driver"

    def __init__(self, library: Any = None) -> None:
        library = library or cuda_driver.driver()
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
        self._pinned: list[int] = []

    def allocate(self, size: int) -> int:
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self._buffers.append(address.value)
        return address.value

    def host(self, shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> Array:
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        address = ctypes.c_void_p()
        self._call("cuMemAllocHost_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self._pinned.append(int(address.value or 0))
        return _array_at(self._pinned[-1], size, shape, dtype)

    def copy_in(self, address: int, array: Array) -> None:
        source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), source, size, self._stream)

    def copy_out(self, array: Array, address: int) -> None:
        goal, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", goal, ctypes.c_uint64(address), size, self._stream)

    def wait(self) -> None:
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
        for address in self._pinned:
            self._call("cuMemFreeHost", ctypes.c_void_p(address))
        self._buffers.clear()
        self._pinned.clear()
        for event in self._events:
            self._call("cuEventDestroy_v2", event)
        self._call("cuStreamDestroy_v2", self._stream)
        self._call("cuDevicePrimaryCtxRelease_v2", ctypes.c_int(0))

    def _call(self, name: str, *arguments: Any) -> None:
        cuda_driver.check(int(getattr(self._library, name)(*arguments)), name)


def _array_at(address: int, size: int, shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> Array:
    """A view of `size` bytes at an address of the host; whoever allocated them frees them."""
    raw: Any = (ctypes.c_uint8 * max(size, 1)).from_address(address)
    return np.frombuffer(raw, np.uint8)[:size].view(dtype).reshape(shape)
