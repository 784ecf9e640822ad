"""Does the student copy the teacher, or is it merely as good? Does the shipped artifact copy the float student?

Source: Stanton, Izmailov, Kirichenko, Alemi, Wilson, "Does Knowledge Distillation Really Work?", NeurIPS 2021,
arXiv:2106.05945, section 3: top-1 agreement (equation 4) and predictive KL (equation 5), at temperature 1, on test data
and on the distillation data as the student sees them; a control student of another teacher tells agreement from shared
competence. Calibration by ten equal bins of the largest probability, open on the left (Guo et al., arXiv:1706.04599).

Everything is summed over examples, never averaged over batches, so the batch size changes nothing.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.diagnostic import Diagnostic
from compress.contracts.signals import Signals

BINS = 10  # of the calibration error
TOP = 5  # classes of the reference whose order `kendall` compares
COPIED = 0.98  # least agreement on the distillation data that counts as copied (proposed)
LOST = 0.05  # agreement that may be lost from the distillation data to the test data (proposed)
Z = 1.959964  # of a 95 % interval
ELEMENTS = 4_000_000  # logits that are looked at together, in float64

Answer = Callable[[Batch], Tensor]
"""Logits, (B, C, ...), of a batch."""


def agreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Where the most probable classes are the same: (B, C, ...) logits each -> (B, ...) of 0 and 1."""
    return (student.argmax(dim=1) == teacher.argmax(dim=1)).to(torch.float64)


def predictive_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student): (B, C, ...) logits each -> (B, ...) nats, float64, >= 0."""
    log_p = teacher.double().log_softmax(dim=1)
    log_q = student.double().log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def kendall(student: Tensor, teacher: Tensor, top: int = TOP) -> Tensor:
    """Kendall's tau of the teacher's `top` classes in the student's order: (B, C, ...) each -> (B, ...), in [-1, 1].

    Pairs that the teacher ties have no order and are left out, so that a copy has 1 however coarse its steps; those
    that the student alone ties count as neither. With fewer classes all of them are compared.
    """
    best, places = teacher.topk(min(top, teacher.shape[1]), dim=1)
    ranked = student.gather(1, places).double()
    first, second = torch.triu_indices(ranked.shape[1], ranked.shape[1], offset=1, device=ranked.device)
    ordered = best[:, first] > best[:, second]
    kept = ((ranked[:, first] - ranked[:, second]).sign() * ordered).sum(dim=1)
    return torch.where(ordered.any(dim=1), kept / ordered.sum(dim=1).clamp(min=1), 1.0)


def agreement_bounds(student: float, teacher: float) -> tuple[float, float]:
    """Least and largest agreement that two accuracies (fractions) allow: what lies inside shows nothing by itself."""
    return max(0.0, student + teacher - 1.0), 1.0 - abs(student - teacher)


def ensemble_logits(member_logits: Tensor, axis: int) -> Tensor:
    """Logits of the mean of the members' probabilities, which is not the mean of their logits.

    Args:
        member_logits: with the members along `axis`; without that axis, classes are dimension 1: (B, C, ...).

    Returns:
        (B, C, ...), log-probabilities.
    """
    members = member_logits.movedim(axis, 0)
    return members.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(members))


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` independent examples; (0, 1) of none."""
    if count == 0:
        return 0.0, 1.0
    scale = 1 + Z * Z / count
    centre = (share + Z * Z / (2 * count)) / scale
    reach = Z / scale * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return max(0.0, centre - reach), min(1.0, centre + reach)


