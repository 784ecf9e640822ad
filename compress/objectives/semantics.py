"""Let a student's classifier want to learn from a batch what the teacher's would.

Source: Dong, Li, Wei, arXiv:2303.15678, the semantic term: inter-channel correlations of the cross-entropy's gradient
with respect to the classifier's weight. The gradient has a closed form, through which the student's own gradient flows.

The paper compares classifiers of one width. Where they differ, a linear map without bias, trained with the student and
dropped afterwards, brings the student's channels to the teacher's (proposed, as FitNets' regressors do for features).
"""

from typing import Self

from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.errors import RecipeError, TaskError
from compress.similarity import classifier_gradient, semantic_rows


class Semantics(Objective):
    """`semantic_rows` of the two classifiers' gradients.

    Args:
        student: name of the student's module whose output its classifier takes, (B, D): a flatten, a pooling.
        teacher: the same of the teacher, (B, D').

    Raises (from `prepare`):
        RecipeError: a module whose output is no vector per example, or an output that is not (B, classes).
    """

    batch_wide = True

    def __init__(self, student: str, teacher: str) -> None:
        super().__init__()
        self.student_taps, self.teacher_taps = (student,), (teacher,)
        self.map: nn.Module = nn.Identity()

    @classmethod
    def example(cls) -> Self:
        """Between the vectors."""
        return cls("pool", "pool")

    def prepare(self, preparation: Preparation) -> None:
        """Make the map between channels, where the widths differ."""
        sides = (
            (self.student_taps[0], preparation.student_example, "student"),
            (self.teacher_taps[0], preparation.teacher_example, "teacher"),
        )
        for tap, signals, side in sides:
            if signals.output.ndim != 2:
                raise RecipeError(
                    f"semantics compares classifiers, and the {side}'s output is {tuple(signals.output.shape)}",
                    fix="take relations alone where the task is no classification",
                )
            if _vectors(signals.taps[tap]).ndim != 2:
                raise RecipeError(
                    f"{tap!r} of the {side} gives {tuple(signals.taps[tap].shape)}, not one vector per example",
                    fix="name the module whose output the last linear layer takes: the pooling or the flatten",
                )
        narrow, wide = (_vectors(signals.taps[tap]).shape[1] for tap, signals, _ in sides)
        self.map = nn.Identity() if narrow == wide else nn.Linear(narrow, wide, bias=False)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(classes,): M_s by class.

        Raises:
            TaskError: the stream has no class indices as labels.
        """
        labels = batch.labels
        if labels is None or labels.is_floating_point() or labels.ndim != 1:
            raise TaskError(
                "the objective 'semantics' needs one class index per example",
                fix="train on a stream with class indices, or by a method without this objective",
            )
        ours = gradient(student, self.student_taps[0], labels)
        theirs = gradient(teacher, self.teacher_taps[0], labels).detach()
        return semantic_rows(self.map(ours), theirs)


def gradient(signals: Signals, tap: str, labels: Tensor) -> Tensor:
    """The classifier's gradient, (classes, D)."""
    return classifier_gradient(signals.output, _vectors(signals.taps[tap]), labels)


def _vectors(value: Tensor) -> Tensor:
    """A pooled map, (B, C, 1, 1), is a vector."""
    return value.flatten(1) if value.ndim > 2 and value.shape[2:].numel() == 1 else value
