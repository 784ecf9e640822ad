"""Whether student and teacher have the stages that a method asks for."""

from collections.abc import Mapping

import torch
from torch import nn

from compress.contracts.objective import Objective
from compress.contracts.stages import Stage, read_stage
from compress.job import Job
from compress.structure.tap_pairs import fewer
from compress.taps import Taps


def few_stages(job: Job, student: nn.Module, objectives: Mapping[str, Objective]) -> list[str]:
    """A sentence for each side that has fewer stages than the objectives want; [] where all are there.

    Args:
        student: raw inputs -> outputs; is run at most once, and is the same afterwards.
        objectives: of the method, with the recipe's numbers.
    """
    said = []
    for name, objective in objectives.items():
        ours, theirs = (
            tuple(tap for tap in taps if read_stage(tap) is not None)
            for taps in (objective.student_taps, objective.teacher_taps)
        )
        for side, taps, found in (
            ("student", ours, _student(job, student, ours)),
            ("teacher", theirs, _teacher(job, theirs)),
        ):
            counted = fewer(taps, found)
            if counted is not None:
                said.append(
                    f"the {side} has {counted[0]} of the {counted[1]} stages that {name} asks for; each counts once"
                )
    return said


def _student(job: Job, student: nn.Module, taps: tuple[str, ...]) -> Mapping[str, Stage]:
    if len(taps) < 2:
        return {}
    with Taps(student, taps) as tapped:
        tapped.find(job.example)
        return tapped.stages


def _teacher(job: Job, taps: tuple[str, ...]) -> Mapping[str, Stage]:
    if len(taps) < 2:
        return {}
    teacher = job.teacher.tapped(taps)
    teacher.observe(job.splits.train.batch(torch.arange(len(job.example[0]))))
    return teacher.stages
