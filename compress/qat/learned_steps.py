"""Step sizes that are trained with the weights.

Sources: LSQ, Esser et al. 2020, arXiv:1902.08153, equation 3 (gradient of the step) and section 2.2 (its scale,
1 / sqrt(N Q_P)); LSQ+, Bhalgat et al. 2020, arXiv:2004.09576, equations 5 to 7 (offset), here with a zero point that is
rounded in the forward pass, as integer kernels need it.

Where this departs from the papers:

- What is trained is the logarithm of the step (as Jain et al. 2020, arXiv:1903.08066, section 3.3), so that no update
  can make it zero or negative, and the share of the codes below zero in place of an offset. Their gradients are the
  step's over the step, and the offset's over the whole range: then an update by gradient descent changes step and
  offset by what the papers' update does, to first order, and one by Adam changes them by about the learning rate, as a
  share of themselves.
- Steps start from the calibrated range: with eight bits the papers' start, 2 <|v|> / sqrt(Q_P), covers three times
  what there is. It is the range rule "magnitude", for whoever wants it.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from compress.qat.fake_quantize import (
    WEIGHT_CODE,
    ActivationFakeQuantize,
    WeightFakeQuantizePerChannel,
    round_to_grid,
    whole,
)
from compress.qat.observers import MinMaxObserver, RangeObserver
from compress.qat.ranges import FLOOR

LOG_BOUNDS = (math.log(FLOOR), 40 * math.log(2.0))  # steps stay between 2^-24 and 2^40


class _RoundLearned(torch.autograd.Function):
    """x, step (1,) -> x on codes low..high (zero point already taken off); gradients of x, step and both ends."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, step: Tensor, below: Tensor, low: int, high: int, gradient_scale: float
    ) -> Tensor:
        scale = float(step)
        codes = x * (1.0 / scale) if x.dtype == torch.float32 else x.float().mul_(1.0 / scale)
        rounded = codes.round_().clamp_(low, high).mul_(scale).to(x.dtype)
        ctx.save_for_backward(x, rounded)
        ctx.numbers = (scale, low, high, gradient_scale)  # type: ignore[attr-defined]
        return rounded

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None, None]:
        x, rounded = ctx.saved_tensors  # type: ignore[attr-defined]
        scale, low, high, factor = ctx.numbers  # type: ignore[attr-defined]
        gradient = gradients[0]
        inside = torch.ops.aten.hardtanh_backward(gradient, x, low * scale, high * scale)
        # Inside the grid the step's gradient is code - x / step, outside it is the end's code: in both cases
        # (rounded - [inside] x) / step, so two dot products do.
        of_step = (_dot(gradient, rounded) - _dot(inside, x)) / scale
        # A clipped value sits at an end, and both ends move with the share of codes below zero.
        of_below = None
        if ctx.needs_input_grad[2]:  # type: ignore[attr-defined]
            clipped = gradient.sum(dtype=torch.float32) - inside.sum(dtype=torch.float32)
            of_below = (clipped * (-scale * (high - low) * factor if low else 0.0)).reshape(1)
        return inside, (of_step * factor).reshape(1), of_below, None, None, None


class _RoundLearnedChannels(torch.autograd.Function):
    """weight, step broadcast against it -> codes -127..127 times step."""

    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, step: Tensor, gradient_scale: float) -> Tensor:
        scaled = weight / step
        codes = scaled.round().clamp_(-WEIGHT_CODE, WEIGHT_CODE)
        ctx.save_for_backward(scaled, codes)
        ctx.numbers = (gradient_scale, [d for d in range(step.dim()) if step.shape[d] == 1])  # type: ignore[attr-defined]
        return codes * step

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        scaled, codes = ctx.saved_tensors  # type: ignore[attr-defined]
        factor, dims = ctx.numbers  # type: ignore[attr-defined]
        inside = gradients[0] * (scaled.abs() < WEIGHT_CODE)
        of_step = gradients[0] * codes - inside * scaled
        return inside, of_step.sum(dims, keepdim=True) * factor if dims else of_step * factor, None


class _Step(torch.autograd.Function):
    """log_step -> step; the step's gradient over the step, not times it: see the module's docstring."""

    @staticmethod
    def forward(ctx: FunctionCtx, log_step: Tensor) -> Tensor:
        step = log_step.exp()
        ctx.save_for_backward(step)
        return step

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        step: Tensor = ctx.saved_tensors[0]  # type: ignore[attr-defined]
        return gradients[0] / step


class _Below(torch.autograd.Function):
    """The share of codes below zero as it is; its gradient over the square of the whole range."""

    @staticmethod
    def forward(ctx: FunctionCtx, below: Tensor, whole_range: float) -> Tensor:
        ctx.whole_range = whole_range  # type: ignore[attr-defined]
        return below.view_as(below)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        whole_range: float = ctx.whole_range  # type: ignore[attr-defined]
        return gradients[0] / whole_range**2, None


def round_learned(
    x: Tensor, step: Tensor, below: Tensor, low_code: int, high_code: int, gradient_scale: float = 1.0
) -> Tensor:
    """x on a grid, with the gradients of LSQ and LSQ+ for the grid itself.

    Args:
        x: any shape. Gradient flows into it strictly inside the range.
        step: (1,), > 0, in units of x. Gradient: sum over x of (round(x / step) - x / step) inside, of the end's code
            (zero point taken off) outside, times `gradient_scale`.
        below: (1,), share of the codes below zero, in [0, 1]; 0 for a grid without codes below zero, whose lower end
            stays. The zero point is low_code + round(below * (high_code - low_code)). Gradient: that of the clipped
            values, which move with the ends; the rounding of the zero point is passed straight through.
        low_code, high_code: ends of the grid.
        gradient_scale: of both gradients.

    Returns:
        The shape and type of x.
    """
    shift = int(_shift(below.detach(), low_code, high_code))
    rounded = _RoundLearned.apply(  # type: ignore[no-untyped-call]
        x, step, below, -shift, high_code - low_code - shift, gradient_scale
    )
    return cast(Tensor, rounded)


