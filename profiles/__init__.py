"""What a device is, and what a model costs there.

    import profiles
    cost = profiles.profile("student.onnx", target="jetson", batch=1)
    cost.macs, cost.weight_bytes, cost.peak_activation_bytes, cost.latency_ms, cost.interval_ms, cost.origin

Importing this package loads nothing heavy; each function loads what it needs. Neither torch nor a GPU is required
to read ONNX files and to predict.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from profiles.cost import Cost, LayerCost, Precision
from profiles.errors import ProfileError, UserError
from profiles.target import Target, names, target  # the function, from here on, hides the module of that name

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import torch
    from numpy.typing import NDArray

    from profiles.graph import Graph
    from profiles.runners import Runner
    from profiles.totals import Anchor

    Model = str | Path | onnx.ModelProto | torch.nn.Module | Graph
    Example = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor] | Mapping[str, NDArray[np.generic]]

__all__ = [
    "Cost",
    "LayerCost",
    "ProfileError",
    "Target",
    "UserError",
    "compare",
    "measure_cost",
    "predict_totals",
    "profile",
    "read",
    "runner",
    "target",
    "targets",
]


def profile(
    model: "Model",
    target: str | Target,
    batch: int = 1,
    precision: Precision | None = None,
    example: "Example | None" = None,
    layers: bool = True,
    search: Path | None = None,
) -> Cost:
    """Predict what one forward pass costs on a target. Nothing runs; see `measure_cost` for what can be measured here.

    Args:
        model: an ONNX file or ModelProto, a torch module, or a graph from `read`.
        target: a name ("jetson", "jetson-agx-orin-64gb:30w" with a power mode), or what `profiles.target` returned.
        batch: >= 1; takes the place of the first dimension of every input.
        precision: what the network will run in; None takes what the model says (Q/DQ pairs are int8).
        example: inputs of a torch module, or of an ONNX model with dynamic dimensions beside the batch.
        layers: whether to list the fused kernels.
        search: the folder of your own targets (`targets/<name>.toml` in it); None knows those of the package.

    Raises:
        ProfileError: no such target, or the model cannot be read.
    """
    from profiles.predict import predict

    return predict(read(model, batch, example), _target(target, search), precision, layers)


def predict_totals(
    target: str | Target,
    macs: float,
    activations: float | None = None,
    params: float | None = None,
    batch: int = 1,
    precision: Precision | None = None,
    anchors: "Sequence[Anchor]" = (),
) -> Cost:
    """Predict what a network costs where only its totals are known, as in a paper's table; see `profiles.totals`.

    Args:
        macs: multiply-accumulates per item, > 0.
        activations: output elements of convolutions and linear layers per item; None estimates them from `macs`.
        params: None leaves the reading of weights out.
        anchors: `profiles.totals.Anchor`: times measured on the device; two of them narrow the interval most.

    Raises:
        ProfileError: no such target, or a figure is out of range.
    """
    from profiles import totals

    return totals.predict_totals(target, macs, activations, params, batch, precision, anchors)


def compare(
    models: "Sequence[Model]",
    targets: Sequence[str | Target],
    batch: int = 1,
    precision: Precision | None = None,
    example: "Example | None" = None,
    search: Path | None = None,
) -> list[list[Cost]]:
    """Predict several models on several targets: one row per model, one column per target, in the order given.

    Arguments and errors as in `profile`.
    """
    from profiles.predict import predict

    for given, name in ((models, "models"), (targets, "targets")):
        if isinstance(given, str | Path | Target):
            raise ProfileError(f"{name} is one {type(given).__name__}, not a list", fix=f"pass {name}=[...]")
    devices = [_target(item, search) for item in targets]
    graphs = [read(model, batch, example) for model in models]
    return [[predict(graph, device, precision) for device in devices] for graph in graphs]


def measure_cost(
    path: str | Path,
    target: str | Target,
    model: "Model | None" = None,
    inputs: "Mapping[str, NDArray[np.generic]] | None" = None,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
) -> Cost:
    """Run an artifact with the target's runners that are available here, the fastest counts; predict where none is.

    Args:
        path: what the target's builder made: an ONNX file, an engine, a folder with C files.
        model: the ONNX model that the artifact was built from; counts come from it. None: `path` itself is ONNX, or
            the runner knows them.
        inputs: real inputs by name, batch first; None takes random ones.
        batch: of random inputs.
        threads: >= 1, of a runtime on a processor; each is pinned to a physical core.
        seconds: of one round of measuring; there are at most three.

    Returns:
        A cost whose origin is "measured", "emulated" or "predicted"; in the last case a note says why.

    Raises:
        ProfileError: no runner takes the artifact, or nothing is there to predict from.
    """
    from profiles.measured import measure_cost as measure

    return measure(Path(path), _target(target), model, inputs, batch=batch, threads=threads, seconds=seconds)


def runner(name: str) -> "Runner":
    """The module that runs a target's artifacts, such as "on_onnxruntime"; see `profiles.runners`."""
    from profiles.runners import runner as load

    return load(name)


def read(model: "Model", batch: int = 1, example: "Example | None" = None) -> "Graph":
    """The model's operators as a neutral graph; costing one graph on several targets reads it once."""
    from profiles.graph import Graph

    if isinstance(model, Graph):
        return model
    if isinstance(model, str | Path):
        from profiles import read_onnx

        return read_onnx.read(model, batch, _shapes(example))
    package = type(model).__module__.split(".")[0]
    if package == "onnx":
        from profiles import read_onnx

        return read_onnx.read(cast("onnx.ModelProto", model), batch, _shapes(example))
    if callable(model):
        from profiles import read_torch

        if example is None:
            raise ProfileError(
                f"{type(model).__name__} was passed without example inputs", fix="pass example=torch.zeros(1, ...)"
            )
        return read_torch.read(cast("torch.nn.Module", model), example, batch)
    raise ProfileError(
        f"a {type(model).__name__} cannot be costed", fix="pass an ONNX path, an onnx.ModelProto or a torch module"
    )


def targets(search: Path | None = None) -> list[Target]:
    """Every target there is, sorted by name."""
    return [target(name, search) for name in names(search)]


def _target(given: str | Target, search: Path | None = None) -> Target:
    if isinstance(given, str):
        return target(given, search)
    if isinstance(given, Target):
        return given
    raise ProfileError(
        f"the target is a {type(given).__name__}", fix='pass a name such as "jetson", or what profiles.target returned'
    )


def _shapes(example: Any) -> "dict[str, tuple[int, ...] | NDArray[Any]] | None":
    """Shapes, and arrays of numpy as they are: short integer ones may be sizes that the model reads."""
    if example is None:
        return None
    if isinstance(example, Mapping):
        import numpy as np

        return {k: item if isinstance(item, np.ndarray) else tuple(item.shape) for k, item in example.items()}
    raise ProfileError("the example of an ONNX model is not a dictionary", fix="pass example={input name: array}")
