"""A student as a graph: batch and lengths free, no operator that overwrites its input, attention as two products.

Source: torch.export.
"""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from compress.errors import RecipeError
from compress.qat import attention
from exporters import free_sizes, recurrent_shapes

aten = torch.ops.aten
BATCH = "batch"
Lengths = Mapping[str, Mapping[int, str]]
"""Input -> {axis: name of its size}, for axes beside the batch whose size is free."""

# torch.export keeps in-place operators; rounding a tensor that is then overwritten breaks its gradient.
_OUT_OF_PLACE = {
    aten.relu_.default: aten.relu.default,
    aten.relu6_.default: aten.relu6.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.hardsigmoid_.default: aten.hardsigmoid.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.elu_.default: aten.elu.default,
    aten.silu_.default: aten.silu.default,
    aten.gelu_.default: aten.gelu.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.tanh_.default: aten.tanh.default,
    aten.clamp_.default: aten.clamp.default,
    aten.add_.Tensor: aten.add.Tensor,
    aten.sub_.Tensor: aten.sub.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.dropout_.default: aten.dropout.default,
}


def capture(model: nn.Module, example: tuple[Tensor, ...], input_names: Sequence[str], lengths: Lengths) -> GraphModule:
    """The student's graph in evaluation mode, with tensors of its own.

    Args:
        model: left as it is.
        example: (B, ...) each; B may be 1, a free length may not.
        input_names: one per input; () takes the names of forward's parameters.
        lengths: axes whose size is free beside the batch. Axes of one name have one size.

    Raises:
        RecipeError: `lengths` names an input or axis that there is not, or the student computes for one size only.
    """
    training = model.training
    model.eval()
    # A batch of one would be taken for a constant.
    inputs = tuple(torch.cat([tensor, tensor]) if tensor.shape[0] == 1 else tensor for tensor in example)
    shapes = _shapes(model, inputs, input_names, lengths)
    try:
        with recurrent_shapes.shapes_only(), warnings.catch_warnings():
            # Recurrent layers keep a list of their own parameters, which export takes for forgotten buffers.
            warnings.filterwarnings("ignore", message="The tensor attribute")
            program = torch.export.export(model, inputs, dynamic_shapes=shapes, strict=False)
    except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        sizes = "a free batch size" if not lengths else "a free batch size and free lengths"
        raise RecipeError(
            f"the student cannot be captured with {sizes}: {str(error).splitlines()[0]}",
            fix="keep dimension 0 for the batch, and let no Python branch depend on values or on a free size",
        ) from error
    finally:
        model.train(training)
    graph = program.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    # The exported module holds the student's own tensors: copy them, so that training leaves the student as it is.
    for owner in graph.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            setattr(owner, name, nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))
        for name, buffer in list(owner.named_buffers(recurse=False)):
            setattr(owner, name, buffer.detach().clone())
    _replace_in_place(graph)
    attention.decompose(graph)
    return graph


def _shapes(model: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], lengths: Lengths) -> Any:
    """Free sizes of every input, in the structure of forward's arguments."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    if not names:
        names = [parameter.name for parameter in parameters[: len(inputs)]]
    unknown = sorted(set(lengths) - set(names))
    if unknown:
        raise RecipeError(
            f"no input is called {unknown[0]!r}; there are {', '.join(names)}", fix="name an input of the student"
        )
    batch = torch.export.Dim(BATCH, min=1)
    free = []
    for position, tensor in enumerate(inputs):
        axes = lengths.get(names[position], {}) if position < len(names) else {}
        for axis in axes:
            if not 0 < axis < tensor.dim() or tensor.shape[axis] < 2:
                raise RecipeError(
                    f"axis {axis} of input {names[position]!r} of shape {tuple(tensor.shape)} cannot be a free length",
                    fix="name an axis behind the batch, and give an example with two steps or more along it",
                )
        # A range of allowed lengths follows from the student's own operators (a convolution needs its kernel's width).
        free.append({0: batch, **dict.fromkeys(axes, torch.export.Dim.DYNAMIC)})
    return free_sizes.as_arguments(model, free)


def _replace_in_place(graph: GraphModule) -> None:
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target in _OUT_OF_PLACE:
            replaced = node.args[0]
            later = [user for user in replaced.users if user is not node and user > node]
            node.target = _OUT_OF_PLACE[node.target]
            for user in later:  # they read the overwritten tensor
                user.replace_input_with(replaced, node)
    graph.recompile()