class LearnedActivation(ActivationFakeQuantize):
    """Per-tensor grid whose step, and zero point where it is asymmetric, train with the weights.

    It starts from the range that calibration found (or the first training batch). Freezing the observer freezes the
    grid. Parameters: log_step, (1,), natural logarithm; below, (1,), share of the codes below zero.

    Args: those of ActivationFakeQuantize.
    """

    below: Tensor

    def __init__(
        self,
        dtype: torch.dtype,
        quant_min: int,
        quant_max: int,
        qscheme: torch.qscheme,
        is_dynamic: bool = False,
        observer: Callable[[], RangeObserver] = MinMaxObserver,
    ) -> None:
        super().__init__(dtype, quant_min, quant_max, qscheme, is_dynamic, observer)
        self.log_step = nn.Parameter(torch.zeros(1))
        if self.codes.symmetric:
            self.register_buffer("below", torch.zeros(1))
        else:
            self.below = nn.Parameter(torch.zeros(1))

    def place_grid(self) -> None:
        """Start again from the observed range."""
        super().place_grid()
        with torch.no_grad():
            self.log_step.copy_(self.scale.log())
            if not self.codes.symmetric:
                self.below.copy_((self.zero_point - self.quant_min) / (self.quant_max - self.quant_min))

    def follow(self, x: Tensor) -> None:
        """The grid as it was learned so far; where no range was seen, this batch's."""
        if int(self.seen) > 0:
            self.write_grid()
        elif self.observer.follow(x, self.codes):
            self.place_grid()

    def write_grid(self) -> None:
        """Set scale and zero point from the parameters."""
        with torch.no_grad():
            self.scale.copy_(self.log_step.clamp_(*LOG_BOUNDS).exp())
            if not self.codes.symmetric:
                self.zero_point.copy_(self.quant_min + _shift(self.below.clamp_(0, 1), self.quant_min, self.quant_max))

    def round(self, x: Tensor) -> Tensor:
        """With gradients for the grid while it may move."""
        moving = self.training and bool(self.observer_enabled)
        low, high = self.quant_min - int(self.zero_point), self.quant_max - int(self.zero_point)
        if not moving:
            return round_to_grid(x, float(self.scale), int(self.zero_point), self.quant_min, self.quant_max)
        step = _Step.apply(self.log_step)  # type: ignore[no-untyped-call]
        below = self.below
        if not self.codes.symmetric:
            below = _Below.apply(below, float(self.scale) * (high - low))  # type: ignore[no-untyped-call]
        features = max(1, x.numel() // max(1, x.shape[0])) if x.dim() else 1
        factor = 1.0 / math.sqrt(features * max(-low, high))
        return cast(Tensor, _RoundLearned.apply(x, step, below, low, high, factor))  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> "LearnedActivation":
        """Evaluation uses the grid as it was learned so far."""
        self._write_if_moving()
        return super().train(mode)

    def enable_observer(self, enabled: bool = True) -> None:
        """Let the grid learn, or freeze it where it is."""
        if not enabled:
            self._write_if_moving()
        super().enable_observer(enabled)

    def _write_if_moving(self) -> None:
        if bool(self.observer_enabled) and int(self.seen) > 0:
            self.write_grid()


class LearnedWeightPerChannel(WeightFakeQuantizePerChannel):
    """Symmetric grid -127..127 per output channel whose steps train with the weights. Parameter: log_step, (C,).

    Freezing the observer freezes the steps.

    Args: those of WeightFakeQuantizePerChannel.
    """

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
        self.log_step = nn.Parameter(torch.zeros(1))

    def fit(self, weight: Tensor) -> None:
        """Size the steps for this weight and start them from its range."""
        super().fit(weight)
        self.log_step = nn.Parameter(self.scale.log())

    def scales(self, weight: Tensor) -> Tensor:
        """The frozen steps, or those learned so far."""
        return self.log_step.detach().exp() if bool(self.observer_enabled) else self.scale

    def round(self, weight: Tensor) -> Tensor:
        """With gradients for the steps while they may move."""
        step = self.scales(weight)
        if self.training and bool(self.observer_enabled):
            step = cast(Tensor, _Step.apply(self.log_step))  # type: ignore[no-untyped-call]
        factor = 1.0 / math.sqrt(weight.numel() // len(step) * WEIGHT_CODE)
        rounded = _RoundLearnedChannels.apply(  # type: ignore[no-untyped-call]
            weight, self.broadcast(step, weight), factor
        )
        return cast(Tensor, rounded)

    def enable_observer(self, enabled: bool = True) -> None:
        """Let the steps learn, or freeze them where they are."""
        if not enabled and bool(self.observer_enabled):
            with torch.no_grad():
                self.scale.copy_(self.log_step.exp())
        super().enable_observer(enabled)


def _shift(below: Tensor, low_code: int, high_code: int) -> Tensor:
    """Codes below zero."""
    return (below * (high_code - low_code)).round()


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Sum of products, without a copy where both lie in memory alike."""
    for layout in (torch.contiguous_format, torch.channels_last):
        usable = left.dim() == 4 or layout is torch.contiguous_format
        if usable and left.is_contiguous(memory_format=layout) and right.is_contiguous(memory_format=layout):
            order = (0, 2, 3, 1) if layout is torch.channels_last else tuple(range(left.dim()))
            return torch.dot(left.permute(order).reshape(-1).float(), right.permute(order).reshape(-1).float())
    return (left.float() * right.float()).sum()
