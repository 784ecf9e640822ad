"""No GPU is needed: a recorded stand-in takes the place of TensorRT's API and of the device's memory."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import profiles
from profiles import jetson, trust
from profiles.errors import ProfileError
from profiles.runners import WrongDeviceError, cuda_driver, on_tensorrt, tensorrt_engine


class Memory:
    """Device memory as a dictionary."""

    name = "a stand-in"
    stream = 77

    def __init__(self) -> None:
        self.data: dict[int, np.ndarray] = {}
        self.closed = False

    def allocate(self, size: int) -> int:
        address = 1000 + len(self.data)
        self.data[address] = np.zeros(size, np.uint8)
        return address

    def host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.zeros(shape, dtype)

    def copy_in(self, address: int, array: np.ndarray) -> None:
        raw = np.frombuffer(array.tobytes(), np.uint8)
        self.data[address][: raw.size] = raw

    def wait(self) -> None: ...

    def copy_out(self, array: np.ndarray, address: int) -> None:
        array[...] = self.data[address][: array.nbytes].view(array.dtype).reshape(array.shape)

    def elapsed_ms(self, work: Callable[[], None]) -> float:
        work()
        return 0.25

    def close(self) -> None:
        self.closed = True


class Context:
    """Doubles its input; takes batches up to 8."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.addresses: dict[str, int] = {}
        self.shape = (0, 3)
        self.runs = 0
        self.profiles: list[int] = []

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape[0] <= 8 and shape[1:] == (3,)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profiles.append(index)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == Memory.stream
        self.runs += 1
        size = int(np.prod(self.shape)) * 4
        source = self.memory.data[self.addresses["x"]][:size].view(np.float32)
        self.memory.data[self.addresses["y"]][:size] = (source * 2).view(np.uint8)
        return True


class Engine:
    num_io_tensors = 2
    num_optimization_profiles = 2

    def __init__(self, memory: Memory) -> None:
        self.context = Context(memory)

    def create_execution_context(self) -> Context:
        return self.context

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "x" else "out"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3)

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="FLOAT")

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [[(1, 3), (1, 3), (2, 3)], [(3, 3), (8, 3), (8, 3)]][profile]


def package(memory: Memory, accepts: bool = True) -> Any:
    class Logger:
        ERROR = 1

        def __init__(self, level: int) -> None: ...

    class Runtime:
        def __init__(self, logger: Logger) -> None: ...

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            return Engine(memory) if accepts and plan == b"plan" else None

    return SimpleNamespace(
        __name__="tensorrt",
        __version__="10.3.0",
        Logger=Logger,
        Runtime=Runtime,
        TensorIOMode=SimpleNamespace(INPUT="in"),
    )


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Memory]:
    memory = Memory()
    monkeypatch.setattr(on_tensorrt, "available", lambda: None)
    monkeypatch.setattr(on_tensorrt, "_installed", lambda: ["tensorrt"])
    monkeypatch.setattr(on_tensorrt.importlib, "import_module", lambda name: package(memory))
    monkeypatch.setattr(on_tensorrt, "memory", lambda: memory)
    monkeypatch.setattr(cuda_driver, "compute_capability", lambda: "8.7")
    monkeypatch.setattr(cuda_driver, "device_name", lambda: "Orin")
    path = tmp_path / "model.engine"
    path.write_bytes(b"plan")
    trust.accept(path)
    return path, memory


def test_runs_by_name_and_grows_its_buffers(engine: tuple[Path, Memory]) -> None:
    path, memory = engine
    with on_tensorrt.load(path) as loaded:
        for batch in (1, 4, 2):
            x = np.arange(batch * 3, dtype=np.float32).reshape(batch, 3)
            assert np.array_equal(loaded.run({"x": x})["y"], 2 * x)
        assert len(memory.data) == 4  # two buffers for one, two larger ones for four, none for two
    assert memory.closed


def test_too_many_rows_are_answered_with_the_most_there_may_be(engine: tuple[Path, Memory]) -> None:
    with on_tensorrt.load(engine[0]) as loaded, pytest.raises(ProfileError) as caught:
        loaded.run({"x": np.zeros((9, 3), np.float32)})
    assert caught.value.fix.startswith("pass at most 8 rows at a time")


