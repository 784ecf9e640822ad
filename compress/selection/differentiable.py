"""Train a supernet: its weights on one half of the data, the mixtures of its operations on the other.

Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv:1806.09055, algorithm 1 and
appendix A.1 (numbers). The term that a search's own past adds to the loss of the weights: Zhu, Li, Liu, Wang,
arXiv:2302.05629; its ramp is proposed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Examples
from compress.contracts.task import Task
from compress.errors import RecipeError
from compress.selection.bilevel import first_order
from compress.structure.statistics import frozen_statistics
from compress.structure.supernet import Supernet, entropy

AlphaGradient = Callable[[Tensor, Sequence[Tensor], Callable[[], Tensor], Callable[[], Tensor], float], Tensor]
NOT_CLASSES = "the search needs a task whose outputs are class logits"


@dataclass(frozen=True)
class SearchNumbers:
    """How a supernet is trained.

    Attributes:
        epochs: over each half of the data.
        batch_size: of each half.
        rate, least_rate: of the weights' SGD at the start and, along half a cosine, at the end; a lower `rate` stays.
        momentum, weight_decay, clip: of the weights; `clip` is the largest norm of a gradient.
        alpha_rate, alpha_decay: of the architecture's Adam (betas 0.5 and 0.999).
        ramp: share of the steps over which the self-distillation comes in, from 0: early teachers are bad ones.
        alpha_gradient: `bilevel.first_order` or `bilevel.second_order`.
        teach_alpha: whether the self-distillation is in the loss of the architecture as well.
    """

    epochs: int = 50
    batch_size: int = 64
    rate: float = 0.025
    least_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip: float = 5.0
    alpha_rate: float = 3e-4
    alpha_decay: float = 1e-3
    ramp: float = 0.2
    alpha_gradient: AlphaGradient = first_order
    teach_alpha: bool = False


@dataclass(frozen=True)
class Halves:
    """Positions in the training examples: `weights` for the weights, `alpha` for the architecture; int64, disjoint."""

    weights: Tensor
    alpha: Tensor


@dataclass(frozen=True)
class EpochLog:
    """Means over one epoch, in nats: the supervised losses of both halves, the term of the self-teacher; the entropy
    of the mixtures at its end."""

    train_loss: float
    alpha_loss: float
    self_loss: float
    entropy: float


class SelfTeacher(Protocol):
    """What a search's own past says about a batch."""

    def term(self, features: Tensor, logits: Tensor) -> Tensor | None:
        """What is added to the loss, (B,), from features (B, ...) and the supernet's logits (B, C); None while there
        is no past."""

    def after_step(self, supernet: Supernet) -> None: ...

    def after_epoch(self, supernet: Supernet) -> None: ...


class NoTeacher:
    """Plain DARTS."""

    def term(self, features: Tensor, logits: Tensor) -> Tensor | None:
        """Nothing is added."""
        return None

    def after_step(self, supernet: Supernet) -> None:
        """Remembers nothing."""

    def after_epoch(self, supernet: Supernet) -> None:
        """Remembers nothing."""


def halves(count: int, length: int, seed: int) -> Halves:
    """`count` of `length` examples, drawn and parted in two; the first half has one more where they are odd."""
    order = torch.randperm(length, generator=torch.Generator().manual_seed(seed))[:count]
    middle = (len(order) + 1) // 2
    return Halves(order[:middle], order[middle:])


