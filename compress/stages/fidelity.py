"""How faithful every copy is: student to teacher, artifact to float student. A part of every run's report.

Source: Stanton et al., "Does Knowledge Distillation Really Work?", NeurIPS 2021, arXiv:2106.05945; that an artifact is
held to its float student by agreement and divergence, and at which bounds, is proposed.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.diagnostics.fidelity import COPIED, LOST, Calibration, Likeness, Z, agreement_bounds, interval, verdict
from compress.errors import RecipeError
from compress.job import Job
from compress.lesson import look
from compress.stages import ledger
from compress.stages.gates import Gate
from profiles.errors import UserError
from profiles.runners import on_onnxruntime

TEACHER, CONTROL = "teacher", "control student"
AGREEMENT, DIVERGENCE = 0.98, 0.02  # proposed bounds of an artifact against its float student: a share, nats
SEEN = 20_000  # distillation examples that are looked at; at 97 % the agreement is known to a quarter of a point


class Watch:
    """Adds up the test data's answers while the ledger runs through them.

    Args:
        student: name of the float student's side.
        final: name of what ships.
        pairs: the ledger's, whose builds are compared too.
    """

    def __init__(self, job: Job, student: str, final: str, pairs: Sequence[ledger.Pair]) -> None:
        self._job, self.student, self.final = job, student, final
        held = [(pair.artifact, student) for pair in pairs if pair.artifact != student]
        held += [(pair.artifact, pair.reference) for pair in pairs if pair.stage == "build"]
        wanted = [(student, TEACHER), (final, TEACHER), *held]
        control = control_file(job)
        self._control = None if control is None else ledger.file_side(job, CONTROL, on_onnxruntime.load(control))
        wanted += [] if control is None else [(CONTROL, TEACHER)]
        self._pairs = {pair: Likeness() for pair in dict.fromkeys(wanted)}
        self._labelled: dict[str, Calibration] = {}
        self._classes = True

    def look(self, batch: Batch, outputs: Mapping[str, ledger.Outputs]) -> None:
        """One test batch and what every side says to it; nothing where the answers are no class logits."""
        if not self._classes:
            return
        name = self._job.task.output_names[0]
        said = {side: _tensor(found[name]) for side, found in outputs.items()}
        said[TEACHER] = self._job.teacher.teacher.observe(batch).output.cpu().float()
        self._classes = class_logits(self._job, said[self.student], said[TEACHER], batch.labels)
        if not self._classes or batch.labels is None:
            return
        if self._control is not None:
            said[CONTROL] = _tensor(self._control.answer(batch)[name])
        for (copy, reference), likeness in self._pairs.items():
            likeness.add(said[copy], said[reference])
        for side, logits in said.items():
            self._labelled.setdefault(side, Calibration()).add(logits, batch.labels)

    def found(self, model: nn.Module) -> dict[str, Any]:
        """Everything as plain data; empty where the answers are no class logits.

        Args:
            model: the float student, for the distillation data.
        """
        if not self._classes or not self._labelled:
            return {}
        job = self._job
        taught = self._pairs[(self.student, TEACHER)]
        distilled, why = _distilled(job, model)
        told = verdict(distilled.agreement, taught.agreement)
        rows = [self._row(*pair, likeness) for pair, likeness in self._pairs.items()]
        made: dict[str, Any] = {
            "pairs": rows,
            "calibration": {
                side: {"accuracy": found.accuracy, "nll": found.nll, "ece": found.ece, "examples": found.count}
                for side, found in self._labelled.items()
            },
            "distillation": _figures(distilled) | {"why": why} if distilled.count else {"why": why},
            "verdict": told,
            "sentence": _sentence(told, distilled.agreement, taught.agreement),
            "shipped": self._held(),
        }
        if self._control is not None:
            made["fidelity_gap"] = taught.agreement - self._pairs[(CONTROL, TEACHER)].agreement
        said = f"agrees with the teacher on {100 * taught.agreement:.2f} % of the test data"
        job.progress.say(f"verify: {self.student} {said}, KL {taught.kl:.4g} nats: {told}")
        return made

    def gates(self) -> list[Gate]:
        """Bounds that the recipe sets on the artifact against the float student; it may set none."""
        bounds, likeness = self._job.recipe.verify, self._pairs.get((self.final, self.student))
        if likeness is None or not likeness.count:
            return []
        made = []
        if bounds.student_agreement is not None:
            made.append(("agreement with the float student", likeness.agreement, bounds.student_agreement, "", False))
        if bounds.student_kl is not None:
            made.append(("KL from the float student", likeness.kl, bounds.student_kl, "nats", True))
        return [
            Gate(name, "verify", self.final, value, bound, unit, at_most, "measured")
            for name, value, bound, unit, at_most in made
        ]

    def _row(self, copy: str, reference: str, likeness: Likeness) -> dict[str, Any]:
        least, most = agreement_bounds(self._labelled[copy].accuracy, self._labelled[reference].accuracy)
        return {"copy": copy, "reference": reference, "least": least, "most": most} | _figures(likeness)

    def _held(self) -> dict[str, Any]:
        """The artifact against the proposed bounds."""
        likeness = self._pairs[(self.final, self.student)]
        kept = likeness.agreement >= AGREEMENT and likeness.kl <= DIVERGENCE
        return {"artifact": self.final, "agreement": AGREEMENT, "kl": DIVERGENCE, "kept": kept}


def control_file(job: Job) -> Path | None:
    """The control student that the recipe names.

    Raises:
        RecipeError: there is no such file.
    """
    control = job.recipe.verify.control
    if control is not None and not control.is_file():
        raise RecipeError(
            f"verify.control names no file: {control}",
            fix="give the 4_export/model.onnx of a run with another teacher, or leave it out",
        )
    return control


def class_logits(job: Job, student: Tensor, teacher: Tensor, labels: Tensor | None) -> bool:
    """Whether both answer with one logit for each of the task's classes, and labels are classes."""
    if labels is None or labels.is_floating_point() or student.ndim < 2 or student.shape != teacher.shape:
        return False
    return student.shape[1] == len(job.task.labels) > 1 and labels.shape == (len(student), *student.shape[2:])


