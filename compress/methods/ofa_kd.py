"""Student stages that answer in the space of logits, so that teacher and student may be of any two families.

Source: Hao, Guo, Han, Tang, Hu, Wang, Xu, "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
Distillation", NeurIPS 2023, arXiv:2310.19444, and its published code, which differs from the paper in the loss.

With p the teacher's and q the student's softmax, m one-hot of the true class and an exponent g >= 1 (gamma in the
paper, eps in the code):

    code    l(z) = - sum_c [(p_c + m_c)^g - m_c] log q_c
    paper   l(z) = - (1 + p_y)^g log q_y - sum_{c != y} p_c log q_c      (from memory)

g = 1 makes the code's form the cross-entropy to the teacher; the paper's holds the labels' cross-entropy as well and
leaves the other classes as they are. The code's is the usual one here, as its labels are a term of their own, on the
final head only. A larger g raises the true class about g-fold and lowers the others: for teachers that are unsure.

    L = CE(z, y) + l(z) + w sum_k l(branch_k(f_k)),     k = 1 ... 4 stages of the student

Branches are trained with the student and dropped. The published ones (`branch = "full"`) cost as much as a small
student; `light`, the mean over positions with a layer norm and a linear layer, is proposed and the usual one here. Only
the teacher's logits are read, so a cache or a black box will do: the published width of the convolutional branches, the
wider of the two networks' last stages, becomes the student's or `width`. Class tokens take no part in branches.

While the student is quantised the branches stay away and l(z) alone goes on (proposed): they would begin anew, and the
quantised graph has no stages to tap.

When g is large and the teacher sure, the sum of the weights and with it the gradient grows: published runs with mixed
precision lost themselves in NaN where the code takes the logarithm of a softmax. Here it is log_softmax in float32.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.stages import stages as stages_of
from compress.errors import RecipeError, TaskError
from compress.objectives.labels import Labels
from compress.similarity import widened
from compress.structure.logit_branches import Light, full_branch
from compress.structure.tap_pairs import distinct


def adaptive_weights(teacher: Tensor, labels: Tensor, exponent: float, temperature: float = 1.0) -> Tensor:
    """(p + m)^g - m: what the code weights the student's log-probabilities with.

    Args:
        teacher: logits, (B, C).
        labels: class indices (B,), or probabilities (B, C) of a mix, of which the largest counts.
        exponent: g, above 0; 1 gives p.
        temperature: of the teacher's softmax, above 0.

    Returns:
        (B, C), >= 0; rows do not sum to 1 unless g = 1. No gradient.
    """
    hit = one_hot(labels, teacher)
    return (probabilities(teacher, temperature) + hit).pow(exponent) - hit


def paper_weights(teacher: Tensor, labels: Tensor, exponent: float, temperature: float = 1.0) -> Tensor:
    """(1 + p)^g for the true class and p for the others; arguments as in `adaptive_weights`."""
    hit, p = one_hot(labels, teacher), probabilities(teacher, temperature)
    return hit * (1.0 + p).pow(exponent) + (1.0 - hit) * p


Weights = Callable[[Tensor, Tensor, float, float], Tensor]
FORMS: Mapping[str, Weights] = {"code": adaptive_weights, "paper": paper_weights}


def adaptive_target_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    exponent: float,
    temperature: float = 1.0,
    weights: Weights = adaptive_weights,
) -> Tensor:
    """- sum_c w_c log q_c.

    Args:
        student: logits, (B, C).
        teacher: logits, (B, C). No gradient flows into them.
        labels: class indices (B,), or (B, C), as `adaptive_weights` takes them.
        exponent: g.
        temperature: of both softmaxes; there is no factor for it, as in the published code.
        weights: which w.

    Returns:
        (B,), in nats. Smallest where q = w / sum w.

    Raises:
        ValueError: the shapes differ, or labels are not one for each row.
    """
    if student.shape != teacher.shape or student.ndim != 2 or labels.shape not in (student.shape, student.shape[:1]):
        raise ValueError(
            f"student logits {tuple(student.shape)}, teacher logits {tuple(teacher.shape)},"
            f" labels {tuple(labels.shape)}"
        )
    wide = widened(student)
    log_q = F.log_softmax(wide / temperature, dim=1)
    return -(weights(teacher.to(wide.dtype), labels, exponent, temperature) * log_q).sum(dim=1)


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """m, (B, C) of the logits' kind."""
    classes = labels.argmax(dim=1) if labels.ndim == 2 else labels
    return F.one_hot(classes.long(), like.shape[1]).to(like.dtype)


def probabilities(teacher: Tensor, temperature: float) -> Tensor:
    """p, detached."""
    return F.softmax(teacher.detach() / temperature, dim=1)


