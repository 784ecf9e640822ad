"""Fake quantisation to float8 (E4M3): the exponent goes with the value, so a scale only places the range.

Sources: the format, Micikevicius et al. 2022, arXiv:2209.05433, table 1 (4 exponent bits with bias 7, 3 mantissa bits,
no infinity, largest 448, least normal 2^-6, least subnormal 2^-9); the scale amax / 448, section 4 there and NVIDIA
TensorRT documentation, "Working with Quantized Types".
"""

from typing import cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.fx import GraphModule, Node

from compress.qat.fake_quantize import ActivationFakeQuantize, WeightFakeQuantizePerChannel, channel_scales
from exporters.torch_operators import LARGEST_E4M3

_WEIGHT_CODE_OF_INT8 = 127.0  # what channel_scales divides by


class _Round(torch.autograd.Function):
    """x / scale to the nearest E4M3 number, times scale; straight-through inside the range, zero outside."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: Tensor) -> Tensor:
        codes = x.float() / scale
        ctx.save_for_backward(codes.abs() <= LARGEST_E4M3)
        return round_e4m3(codes).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradients[0] * inside, None


def round_e4m3(x: Tensor) -> Tensor:
    """The nearest E4M3 number, ties to even, saturated at +-448; a fresh float32 tensor of the same shape.

    NaN stays NaN. Not differentiable; `fake_quantize` is.
    """
    return x.clamp(-LARGEST_E4M3, LARGEST_E4M3).to(torch.float8_e4m3fn).float()


def fake_quantize(x: Tensor, scale: Tensor) -> Tensor:
    """x rounded to scale * (an E4M3 number); straight-through gradient where nothing was clipped.

    Args:
        x: any shape.
        scale: > 0, in units of x; broadcast against it.
    """
    return cast(Tensor, _Round.apply(x, scale))  # type: ignore[no-untyped-call]


class Float8Activation(ActivationFakeQuantize):
    """Per tensor: the observed range's larger end is 448. Arguments as there; quant_max must be 448."""

    integer = False

    def follow(self, x: Tensor) -> None:
        """Move the scale towards this batch's range."""
        if self.observer.follow(x, self.codes):
            self.place_grid()

    def round(self, x: Tensor) -> Tensor:
        """Straight-through."""
        return fake_quantize(x, self.scale)

    def convert(self, model: GraphModule, node: Node) -> None:
        """Write the pair into the graph; torchao's convert calls this in place of its own rewrite."""
        name = str(node.target).replace(".", "_")
        scale = _buffer(model, f"{name}_scale", self.scale.detach().reshape(()))
        zero = _buffer(model, f"{name}_zero", torch.zeros(()).to(torch.float8_e4m3fn))
        with model.graph.inserting_before(node):
            parts = [model.graph.get_attr(part) for part in (scale, zero)]
            codes = model.graph.call_function(torch.ops.compress.quantize_float8.default, (node.args[0], *parts))
            back = model.graph.call_function(torch.ops.compress.dequantize_float8.default, (codes, *parts, 0))
        for made in (codes, back):
            made.meta = {key: node.meta[key] for key in ("val", "nn_module_stack") if key in node.meta}
        node.replace_all_uses_with(back)
        model.graph.erase_node(node)


class Float8WeightPerChannel(WeightFakeQuantizePerChannel):
    """Per output channel: the largest magnitude is 448. Stored as float8.

    Codes do not change when a channel is multiplied by a factor, so batch norm folds into the scale as with integers.
    """

    integer = False

    def fit(self, weight: Tensor) -> None:
        """Size and set the scales for this weight."""
        super().fit(weight)
        self.scale = self._scales(weight)

    def scales(self, weight: Tensor) -> Tensor:
        """The frozen scales, or those of this weight."""
        return self._scales(weight) if bool(self.observer_enabled) else self.scale

    def round(self, weight: Tensor) -> Tensor:
        """Straight-through."""
        return fake_quantize(weight, self.broadcast(self.scales(weight), weight))

    def to_codes(self, scaled: Tensor) -> Tensor:
        """Nearest E4M3 numbers."""
        return round_e4m3(scaled)

    def convert(self, model: GraphModule, node: Node) -> None:
        """Store the weight as float8 behind a dequantiser. `node` reads the weight on its grid."""
        source = node.args[0]
        assert isinstance(source, Node)
        weight = model.get_parameter(str(source.target)).detach()
        name = str(node.target).replace(".", "_")
        codes = (weight / self.broadcast(self.scale, weight)).to(torch.float8_e4m3fn)
        stored = [
            _buffer(model, f"{name}_codes", codes),
            _buffer(model, f"{name}_scale", self.scale.detach()),
            _buffer(model, f"{name}_zero", torch.zeros_like(self.scale).to(torch.float8_e4m3fn)),
        ]
        with model.graph.inserting_before(node):
            parts = [model.graph.get_attr(part) for part in stored]
            back = model.graph.call_function(torch.ops.compress.dequantize_float8.default, (*parts, self.ch_axis))
        back.meta = {key: node.meta[key] for key in ("val", "nn_module_stack") if key in node.meta}
        node.replace_all_uses_with(back)
        model.graph.erase_node(node)

    def _scales(self, weight: Tensor) -> Tensor:
        return channel_scales(weight, self.ch_axis) * (_WEIGHT_CODE_OF_INT8 / LARGEST_E4M3) * self.shrink


def _buffer(model: GraphModule, name: str, value: Tensor) -> str:
    model.register_buffer(name, value)
    return name
