"""Run and time a TensorRT or TensorRT-RTX engine on this machine's GPU, with CUDA events.

Time is that of the GPU between two events around one enqueue; copies between host and device are not in it. An engine
is code: load only files whose origin you know.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from profiles.errors import ProfileError
from profiles.measure import Array, Measurement, Setup, TensorSpec, example_inputs, with_note
from profiles.measure import measure as measure_sample
from profiles.runners import Arrays, WrongDeviceError, cuda_driver
from profiles.runners.cuda_memory import Memory, memory
from profiles.target import Target

PACKAGES = ("tensorrt", "tensorrt_rtx")


def available() -> str | None:
    """Why it cannot run here; None where it can."""
    if not _installed():
        return "neither TensorRT nor TensorRT-RTX is installed: pip install tensorrt, or JetPack's own on a Jetson"
    if cuda_driver.driver() is None:
        return "this machine has no NVIDIA GPU, or no driver for it: run on the device"
    return None


def fits(target: Target) -> str | None:
    """Why this GPU is not the target's; None where it is."""
    here = cuda_driver.compute_capability()
    if here == target.compute_capability:
        return None
    wanted, name = target.compute_capability, cuda_driver.device_name()
    return f"the target has compute capability {wanted}, this GPU ({name}) has {here}"


class Loaded:
    """An engine with its buffers; close it (or use `with`) to free them."""

    def __init__(self, package: Any, engine: Any, gpu: Memory) -> None:
        self._package = package
        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise ProfileError(
                "TensorRT cannot make an execution context for this engine",
                fix="free GPU memory, or build it again here",
            )
        self._gpu = gpu
        self._room: dict[str, tuple[int, int]] = {}  # tensor -> address and size of its buffer
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        mode = package.TensorIOMode.INPUT
        self.inputs = tuple(self._spec(name) for name in names if engine.get_tensor_mode(name) == mode)
        self.outputs = tuple(self._spec(name) for name in names if engine.get_tensor_mode(name) != mode)
        self.runtime = f"{package.__name__} {package.__version__}"

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Outputs by name for inputs by name.

        Raises:
            ProfileError: names, shapes or types do not fit the engine.
        """
        shapes = self.bind(inputs)
        self.enqueue()
        results: dict[str, Array] = {}
        for spec in self.outputs:
            array = np.empty(shapes[spec.name], dtype=spec.dtype)
            self._gpu.download(array, self._room[spec.name][0])
            results[spec.name] = array
        return results

    def bind(self, inputs: Arrays) -> dict[str, tuple[int, ...]]:
        """Set shapes, make room, copy the inputs in; returns the shape of every output."""
        wanted = {spec.name for spec in self.inputs}
        if set(inputs) != wanted:
            raise ProfileError(
                f"the engine takes {', '.join(sorted(wanted))}; given were {', '.join(sorted(inputs)) or 'none'}",
                fix="pass exactly the engine's inputs",
            )
        for spec in self.inputs:
            array = np.ascontiguousarray(inputs[spec.name])
            if array.dtype != spec.dtype:
                raise ProfileError(
                    f"input {spec.name!r} takes {spec.dtype}, not {array.dtype}", fix="convert the array"
                )
            if not self._context.set_input_shape(spec.name, tuple(array.shape)):
                raise ProfileError(
                    f"the engine does not take {tuple(array.shape)} for {spec.name!r}; it was built for {spec.shape}",
                    fix="build it with an optimisation profile that contains this shape",
                )
            self._gpu.upload(self._make_room(spec.name, array.nbytes), array)
        shapes: dict[str, tuple[int, ...]] = {}
        for spec in self.outputs:
            shape = tuple(int(size) for size in self._context.get_tensor_shape(spec.name))
            if any(size < 0 for size in shape):
                raise ProfileError(
                    f"output {spec.name!r} has a shape that depends on values: {shape}",
                    fix="export it with a fixed shape",
                )
            shapes[spec.name] = shape
            self._make_room(spec.name, int(np.prod(shape, dtype=np.int64)) * spec.dtype.itemsize)
        return shapes

    def enqueue(self) -> None:
        """Start one forward pass on what was bound last.

        Raises:
            ProfileError: the engine refused.
        """
        if not self._context.execute_async_v3(self._gpu.stream):
            raise ProfileError("the engine failed to start", fix="read TensorRT's messages above; build it again here")

    def elapsed_ms(self) -> float:
        """Milliseconds of one forward pass on the GPU's own clock."""
        return self._gpu.elapsed_ms(self.enqueue)

    @property
    def buffers(self) -> str:
        """What the buffers were made with."""
        return self._gpu.name

    def close(self) -> None:
        """Free the buffers."""
        self._gpu.close()

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(int(size) if size >= 0 else None for size in self._engine.get_tensor_shape(name))
        return TensorSpec(name, shape, np.dtype(self._package.nptype(self._engine.get_tensor_dtype(name))))

    def _make_room(self, name: str, size: int) -> int:
        address, room = self._room.get(name, (0, 0))
        if not address or room < size:
            address = self._gpu.allocate(size)
            self._room[name] = (address, size)
            self._context.set_tensor_address(name, address)
        return address


