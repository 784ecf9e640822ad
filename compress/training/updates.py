"""Optimisers by group, and the one place where parameters change."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from compress.contracts.clock import Clock
from compress.contracts.step import Update
from compress.contracts.task import TrainingNumbers

WARM_UP = 0.1  # share of a phase's steps
FLOOR = 1e-3  # of the peak rate, at the end of a phase


def one_cycle(step: int, steps: int) -> float:
    """Learning rate of a step as a factor of the peak: linear warm-up, then half a cosine down to `FLOOR`."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + math.cos(math.pi * (step - warm + 1) / max(1, steps - warm)))


Rate = float | Callable[[Clock], float]
"""Of a group, as a factor of the recipe's: the peak of the one cycle, or the whole course over a phase."""


class Group:
    """The parameters of one optimiser group with their AdamW."""

    def __init__(self, parameters: Iterable[nn.Parameter], numbers: TrainingNumbers, rate: Rate) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._peak, self._rate = numbers.learning_rate, rate
        # Norms and biases have one dimension; pulling them to zero is not regularisation.
        parts = [
            {"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": numbers.weight_decay},
            {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = (
            torch.optim.AdamW([part for part in parts if part["params"]], lr=self._peak, fused=True)
            if self.parameters
            else None
        )

    def step(self, clock: Clock) -> None:
        """Move the parameters along their gradients at the rate of this step, and forget the gradients."""
        if self.optimizer is None:
            return
        course = self._rate(clock) if callable(self._rate) else self._rate * one_cycle(clock.step, clock.steps)
        for part in self.optimizer.param_groups:
            part["lr"] = self._peak * course
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class Updates:
    """The groups of one phase.

    Args:
        groups: parameters by group name.
        rates: learning rate of a group as a factor of the recipe's; 1 where absent.
        clip: largest norm of the gradient over all groups of one update; None for no limit.
        processes: that train together; their gradients, losses and logs are summed.
    """

    def __init__(
        self,
        groups: Mapping[str, Iterable[nn.Parameter]],
        numbers: TrainingNumbers,
        rates: Mapping[str, Rate],
        clip: float | None,
        processes: int = 1,
    ) -> None:
        self.groups = {name: Group(members, numbers, rates.get(name, 1.0)) for name, members in groups.items()}
        self._clip = clip
        self._processes = processes

    def apply(self, update: Update, clock: Clock, share: float) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Make one update.

        Args:
            update: its groups that this phase has not are passed over.
            clock: of the phase, which learning rates follow.
            share: of the global batch that this process computed.

        Returns:
            loss and logs of the global batch, and the norm of the gradient; on a CPU parameters are unchanged where the
            loss or the norm is not finite (a GPU would have to be waited for).
        """
        moving = [self.groups[name] for name in update.groups if name in self.groups]
        parameters = [parameter for group in moving for parameter in group.parameters]
        loss, logs = update.loss.detach(), {name: value.detach() for name, value in update.logs.items()}
        if self._processes > 1:
            if update.loss.requires_grad and parameters:
                torch.autograd.backward(update.loss * share, inputs=parameters)
            loss, logs = _sum_over_processes(parameters, loss, logs, share)
            if not math.isfinite(float(loss)):
                return loss, logs, loss
        else:
            if loss.device.type == "cpu" and not math.isfinite(float(loss)):
                return loss, logs, loss
            if update.loss.requires_grad and parameters:
                torch.autograd.backward(update.loss, inputs=parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) if gradients else loss.new_zeros(())
        if norm.device.type == "cpu" and not math.isfinite(float(norm)):
            return loss, logs, norm
        if self._clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self._clip, norm)
        for group in moving:
            group.step(clock)
        return loss, logs, norm

    def state(self) -> dict[str, object]:
        """For checkpoints."""
        return {name: group.optimizer.state_dict() for name, group in self.groups.items() if group.optimizer}

    def restore(self, state: Mapping[str, dict[str, object]]) -> None:
        """Take up what `state` gave."""
        for name, saved in state.items():
            optimizer = self.groups[name].optimizer
            assert optimizer is not None
            optimizer.load_state_dict(saved)


def _sum_over_processes(
    parameters: list[nn.Parameter], loss: Tensor, logs: dict[str, Tensor], share: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """One all-reduce for gradients, loss and logs. A gradient that no process has stays absent."""
    has = loss.new_tensor([float(parameter.grad is not None) for parameter in parameters])
    figures = torch.stack([loss, *(value.to(loss) for value in logs.values())]) * share
    flat = [p.grad.reshape(-1) if p.grad is not None else p.new_zeros(p.numel()) for p in parameters]
    total = torch.cat([figures, has, *flat])
    dist.all_reduce(total)
    start = len(figures) + len(has)
    present = total[len(figures) : start].tolist()
    for parameter, known in zip(parameters, present, strict=True):
        values = total[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
        if known:
            parameter.grad = torch.empty_like(parameter).copy_(values)
    summed = total[: len(figures)]
    return summed[0], dict(zip(logs, summed[1:].unbind(), strict=True))