def search(
    supernet: Supernet,
    frontend: nn.Module,
    task: Task,
    examples: Examples,
    parts: Halves,
    numbers: SearchNumbers,
    *,
    seed: int,
    teacher: SelfTeacher | None = None,
    weight: float = 1.0,
    penalty: Callable[[Tensor], Tensor] | None = None,
) -> list[EpochLog]:
    """Train in place, on the device where the supernet is; it stays in training mode.

    Every pair of batches first moves the architecture, then the weights. Running statistics follow the weights' batches
    alone. The teacher sees the very features that the supernet saw.

    Args:
        frontend: raw inputs -> features, not trained.
        examples: that `parts` count in, with labels.
        seed: of order and augmentation.
        teacher: adds `weight` times its term to the loss of the weights; None for plain DARTS.
        penalty: mixture softmax(alpha) -> a scalar added to the loss of the architecture, such as expected latency.

    Raises:
        RecipeError: a loss of an epoch is infinite or no number; nothing can be read off such a supernet.
    """
    past: SelfTeacher = teacher or NoTeacher()
    weights = supernet.weights()
    device = supernet.alpha.device
    sgd = torch.optim.SGD(weights, lr=numbers.rate, momentum=numbers.momentum, weight_decay=numbers.weight_decay)
    adam = torch.optim.Adam(
        [supernet.alpha], lr=numbers.alpha_rate, betas=(0.5, 0.999), weight_decay=numbers.alpha_decay
    )
    source = torch.Generator().manual_seed(seed)
    steps = max(1, math.ceil(len(parts.weights) / numbers.batch_size))
    frontend = frontend.to(device).eval()
    supernet.train()
    logs = []

    def read(index: Tensor) -> tuple[Tensor, Tensor]:
        batch = examples.batch(index)
        batch = (task.augment(batch, source) if task.augments else batch).to(device)
        with torch.no_grad():
            return frontend(*batch.inputs), labels_of(batch)

    def cost() -> Tensor:
        return penalty(torch.softmax(supernet.alpha, dim=1)) if penalty is not None else supernet.alpha.new_zeros(())

    untaught = partial(_loss, supernet, task, NoTeacher(), 0.0)
    for epoch in range(numbers.epochs):
        orders = [half[torch.randperm(len(half), generator=source)] for half in (parts.weights, parts.alpha)]
        sums = _Sums()
        for step, (ours, theirs) in enumerate(zip(*(order.tensor_split(steps) for order in orders), strict=True)):
            done = epoch * steps + step
            rate = _cosine(numbers, done / (numbers.epochs * steps))
            strength = weight * min(1.0, done / max(1e-9, numbers.ramp * numbers.epochs * steps))
            taught = partial(_loss, supernet, task, past, strength)
            train = partial(taught, *read(ours))
            validation = partial(taught if numbers.teach_alpha else untaught, *read(theirs))

            with frozen_statistics(supernet):
                supernet.alpha.grad = numbers.alpha_gradient(
                    supernet.alpha,
                    weights,
                    partial(train, None),
                    partial(_sum, partial(validation, sums.alpha), cost),
                    rate,
                )
            adam.step()

            gradients = torch.autograd.grad(train(sums.weights), weights)
            for parameter, gradient in zip(weights, gradients, strict=True):
                parameter.grad = gradient
            torch.nn.utils.clip_grad_norm_(weights, numbers.clip)
            sgd.param_groups[0]["lr"] = rate
            sgd.step()
            past.after_step(supernet)
        past.after_epoch(supernet)
        supervised, term = (sum(values) / steps for values in zip(*sums.weights, strict=True))
        alpha_loss = sum(value for value, _ in sums.alpha) / steps
        logs.append(EpochLog(supervised, alpha_loss, term, entropy(supernet.alpha)))
        if not math.isfinite(supervised + alpha_loss + term + logs[-1].entropy):
            raise RecipeError(
                f"the supernet diverged in epoch {epoch + 1} of {numbers.epochs}: its losses are {supervised:g} (of the"
                f" weights) and {alpha_loss:g} (of the architecture)",
                fix=f"lower its learning rates ({numbers.rate:g} and {numbers.alpha_rate:g}), and see whether the data"
                " hold infinite values",
            )
    sgd.zero_grad()
    adam.zero_grad()
    return logs


def labels_of(batch: Batch) -> Tensor:
    """The batch's labels.

    Raises:
        ValueError: it has none.
    """
    if batch.labels is None:
        raise ValueError(NOT_CLASSES)
    return batch.labels


@dataclass(frozen=True)
class _Sums:
    """(supervised loss, term of the teacher) of each batch of an epoch."""

    weights: list[tuple[float, float]] = field(default_factory=list)
    alpha: list[tuple[float, float]] = field(default_factory=list)


def _loss(
    supernet: Supernet,
    task: Task,
    teacher: SelfTeacher,
    strength: float,
    x: Tensor,
    y: Tensor,
    seen: list[tuple[float, float]] | None,
) -> Tensor:
    """The loss of one batch, a scalar; its parts are appended to `seen`."""
    logits = supernet(x)
    supervised: Tensor = task.loss(logits, y).mean()
    term = teacher.term(x, logits) if strength > 0.0 else None
    added = term.mean() if term is not None else supervised.new_zeros(())
    if seen is not None:
        seen.append((supervised.item(), added.item()))
    return supervised + strength * added if term is not None else supervised


def _sum(one: Callable[[], Tensor], other: Callable[[], Tensor]) -> Tensor:
    return one() + other()


def _cosine(numbers: SearchNumbers, progress: float) -> float:
    least = min(numbers.least_rate, numbers.rate)
    return least + (numbers.rate - least) * 0.5 * (1.0 + math.cos(math.pi * progress))
