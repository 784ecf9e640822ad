"""A model as TensorRT's parser takes it, and the shapes that an engine is built for. No rule is checked here."""

from collections.abc import Callable, Mapping

from onnx import ModelProto

from exporters.errors import ExportError
from exporters.passes import (
    bias_to_float,
    dequantize_tables,
    drop_unused,
    fold_weight_quantizers,
    name_nodes,
    stft_to_matmul,
)

Profile = dict[str, list[list[int]]]
"""Input name -> [smallest, typical, largest] shape."""

REWRITES: tuple[Callable[[ModelProto], ModelProto], ...] = (
    name_nodes.apply,
    stft_to_matmul.apply,
    bias_to_float.apply,
    dequantize_tables.apply,
    fold_weight_quantizers.apply,
    drop_unused.apply,
)


def rewrite(model: ModelProto) -> ModelProto:
    """The model with what TensorRT lacks written in other operators. `model` is not changed.

    Raises:
        ExportError: a part that no rewrite mends.
    """
    for change in REWRITES:
        model = change(model)
    return model


def profile(model: ModelProto, batches: tuple[int, int, int], shapes: Mapping[str, tuple[int, ...]]) -> Profile:
    """Shapes of the optimisation profile: one entry per input with a dynamic dimension.

    Args:
        model: the model; its first dimension is the batch where it is dynamic.
        batches: smallest, typical, largest batch.
        shapes: input -> shape without the batch, for inputs with other dynamic dimensions.

    Raises:
        ExportError: a dynamic dimension that nothing gives a size to.
    """
    fixed = {tensor.name for tensor in model.graph.initializer}
    made: Profile = {}
    for value in model.graph.input:
        if value.name in fixed:
            continue
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]
        if -1 not in dims:
            continue
        rest = list(shapes.get(value.name, tuple(dims[1:])))
        if -1 in rest or len(rest) != len(dims) - 1:
            raise ExportError(
                f"input {value.name!r} has dynamic dimensions besides the batch: {dims}",
                fix="give its shape without the batch in BuildOptions.shapes, or export it with static shapes",
            )
        made[value.name] = [[batch if dims[0] == -1 else dims[0], *rest] for batch in batches]
    return made