@dataclass
class Likeness:
    """Two networks' answers to the same examples, summed up. Positions of a map weigh an example's share each."""

    count: int = 0
    same: float = 0.0
    divergence: float = 0.0
    squares: float = 0.0
    order: float = 0.0

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """Logits of some more examples, (B, C, ...) each.

        Raises:
            ValueError: the shapes differ.
        """
        if student.shape != teacher.shape:
            raise ValueError(f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}")
        rows = max(1, ELEMENTS * len(student) // max(1, student.numel()))
        for ours, theirs in zip(torch.split(student, rows), torch.split(teacher, rows), strict=True):
            divergence = _per_example(predictive_kl(ours, theirs))
            self.count += len(ours)
            self.same += float(_per_example(agreement(ours, theirs)).sum())
            self.divergence += float(divergence.sum())
            self.squares += float(divergence.square().sum())
            self.order += float(_per_example(kendall(ours, theirs)).sum())

    @property
    def agreement(self) -> float:
        """Share of examples whose most probable classes are the same; NaN of none."""
        return self.same / self.count if self.count else math.nan

    @property
    def kl(self) -> float:
        """Mean KL(teacher || student), nats; NaN of none."""
        return self.divergence / self.count if self.count else math.nan

    @property
    def kl_error(self) -> float:
        """Standard error of `kl`; NaN of fewer than two examples."""
        if self.count < 2:
            return math.nan
        spread = max(0.0, self.squares / self.count - self.kl**2) * self.count / (self.count - 1)
        return math.sqrt(spread / self.count)

    @property
    def kendall(self) -> float:
        """Mean Kendall's tau of the reference's first classes; NaN of none."""
        return self.order / self.count if self.count else math.nan


@dataclass
class Calibration:
    """One network's answers against the labels, summed up; positions of a map are examples of their own here."""

    count: int = 0
    right: float = 0.0
    loss: float = 0.0
    bins: Tensor = field(default_factory=lambda: torch.zeros(3, BINS, dtype=torch.float64))  # count, right, confidence

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Logits (B, C, ...) and labels (B, ...) of some more examples."""
        rows = max(1, ELEMENTS * len(logits) // max(1, logits.numel()))
        edges = torch.arange(1, BINS, dtype=torch.float64, device=logits.device) / BINS
        for some, known in zip(torch.split(logits, rows), torch.split(labels, rows), strict=True):
            log_p = some.double().log_softmax(dim=1)
            best, chosen = log_p.max(dim=1)
            right, confidence = (chosen == known).double().flatten(), best.exp().flatten()
            self.count += right.numel()
            self.right += float(right.sum())
            self.loss -= float(log_p.gather(1, known.unsqueeze(1)).sum())
            place = torch.bucketize(confidence, edges)
            for row, values in enumerate((torch.ones_like(right), right, confidence)):
                self.bins[row] += torch.zeros(BINS, dtype=torch.float64).index_add_(0, place.cpu(), values.cpu())

    @property
    def accuracy(self) -> float:
        """A fraction; NaN of no examples."""
        return self.right / self.count if self.count else math.nan

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood of the labels, nats; NaN of no examples."""
        return self.loss / self.count if self.count else math.nan

    @property
    def ece(self) -> float:
        """Expected calibration error, a fraction: sum over bins of (share of examples) |accuracy - confidence|."""
        return float((self.bins[1] - self.bins[2]).abs().sum()) / self.count if self.count else math.nan


@dataclass(frozen=True)
class FidelityReport:
    """Shares are fractions, divergences nats.

    Attributes:
        agree_train, kl_train: on the distillation data as the student sees them; NaN where they were not given.
        acc, nll, ece: the student's, on test data.
        agree_control: the teacher's agreement with a student that an independent teacher taught the same way.
        bounds: of the agreement, from the two accuracies alone.
        verdict: `optimisation` (not even the distillation data are copied), `identifiability` (they are, and it does
            not carry over to test data), `ok`, or `unknown` without distillation data.
    """

    agree_test: float
    agree_train: float
    kl_test: float
    kl_train: float
    acc: float
    acc_teacher: float
    nll: float
    ece: float
    agree_control: float | None
    bounds: tuple[float, float]
    verdict: str

    @property
    def fidelity_gap(self) -> float | None:
        """Agreement beyond the control's: what the student has of this teacher and of no other."""
        return None if self.agree_control is None else self.agree_test - self.agree_control


def verdict(agree_train: float, agree_test: float) -> str:
    """What the agreements (fractions) say, by the proposed thresholds; `unknown` where the first is NaN."""
    if math.isnan(agree_train):
        return "unknown"
    if agree_train < COPIED:
        return "optimisation"
    return "identifiability" if agree_test < agree_train - LOST else "ok"


def fidelity(
    student: Answer,
    teacher: Answer,
    test: Iterable[Batch],
    distill: Iterable[Batch] | None = None,
    control: Answer | None = None,
) -> FidelityReport:
    """One pass over each set. The networks are the caller's to put into eval mode.

    Args:
        student, teacher, control: batch -> logits, (B, C, ...). An ensemble answers with `ensemble_logits`.
        test: batches with labels.
        distill: batches as the student sees them in training, augmented and mixed alike; labels are not read.
        control: a student that was taught by the same procedure by a teacher independent of `teacher`.

    Raises:
        ValueError: a test batch without labels, or answers of different shapes.
    """
    on_test, on_train, to_control = Likeness(), Likeness(), Likeness()
    ours, theirs = Calibration(), Calibration()
    with torch.no_grad():
        for batch in test:
            if batch.labels is None:
                raise ValueError("the test batches need labels")
            said, taught = student(batch), teacher(batch)
            on_test.add(said, taught)
            ours.add(said, batch.labels)
            theirs.add(taught, batch.labels)
            if control is not None:
                to_control.add(control(batch), taught)
        for batch in distill or ():
            on_train.add(student(batch), teacher(batch))
    return FidelityReport(
        on_test.agreement,
        on_train.agreement,
        on_test.kl,
        on_train.kl,
        ours.accuracy,
        theirs.accuracy,
        ours.nll,
        ours.ece,
        None if control is None else to_control.agreement,
        agreement_bounds(ours.accuracy, theirs.accuracy),
        verdict(on_train.agreement, on_test.agreement),
    )


class Fidelity(Diagnostic):
    """`agreement` (a fraction) and `predictive_kl` (nats) over all examples.

    With labels also accuracies, the bounds of the agreement that follow from these, and the student's `nll` and `ece`.
    Answers that are not class logits (one output, or none to compare) give no figures.
    """

    def measure(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> Mapping[str, float]:
        """(batch, student, teacher) triples -> figures by name.

        Raises:
            ValueError: student and teacher differ in shape.
        """
        likeness, ours, theirs = Likeness(), Calibration(), Calibration()
        labelled = True
        for batch, student, teacher in answers:
            output, labels = student.output, batch.labels
            if output.shape == teacher.output.shape and (output.ndim < 2 or output.shape[1] < 2):
                return {}
            likeness.add(output, teacher.output)
            if labels is None or labels.shape != (len(output), *output.shape[2:]) or labels.is_floating_point():
                labelled = False
            if labelled and labels is not None:
                ours.add(output, labels)
                theirs.add(teacher.output, labels)
        if likeness.count == 0:
            return {}
        figures = {"agreement": likeness.agreement, "predictive_kl": likeness.kl}
        if labelled:
            least, most = agreement_bounds(ours.accuracy, theirs.accuracy)
            figures |= {
                "student_accuracy": ours.accuracy,
                "teacher_accuracy": theirs.accuracy,
                "agreement_least": least,
                "agreement_most": most,
                "nll": ours.nll,
                "ece": ours.ece,
            }
        return figures


DIAGNOSTIC = Fidelity


def _per_example(values: Tensor) -> Tensor:
    """(B, ...) -> (B,): the mean over an example's positions."""
    return values if values.ndim == 1 else values.flatten(1).mean(dim=1)
