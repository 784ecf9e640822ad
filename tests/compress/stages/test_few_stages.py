"""What a report says of networks with fewer stages than a method asks for."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.stages import stages
from compress.objectives.relations import Relations
from compress.page.training import curves
from compress.reproduction.bed import mlp
from compress.stages.few_stages import few_stages
from compress.teachers.frozen import FrozenTeacher


def job(teacher: nn.Module) -> Any:
    examples = TensorExamples(torch.rand(8, 1, 14, 14), torch.zeros(8), "some")

    def tapped(taps: tuple[str, ...]) -> FrozenTeacher:
        return FrozenTeacher(teacher, taps=taps, fingerprint="teacher")

    return SimpleNamespace(
        teacher=SimpleNamespace(tapped=tapped),
        example=(torch.rand(2, 1, 14, 14),),
        splits=Splits(examples, examples, examples),
    )


def test_each_side_with_fewer_stages_is_named() -> None:
    objectives = {"similarity": Relations(stages(4), stages(4)), "hints": Relations("stage 2 of 4", "stage 2 of 4")}
    shallow, deep = mlp((12, 8), 10), mlp((12, 10, 9, 8), 10)
    assert few_stages(job(deep), shallow, objectives) == [
        "the student has 2 of the 4 stages that similarity asks for; each counts once"
    ]
    assert few_stages(job(shallow), deep, objectives) == [
        "the teacher has 2 of the 4 stages that similarity asks for; each counts once"
    ]
    assert few_stages(job(deep), deep, objectives) == []


def test_the_page_says_it_above_the_curve() -> None:
    point = {"phase": "distill", "epoch": 0, "epochs": 1, "loss": 1.0, "terms": {}, "validation": 0.5}
    content: dict[str, Any] = {"curves": {"distill": [point]}, "distill": {"notes": ["the student has 2 < 4 stages"]}}
    assert "the student has 2 &lt; 4 stages" in str(curves(content))
    assert "stages" not in str(curves({**content, "distill": {}}))
