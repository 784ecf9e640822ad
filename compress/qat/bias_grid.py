"""Biases on the grid on which integer kernels keep them.

An integer kernel adds codes of input and weight in 32 bits, so its bias is an int32 of scale (input scale * weight
scale). Here every such bias is rounded to that grid while it is still a float: in evaluation, in the last phase of
fine-tuning, and in what ships. Then the trained network, the graph as written and integer kernels compute the same.

Source: Jacob et al. 2018, arXiv:1712.05877, equations 7 and 11.
"""

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from compress.qat.fake_quantize import ActivationFakeQuantize, WeightFakeQuantizePerChannel, floored
from compress.qat.quantizer import BATCH_NORM, CONVOLUTIONS, DROPOUTS, LINEAR, only_reader

WEIGHTED = CONVOLUTIONS | {LINEAR}
# An int32 bias overflows where the weights of a channel are all but zero and its bias is not; one bit is left for the
# sum that it is added to.
_CODES = 2.0**30


def final_scale(trained: Tensor, factor: Tensor | None, bias: Tensor | None, step: float | None) -> Tensor:
    """Scale of the weights that ships.

    Args:
        trained: (C,) scale of the weights in training.
        factor: (C,) that the batch norm behind them multiplies by; None without one.
        bias: (C,) after the fold; None without one.
        step: scale of the layer's input; None where it is float.

    Returns:
        (C,), > 0: floored, and large enough for the bias to fit into 31 bits.
    """
    scale = floored(trained if factor is None else trained * factor.abs())
    return scale if bias is None or step is None else torch.maximum(scale, bias.abs() / (step * _CODES))


def on_grid(bias: Tensor, step: float, scale: Tensor) -> Tensor:
    """The bias rounded (half to even) to multiples of step * scale.

    Args:
        bias: (C,).
        step: scale of the layer's input, > 0.
        scale: (C,) scale of its weights, > 0.

    Returns:
        (C,) float32.
    """
    grid = step * scale  # in float32, as runtimes compute it
    return (bias / grid).round() * grid


class BiasToGrid(nn.Module):
    """A layer's bias, or the shift of the batch norm behind it, so that after the fold it is on the grid.

    Holds no tensors. Passes the bias through while the input's range is unknown or still moves with training.

    Args:
        activation: fake quantiser of the layer's input.
        weight: of its weight.
    """

    def __init__(self, activation: ActivationFakeQuantize, weight: WeightFakeQuantizePerChannel) -> None:
        super().__init__()
        self._of = (activation, weight)  # in a tuple, so that they keep one name each in the state dict

    def forward(self, bias: Tensor, weight: Tensor) -> Tensor:
        """(C,), the layer's weight -> (C,); the gradient passes straight through."""
        if not self._settled():
            return bias
        with torch.no_grad():
            moved = self._rounded(bias, weight, None) - bias
        return bias + moved

    def _settled(self) -> bool:
        activation, weight = self._of
        if self.training and bool(activation.observer_enabled):
            return False
        rounding = bool(activation.fake_quant_enabled) and bool(weight.fake_quant_enabled)
        return rounding and int(activation.seen) > 0

    def _rounded(self, bias: Tensor, weight: Tensor, factor: Tensor | None) -> Tensor:
        activation, quantizer = self._of
        step = float(activation.scale)
        return on_grid(bias, step, final_scale(quantizer.scales(weight), factor, bias, step))


class ShiftToGrid(BiasToGrid):
    """The same for the shift of a batch norm."""

    def forward(  # type: ignore[override]
        self,
        shift: Tensor,
        weight: Tensor,
        factor: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        epsilon: float,
        bias: Tensor | None,
    ) -> Tensor:
        """(C,), the layer's weight, the batch norm's numbers (C,) each, the layer's bias -> (C,)."""
        if not self._settled():
            return shift
        with torch.no_grad():
            folded_factor, folded_bias = fold(factor, shift, mean, variance, epsilon, bias)
            moved = self._rounded(folded_bias, weight, folded_factor) - folded_bias
        return shift + moved


def fold(
    factor: Tensor | None, shift: Tensor | None, mean: Tensor, variance: Tensor, epsilon: float, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(factor, bias) of a batch norm folded into the layer in front, (C,) each: y = factor * layer(x) + bias.

    Args:
        factor, shift: the batch norm's own; None stands for 1 and 0.
        bias: the layer's; None stands for 0.
    """
    scale = torch.rsqrt(variance + epsilon)
    if factor is not None:
        scale = factor * scale
    start = torch.zeros_like(mean) if bias is None else bias
    folded = (start - mean) * scale
    return scale, folded if shift is None else folded + shift


def insert(graph: GraphModule) -> None:
    """Put the modules into a graph that has its fake quantisers; a layer without a bias or shift gets none."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function" or node.target not in WEIGHTED:
            continue
        found = _quantizers(graph, node)
        if found is None:
            continue
        activation, quantizer, weight = found
        norm = only_reader(node)
        bias = node.args[2] if len(node.args) > 2 else None
        if norm is not None and norm.target is BATCH_NORM and norm.args[0] is node:
            if isinstance(norm.args[2], Node):
                _, factor, shift, mean, variance, _, _, epsilon = norm.args[:8]
                arguments = (shift, weight, factor, mean, variance, epsilon, bias)
                _insert(graph, norm, 2, ShiftToGrid(activation, quantizer), arguments)
        elif isinstance(bias, Node):
            _insert(graph, node, 2, BiasToGrid(activation, quantizer), (bias, weight))
    graph.recompile()


def _quantizers(
    graph: GraphModule, node: Node
) -> tuple[ActivationFakeQuantize, WeightFakeQuantizePerChannel, Node] | None:
    """Fake quantisers of a layer's input and weight, and its weight; None unless both are there."""
    source, weight = node.args[0], node.args[1]
    while isinstance(source, Node) and source.target in DROPOUTS:
        source = source.args[0]
    if not isinstance(source, Node) or not isinstance(weight, Node):
        return None
    if source.op != "call_module" or weight.op != "call_module":
        return None
    activation, quantizer = (graph.get_submodule(str(found.target)) for found in (source, weight))
    if isinstance(activation, ActivationFakeQuantize) and isinstance(quantizer, WeightFakeQuantizePerChannel):
        if not (activation.integer and quantizer.integer):
            return None
        parameter = weight.args[0]
        assert isinstance(parameter, Node)
        return activation, quantizer, parameter
    return None


def _insert(graph: GraphModule, node: Node, position: int, module: BiasToGrid, arguments: tuple[object, ...]) -> None:
    name = f"{node.name}_bias_to_grid"
    graph.add_submodule(name, module)
    with graph.graph.inserting_before(node):
        made = graph.graph.call_module(name, arguments)  # type: ignore[arg-type]
    made.meta = {key: value for key, value in node.meta.items() if key == "nn_module_stack"}
    node.update_arg(position, made)
