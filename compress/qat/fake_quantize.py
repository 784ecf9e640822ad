"""Fake quantisation: round to the integer grid in the forward pass, let the gradient pass in the backward pass.

Source: Jacob et al. 2018, arXiv:1712.05877, equations 1, 12 and 13; the straight-through gradient, Bengio et al. 2013,
arXiv:1308.3432, with zero gradient where a value was clipped. The modules plug into torchao's pt2e flow.

Why not torch.fake_quantize_per_tensor_affine: its CPU kernel (torch 2.13) is not vectorised and takes 2.0 ms for half a
million values, where the four elementwise passes below take 0.15 ms (measured, one thread). On other devices
torch's kernel is fused, and used.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torchao.quantization.pt2e import FakeQuantizeBase

from compress.qat.observers import MinMaxObserver, RangeObserver
from compress.qat.ranges import FLOOR as FLOOR
from compress.qat.ranges import Codes

WEIGHT_CODE = 127  # weights use -127..127: negating a channel (batch norm with a negative factor) keeps its codes


class _RoundToGrid(torch.autograd.Function):
    """Codes low_code..high_code (zero point already taken off) times scale."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: float, low_code: int, high_code: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = ((low_code - 0.5) * scale, (high_code + 0.5) * scale)  # type: ignore[attr-defined]
        # bfloat16 has eight significant bits: a code computed in it is off by one in places, so compute in float32.
        codes = x * (1.0 / scale) if x.dtype == torch.float32 else x.float().mul_(1.0 / scale)
        return codes.round_().clamp_(low_code, high_code).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        low, high = ctx.bounds  # type: ignore[attr-defined]
        # hardtanh's gradient is "pass strictly inside (low, high)", in one vectorised kernel.
        return torch.ops.aten.hardtanh_backward(gradients[0], x, low, high), None, None, None


class _RoundChannels(torch.autograd.Function):
    """The same with one scale per channel (broadcast against x), codes -127..127."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, scale: Tensor) -> Tensor:
        codes = (x * (1.0 / scale)).round_()
        ctx.save_for_backward(codes.abs() <= WEIGHT_CODE)
        return codes.clamp_(-WEIGHT_CODE, WEIGHT_CODE).mul_(scale)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradients[0] * inside, None


def round_to_grid(x: Tensor, scale: float, zero_point: int, low_code: int, high_code: int) -> Tensor:
    """x rounded (half to even) to scale * (code - zero_point), code in low_code..high_code; straight-through gradient.

    Args:
        x: any shape. Gradient flows into it where it was not clipped.
        scale: > 0, in units of x.
        zero_point: the code of 0.0, within low_code..high_code.
        low_code, high_code: ends of the grid.

    Returns:
        The shape and type of x.
    """
    if x.device.type != "cpu":
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low_code, high_code)
    rounded = _RoundToGrid.apply(x, scale, low_code - zero_point, high_code - zero_point)  # type: ignore[no-untyped-call]
    return cast(Tensor, rounded)


def channel_scales(weight: Tensor, axis: int) -> Tensor:
    """Symmetric scale of each channel: its largest magnitude over 127, floored.

    Args:
        weight: any shape with at least `axis + 1` dimensions.
        axis: the channel dimension.

    Returns:
        (C,) float32, finite for finite weights, > 0: a dead channel (all zeros, as pruning leaves it) gets 2^-24 of the
        largest scale, and 2^-24 where the whole tensor is zero.
    """
    others = [dim for dim in range(weight.dim()) if dim != axis]
    magnitude = weight.detach().abs().amax(dim=others) if others else weight.detach().abs()
    return floored(magnitude.float() / WEIGHT_CODE)


def floored(scales: Tensor) -> Tensor:
    """(C,) -> (C,): no scale below 2^-24 of the largest; all 2^-24 where every one is zero."""
    largest = scales.max()
    return torch.maximum(scales, torch.where(largest > 0, largest * FLOOR, torch.full_like(largest, FLOOR)))


def whole(weight: Tensor, axis: int, largest: int) -> Tensor:
    """(C,) ones: a channel's grid reaches to its largest magnitude."""
    return torch.ones(weight.shape[axis], device=weight.device)


