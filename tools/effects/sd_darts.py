"""Does a supernet that is taught by its own past lie in a flatter place, and lose less when it is made discrete?

    python -m tools.effects.sd_darts [--seeds 5] [--data ../shared/data/fashion_mnist] [--json FILE]

The experiment: Fashion-MNIST at 14x14, 1,200 pictures for the weights and 1,200 for the architecture, 2 cells of 6
edges with {none, skip, 3x3 convolution}, 8 channels, batches of 64, 24 epochs, SGD at 0.05, Adam at 3e-3 for the
architecture, a snapshot per epoch, soft vote, the term on the weights alone. Rows: plain DARTS; one and three
snapshots; controls that the claim has to be told apart from: a teacher that is the moving average of the weights, ten
times the weight decay, and cells drawn at random. All rows of a seed share data, first weights and order.

The cells are DARTS' own form (ReLU, convolution, batch norm; a node is the plain sum; one input and the last node as
output, as in NAS-Bench-201), because that is what the claim is about; `--cell deployed` takes the form that students
of the space "cells" have.

Every figure is on 2,000 pictures that no search saw. "gap" is supernet minus discrete accuracy with all edges kept and
nothing trained anew; "recalibrated" the same after the discrete network's batch statistics were taken again from the
weights' data; "retrained" what the derived student (two edges per node, as deployed) reaches from fresh weights on all
2,400, beside which a student of random cells stands.
Sharpness is of the validation loss on 512 of them.

Verdict for three snapshots against none, paired by seed: *reproduced* if the gap is lower on at least 4 of 5 seeds,
mean sharpness in weights and in architecture is lower, and mean validation loss is not higher.
"""

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task
from compress.diagnostics.sharpness import adaptive_sharpness, sam_sharpness, top_eigenvalue
from compress.objectives.votes import vote_divergence
from compress.selection.differentiable import Halves, SearchNumbers, SelfTeacher, search
from compress.structure.cell_network import (
    CONVOLUTIONS,
    NONE,
    SKIP,
    CellNetwork,
    Nodes,
    Skeleton,
    edges_of,
    operation,
)
from compress.structure.statistics import frozen_statistics
from compress.structure.supernet import MixedCell, Supernet, entropy, genotypes, skips
from compress.tasks.fashion_mnist import TASK
from compress.teachers.ema import EMATeacher
from compress.teachers.snapshots import SnapshotBank, soft_vote

SHAPE = (1, 14, 14)
SKELETON = Skeleton(1, 8, (2,))
NODES = 3
EACH = 1_200  # pictures of each half
HELD_OUT = 2_000
SHARP = 512
RADIUS_W, RADIUS_ALPHA, RADIUS_ADAPTIVE = 0.5, 0.1, 0.1
RETRAIN_EPOCHS = 8
DECIDED = 50.0  # difference of logits that makes a mixture one-hot to 1e-21
NUMBERS = SearchNumbers(epochs=24, batch_size=64, rate=0.05, alpha_rate=3e-3)
EMA_DECAY = 0.965  # a memory of 28 steps: the mean age of three snapshots, 1.5 epochs of 19 steps


class Small(Task):
    """Fashion-MNIST in memory, made smaller beforehand; nothing is augmented."""

    name = "fashion_mnist_14"
    labels = TASK.labels
    input_shape = SHAPE

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        raise NotImplementedError