def test_the_profile_that_contains_a_shape_is_used(engine: tuple[Path, Memory]) -> None:
    with on_tensorrt.load(engine[0]) as loaded:
        for batch in (1, 2, 5, 8, 1):
            loaded.run({"x": np.ones((batch, 3), np.float32)})
        assert loaded._context.profiles == [1, 0], "changed only where it must be"


def test_runs_are_started_without_waiting_and_pinned_memory_is_used_again(engine: tuple[Path, Memory]) -> None:
    path, memory = engine
    asked: list[int] = []
    host = memory.host
    memory.host = lambda shape, dtype: (asked.append(int(np.prod(shape))), host(shape, dtype))[1]  # type: ignore[method-assign]
    with on_tensorrt.load(path) as loaded:
        x = np.ones((2, 3), np.float32)
        first = loaded.submit({"x": x})
        x[...] = 7.0  # the caller may use its array again
        second = loaded.submit({"x": np.full((2, 3), 5.0, np.float32)})
        assert np.array_equal(second.result()["y"], np.full((2, 3), 10.0))
        assert np.array_equal(first.result()["y"], np.full((2, 3), 2.0)), "kept when the next run took the buffer"
        kept = loaded.run({"x": x})["y"]
        loaded.run({"x": np.zeros((1, 3), np.float32)})
        assert np.array_equal(kept, np.full((2, 3), 14.0)), "results are the caller's own"
    assert asked == [24, 24], "one pinned buffer for each tensor"


def test_an_engine_that_nobody_vouches_for_is_not_given_to_tensorrt(engine: tuple[Path, Memory]) -> None:
    path, _ = engine
    path.with_name("model.engine.sha256").unlink()
    with pytest.raises(trust.UntrustedError, match=r"nobody vouches for model\.engine"):
        on_tensorrt.load(path)
    with on_tensorrt.load(path, trust=True):
        pass
    trust.accept(path)
    path.write_bytes(b"plbn")  # one bit
    with pytest.raises(trust.UntrustedError, match="is not the file that was made"):
        on_tensorrt.load(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"z": np.zeros((1, 3), np.float32)}, "takes x"),
        ({"x": np.zeros((1, 3), np.float64)}, "takes float32, not float64"),
        ({"x": np.zeros((9, 3), np.float32)}, r"profile 0: \(1, 3\) to \(2, 3\); profile 1: \(3, 3\) to \(8, 3\)"),
    ],
)
def test_wrong_inputs_are_refused(engine: tuple[Path, Memory], given: dict[str, np.ndarray], said: str) -> None:
    with on_tensorrt.load(engine[0]) as loaded, pytest.raises(ProfileError, match=said):
        loaded.run(given)


def test_time_is_that_of_the_events(engine: tuple[Path, Memory]) -> None:
    found = on_tensorrt.measure(engine[0], profiles.target("jetson"), batch=2, seconds=0.01)
    assert found.median_ms == 0.25
    assert found.with_transfer_ms == 0.25
    assert found.back_to_back_ms == 0.25 / tensorrt_engine.IN_A_ROW
    assert found.throughput == pytest.approx(2 / 0.25e-3 * tensorrt_engine.IN_A_ROW)
    assert found.batch == 2
    assert found.runtime == "tensorrt 10.3.0"
    assert found.clock == "CUDA events around one enqueue, without a CUDA graph, without copies, buffers by a stand-in"


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (None, "the target's power mode is 15 W; this one's could not be read"),
        ("15W", "in power mode 15W, as the target"),
        ("MAXN_SUPER", "the target's power mode is 15 W, this board runs in MAXN_SUPER"),
    ],
)
def test_the_power_mode_is_compared(
    engine: tuple[Path, Memory], monkeypatch: pytest.MonkeyPatch, mode: str | None, said: str
) -> None:
    monkeypatch.setattr(jetson, "power_mode", lambda: mode)
    monkeypatch.setattr(jetson, "model", lambda: "NVIDIA Jetson Orin Nano Developer Kit")
    found = on_tensorrt.measure(engine[0], profiles.target("jetson"), seconds=0.01)
    assert said in found.notes
    assert "on NVIDIA Jetson Orin Nano Developer Kit" in found.notes


