"""What happens in one training step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.world import World


@dataclass(frozen=True)
class Update:
    """One optimiser update that the loop shall make.

    Attributes:
        loss: scalar to minimise.
        groups: optimiser groups that move; all other parameters keep their value and get no gradient.
        logs: scalars for the learning curve, by name.
        feedback: what the data strategy may learn from, by name: one row for each example of the step's first batch,
            such as its loss, (B,).
    """

    loss: Tensor
    groups: tuple[str, ...] = ("student", "objectives")
    logs: Mapping[str, Tensor] = field(default_factory=dict)
    feedback: Mapping[str, Tensor] = field(default_factory=dict)


class Step(Protocol):
    """Yields the updates of one step, in order. After each one the loop has stepped before the next is computed, so
    adversarial, bilevel and mutual learning are a few lines; everything else yields once."""

    def __call__(self, world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]: ...


def distillation_step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    """The weighted sum of all objectives on the first stream, for the student that is called "student"."""
    yield weighted_sum(world, next(iter(batches.values())), clock, tuple(world.objectives))


def only(*names: str) -> Step:
    """A `distillation_step` with these objectives alone, for methods whose phases differ in what they minimise."""

    def step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
        yield weighted_sum(world, next(iter(batches.values())), clock, names)

    return step


def weighted_sum(world: World, batch: Batch, clock: Clock, names: tuple[str, ...]) -> Update:
    """The mean of each named objective between the first teacher and "student", weighted and added up.

    Where there is no teacher, for objectives that look at none, the student's own answers stand in its place.
    """
    first = next(iter(world.teachers), None)
    said = None if first is None else world.ask(first, batch)
    student = world.observe("student", batch)
    teacher = student.detach() if said is None else said
    terms = {name: world.objectives[name](student, teacher, batch, clock).mean() for name in names}
    loss = sum((world.weights(name) * term for name, term in terms.items()), start=student.output.new_zeros(()))
    return Update(loss, logs={name: term.detach() for name, term in terms.items()})
