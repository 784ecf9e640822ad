"""One published teacher-student system."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.step import Step, distillation_step
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.contracts.world import World

Numbers = Mapping[str, float | int | str | bool]
"""Hyper-parameters of one part, from the recipe."""


@dataclass(frozen=True)
class Constant:
    """A learning rate without warm-up and without a fall.

    Attributes:
        factor: of the recipe's learning rate, >= 0.
    """

    factor: float

    def __call__(self, clock: Clock) -> float:
        return self.factor


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own step.

    Attributes:
        name: shown in learning curves and given to schedules.
        share: of the recipe's epochs; the shares of a method sum to 1.
        step: what one step does.
        groups: optimiser groups that exist in this phase; None for all.
        begin: called before the phase's first step, to copy weights from one part to another or to freeze some; also
            after an interruption, before the weights that were saved are taken up.
    """

    name: str
    share: float = 1.0
    step: Step = distillation_step
    groups: tuple[str, ...] | None = None
    begin: Callable[[World], None] | None = None


def one_student(build: Callable[[], nn.Module]) -> Mapping[str, nn.Module]:
    """The usual case: a single student."""
    return {"student": build()}


def given_teacher(teacher: Teacher, students: Mapping[str, nn.Module]) -> Mapping[str, Teacher]:
    """The usual case: the task's teacher as it is."""
    return {"teacher": teacher}


@dataclass(frozen=True)
class Method:
    """What a file of `compress/methods` ends with. Every field but the source and the objectives has a usual value.

    Attributes:
        source: paper, with section or equation.
        objectives: name -> class; recipes give each a weight and its numbers by that name.
        weights: the published weight of each objective, a number or a function of the phase's clock; 1 where absent.
        teachers: from the task's teacher and the students, the teachers by name: an EMA copy, an ensemble, ...
        students: how many there are and how each is built; "student" is the one that goes on to the next stage. A
            teacher that the method trains is one of `modules`.
        strategy: None for the train split with the task's augmentation (`strategies/plain.py`).
        phases: in order.
        modules: further trainable parts by optimiser group (a weighting network, a gate, a discriminator).
        rates: learning rate of a group as a factor of the recipe's: a number is the peak of the loop's one cycle, a
            function of the phase's clock the whole course (`Constant`); 1 where absent.
        diagnostics: names of `compress/diagnostics` that its report shows, beside fidelity, which every report has.
        tasks: kinds of task it is defined for; empty for every one.
        quantized: how the student is fine-tuned while it is quantised, where that differs: its graph then has no
            modules that could be tapped. It need not be said where the usual step goes on without what taps.
    """

    source: str
    objectives: Mapping[str, Callable[..., Objective]]
    weights: Mapping[str, float | Callable[[Clock], float]] = field(default_factory=dict)
    teachers: Callable[[Teacher, Mapping[str, nn.Module]], Mapping[str, Teacher]] = given_teacher
    students: Callable[[Callable[[], nn.Module]], Mapping[str, nn.Module]] = one_student
    strategy: Callable[..., DataStrategy] | None = None
    phases: tuple[Phase, ...] = (Phase("distill"),)
    modules: Mapping[str, Callable[[Preparation], nn.Module]] = field(default_factory=dict)
    rates: Mapping[str, float | Callable[[Clock], float]] = field(default_factory=dict)
    diagnostics: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    quantized: "Method | None" = None
