"""Fake quantisation of weights to four bits, one scale per block of input channels.

Sources: round-to-nearest in blocks and the search for each block's clipping by squared error, Frantar et al. 2023,
arXiv:2210.17323 (groups, section 4), and Lin et al. 2024, arXiv:2306.00978, section 3.2 (search over a grid of ratios;
here on the weights' own error). The grid -8..7 without a zero point is ONNX's INT4.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.fx import GraphModule, Node

from compress.qat.fake_quantize import FLOOR, WeightFakeQuantizePerChannel, floored, whole
from exporters.torch_operators import INT4

LOW, HIGH = INT4
BLOCKS = (128, 64, 32)  # input channels per scale; the largest that divides the weight is taken
RATIOS = torch.linspace(1.0, 0.6, 17).tolist()  # of a block's largest magnitude


class _Round(torch.autograd.Function):
    """Codes -8..7 times scale; straight-through inside, zero outside."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: Tensor) -> Tensor:
        codes = (x / scale).round_()
        ctx.save_for_backward((codes >= LOW) & (codes <= HIGH))
        return codes.clamp_(LOW, HIGH).mul_(scale)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradients[0] * inside, None


def block_of(inputs: int) -> int | None:
    """Input channels per scale for a weight of that many; None where no block divides them."""
    return next((block for block in BLOCKS if inputs % block == 0), None)


def block_scales(weight: Tensor, block: int) -> Tensor:
    """The scale of each block that rounds it with the least squared error.

    Args:
        weight: (outputs, inputs), finite.
        block: divides inputs.

    Returns:
        (outputs, inputs / block) float32, > 0: floored at 2^-24 of the largest.
    """
    blocks = weight.detach().float().reshape(weight.shape[0], -1, block)
    reach = torch.maximum(blocks.amax(-1) / HIGH, blocks.amin(-1) / LOW)
    reach = floored(reach.clamp_min(0.0)).unsqueeze(-1)
    best, least = reach, torch.full_like(reach, float("inf"))
    for ratio in RATIOS:
        scale = reach * ratio
        error = ((blocks / scale).round_().clamp_(LOW, HIGH).mul_(scale) - blocks).square_().sum(-1, keepdim=True)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return best.squeeze(-1)


class BlockedWeightPerChannel(WeightFakeQuantizePerChannel):
    """Four-bit codes, one scale per output channel and block of inputs. (torchao gives names with PerChannel an axis.)

    `ch_axis` 0: a linear layer's weight (outputs, inputs); 1: a matrix on the right of a product (inputs, outputs).
    """

    integer = False
    folds = False  # the grid has one code more below than above: a negative factor would move codes

    def __init__(
        self,
        dtype: torch.dtype,
        quant_min: int,
        quant_max: int,
        qscheme: torch.qscheme,
        ch_axis: int,
        is_dynamic: bool = False,
        shrink: Callable[[Tensor, int, int], Tensor] = whole,
    ) -> None:
        super().__init__(dtype, quant_min, quant_max, qscheme, ch_axis, is_dynamic, shrink)
        self.block = 0

    def fit(self, weight: Tensor) -> None:
        """Size and set the scales for this weight."""
        laid = self._laid(weight)
        block = block_of(laid.shape[1])
        assert block is not None, "the rules mark no other weight"
        self.block = block
        self.scale = block_scales(laid, block)
        self.zero_point = torch.zeros_like(self.scale, dtype=torch.int32)

    def scales(self, weight: Tensor) -> Tensor:
        """(outputs, blocks): the frozen scales, or those of this weight."""
        return block_scales(self._laid(weight), self.block) if bool(self.observer_enabled) else self.scale

    def round(self, weight: Tensor) -> Tensor:
        """Straight-through."""
        scale = self.scale if self.training else self.scales(weight)
        return cast(Tensor, _Round.apply(weight, self.broadcast(scale, weight)))  # type: ignore[no-untyped-call]

    def broadcast(self, scale: Tensor, weight: Tensor) -> Tensor:
        """(outputs, blocks) -> the weight's shape."""
        wide = scale.repeat_interleave(self.block, dim=1)
        return wide if self.ch_axis == 0 else wide.t()

    def to_codes(self, scaled: Tensor) -> Tensor:
        """Nearest of -8..7."""
        return scaled.round().clamp_(LOW, HIGH)

    def on_grid(self, weight: Tensor, factor: Tensor | None, final: Tensor) -> Tensor:
        """codes * final scale, exactly."""
        assert factor is None, "no batch norm folds into these scales"
        self.enable_observer(False)
        self.scale = final
        broadcast = self.broadcast(final, weight)
        return self.to_codes(weight / broadcast) * broadcast

    def convert(self, model: GraphModule, node: Node) -> None:
        """Store the codes behind a dequantiser of blocks. `node` reads the weight on its grid."""
        source = node.args[0]
        assert isinstance(source, Node)
        weight = model.get_parameter(str(source.target)).detach()
        name = str(node.target).replace(".", "_")
        codes = self.to_codes(weight / self.broadcast(self.scale, weight)).to(torch.int8)
        scale = self.scale if self.ch_axis == 0 else self.scale.t()
        model.register_buffer(f"{name}_codes", codes)
        model.register_buffer(f"{name}_scale", scale.detach().contiguous())
        with model.graph.inserting_before(node):
            parts = [model.graph.get_attr(f"{name}_{part}") for part in ("codes", "scale")]
            back = model.graph.call_function(
                torch.ops.compress.dequantize_int4.default, (*parts, 1 - self.ch_axis, self.block)
            )
        back.meta = {key: node.meta[key] for key in ("val", "nn_module_stack") if key in node.meta}
        node.replace_all_uses_with(back)
        model.graph.erase_node(node)

    def _laid(self, weight: Tensor) -> Tensor:
        """The weight as (outputs, inputs)."""
        return weight if self.ch_axis == 0 else weight.t()


__all__ = ["BLOCKS", "FLOOR", "BlockedWeightPerChannel", "block_of", "block_scales"]
