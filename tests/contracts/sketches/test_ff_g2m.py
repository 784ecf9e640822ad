"""A multilayer perceptron learns from a graph network, edge by edge; without the graph at run time.

Source: Wu et al., "Extracting Low-/High-Frequency Knowledge from Graph Neural Networks and Injecting it into MLPs",
AAAI 2023, arXiv:2305.10758. Shows: examples that are connected, a loss over sets, a teacher that needs the whole graph.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.method import Method
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.objectives.labels import Labels
from compress.training.fit import fit


def low_frequency(student: Tensor, teacher: Tensor, edges: Tensor) -> Tensor:
    """KL(teacher at the target || student at the source): (N, C) logits, (2, E) edges with loops -> (E,)."""
    log_p, log_q = teacher[edges[1]].log_softmax(1), student[edges[0]].log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def high_frequency(student: Tensor, teacher: Tensor, edges: Tensor, tau: float) -> Tensor:
    """KL between the patterns of differences along edges: (2, E) edges without loops -> (E,)."""
    gap_t, gap_s = ((z[edges[0]] - z[edges[1]]).abs() / tau for z in (teacher, student))
    log_p, log_q = gap_t.log_softmax(1), gap_s.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


class Low(Objective):
    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        loops = torch.arange(len(batch)).expand(2, -1)
        return low_frequency(student.output, teacher.output, torch.cat([batch.common["edges"], loops], dim=1))


class High(Objective):
    def __init__(self, tau: float = 1.5) -> None:
        super().__init__()
        self.tau = tau

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        return high_frequency(student.output, teacher.output, batch.common["edges"], self.tau)


METHOD = Method(
    source="arXiv:2305.10758",
    objectives={"labels": Labels, "low": Low, "high": High},
    weights={"labels": 0.4, "low": 0.6, "high": 0.6},
)


@dataclass(frozen=True)
class Nodes:
    """Nodes of one graph; a batch carries the edges inside it, numbered by their places in the batch."""

    features: Tensor
    labels: Tensor
    edges: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, index: Tensor) -> Batch:
        place = torch.full((len(self),), -1)
        place[index] = torch.arange(len(index))
        edges = place[self.edges]
        inside = edges[:, (edges >= 0).all(dim=0)]
        return Batch((self.features[index],), self.labels[index], index, common={"edges": inside})

    def fingerprint(self) -> str:
        return "graph"


class Propagation(Teacher):
    """Averages what the neighbours are: needs edges, which the student does not get."""

    cacheable = True
    fingerprint = "propagation"

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def observe(self, batch: Batch) -> Signals:
        assert batch.labels is not None
        votes, edges = F.one_hot(batch.labels, self._classes).float(), batch.common["edges"]
        return Signals(2 * (votes + torch.zeros_like(votes).index_add_(0, edges[0], votes[edges[1]])))


class NodeTask(Task):
    name = "nodes"
    labels = ("a", "b")
    input_shape = (4,)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Linear(4, 2)


def graph() -> Nodes:
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    features = torch.randn(40, 4, generator=source) + labels[:, None]
    ring = torch.stack([torch.arange(40), (torch.arange(40) + 2) % 40])  # neighbours share the class
    return Nodes(features, labels, torch.cat([ring, ring.flip(0)], dim=1))


H = torch.tensor([[2.0, 0, -1], [1, 1, 0], [-1, 0, 2]], dtype=torch.float64)
Z = torch.eye(3, dtype=torch.float64)
PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
DIGIT = 5e-10  # half of the last digit given


def test_reference_values() -> None:
    loops = torch.arange(3).expand(2, -1)
    assert low_frequency(Z, H, torch.cat([PATH, loops], 1)).mean().item() == pytest.approx(0.399285006, abs=DIGIT)
    assert low_frequency(Z, H, loops).mean().item() == pytest.approx(0.159511811, abs=DIGIT)
    assert high_frequency(Z, H, PATH, 1.0).mean().item() == pytest.approx(0.181836122, abs=DIGIT)
    assert high_frequency(Z, H, PATH, 1.5).mean().item() == pytest.approx(0.087157969, abs=DIGIT)


def test_renumbering_the_nodes_changes_nothing() -> None:
    nodes, order = graph(), torch.randperm(40)
    whole, shuffled = nodes.batch(torch.arange(40)), nodes.batch(order)
    teacher, clock = Propagation(2), Clock("p", 0, 1, 0, 1)
    student = torch.randn(40, 2)
    for objective in (Low(), High()):
        first = objective(Signals(student), teacher.observe(whole), whole, clock).mean()
        second = objective(Signals(student[order]), teacher.observe(shuffled), shuffled, clock).mean()
        torch.testing.assert_close(first, second)


def test_trains_on_the_whole_graph_and_needs_none_afterwards() -> None:
    nodes = graph()
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    alone = TensorExamples(nodes.features, nodes.labels, "validation without edges")
    outcome = fit(
        method=METHOD,
        students={"student": student},
        teachers={"teacher": Propagation(2)},
        objectives={"labels": Labels(), "low": Low(), "high": High()},
        weights={},
        splits=Splits(nodes, alone, alone),
        task=NodeTask(),
        numbers=TrainingNumbers(epochs=60, batch_size=len(nodes), learning_rate=2e-2),
        seed=0,
        precision="fp32",
    )
    assert outcome.steps == 60  # one full batch an epoch
    assert outcome.validation is not None
    assert outcome.validation > 0.75  # half is chance
    assert outcome.curve[-1].terms["low"] < outcome.curve[0].terms["low"]


def test_smaller_batches_keep_the_edges_inside_them() -> None:
    parts: Iterator[Batch] = (graph().batch(index) for index in torch.arange(40).split(10))
    assert [part.common["edges"].shape[1] for part in parts] == [16, 16, 16, 16]  # 8 pairs, both directions