class AdaptiveTargets(Objective):
    """`adaptive_target_loss` of the student's own output: g_last of the published list.

    Args:
        exponent: g, at least 1. Usually 1 to 1.5; larger for weaker teachers.
        temperature: above 0.
        form: of the weights, a name in `FORMS`.

    Raises:
        RecipeError: a number is out of its range, or there is no such form.
    """

    def __init__(self, exponent: float = 1.0, temperature: float = 1.0, form: str = "code") -> None:
        super().__init__()
        check(exponent, temperature, form)
        self._exponent, self._temperature, self._weights = exponent, temperature, FORMS[form]

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats.

        Raises:
            TaskError: the stream has no labels.
        """
        return adaptive_target_loss(
            student.output, teacher.output, labels_of(batch), self._exponent, self._temperature, self._weights
        )


class Branches(Objective):
    """The sum over stages of `adaptive_target_loss` of what a branch makes of the stage.

    Args:
        exponents: g of every stage, or of each, the first one first.
        stages: how many of the student's, which are found from its structure (of one with fewer, as many as it has); or
            names of modules whose outputs are (B, channels, ...), for light branches.
        branch: "light" or "full".
        width: channels of the last layer of a full branch; 0 for those of the student's last stage.
        grid: rows and columns that full branches keep when they merge tokens.
        temperature, form: as in `AdaptiveTargets`.

    Raises:
        RecipeError: a number is out of its range, or there is no such form or branch.
    """

    def __init__(
        self,
        exponents: float | Sequence[float] = 1.0,
        stages: int | str | Sequence[str] = 4,
        branch: str = "light",
        width: int = 0,
        grid: int = 7,
        temperature: float = 1.0,
        form: str = "code",
    ) -> None:
        super().__init__()
        named = not isinstance(stages, int)
        names = (stages,) if isinstance(stages, str) else stages
        self.student_taps = stages_of(names) if isinstance(names, int) else tuple(names)
        known = branch == "light" or (branch == "full" and not named)
        if not self.student_taps or not known or width < 0 or grid < 1:
            raise RecipeError(
                f"branches has stages {stages}, branch {branch!r}, width {width}, grid {grid}",
                fix="give one stage at least; 'light', or 'full' and a number of stages; a width from 0, a grid from 1",
            )
        self._exponents = dict(zip(self.student_taps, spread(exponents, len(self.student_taps)), strict=True))
        self._taps = self.student_taps
        for exponent in self._exponents.values():
            check(exponent, temperature, form)
        self._full, self._width, self._grid = branch == "full", width, grid
        self._temperature, self._weights = temperature, FORMS[form]
        self.branches = nn.ModuleList()

    @classmethod
    def example(cls) -> Self:
        """On the map and the vector."""
        return cls(1.2, stages=("body", "pool"))

    def prepare(self, preparation: Preparation) -> None:
        """Make a branch for each stage that there is."""
        self._taps = distinct(self.student_taps, preparation.student_stages)
        features = [preparation.student_example.taps[name] for name in self._taps]
        width, outputs = self._width or features[-1].shape[1], preparation.outputs
        self.branches = nn.ModuleList()
        for number, (name, found) in enumerate(zip(self._taps, features, strict=True), 1):
            channels, count = found.shape[1], len(features)
            if self._full:
                stage = preparation.student_stages[name]
                self.branches.append(full_branch(stage, channels, number, count, width, outputs, self._grid))
            else:
                self.branches.append(Light(channels, outputs))

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats.

        Raises:
            TaskError: the stream has no labels.
        """
        labels, total = labels_of(batch), student.output.new_zeros(len(student.output))
        for name, branch in zip(self._taps, self.branches, strict=True):
            logits, exponent = branch(student.taps[name]), self._exponents[name]
            total = total + adaptive_target_loss(
                logits, teacher.output, labels, exponent, self._temperature, self._weights
            )
        return total


def spread(exponents: float | Sequence[float], count: int) -> tuple[float, ...]:
    """One exponent for each stage.

    Raises:
        RecipeError: there are several, but not one for each.
    """
    if isinstance(exponents, int | float):
        return (float(exponents),) * count
    if len(exponents) != count:
        raise RecipeError(
            f"branches has {len(exponents)} exponents for {count} stages", fix="give one, or one for each stage"
        )
    return tuple(map(float, exponents))


def labels_of(batch: Batch) -> Tensor:
    """The labels.

    Raises:
        TaskError: there are none.
    """
    if batch.labels is None:
        raise TaskError("adaptive targets met a stream without labels", fix="give it a labelled stream")
    return batch.labels


def check(exponent: float, temperature: float, form: str) -> None:
    """Refuse numbers that cannot be meant.

    Raises:
        RecipeError: the exponent is below 1 or infinite, the temperature not positive, or the form unknown.
    """
    if form not in FORMS:
        raise RecipeError(f"adaptive targets have no form {form!r}", fix=f"write {' or '.join(FORMS)}")
    if not (1.0 <= exponent < float("inf") and 0.0 < temperature < float("inf")):
        raise RecipeError(
            f"adaptive targets have the exponent {exponent} and the temperature {temperature}",
            fix="write an exponent from 1, such as 1.2, and a temperature above 0",
        )


METHOD = Method(
    source="arXiv:2310.19444",
    objectives={"labels": Labels, "adaptive_targets": AdaptiveTargets, "branches": Branches},
    weights={"labels": 1.0, "adaptive_targets": 1.0, "branches": 1.0},
    diagnostics=("fidelity", "cka"),
    tasks=("classification",),
    quantized=Method(
        source="arXiv:2310.19444, without the branches",
        objectives={"labels": Labels, "adaptive_targets": AdaptiveTargets},
        weights={"labels": 1.0, "adaptive_targets": 1.0},
    ),
)
