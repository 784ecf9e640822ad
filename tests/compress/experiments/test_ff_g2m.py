"""The experiment's criteria, and its sparse view of the data."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from compress.citation_graphs import transductive
from compress.contracts.examples import Splits
from compress.contracts.experiment import Results
from compress.experiments import ff_g2m as experiment
from compress.experiments.ff_g2m import (
    BEDS,
    EXPERIMENT,
    FULL,
    LABELS,
    LOW,
    NODE_WISE,
    NUMBERS,
    TEACHER,
    Bed,
    perceptron,
    sparse,
)
from compress.graphs import Graph, Nodes, WholeGraph
from compress.objectives.weight_penalty import WeightPenalty
from compress.reproduction.verdict import verdict

PUBLISHED = {TEACHER: 71.4, LABELS: 60.3, NODE_WISE: 72.9, FULL: 73.9, LOW: 73.9}


def judged(**changes: float) -> str:
    means = {**PUBLISHED, **changes}
    spread = (-0.4, 0.1, 0.3)
    figures = {
        arm: {bed.column: tuple(mean + s * (1 if arm == FULL else 0.5) for s in spread) for bed in BEDS}
        for arm, mean in means.items()
    }
    return verdict(tuple(EXPERIMENT.judge(Results((0, 1, 2), figures))))


def test_published_figures_are_a_reproduction() -> None:
    assert judged() == "reproduced"


def test_each_criterion_can_fail() -> None:
    for arm, mean in ((NODE_WISE, 68.0), (NODE_WISE, 73.8), (TEACHER, 74.1), (FULL, 71.0)):
        assert judged(**{arm: mean}) == "not reproduced at this scale", arm


def test_what_high_frequencies_add_does_not_decide() -> None:
    assert judged(**{LOW: 75.0}) == "reproduced"


def test_sparse_rows_are_the_front_ends_features() -> None:
    features = torch.tensor([[1.0, 1, 0], [0, 0, 0], [0, 1, 0]]).to_sparse_coo().coalesce()
    scaled = torch.tensor([[0.5, 0.5, 0], [0, 0, 0], [0, 1, 0]]).to_sparse_coo().coalesce()
    graph = Graph(features, scaled, torch.tensor([0, 1, 0]), torch.tensor([[0, 1], [1, 0]]), "g")
    parts = [Nodes(graph, torch.tensor([n]), str(n)) for n in range(3)]
    found = sparse(Splits(parts[0], parts[1], parts[2], (("graph", WholeGraph(graph, torch.tensor([0]))),)))
    whole = found.named()["graph"].batch(torch.arange(3)).inputs[0]
    assert whole.is_sparse
    assert torch.equal(whole.to_dense(), scaled.to_dense())
    torch.manual_seed(0)
    student = perceptron((3, 4, 2), 0.0)
    torch.testing.assert_close(student(whole), student(scaled.to_dense()))


def test_arms_have_the_official_weights_and_one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.rand(6, 4).to_sparse_coo().coalesce()
    edges = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])
    graph = Graph(features, features, torch.tensor([0, 1, 0, 1, 0, 1]), edges, "g")
    parts = {"train": torch.tensor([0, 1]), "val": torch.tensor([2]), "test": torch.tensor([3, 4, 5])}
    task: Any = SimpleNamespace(
        load=lambda data: transductive(graph, parts), input_shape=(4,), labels=("a", "b"), name="small"
    )
    seen: list[dict[str, Any]] = []

    def taught(student: nn.Module, splits: Splits, numbers: object, seed: int, **how: Any) -> nn.Module:
        seen.append(how | {"numbers": numbers, "start": [p.detach().clone() for p in student.parameters()]})
        return student.eval()

    monkeypatch.setattr(experiment, "taught", taught)
    monkeypatch.setattr(experiment, "accuracy", lambda *_: 0.0)
    experiment._accuracies(Bed(task, 2, 0.5, 0.1), None, 0)
    teacher, alone, *arms = seen
    for arm in (teacher, alone):
        assert set(arm["objectives"]) == {"labels", "decay"}
        assert arm["weights"] == {"decay": 5e-4}
    assert [arm["weights"] for arm in arms] == [
        {"labels": 0.1, "decay": 5e-4, "soft": 0.9},
        {"labels": 0.1, "decay": 5e-4, "low": 0.9, "high": 0.9},
        {"labels": 0.1, "decay": 5e-4, "low": 0.9},
    ]
    assert arms[1]["objectives"]["high"].temperature == 1.5
    for arm in (alone, *arms):
        assert arm["numbers"] == NUMBERS
        assert isinstance(arm["objectives"]["decay"], WeightPenalty)
        assert all(torch.equal(a, b) for a, b in zip(arm["start"], alone["start"], strict=True))
    assert [(bed.layers, bed.dropout, bed.labels, bed.tau) for bed in BEDS] == [(2, 0.5, 0.1, 1.5), (3, 0.6, 0.4, 1.5)]