class DartsCell(nn.Module):
    """A mixed cell in the form of the source: operations begin with their ReLU, nodes are plain sums."""

    def __init__(self, operations: Sequence[str], nodes: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.operations, self.nodes = tuple(operations), nodes
        real = [name for name in operations if name not in (NONE, SKIP)]
        self.edges = nn.ModuleDict(
            {
                f"{source}_{node}": nn.ModuleDict(
                    {name: operation(name, channels, size, affine=False) for name in real}
                )
                for source, node in edges_of(nodes)
            }
        )

    def forward(self, x: Tensor, mixing: Tensor) -> Tensor:
        """x: (B, channels, H, W); mixing: (E, O)."""
        values, rows = [x], iter(mixing)
        for node in range(1, self.nodes + 1):
            total = torch.zeros_like(x)
            for source in range(node):
                weights, edge = next(rows), self.edges[f"{source}_{node}"]
                assert isinstance(edge, nn.ModuleDict)
                for name, weight in zip(self.operations, weights, strict=True):
                    if name == SKIP:
                        total = total + weight * values[source]
                    elif name in CONVOLUTIONS:
                        total = total + weight * edge[name](torch.relu(values[source]))
                    elif name != NONE:
                        total = total + weight * edge[name](values[source])
            values.append(total)
        return values[-1]


CELLS = {"darts": DartsCell, "deployed": MixedCell}


class Voters:
    """The newest snapshots, one per epoch, by the mean of their probabilities."""

    def __init__(self, size: int) -> None:
        self.bank = SnapshotBank(size)

    def term(self, features: Tensor, logits: Tensor) -> Tensor | None:
        found = self.bank.probabilities(features)
        return vote_divergence(logits, soft_vote(found)) if found else None

    def after_step(self, supernet: Supernet) -> None: ...

    def after_epoch(self, supernet: Supernet) -> None:
        self.bank.push(supernet)


class MovingAverage:
    """The control: one teacher that is the moving average of weights and architecture."""

    def __init__(self, supernet: Supernet) -> None:
        self.teacher = EMATeacher(supernet, EMA_DECAY, mode="train")

    def term(self, features: Tensor, logits: Tensor) -> Tensor | None:
        answer = self.teacher.observe(Batch((features,), None, torch.arange(len(features))))
        return vote_divergence(logits, torch.softmax(answer.output, dim=1))

    def after_step(self, supernet: Supernet) -> None:
        self.teacher.after_step({"student": supernet})

    def after_epoch(self, supernet: Supernet) -> None: ...


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    teacher: Callable[[Supernet], SelfTeacher | None]
    numbers: SearchNumbers = NUMBERS
    retrain: bool = False


VARIANTS = (
    Variant("0 (DARTS)", lambda supernet: None, retrain=True),
    Variant("1, K=3", lambda supernet: Voters(3), retrain=True),
    Variant("1, K=1", lambda supernet: Voters(1)),
    Variant("1, EMA weights", MovingAverage),
    Variant("0, decay x10", lambda supernet: None, replace(NUMBERS, weight_decay=10 * NUMBERS.weight_decay)),
)


@dataclass(frozen=True)
class Data:
    """Small pictures of one seed."""

    examples: TensorExamples
    halves: Halves
    held_out: tuple[Tensor, Tensor]


def pictures(splits: Splits, seed: int) -> Data:
    """2,400 training pictures drawn by the seed, and the first 2,000 of the validation split."""
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))[: 2 * EACH]
    frontend = TASK.frontend().eval()

    def small(part: Any, index: Tensor) -> tuple[Tensor, Tensor]:
        batch = part.batch(index)
        with torch.no_grad():
            return F.avg_pool2d(frontend(batch.inputs[0]), 2), batch.labels

    x, y = small(splits.train, order)
    index = torch.arange(2 * EACH)
    held_out = small(splits.val, torch.arange(HELD_OUT))
    return Data(TensorExamples(x, y, f"small {seed}"), Halves(index[:EACH], index[EACH:]), held_out)


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """In percent, with running statistics; the network's mode is restored."""
    training = network.training
    network.eval()
    with torch.no_grad():
        right = sum(int((network(a).argmax(dim=1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True))
    network.train(training)
    return 100.0 * right / len(y)


def loss_in_eval(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """Mean cross-entropy with running statistics."""
    network.eval()
    with torch.no_grad():
        total = sum(
            float(F.cross_entropy(network(a), b, reduction="sum"))
            for a, b in zip(x.split(500), y.split(500), strict=True)
        )
    network.train()
    return total / len(y)


def recalibrated(network: nn.Module, x: Tensor) -> nn.Module:
    """Batch statistics taken anew as the mean over batches."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    with torch.no_grad():
        for part in x.split(200):
            network(part)
    return network.eval()


def retrained(nodes: Nodes, data: Data, seed: int) -> float:
    """Accuracy in percent of fresh weights after a short training on all pictures of both halves."""
    torch.manual_seed(seed)
    network = CellNetwork(SKELETON, nodes, SHAPE, len(TASK.labels)).train()
    x, y = data.examples.inputs, data.examples.labels
    batches = -(-len(x) // NUMBERS.batch_size)
    sgd = torch.optim.SGD(network.parameters(), lr=NUMBERS.rate, momentum=0.9, weight_decay=3e-4)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, RETRAIN_EPOCHS * batches)
    source = torch.Generator().manual_seed(seed)
    for _ in range(RETRAIN_EPOCHS):
        for index in torch.randperm(len(x), generator=source).tensor_split(batches):
            sgd.zero_grad()
            F.cross_entropy(network(x[index]), y[index]).backward()
            sgd.step()
            rates.step()
    return accuracy(network, *data.held_out)


def random_nodes(operations: Sequence[str], seed: int) -> Nodes:
    """Cells of as many edges as derived ones have, wired and filled at random."""
    rng = random.Random(seed)
    kept = [sorted(rng.sample(range(node), min(2, node))) for node in range(1, NODES + 1)]
    return tuple(tuple((source, rng.choice([o for o in operations if o != "none"])) for source in s) for s in kept)


def decided(supernet: Supernet, nodes: Nodes) -> Supernet:
    """A copy whose mixtures are all but one-hot; an edge that is not kept is "none"."""
    made = copy.deepcopy(supernet)
    chosen = {(source, node): name for node, kept in enumerate(nodes, 1) for source, name in kept}
    with torch.no_grad():
        made.alpha.zero_()
        for row, edge in enumerate(edges_of(NODES)):
            made.alpha[row, supernet.operations.index(chosen.get(edge, NONE))] = DECIDED
    return made


def measured(
    variant: Variant, operations: Sequence[str], cell: str, data: Data, seed: int
) -> tuple[dict[str, float], Nodes]:
    """One search: all its figures, accuracies in percent and losses in nats; and the cell that it derived."""
    torch.manual_seed(seed)
    supernet = Supernet(SKELETON, SHAPE, len(TASK.labels), operations, NODES, CELLS[cell])
    task = Small()
    began = time.process_time()
    teacher = variant.teacher(supernet)
    logs = search(
        supernet, nn.Identity(), task, data.examples, data.halves, variant.numbers, seed=seed, teacher=teacher
    )
    search_s = time.process_time() - began
    all_edges = genotypes(supernet.alpha, operations, keep=NODES)[0]
    derived = genotypes(supernet.alpha, operations)[0]
    x, y = data.held_out
    mixed, discrete = accuracy(supernet, x, y), accuracy(decided(supernet, all_edges), x, y)
    ours = data.examples.inputs[data.halves.weights]
    again = accuracy(recalibrated(decided(supernet, all_edges), ours), x, y)
    at_random = accuracy(decided(supernet, every_edge_random(operations, seed)), x, y)
    with frozen_statistics(supernet):

        def loss() -> Tensor:
            return F.cross_entropy(supernet(x[:SHARP]), y[:SHARP])

        weights, alpha = supernet.weights(), [supernet.alpha]
        sharp = {
            "sharp w": sam_sharpness(loss, weights, RADIUS_W),
            "adaptive w": adaptive_sharpness(loss, weights, RADIUS_ADAPTIVE),
            "sharp alpha": sam_sharpness(loss, alpha, RADIUS_ALPHA),
            "top eigenvalue": top_eigenvalue(loss, alpha),
        }
    return {
        "supernet": mixed,
        "discrete": discrete,
        "gap": mixed - discrete,
        "gap recalibrated": mixed - again,
        **sharp,
        "val loss": loss_in_eval(supernet, x, y),
        "train loss": logs[-1].train_loss,
        "skips": float(skips(all_edges)),
        "entropy": entropy(supernet.alpha),
        "random discrete": at_random,
        "search CPU s": search_s,
    }, derived


def every_edge_random(operations: Sequence[str], seed: int) -> Nodes:
    """All edges, each with a random operation other than "none"."""
    rng = random.Random(seed)
    real = [name for name in operations if name != NONE]
    return tuple(tuple((source, rng.choice(real)) for source in range(node)) for node in range(1, NODES + 1))


def verdict(rows: Mapping[str, Sequence[Mapping[str, float]]]) -> tuple[str, str]:
    """The word, and what it rests on."""
    plain, three = rows["0 (DARTS)"], rows["1, K=3"]
    lower = sum(b["gap"] < a["gap"] for a, b in zip(plain, three, strict=True))

    def fell(name: str) -> bool:
        return mean(three, name) < mean(plain, name)

    needed = -(-4 * len(plain) // 5)
    facts = (
        f"gap lower on {lower} of {len(plain)} seeds; mean sharpness in w {'lower' if fell('sharp w') else 'higher'}, "
        f"in alpha {'lower' if fell('sharp alpha') else 'higher'}; "
        f"validation loss {mean(plain, 'val loss'):.3f} -> {mean(three, 'val loss'):.3f}"
    )
    whole = lower >= needed and fell("sharp w") and fell("sharp alpha")
    if whole and mean(three, "val loss") <= mean(plain, "val loss"):
        word = "reproduced" if len(plain) >= 5 else "inconclusive (fewer than 5 seeds)"
    else:
        word = "not reproduced at this scale"
    return word, facts


def mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """Over seeds."""
    return statistics.fmean(row[name] for row in rows)


def printed(rows: Mapping[str, Sequence[Mapping[str, float]]], names: Sequence[str]) -> str:
    """A table of means with standard deviations over seeds."""
    lines = [f"{'lambda, K':<16}" + "".join(f"{name:>18}" for name in names)]
    for variant, found in rows.items():
        cells = []
        for name in names:
            values = [row[name] for row in found]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.fmean(values):.4g} ({spread:.2g})".rjust(18))
        lines.append(f"{variant:<16}" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data" / "fashion_mnist"
    )
    parser.add_argument("--operations", default="none,skip,conv_3x3", help="for S2: skip,separable_3x3")
    parser.add_argument("--cell", choices=tuple(CELLS), default="darts")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    operations = options.operations.split(",")
    splits = TASK.load(options.data)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    data = {seed: pictures(splits, seed) for seed in seeds}
    rows: dict[str, list[dict[str, float]]] = {}
    derived: dict[tuple[str, int], Nodes] = {}
    for variant in VARIANTS:
        rows[variant.name] = []
        for seed in seeds:
            row, derived[variant.name, seed] = measured(variant, operations, options.cell, data[seed], seed)
            rows[variant.name].append(row)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in row.items())
            print(f"seed {seed} {variant.name:<14} {shown}", flush=True)
        if len(rows) == 2:
            print("{}: {}".format(*verdict(rows)), flush=True)
    students = {"random": [retrained(random_nodes(operations, seed), data[seed], seed) for seed in seeds]} | {
        variant.name: [retrained(derived[variant.name, seed], data[seed], seed) for seed in seeds]
        for variant in VARIANTS
        if variant.retrain
    }
    print(f"\n{options.seeds} seeds, mean (standard deviation); {options.cell} cells; 6 edges x {operations}\n")
    print(printed(rows, ("supernet", "discrete", "gap", "gap recalibrated", "sharp w", "adaptive w")), end="\n\n")
    print(printed(rows, ("sharp alpha", "top eigenvalue", "val loss", "train loss", "skips", "entropy")), end="\n\n")
    print(printed(rows, ("random discrete", "search CPU s")))
    for name, values in students.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"student of {name:<10} retrained: {statistics.fmean(values):.2f} ({spread:.2f})")
    word, facts = verdict(rows)
    print(f"K=3 against DARTS: {word}: {facts}")
    if options.json:
        content = {"rows": rows, "retrained": students, "verdict": word, "facts": facts}
        options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