def _distilled(job: Job, model: nn.Module) -> tuple[Likeness, str]:
    """Student and teacher on the distillation data as the student sees them, or why there is nothing."""
    likeness = Likeness()

    def see(batch: Batch, student: Signals, teacher: Signals) -> None:
        if student.output.shape == teacher.output.shape:
            likeness.add(student.output.cpu(), teacher.output.cpu())

    try:
        look(job, model, see, SEEN)
    except UserError as error:
        return Likeness(), error.what
    return likeness, "" if likeness.count else "the data strategy gave nothing that both answer alike"


def _figures(likeness: Likeness) -> dict[str, Any]:
    """Plain numbers with their 95 % intervals; an example of several positions counts once."""
    reach = Z * likeness.kl_error if likeness.count > 1 else math.inf
    return {
        "agreement": likeness.agreement,
        "agreement_interval": list(interval(likeness.agreement, likeness.count)),
        "kl": likeness.kl,
        "kl_interval": [max(0.0, likeness.kl - reach), likeness.kl + reach],
        "kendall_top5": likeness.kendall,
        "examples": likeness.count,
    }


def _sentence(told: str, train: float, test: float) -> str:
    """What a person can do about it."""
    if told == "unknown":
        return "Whether the distillation data were copied is not known."
    shares = f"{100 * train:.1f} % of the distillation data and {100 * test:.1f} % of the test data"
    if told == "optimisation":
        return (
            f"The student agrees with its teacher on {shares}: below {100 * COPIED:.0f} % it does not even copy what it"
            " was shown, which longer training or a larger student would mend, and other data would not."
        )
    if told == "identifiability":
        return (
            f"The student agrees with its teacher on {shares}: it copied what it was shown, and more than"
            f" {100 * LOST:.0f} points do not carry over; more or unlabelled distillation data would help."
        )
    return f"The student agrees with its teacher on {shares}: it is a copy."


def _tensor(values: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