class ActivationFakeQuantize(FakeQuantizeBase, ABC):
    """Per-tensor grid of an activation.

    Ranges move only in training mode or during calibration, never in evaluation. Before the first batch the module
    passes its input through.

    Args:
        dtype: torch.int8 or torch.uint8.
        quant_min, quant_max: ends of the grid.
        qscheme: torch.per_tensor_symmetric (zero point 0) or torch.per_tensor_affine.
        is_dynamic: must be False.
        observer: gives what finds the range.
    """

    integer = True  # kernels add its codes in 32-bit integers, so the bias stands on their grid

    scale: Tensor
    zero_point: Tensor
    observer: RangeObserver

    def __init__(
        self,
        dtype: torch.dtype,
        quant_min: int,
        quant_max: int,
        qscheme: torch.qscheme,
        is_dynamic: bool = False,
        observer: Callable[[], RangeObserver] = MinMaxObserver,
    ) -> None:
        super().__init__()
        if is_dynamic:
            raise ValueError("activation scales are constants here; dynamic quantisation is not offered")
        self.dtype = dtype
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.qscheme = qscheme
        self.is_dynamic = False
        self.ch_axis = -1
        self.codes = Codes(quant_min, quant_max, qscheme == torch.per_tensor_symmetric)
        self.calibrating = False
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
        self.observer = observer()

    @property
    def seen(self) -> Tensor:
        """(1,) int64: batches that moved the range."""
        return self.observer.seen

    @property
    def low(self) -> Tensor:
        """(1,): lower end of the observed range."""
        return self.observer.low

    @property
    def high(self) -> Tensor:
        """(1,): upper end of the observed range."""
        return self.observer.high

    def forward(self, x: Tensor) -> Tensor:
        """x, any shape -> x on the grid, same shape and type."""
        moving = bool(self.observer_enabled)
        if self.calibrating:
            if moving and self.observer.calibrate(x, self.codes):
                self.place_grid()
        elif self.training and moving:
            self.follow(x)
        if bool(self.fake_quant_enabled) and int(self.seen) > 0:
            return self.round(x)
        return x

    def settle(self) -> None:
        """End a calibration: the range that its batches gave holds from now on."""
        if bool(self.observer_enabled) and self.observer.settle(self.codes):
            self.place_grid()

    @abstractmethod
    def follow(self, x: Tensor) -> None:
        """Take in a training batch."""

    @abstractmethod
    def round(self, x: Tensor) -> Tensor:
        """x on the grid."""

    def place_grid(self) -> None:
        """Set scale and zero point from the observed range."""
        scale, zero_point = self.codes.place(float(self.low), float(self.high))
        self.scale.fill_(scale)
        self.zero_point.fill_(zero_point)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(scale, zero_point), each (1,): what torchao's convert writes into the graph."""
        return self.scale, self.zero_point


class ObservedActivation(ActivationFakeQuantize):
    """The grid follows the range of the data until it is frozen."""

    def follow(self, x: Tensor) -> None:
        """Move the grid towards this batch's range."""
        if self.observer.follow(x, self.codes):
            self.place_grid()

    def round(self, x: Tensor) -> Tensor:
        """Straight-through."""
        return round_to_grid(x, float(self.scale), int(self.zero_point), self.quant_min, self.quant_max)


