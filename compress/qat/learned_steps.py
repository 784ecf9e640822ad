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
    """x on codes low..high (zero point already taken off) times scale; gradients for x, the step and the share below.

    `step` and `below` are there to receive gradients: the step's times `step_factor`, the share's times `below_factor`.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        step: Tensor,
        below: Tensor,
        scale: float,
        codes: tuple[int, int],
        step_factor: float,
        below_factor: float,
    ) -> Tensor:
        scaled = x * (1.0 / scale) if x.dtype == torch.float32 else x.float().mul_(1.0 / scale)
        rounded = scaled.round_().clamp_(*codes).mul_(scale).to(x.dtype)
        ctx.save_for_backward(x, rounded)
        ctx.numbers = (scale, *codes, step_factor, below_factor)  # type: ignore[attr-defined]
        return rounded

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None, None, None]:
        x, rounded = ctx.saved_tensors  # type: ignore[attr-defined]
        scale, low, high, step_factor, below_factor = ctx.numbers  # type: ignore[attr-defined]
        gradient = gradients[0]
        inside = torch.ops.aten.hardtanh_backward(gradient, x, low * scale, high * scale)
        # Inside the grid the step's gradient is code - x / step, outside it is the end's code: in both cases
        # (rounded - [inside] x) / step, so two dot products do.
        of_step = (_dot(gradient, rounded) - _dot(inside, x)).mul_(step_factor / scale).reshape(1)
        of_below = None
        if ctx.needs_input_grad[2]:  # type: ignore[attr-defined]
            # A clipped value sits at an end, and both ends move with the share of codes below zero.
            factor = -scale * (high - low) * below_factor if low else 0.0
            clipped = gradient.sum(dtype=torch.float32).sub_(inside.sum(dtype=torch.float32)) if low else of_step
            of_below = clipped.mul(factor).reshape(1)
        return inside, of_step, of_below, None, None, None, None


class _RoundLearnedChannels(torch.autograd.Function):
    """weight -> codes -127..127 times scale, (C,) broadcast against it; `step`, (C,), receives its gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, weight: Tensor, step: Tensor, scale: Tensor, factor: Tensor) -> Tensor:
        scaled = weight / scale
        codes = scaled.round().clamp_(-WEIGHT_CODE, WEIGHT_CODE)
        ctx.save_for_backward(scaled, codes, factor)
        ctx.dims = [dim for dim in range(scale.dim()) if scale.shape[dim] == 1]  # type: ignore[attr-defined]
        return codes * scale

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        scaled, codes, factor = ctx.saved_tensors  # type: ignore[attr-defined]
        dims = ctx.dims  # type: ignore[attr-defined]
        inside = gradients[0] * (scaled.abs() < WEIGHT_CODE)
        of_step = gradients[0] * codes - inside * scaled
        return inside, (of_step.sum(dims) if dims else of_step).reshape(-1) * factor, None, None


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
    shift = _shift(below.item(), low_code, high_code)
    codes = (-shift, high_code - low_code - shift)
    rounded = _RoundLearned.apply(  # type: ignore[no-untyped-call]
        x, step, below, step.item(), codes, gradient_scale, gradient_scale
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
        least, largest = LOG_BOUNDS
        with torch.no_grad():
            log_step = self.log_step.item()
            if not least <= log_step <= largest:
                log_step = min(max(log_step, least), largest)
                self.log_step.fill_(log_step)
            self.scale.fill_(math.exp(log_step))
            if not self.codes.symmetric:
                below = self.below.item()
                if not 0.0 <= below <= 1.0:
                    below = min(max(below, 0.0), 1.0)
                    self.below.fill_(below)
                self.zero_point.fill_(self.quant_min + _shift(below, self.quant_min, self.quant_max))

    def round(self, x: Tensor) -> Tensor:
        """With gradients for the grid while it may move."""
        scale, zero_point = float(self.scale), int(self.zero_point)
        if not (self.training and bool(self.observer_enabled)):
            return round_to_grid(x, scale, zero_point, self.quant_min, self.quant_max)
        low, high = self.quant_min - zero_point, self.quant_max - zero_point
        features = max(1, x.numel() // max(1, x.shape[0])) if x.dim() else 1
        factor = 1.0 / math.sqrt(features * max(-low, high))
        # The gradient of the step over the step, of the offset over the whole range: see the module's docstring.
        below_factor = factor / (scale * (high - low)) ** 2
        rounded = _RoundLearned.apply(  # type: ignore[no-untyped-call]
            x, self.log_step, self.below, scale, (low, high), factor / scale, below_factor
        )
        return cast(Tensor, rounded)

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
        moving = self.training and bool(self.observer_enabled)
        scale = self.scale if self.training else self.scales(weight)  # in training, `forward` just wrote them
        factor = (1.0 / math.sqrt(weight.numel() // len(scale) * WEIGHT_CODE)) / scale
        rounded = _RoundLearnedChannels.apply(  # type: ignore[no-untyped-call]
            weight, self.log_step if moving else scale, self.broadcast(scale, weight), factor
        )
        return cast(Tensor, rounded)

    def enable_observer(self, enabled: bool = True) -> None:
        """Let the steps learn, or freeze them where they are."""
        if not enabled and bool(self.observer_enabled):
            with torch.no_grad():
                self.scale.copy_(self.log_step.exp())
        super().enable_observer(enabled)


def _shift(below: float, low_code: int, high_code: int) -> int:
    """Codes below zero."""
    return round(below * (high_code - low_code))


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Sum of products, without a copy where both lie in memory alike."""
    for layout in (torch.contiguous_format, torch.channels_last):
        usable = left.dim() == 4 or layout is torch.contiguous_format
        if usable and left.is_contiguous(memory_format=layout) and right.is_contiguous(memory_format=layout):
            order = (0, 2, 3, 1) if layout is torch.channels_last else tuple(range(left.dim()))
            return torch.dot(left.permute(order).reshape(-1).float(), right.permute(order).reshape(-1).float())
    return (left.float() * right.float()).sum()