def test_transfers_carry_the_data(engine: tuple[Path, Memory]) -> None:
    path, memory = engine
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    moved: list[np.ndarray] = []
    with on_tensorrt.load(path) as loaded:
        loaded.bind({"x": np.zeros((2, 3), np.float32)})
        sample = loaded.with_transfer({"x": x})
        out = memory.copy_out
        memory.copy_out = lambda array, address: (out(array, address), moved.append(array.copy()))  # type: ignore[method-assign]
        assert sample() == 0.25
    assert np.array_equal(moved[0], 2 * x)


def test_a_graph_is_launched_instead_of_an_enqueue(
    engine: tuple[Path, Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[str] = []

    class Graph:
        def __init__(self, work: Callable[[], None], stream: int) -> None:
            assert stream == Memory.stream
            work()

        def launch(self) -> None:
            launched.append("launch")

        def close(self) -> None:
            launched.append("close")

    monkeypatch.setattr(cuda_driver, "Graph", Graph)
    found = on_tensorrt.measure(engine[0], batch=1, seconds=0.01, cuda_graph=True)
    assert "CUDA events around one launch of a CUDA graph" in found.clock
    assert launched.count("close") == 1
    assert len(launched) > 30


@pytest.mark.parametrize(
    ("units", "gib", "said"),
    [
        (108, 39.4, None),
        (56, 24.0, "the target has 108 multiprocessors, this GPU \\(A30\\) has 56"),  # an A30 is 8.0 as well
        (108, 79.2, "the target has 40 GB of memory, this GPU \\(A30\\) has 79"),
        (14, 4.9, "has 14"),  # a slice of one
    ],
)
def test_cards_of_one_compute_capability_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, units: int, gib: float, said: str | None
) -> None:
    monkeypatch.setattr(cuda_driver, "compute_capability", lambda: "8.0")
    monkeypatch.setattr(cuda_driver, "device_name", lambda: "A30")
    monkeypatch.setattr(cuda_driver, "multiprocessors", lambda: units)
    monkeypatch.setattr(cuda_driver, "memory_bytes", lambda: int(gib * 2**30))
    monkeypatch.setattr(cuda_driver, "is_integrated", lambda: False)
    found = on_tensorrt.fits(profiles.target("a100"))
    assert (found is None) if said is None else re.search(said, found or "")


def test_processors_that_a_power_mode_switched_off_are_noted(
    engine: tuple[Path, Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_driver, "is_integrated", lambda: True)
    monkeypatch.setattr(cuda_driver, "multiprocessors", lambda: 4)
    found = on_tensorrt.measure(engine[0], profiles.target("jetson"), seconds=0.01)
    assert "the target has 8 multiprocessors, 4 are switched on here" in found.notes


def test_another_gpu_than_the_targets_is_not_measured(engine: tuple[Path, Memory]) -> None:
    with pytest.raises(WrongDeviceError, match=r"compute capability 8\.0, this GPU \(Orin\) has 8\.7"):
        on_tensorrt.measure(engine[0], profiles.target("a100"))


def test_an_engine_of_another_version_is_refused(engine: tuple[Path, Memory]) -> None:
    engine[0].write_bytes(b"other")
    trust.accept(engine[0])
    with pytest.raises(ProfileError, match=r"is refused by tensorrt 10\.3\.0"):
        on_tensorrt.load(engine[0])
    assert engine[1].closed


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(on_tensorrt, "_installed", lambda: ["tensorrt"])
    monkeypatch.setattr(cuda_driver, "driver", lambda: None)
    assert "no NVIDIA GPU" in (on_tensorrt.available() or "")
    with pytest.raises(ProfileError, match="no NVIDIA GPU") as caught:
        on_tensorrt.load(tmp_path / "model.engine")
    assert caught.value.fix == "run on the device"


def test_without_tensorrt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_tensorrt, "_installed", list)
    assert "pip install tensorrt" in (on_tensorrt.available() or "")
