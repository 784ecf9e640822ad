"""FF-G2M against its GNN teacher, GLNN and labels alone, on Cora and CiteSeer with the public split.

Source: Wu et al., AAAI 2023, arXiv:2305.10758, table 1 (transductive, GCN teacher); GLNN: Zhang, Liu, Sun, Shah,
"Graph-less Neural Networks", ICLR 2022, arXiv:2110.08727.

Depth, dropout, tau and lambda are those of the official configuration, with 128 hidden units instead of 512 and 256.
Where the official code trains up to 500 epochs by Adam with patience 50, all arms here train 200 by the shipped loop
(one cycle), and keep the epoch with the best validation accuracy, as there. The weight decay is the official one, 5e-4
as a part of the gradient, for all arms.

The setting was settled after test figures had been seen. At first AdamW's own decay stood in for Adam's: with 0.5 all
arms were 2 to 8 points below the specification's pilot (FF-G2M 68.3 on CiteSeer, five seeds), with 5 students on Cora
fell below their teacher. The official decay took its place because the official optimiser, Adam with patience 50, gave
73.6 on the same bed with seed 0, and this loop with that decay 74.8. Nothing else was changed or searched.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from compress import graphs
from compress.citation_graphs import CitationGraph
from compress.contracts.examples import Splits
from compress.contracts.experiment import Experiment, Figures, Finding, Results
from compress.contracts.objective import Objective
from compress.contracts.task import TrainingNumbers
from compress.graph_network import NodeClassifier, gcn
from compress.graphs import Graph, Nodes, WholeGraph
from compress.methods.ff_g2m import METHOD
from compress.objectives.known_labels import KnownLabels
from compress.objectives.labels import Labels
from compress.objectives.neighbourhood import HighFrequency, LowFrequency
from compress.objectives.soft_targets import SoftTargets
from compress.objectives.weight_penalty import WeightPenalty
from compress.privileged import PrivilegedModel, told_splits
from compress.reproduction.bed import accuracy, answers, seeded, taught
from compress.reproduction.paired import Paired, by_mean, paired, shown
from compress.strategies.graph_edges import GraphEdges
from compress.tasks.citeseer import TASK as CITESEER
from compress.tasks.cora import TASK as CORA
from compress.teachers.remembered import RememberedTeacher

WIDTH, EPOCHS = 128, 200
NUMBERS = TrainingNumbers(EPOCHS, batch_size=4096, learning_rate=1e-2, weight_decay=0.0, keep_best=True)
DECAY = 5e-4
TEACHER, LABELS, NODE_WISE, FULL, LOW = "GCN teacher", "labels alone", "GLNN", "FF-G2M", "low alone"


@dataclass(frozen=True)
class Bed:
    """One graph with its official configuration for a GCN teacher.

    Attributes:
        layers: of teacher and student.
        dropout: of the student; the teacher's is 0.5.
        labels: the weight of the labels, lambda.
    """

    task: CitationGraph
    layers: int
    dropout: float
    labels: float
    tau: float = 1.5

    @property
    def column(self) -> str:
        """Of the table."""
        return f"{type(self.task).__name__} accuracy, %"

    def sizes(self) -> tuple[int, ...]:
        """Features, hidden units, classes."""
        return (*self.task.input_shape, *[WIDTH] * (self.layers - 1), len(self.task.labels))


BEDS = (Bed(CITESEER, 2, 0.5, 0.1), Bed(CORA, 3, 0.6, 0.4))


def perceptron(sizes: Sequence[int], dropout: float) -> nn.Module:
    """Linear layers with ReLU and dropout between them; the first one also takes sparse features."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.ReLU(), nn.Dropout(dropout)] if layers else []
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


def sparse(splits: Splits) -> Splits:
    """The same nodes with sparse rows that sum to 1: students here have no front-end."""

    def scaled(graph: Graph) -> Graph:
        return replace(graph, features=graph.scaled)

    parts = [replace(part, graph=scaled(part.graph), sparse=True) for part in _nodes(splits)]
    whole = splits.named()[graphs.STREAM]
    assert isinstance(whole, WholeGraph)
    stream = replace(whole, graph=scaled(whole.graph), sparse=True)
    return Splits(parts[0], parts[1], parts[2], ((graphs.STREAM, stream),))


def run(data: Path | None, seed: int, say: Callable[[str], None]) -> Figures:
    """Both graphs with one seed."""
    figures: dict[str, dict[str, float]] = {}
    for bed in BEDS:
        for arm, score in _accuracies(bed, data, seed).items():
            figures.setdefault(arm, {})[bed.column] = score
    said = ", ".join(f"{arm} {' / '.join(f'{value:.1f}' for value in row.values())}" for arm, row in figures.items())
    say(f"seed {seed}: {said}")
    return figures


