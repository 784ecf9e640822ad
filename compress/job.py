"""What the stages of one run share: read once, never changed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from compress.contracts.examples import Splits
from compress.contracts.task import Task
from compress.contracts.teacher import Teacher
from compress.progress import Progress
from compress.recipe import Recipe
from compress.records import Record
from compress.store import Store
from profiles.target import Target


@dataclass(frozen=True)
class TeacherSide:
    """The teacher as it was given, measured once.

    Attributes:
        teacher: answers raw inputs.
        tapped: the same teacher with features by module name.
        network: the module that derived students are cut from; None for a black box, and for a teacher that takes
            privileged inputs.
        frontend: makes the preprocessing that `network` expects before it; identity where it takes raw inputs.
        model: the file that holds it: ONNX of a black box, else None.
        accuracy: on test data, a fraction (or the task's own metric).
    """

    teacher: Teacher
    tapped: Callable[[tuple[str, ...]], Teacher]
    network: nn.Module | None
    frontend: Callable[[], nn.Module]
    model: Path | None
    accuracy: float
    record: Record


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        example: a few examples of the training split: its raw inputs, (B, ...) each.
        identities: name -> hash, of everything that decides what training gives: recipe parts, data, task, teacher.
        remote: user@host that builds and measures, or None.
        workers: where the search's trials run, as `--workers` says it. They decide nothing.
        evaluations: file that remembers them; None for one in the run's folder.
    """

    recipe: Recipe
    target: Target
    task: Task
    splits: Splits
    teacher: TeacherSide
    example: tuple[Tensor, ...]
    identities: Mapping[str, str]
    store: Store
    progress: Progress
    remote: str | None = None
    workers: str = "serial"
    evaluations: Path | None = None

    @property
    def one_example(self) -> tuple[Tensor, ...]:
        """The first of them, (1, ...) each."""
        return tuple(tensor[:1] for tensor in self.example)
