"""The GPU's memory, graphs and state, against stand-ins whose device memory is the host's."""

# ruff: noqa: N801, N802, N815  # the stand-ins have the names of the libraries that they stand for

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from profiles import machine
from profiles.errors import ProfileError
from profiles.runners import cuda_driver, cuda_memory, nvml
from profiles.runners.cuda_memory import CudaPython, Driver


class Host:
    """Memory by address, and what has not been freed."""

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}

    def new(self, size: int) -> int:
        buffer = (ctypes.c_uint8 * size)()
        self.held[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)


class FakeDriver:
    """The driver's calls; every asynchronous one happens at once, an event's time is a counter."""

    def __init__(self) -> None:
        self.memory = Host()
        self.now = 0.0
        self.times: dict[int, float] = {}
        self.log: list[str] = []
        self.capture_status = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: Any) -> int:
            self.log.append(name)
            return 0

        return call

    def cuStreamCreate(self, stream: Any, flags: Any) -> int:
        assert flags.value == 1
        stream._obj.value = 77
        return 0

    def cuEventCreate(self, event: Any, flags: Any) -> int:
        event._obj.value = 100 + len(self.times)
        self.times[event._obj.value] = 0.0
        return 0

    def cuEventRecord(self, event: Any, stream: Any) -> int:
        self.times[event.value] = self.now
        return 0

    def cuEventElapsedTime(self, elapsed: Any, start: Any, end: Any) -> int:
        elapsed._obj.value = self.times[end.value] - self.times[start.value]
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:
        if size.value > 1 << 20:
            return 2  # out of memory
        address._obj.value = self.memory.new(size.value)
        return 0

    cuMemAllocHost_v2 = cuMemAlloc_v2

    def cuMemFree_v2(self, address: Any) -> int:
        del self.memory.held[address.value]
        return 0

    cuMemFreeHost = cuMemFree_v2

    def cuMemcpyHtoDAsync_v2(self, goal: Any, source: Any, size: Any, stream: Any) -> int:
        assert stream.value == 77
        ctypes.memmove(goal.value, source.value, size.value)
        return 0

    cuMemcpyDtoHAsync_v2 = cuMemcpyHtoDAsync_v2

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        self.log.append("cuStreamEndCapture")
        graph._obj.value = 500
        return self.capture_status

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:
        assert graph.value == 500
        executable._obj.value = 600
        return 0

    def cuGraphLaunch(self, executable: Any, stream: Any) -> int:
        assert (executable.value, stream.value) == (600, 77)
        self.log.append("cuGraphLaunch")
        return 0