def load(path: Path, *, threads: int = 1) -> Loaded:
    """Open an engine.

    Args:
        threads: not used; the GPU has its own.

    Raises:
        ProfileError: TensorRT or the GPU is missing, or no installed TensorRT accepts the file.
    """
    reason = available()
    if reason is not None:
        raise ProfileError(reason.split(": ", 1)[0], fix=reason.split(": ", 1)[1])
    path = Path(path)
    if not path.is_file():
        raise ProfileError(f"there is no file {path}", fix="build the engine first")
    return open_engine(path.read_bytes(), path.name, memory())


def open_engine(plan: bytes, name: str, gpu: Memory) -> Loaded:
    """Give the plan to each installed TensorRT until one accepts it; `gpu` is the engine's from then on."""
    tried = []
    for package_name in _installed():
        package = importlib.import_module(package_name)
        runtime = package.Runtime(package.Logger(package.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is not None:
            return Loaded(package, engine, gpu)
        tried.append(f"{package_name} {package.__version__}")
    gpu.close()
    raise ProfileError(
        f"{name} is refused by {' and '.join(tried)}; engines run only on the GPU and version they were built for",
        fix=f"build it on this machine from its ONNX file: compress build {Path(name).stem}.onnx",
    )


def measure(
    path: Path,
    target: Target | None = None,
    inputs: Arrays | None = None,
    *,
    batch: int = 1,
    seconds: float = 3.0,
) -> Measurement:
    """Time one forward pass of an engine.

    Args:
        target: None measures on whatever GPU there is.
        inputs: None takes normal random numbers.
        batch: where `inputs` is None.

    Raises:
        WrongDeviceError: this GPU is not the target's.
        ProfileError: as `load`, or the runs spread too wide.
    """
    reason = available()
    wrong = fits(target) if target is not None and reason is None else None
    if wrong is not None:
        raise WrongDeviceError(wrong, fix="measure on the device itself")
    with load(path) as loaded:
        given = example_inputs(loaded.inputs, batch) if inputs is None else dict(inputs)
        loaded.bind(given)
        size = next((int(value.shape[0]) for value in given.values() if value.ndim), 1)
        clock = f"CUDA events around one enqueue, without copies and without a CUDA graph, buffers by {loaded.buffers}"
        setup = Setup(size, 0, cuda_driver.device_name(), loaded.runtime, clock)
        found = measure_sample(loaded.elapsed_ms, setup, seconds)
    if target is not None and target.hardware.power_mode:
        return with_note(found, f"the target's power mode is {target.hardware.power_mode}; this one's was not read")
    return found


def _installed() -> list[str]:
    return [name for name in PACKAGES if importlib.util.find_spec(name) is not None]
