"""An engine in memory with its buffers: run it, start it without waiting, and time it on the GPU's own clock.

Which file may become one is `on_tensorrt`'s business. Written after NVIDIA's documents and tested against stand-ins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from profiles.errors import ProfileError
from profiles.measure import Array, TensorSpec
from profiles.runners import Arrays, cuda_driver
from profiles.runners.cuda_memory import Memory

IN_A_ROW = 20  # enqueues of one look at the throughput
DATA_TYPES = {  # names of trt.DataType -> numpy's; trt.nptype of 8.x fails with numpy 1.24 and later
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Traits:
    """What of an engine must be known before it is loaded.

    Attributes:
        host_code: it was built version-compatible, so it carries code that the runtime may start.
        dla_core: the accelerator that it runs on; None is the GPU.
        weights: the ONNX file with the weights that were left out of it; None where they are inside.
    """

    host_code: bool = False
    dla_core: int | None = None
    weights: bytes | None = None


class Pending:
    """A forward pass that was started; `result` waits for it."""

    def __init__(self, loaded: "Loaded", outputs: dict[str, Array]) -> None:
        self._loaded, self._staged = loaded, outputs
        self._results: dict[str, Array] | None = None

    def result(self) -> dict[str, Array]:
        """Outputs by name: arrays of the caller's own."""
        if self._results is None:
            self._loaded.finish()
        assert self._results is not None
        return self._results

    def take(self) -> None:
        """Copy out of the pinned buffers, which the next run writes again."""
        self._results = {name: array.copy() for name, array in self._staged.items()}