class WeightFakeQuantizePerChannel(FakeQuantizeBase, ABC):
    """Symmetric grid -127..127 per output channel. (torchao passes the channel dimension to names with PerChannel.)

    Args:
        dtype: torch.int8.
        quant_min, quant_max: -127, 127.
        qscheme: torch.per_channel_symmetric.
        ch_axis: output channels: 0 of a convolution's or linear's weight, 1 of a MatMul's.
        is_dynamic: must be False.
        shrink: gives, for a weight, the channel dimension and the largest code, the share (C,) of each channel's
            largest magnitude that the grid covers.
    """

    integer = True
    folds = True  # a factor per channel moves no code, so batch norm folds into the scales

    scale: Tensor
    zero_point: Tensor
    shrink: Tensor

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
        super().__init__()
        if is_dynamic or (quant_min, quant_max) != (-WEIGHT_CODE, WEIGHT_CODE):
            raise ValueError(f"weights use codes -127..127 and constant scales, not {quant_min}..{quant_max}")
        self.dtype = dtype
        self.quant_min = quant_min
        self.quant_max = quant_max
        self.qscheme = qscheme
        self.is_dynamic = False
        self.ch_axis = ch_axis
        self._shrink = shrink
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("shrink", torch.ones(1))

    def fit(self, weight: Tensor) -> None:
        """Size and set the scales for this weight."""
        self.shrink = self._shrink(weight, self.ch_axis, WEIGHT_CODE)
        self.scale = channel_scales(weight, self.ch_axis) * self.shrink
        self.zero_point = torch.zeros_like(self.scale, dtype=torch.int32)

    @abstractmethod
    def scales(self, weight: Tensor) -> Tensor:
        """(C,), no gradient: what this weight is rounded with."""

    @abstractmethod
    def round(self, weight: Tensor) -> Tensor:
        """The weight on its grid."""

    def forward(self, weight: Tensor) -> Tensor:
        """A weight -> the weight on its grid, same shape and type."""
        if self.training and bool(self.observer_enabled):
            self.scale.copy_(self.scales(weight))
        return self.round(weight) if bool(self.fake_quant_enabled) else weight

    def broadcast(self, scale: Tensor, weight: Tensor) -> Tensor:
        """(C,) -> the shape that multiplies `weight` channel by channel."""
        return scale.reshape([-1 if dim == self.ch_axis else 1 for dim in range(weight.dim())])

    def to_codes(self, scaled: Tensor) -> Tensor:
        """The nearest numbers of the grid, for a weight already divided by its scales."""
        return scaled.round().clamp_(-WEIGHT_CODE, WEIGHT_CODE)

    def on_grid(self, weight: Tensor, factor: Tensor | None, final: Tensor) -> Tensor:
        """codes * final scale, exactly; the scales are the final ones from now on, and frozen.

        The codes are those of training; the fold multiplies the scale alone, unless the folded scale falls below the
        floor (or below what the bias needs), where codes are computed again on the final scale.

        Args:
            weight: as it trained.
            factor: (C,) of the batch norm that folds into it; None without one.
            final: the scales that ship.
        """
        trained = self.scales(weight)
        scale = trained if factor is None else trained * factor.abs()
        codes = self.to_codes(weight * self.broadcast(1.0 / trained, weight))
        if factor is not None:
            codes = codes * self.broadcast(factor.sign(), weight)
        moved = final != scale
        if bool(moved.any()):
            again = self.to_codes(codes * self.broadcast(scale / final, weight))
            codes = torch.where(self.broadcast(moved, weight), again, codes)
        self.enable_observer(False)
        self.scale = final
        self.zero_point = torch.zeros_like(final, dtype=torch.int32)
        return codes * self.broadcast(final, weight)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """(scale, zero_point), each (C,): what torchao's convert writes into the graph."""
        return self.scale, self.zero_point


class ObservedWeightPerChannel(WeightFakeQuantizePerChannel):
    """The grid follows the weights until it is frozen.

    The codes of a channel do not change when the channel is multiplied by a factor, because its scale is multiplied
    by the same one (Jacob et al. 2018, section 3.2, folds first and quantises then; per channel both agree). So batch
    norm needs no folding while training: the weight is rounded as it is, and the fold only rescales.
    """

    def scales(self, weight: Tensor) -> Tensor:
        """The frozen scales, or those of this weight."""
        moving = bool(self.observer_enabled)
        return channel_scales(weight, self.ch_axis) * self.shrink if moving else self.scale

    def round(self, weight: Tensor) -> Tensor:
        """Straight-through."""
        scale = self.scale if self.training else self.scales(weight)  # in training, `forward` just wrote them
        rounded = _RoundChannels.apply(weight, self.broadcast(scale, weight))  # type: ignore[no-untyped-call]
        return cast(Tensor, rounded)