def _accuracies(bed: Bed, data: Path | None, seed: int) -> dict[str, float]:
    splits = bed.task.load(data)
    ours, theirs = sparse(splits), told_splits(sparse(splits), graphs.PRIVILEGED)
    network = seeded(seed, lambda: NodeClassifier(gcn(bed.sizes(), 0.5)))
    teacher = _supervised(PrivilegedModel(nn.Identity(), network, 1), theirs, bed, seed)
    scores = {TEACHER: accuracy(teacher, theirs.test, bed.task)}
    known = RememberedTeacher({name: answers(teacher, theirs.named()[name]) for name in ("train", graphs.STREAM)})

    scores[LABELS] = accuracy(_supervised(_student(bed, seed), ours, bed, seed), ours.test, bed.task)
    low, high = LowFrequency(), HighFrequency(bed.tau)
    arms: Mapping[str, Mapping[str, Objective]] = {
        NODE_WISE: {"soft": SoftTargets(temperature=1.0)},
        FULL: {"low": low, "high": high},
        LOW: {"low": low},
    }
    for arm, terms in arms.items():
        student = taught(
            _student(bed, seed),
            ours,
            NUMBERS,
            seed,
            method=METHOD if arm == FULL else None,
            objectives={"labels": KnownLabels(), "decay": WeightPenalty(), **terms},
            weights={"labels": bed.labels, "decay": DECAY, **dict.fromkeys(terms, 1.0 - bed.labels)},
            teachers={"teacher": known},
            strategy=GraphEdges(),
            task=bed.task,
        )
        scores[arm] = accuracy(student, ours.test, bed.task)
    return scores


def _supervised(network: nn.Module, splits: Splits, bed: Bed, seed: int) -> nn.Module:
    """Trained on the labelled nodes alone, with the decay of all arms."""
    return taught(
        network,
        splits,
        NUMBERS,
        seed,
        objectives={"labels": Labels(), "decay": WeightPenalty()},
        weights={"decay": DECAY},
        teachers={"teacher": RememberedTeacher({"train": torch.zeros(len(splits.train), len(bed.task.labels))})},
        task=bed.task,
    )


def _student(bed: Bed, seed: int) -> nn.Module:
    """The same initial weights for every arm of a seed."""
    return seeded(seed, lambda: perceptron(bed.sizes(), bed.dropout))


def judge(results: Results) -> Sequence[Finding]:
    """The specification's criteria, all of the mean of five seeds."""

    def gap(first: str, second: str, bed: Bed) -> Paired:
        return paired(results.of(first, bed.column), results.of(second, bed.column))

    citeseer, cora = BEDS
    findings = []
    for bed in BEDS:
        name = type(bed.task).__name__
        found = gap(NODE_WISE, LABELS, bed)
        findings.append(Finding(f"{name}: GLNN - labels alone >= 8 points", str(found), by_mean(found, 8.0)))
        found = gap(FULL, TEACHER, bed)
        findings.append(Finding(f"{name}: FF-G2M >= its teacher", str(found), by_mean(found, 0.0)))
    found = gap(FULL, NODE_WISE, citeseer)
    findings.append(Finding("CiteSeer: FF-G2M >= GLNN + 0.3", str(found), by_mean(found, 0.3)))
    found = gap(FULL, NODE_WISE, cora)
    findings.append(Finding("Cora: FF-G2M >= GLNN - 0.5", str(found), by_mean(found, -0.5)))
    for bed in BEDS:
        found = gap(FULL, LOW, bed)
        aside = f"{type(bed.task).__name__}: FF-G2M above its low frequencies alone"
        findings.append(Finding(aside, str(found), shown(found), decides=False))
    return findings


def _nodes(splits: Splits) -> list[Nodes]:
    parts = [splits.train, splits.val, splits.test]
    assert all(isinstance(part, Nodes) for part in parts)
    return [part for part in parts if isinstance(part, Nodes)]


EXPERIMENT = Experiment(
    source="arXiv:2305.10758, table 1",
    claim="A perceptron that learns a GNN's low and high frequencies beats one that copies its outputs, and the GNN.",
    bed=(
        "Cora and CiteSeer, public split (20 labels per class, 500 for validation, 1,000 tested); GCN teacher and "
        f"perceptrons of {WIDTH} hidden units, {BEDS[1].layers} layers on Cora and {BEDS[0].layers} on CiteSeer; "
        f"{EPOCHS} full-batch epochs for all with a weight decay of {DECAY:g} in the gradient, the best by validation"
        " kept"
    ),
    data="citation_graphs",
    columns=tuple(bed.column for bed in BEDS),
    reference=NODE_WISE,
    seeds=5,
    run=run,
    judge=judge,
)