class Loaded:
    """An engine with its buffers; close it (or use `with`) to free them.

    Buffers on the device and in pinned memory of the host are made once for each tensor, and again only for a larger
    shape. One run is in flight at a time: starting the next one waits for it.
    """

    def __init__(self, package: Any, engine: Any, device: Memory, free_before: int | None = None) -> None:
        self._package = package
        self._free_before = free_before
        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise ProfileError(
                "TensorRT cannot make an execution context for this engine",
                fix="free GPU memory, or build it again here",
            )
        self._gpu = device
        self._graph: cuda_driver.Graph | None = None
        self._room: dict[str, tuple[int, int]] = {}  # tensor -> address and size of its buffer
        self._staging: dict[str, Array] = {}  # tensor -> pinned bytes of the host
        self._pending: Pending | None = None
        self._profile = 0
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
        return self.submit(inputs).result()

    def submit(self, inputs: Arrays) -> Pending:
        """Start a forward pass and return at once; the inputs may be changed afterwards. Errors as `run`."""
        shapes = self.bind(inputs)
        self.enqueue()
        staged: dict[str, Array] = {}
        for spec in self.outputs:
            staged[spec.name] = self._staged(spec.name, shapes[spec.name], spec.dtype)
            self._gpu.copy_out(staged[spec.name], self._room[spec.name][0])
        self._pending = Pending(self, staged)
        return self._pending

    def finish(self) -> None:
        """Wait for the run that is in flight, if there is one."""
        self._gpu.wait()
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.take()

    def bind(self, inputs: Arrays) -> dict[str, tuple[int, ...]]:
        """Set shapes, make room, copy the inputs in; returns the shape of every output. A recorded graph is dropped."""
        self._drop_graph()
        self.finish()
        wanted = {spec.name for spec in self.inputs}
        if set(inputs) != wanted:
            raise ProfileError(
                f"the engine takes {', '.join(sorted(wanted))}; given were {', '.join(sorted(inputs)) or 'none'}",
                fix="pass exactly the engine's inputs",
            )
        for spec in self.inputs:
            if inputs[spec.name].dtype != spec.dtype:
                raise ProfileError(
                    f"input {spec.name!r} takes {spec.dtype}, not {inputs[spec.name].dtype}", fix="convert the array"
                )
        self._choose_profile({name: tuple(array.shape) for name, array in inputs.items()})
        for spec in self.inputs:
            array = inputs[spec.name]
            if not self._context.set_input_shape(spec.name, tuple(array.shape)):
                raise ProfileError(
                    f"the engine does not take {tuple(array.shape)} for {spec.name!r}; it was built for {spec.shape}",
                    fix="build it with an optimisation profile that contains this shape",
                )
            staged = self._staged(spec.name, tuple(array.shape), spec.dtype)
            np.copyto(staged, array)
            self._gpu.copy_in(self._make_room(spec.name, array.nbytes), staged)
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

    def profiles(self) -> list[dict[str, tuple[tuple[int, ...], ...]]]:
        """For each optimisation profile: input with a dynamic shape -> smallest, typical and largest shape."""
        return [
            {
                spec.name: tuple(
                    tuple(int(size) for size in shape)
                    for shape in self._engine.get_tensor_profile_shape(spec.name, index)
                )
                for spec in self.inputs
                if None in spec.shape
            }
            for index in range(self._engine.num_optimization_profiles)
        ]

    def _choose_profile(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Use the first profile that contains the shapes.

        Raises:
            ProfileError: none does; the message has the ranges of each.
        """
        there = self.profiles()
        order = [self._profile, *(index for index in range(len(there)) if index != self._profile)]
        for index in order:
            if all(_within(shapes[name], ranges) for name, ranges in there[index].items()):
                if index != self._profile:
                    self._context.set_optimization_profile_async(index, self._gpu.stream)
                    self._gpu.wait()
                    self._profile = index
                return
        name = next(name for name, ranges in there[order[0]].items() if not _within(shapes[name], ranges))
        said = "; ".join(f"profile {index}: {one[name][0]} to {one[name][2]}" for index, one in enumerate(there))
        largest = max(one[name][2][0] for one in there if one[name][2]) if shapes[name] else 0
        fix = "build it with an optimisation profile that contains this shape (--batches, --dim, --profile)"
        if shapes[name] and shapes[name][0] > largest > 0:
            fix = f"pass at most {largest} rows at a time, or {fix}"
        raise ProfileError(
            f"input {name!r} of shape {shapes[name]} lies outside what the engine was built for ({said})", fix=fix
        )

    def enqueue(self) -> None:
        """Start one forward pass on what was bound last.

        Raises:
            ProfileError: the engine refused.
        """
        if not self._context.execute_async_v3(self._gpu.stream):
            raise ProfileError("the engine failed to start", fix="read TensorRT's messages above; build it again here")

    def elapsed_ms(self) -> float:
        """Milliseconds of one forward pass on the GPU's own clock."""
        return self._gpu.elapsed_ms(self._start())

    def back_to_back_ms(self) -> float:
        """Milliseconds of one of several forward passes of which each is started before the one before has ended."""
        start = self._start()

        def several() -> None:
            for _ in range(IN_A_ROW):
                start()

        return self._gpu.elapsed_ms(several) / IN_A_ROW

    def with_transfer(self, inputs: Arrays) -> Callable[[], float]:
        """A call that gives the milliseconds of copying `inputs` in, one forward pass, and copying the outputs out.

        The host's side is pinned memory. Inputs and outputs must have the shapes that were bound last.
        """
        sources = {spec.name: self._pinned(inputs[spec.name]) for spec in self.inputs}
        goals: dict[str, Array] = {}
        for spec in self.outputs:
            shape = tuple(int(size) for size in self._context.get_tensor_shape(spec.name))
            goals[spec.name] = self._gpu.host(shape, spec.dtype)
        start = self._start()

        def work() -> None:
            for name, array in sources.items():
                self._gpu.copy_in(self._room[name][0], array)
            start()
            for name, array in goals.items():
                self._gpu.copy_out(array, self._room[name][0])

        return lambda: self._gpu.elapsed_ms(work)

    def record(self) -> None:
        """From now on start forward passes as one CUDA graph, recorded with what was bound last.

        Raises:
            ProfileError: the engine cannot be recorded (it waits for the GPU, or has shapes that depend on values).
        """
        self.enqueue()  # an engine sets itself up in its first run, which cannot be recorded
        self._gpu.wait()
        self._graph = cuda_driver.Graph(self.enqueue, self._gpu.stream)

    def held_bytes(self) -> int | None:
        """Device memory that went since the file was opened; None where the driver does not tell."""
        free = cuda_driver.free_bytes()
        return None if free is None or self._free_before is None else max(self._free_before - free, 0)

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None

    def _start(self) -> Callable[[], None]:
        return self.enqueue if self._graph is None else self._graph.launch

    def _pinned(self, array: Array) -> Array:
        made = self._gpu.host(tuple(array.shape), array.dtype)
        np.copyto(made, array)
        return made

    def _staged(self, name: str, shape: tuple[int, ...], dtype: "np.dtype[np.generic]") -> Array:
        """An array in the pinned memory that the tensor keeps; made anew where it has grown."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if name not in self._staging or self._staging[name].nbytes < size:
            self._staging[name] = self._gpu.host((max(size, 1),), np.dtype(np.uint8))
        made: Array = self._staging[name][:size].view(dtype).reshape(shape)
        return made

    @property
    def buffers(self) -> str:
        """What the buffers were made with."""
        return self._gpu.name

    def close(self) -> None:
        """Wait for what is in flight and free the buffers."""
        if self._pending is not None:
            self.finish()
        self._drop_graph()
        self._gpu.close()

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spec(self, name: str) -> TensorSpec:
        shape = tuple(int(size) if size >= 0 else None for size in self._engine.get_tensor_shape(name))
        kind = self._engine.get_tensor_dtype(name).name
        if kind not in DATA_TYPES:
            raise ProfileError(
                f"tensor {name!r} of the engine is {kind}, which numpy has no type for",
                fix="export it with a Cast to float32 at that end",
            )
        return TensorSpec(name, shape, np.dtype(DATA_TYPES[kind]))

    def _make_room(self, name: str, size: int) -> int:
        address, room = self._room.get(name, (0, 0))
        if not address or room < size:
            address = self._gpu.allocate(size)
            self._room[name] = (address, size)
            self._context.set_tensor_address(name, address)
        return address


def refit(package: Any, logger: Any, engine: Any, weights: bytes, device: Memory) -> None:
    """Give an engine that was built without weights those of its ONNX file (TensorRT 10.0 or later)."""
    refitter = package.Refitter(engine, logger)
    if not package.OnnxParserRefitter(refitter, logger).refit_from_bytes(weights) or not refitter.refit_cuda_engine():
        device.close()
        raise ProfileError("TensorRT cannot put this ONNX file's weights into the engine", fix="pass its own ONNX file")


def _within(shape: tuple[int, ...], ranges: Sequence[tuple[int, ...]]) -> bool:
    low, high = ranges[0], ranges[2]
    return len(shape) == len(low) and all(
        first <= size <= last for first, size, last in zip(low, shape, high, strict=True)
    )
