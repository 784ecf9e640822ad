"""The two sides of a bisect: a reference that shows its tensors, and something that runs a cut model."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from exporters import graph, onnx_to_any_c
from exporters.bisect_layers import Arrays, computed, exposed
from exporters.errors import ExportError
from profiles.runners import on_cortex_m, on_onnxruntime
from profiles.target import Target


class Tensors(Protocol):
    """A reference: computes named tensors from the model's inputs."""

    @property
    def names(self) -> Sequence[str]:
        """Tensors that it can show, in the order in which they are computed."""
        ...

    @property
    def constants(self) -> Mapping[str, NDArray[np.generic]]:
        """Stored numbers by the names that the candidate has for them."""
        ...

    def compute(self, names: Sequence[str], inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Their values."""
        ...


@dataclass(frozen=True)
class Runtime:
    """Something that runs the candidate.

    Attributes:
        name: for messages.
        run: (model, inputs by name) -> its outputs by name.
        fuses: whether it rewrites the graph or runs integer kernels, so that it may only be cut at dequantised
            activations.
        script: lines of Python that run "layer.onnx" on the arrays `inputs` and leave the outputs in `found`.
    """

    name: str
    run: Callable[[ModelProto, Arrays], dict[str, NDArray[np.generic]]]
    fuses: bool
    script: tuple[str, ...]


class OnnxTensors:
    """An ONNX graph, run node by node as it is written.

    Args:
        model: checked.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model

    @property
    def names(self) -> Sequence[str]:
        """Every tensor that depends on the inputs' values."""
        return computed(self.model)

    @cached_property
    def constants(self) -> Mapping[str, NDArray[np.generic]]:
        """Initializers and constants."""
        return {name: graph.array(tensor) for name, tensor in graph.constants(self.model.graph).items()}

    def compute(self, names: Sequence[str], inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Values of these tensors, from one run."""
        return session(exposed(self.model, names), inputs, rewrite=False) if names else {}


def session(model: ModelProto, inputs: Arrays, *, rewrite: bool) -> dict[str, NDArray[np.generic]]:
    """Outputs by onnxruntime, one thread.

    Args:
        rewrite: let it rewrite the graph for speed; else it runs node by node.

    Raises:
        ProfileError: onnxruntime is missing or refuses the model.
    """
    with tempfile.TemporaryDirectory(prefix="bisect-") as scratch:
        path = Path(scratch) / "model.onnx"
        onnx.save(model, str(path))
        loaded = on_onnxruntime.load(path, as_written=not rewrite)
        wanted = {spec.name for spec in loaded.inputs}
        return dict(loaded.run({name: value for name, value in inputs.items() if name in wanted}))


AS_WRITTEN = Runtime(
    "onnxruntime, as written",
    lambda model, inputs: session(model, inputs, rewrite=False),
    False,
    (
        "options = onnxruntime.SessionOptions()",
        "options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL",
        'session = onnxruntime.InferenceSession("layer.onnx", options, providers=["CPUExecutionProvider"])',
        "found = dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(inputs))))",
    ),
)
REWRITTEN = Runtime(
    "onnxruntime, as it rewrites the graph",
    lambda model, inputs: session(model, inputs, rewrite=True),
    True,
    (
        'session = onnxruntime.InferenceSession("layer.onnx", providers=["CPUExecutionProvider"])',
        "found = dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(inputs))))",
    ),
)


def generated_c(target: Target, core: str | None = None) -> Runtime:
    """C as `exporters.onnx_to_any_c` writes it, on an emulated core or (core None) compiled for this machine.

    The generated C takes one sample of float32 inputs at a time; both ways give the same bits.
    """

    def run(model: ModelProto, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        single = fixed(model, inputs)
        with tempfile.TemporaryDirectory(prefix="bisect-") as scratch:
            path = Path(scratch) / "model.onnx"
            onnx.save(single, str(path))
            folder = onnx_to_any_c.convert(path, target, Path(scratch)).path
            wanted = {value.name: np.asarray(inputs[value.name]) for value in single.graph.input}
            if core is None:
                found = on_cortex_m.run_on_host(folder, wanted)
            else:
                with on_cortex_m.load(folder, core) as board:
                    found = board.run(wanted)
        count = len(next(iter(wanted.values())))
        return {name: np.asarray(value).reshape(count, *np.shape(value)[1:]) for name, value in found.items()}

    where = "this machine" if core is None else f"an emulated {core}"
    return Runtime(
        f"generated C on {where}",
        run,
        True,
        (
            "import profiles",
            "from pathlib import Path",
            "from exporters import bisect_sides, check_onnx",
            f"runtime = bisect_sides.generated_c(profiles.target({target.name!r}), {core!r})",
            'found = runtime.run(check_onnx.load(Path("layer.onnx")), inputs)',
        ),
    )


def built_engine(
    name: str,
    build: Callable[[Path, Path], Path],
    load: Callable[[Path], Any],
    script: tuple[str, ...] = (),
) -> Runtime:
    """An engine: the cut model is built with its tensors marked as outputs, then loaded and run.

    Args:
        name: for messages.
        build: (ONNX file, folder) -> the engine built from it.
        load: engine -> something with `run(inputs)`, such as a runner's `load`.
        script: as in `Runtime`.
    """

    def run(model: ModelProto, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        with tempfile.TemporaryDirectory(prefix="bisect-") as scratch:
            path = Path(scratch) / "model.onnx"
            onnx.save(fixed(model, inputs, batch=None), str(path))
            engine = build(path, Path(scratch))
            found: Mapping[str, NDArray[np.generic]] = load(engine).run(
                {value.name: inputs[value.name] for value in model.graph.input}
            )
            return {key: np.asarray(value) for key, value in found.items()}

    return Runtime(name, run, True, script)


def fixed(model: ModelProto, inputs: Arrays, *, batch: int | None = 1) -> ModelProto:
    """The model with the shapes of these inputs written in, and types inferred for its outputs.

    Args:
        batch: the first dimension of each input; None takes the arrays' own.

    Raises:
        ExportError: the outputs' types cannot be inferred.
    """
    new = graph.copy(model)
    for value in new.graph.input:
        shape = inputs[value.name].shape
        sizes = shape if batch is None or not shape else (batch, *shape[1:])
        dims = value.type.tensor_type.shape
        del dims.dim[:]
        for size in sizes:
            dims.dim.add(dim_value=int(size))
    del new.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(new)
    missing = [value.name for value in inferred.graph.output if not value.type.tensor_type.elem_type]
    if missing:
        raise ExportError(
            f"the type of {missing[0]!r} cannot be inferred", fix="check the model with onnx.checker.check_model"
        )
    return inferred