class FakeRuntime:
    """cuda-python's functions, which return the status first."""

    cudaStreamNonBlocking = 1

    class cudaMemcpyKind:
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    def __init__(self) -> None:
        self.memory = Host()
        self.now = 0.0
        self.times: dict[int, float] = {}
        self.streams = 0

    def cudaSetDevice(self, index: int) -> tuple[int]:
        return (0,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:
        self.streams += 1
        return 0, 77

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        self.streams -= 1
        return (0,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        return (0,)

    def cudaEventCreate(self) -> tuple[int, int]:
        self.times[len(self.times) + 1] = 0.0
        return 0, len(self.times)

    def cudaEventDestroy(self, event: int) -> tuple[int]:
        del self.times[event]
        return (0,)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:
        self.times[event] = self.now
        return (0,)

    def cudaEventSynchronize(self, event: int) -> tuple[int]:
        return (0,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[int, float]:
        return 0, self.times[end] - self.times[start]

    def cudaMalloc(self, size: int) -> tuple[int, int | None]:
        return (2, None) if size > 1 << 20 else (0, self.memory.new(size))

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address: int) -> tuple[int]:
        del self.memory.held[address]
        return (0,)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, goal: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        assert kind in (1, 2)
        ctypes.memmove(goal, source, size)
        return (0,)


@pytest.fixture(params=["driver", "cuda-python"])
def gpu(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A road to the GPU, and the stand-in behind it."""
    if request.param == "driver":
        library = FakeDriver()
        return Driver(library), library
    runtime = FakeRuntime()
    return CudaPython(runtime), runtime


def test_data_goes_there_and_back_through_pinned_memory(gpu: tuple[Any, Any]) -> None:
    memory, fake = gpu
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    address = memory.allocate(x.nbytes)
    source, goal = memory.host(x.shape, x.dtype), memory.host(x.shape, x.dtype)
    np.copyto(source, x)
    memory.copy_in(address, source)
    memory.copy_out(goal, address)
    memory.wait()
    assert np.array_equal(goal, x)
    assert memory.stream == 77
    assert memory.host((0, 3), np.dtype(np.int8)).shape == (0, 3)
    del source, goal
    memory.close()
    assert not fake.memory.held


def test_time_is_what_passed_between_the_events(gpu: tuple[Any, Any]) -> None:
    memory, fake = gpu

    def work() -> None:
        fake.now += 1.5

    assert memory.elapsed_ms(work) == 1.5
    assert memory.elapsed_ms(lambda: None) == 0.0


def test_a_full_gpu_is_an_error_in_words(gpu: tuple[Any, Any]) -> None:
    with pytest.raises(ProfileError, match="with status 2"):
        gpu[0].allocate(1 << 30)


def test_cuda_python_is_found_in_its_old_place_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def load(name: str) -> Any:
        tried.append(name)
        if name == "cuda.cudart":
            return "old"
        raise ImportError(name)

    monkeypatch.setattr(cuda_memory.importlib, "import_module", load)
    assert cuda_memory.cuda_python() == "old"
    assert tried == ["cuda.bindings.runtime", "cuda.cudart"]


def test_a_graph_is_recorded_once_and_launched() -> None:
    fake, ran = FakeDriver(), []
    graph = cuda_driver.Graph(lambda: ran.append(1), 77, fake)
    graph.launch()
    graph.launch()
    graph.close()
    assert ran == [1]
    assert fake.log == [
        "cuStreamBeginCapture_v2",
        "cuStreamEndCapture",
        "cuGraphDestroy",
        "cuGraphLaunch",
        "cuGraphLaunch",
        "cuGraphExecDestroy",
    ]


def test_what_cannot_be_recorded_leaves_the_stream_usable() -> None:
    fake = FakeDriver()
    fake.capture_status = 901
    with pytest.raises(ProfileError, match="cuStreamEndCapture with status 901"):
        cuda_driver.Graph(lambda: None, 77, fake)

    def fail() -> None:
        raise ZeroDivisionError

    again = FakeDriver()
    with pytest.raises(ZeroDivisionError):
        cuda_driver.Graph(fail, 77, again)
    assert again.log == ["cuStreamBeginCapture_v2", "cuStreamEndCapture"]


class FakeNvml:
    """Answers as the management library; what is not in `values` is not supported."""

    def __init__(self, **values: float) -> None:
        self.values = values

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByPciBusId_v2(self, place: bytes, handle: Any) -> int:
        return 0 if place == b"0000:65:00.0" else 6

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(handle: Any, *arguments: Any) -> int:
            if name not in self.values:
                return 3  # not supported
            arguments[-1]._obj.value = int(self.values[name])
            return 0

        return call


def test_a_gpus_state() -> None:
    library = FakeNvml(
        nvmlDeviceGetClockInfo=1200,
        nvmlDeviceGetMaxClockInfo=1980,
        nvmlDeviceGetTemperature=84,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x1 | 0x4 | 0x20,
    )
    gpu = nvml.device_in(library, "0000:65:00.0")
    assert gpu is not None
    assert gpu.held_by() == ("the power limit", "heat")  # idling is no reason
    found = nvml.state(gpu)
    assert (found.clock_mhz, found.highest_mhz) == (1200.0, 1980.0)
    assert any("cooling held the clocks down" in said for said in machine.disturbances(found, found))
    assert gpu.energy_mj() is None
    assert nvml.device_in(library, "0000:99:00.0") is None
    assert nvml.device_in(library, "") is None


def test_a_gpus_energy() -> None:
    library = FakeNvml(nvmlDeviceGetTotalEnergyConsumption=5000)
    gpu = nvml.device_in(library, "0000:65:00.0")
    assert gpu is not None
    now = [0.0]
    meter = nvml.EnergyCounter(gpu, lambda: now[0])
    meter.start()
    now[0], library.values["nvmlDeviceGetTotalEnergyConsumption"] = 1.0, 65_000
    assert meter.stop() == 60.0  # joules
    meter.start()
    now[0] = 1.1
    assert meter.stop() is None  # too short for a counter that steps
