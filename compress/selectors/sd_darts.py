"""Differentiable search of a cell, with a supernet that is taught by its own past.

Source: Zhu, Li, Liu, Wang, "Improving Differentiable Architecture Search via Self-Distillation", arXiv:2302.05629
(only its abstract was open; what it leaves out is proposed); Liu, Simonyan, Yang, "DARTS", arXiv:1806.09055.

A supernet of the space "cells" mixes all operations on every edge. Its weights learn one part of the training data, the
mixtures another; beside the labels, the weights follow the vote of the supernet's newest snapshots, one per epoch. The
strongest operations are then the cell, which is put into the largest networks that the budget admits; a few are trained
briefly, and beside them the largest student of the other spaces, which no supernet had to find (proposed). What the
supernet costs is charged to the search: see `selection.skeletons.training_share`.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from compress.contracts.examples import Examples
from compress.contracts.selector import Candidate, Problem, Selection, Trial
from compress.diagnostics.discretisation import discretisation
from compress.diagnostics.sharpness import sam_sharpness, top_eigenvalue
from compress.errors import RecipeError
from compress.objectives.votes import vote_divergence
from compress.selection.bilevel import first_order, second_order
from compress.selection.differentiable import EpochLog, Halves, SearchNumbers, halves, labels_of, search
from compress.selection.skeletons import (
    LEAST_EPOCHS,
    STEP,
    affordable,
    by_size,
    interleaved,
    largest,
    multiply_accumulates,
    operation_latencies,
    passes_per_pair,
    proxy_of,
    reference_macs,
    training_share,
    walk_down,
)
from compress.spaces.cells import Cells
from compress.structure.cell_network import SKIP, Nodes, Skeleton, edges_of
from compress.structure.statistics import frozen_statistics
from compress.structure.supernet import Supernet, genotypes, skips
from compress.tally import Tally
from compress.teachers.snapshots import SnapshotBank, hard_vote, soft_vote

SPACE = "cells"
JUDGED = 1_000  # validation examples for the gap, drawn from the seed
AT_ONCE = 100  # of them in one forward pass: a supernet's maps are large
ITERATIONS = 10  # of the power iteration
RADIUS_WEIGHTS, RADIUS_ALPHA = 0.5, 0.1
LEAST_BATCHES = 4  # of each half per epoch, unless the data are smaller
FAMILIES = 6  # depths and reductions that a derived cell is tried in
PICKS = 2  # most probable cells that are tried


class Past:
    """The vote of the newest snapshots, one taken after each epoch."""

    def __init__(self, size: int, temperature: float, vote: Callable[[Sequence[Tensor]], Tensor]) -> None:
        self._bank, self._temperature, self._vote = SnapshotBank(size), temperature, vote

    def term(self, features: Tensor, logits: Tensor) -> Tensor | None:
        """(B,) nats; None before the first snapshot."""
        found = self._bank.probabilities(features, self._temperature)
        return vote_divergence(logits, self._vote(found), self._temperature) if found else None

    def after_step(self, supernet: Supernet) -> None:
        """Nothing: snapshots are of epochs."""

    def after_epoch(self, supernet: Supernet) -> None:
        """Take a snapshot."""
        self._bank.push(supernet)


@final
@dataclass(frozen=True)
class SDDarts:
    """The settings, with the numbers of the effect experiment (`tools/effects/sd_darts.py`) as defaults.

    Attributes:
        weight: of the self-distillation against the labels, lambda; 0 is plain DARTS.
        temperature: of both, tau.
        snapshots: that vote, K; 0 is plain DARTS.
        hard_votes: each snapshot gives its whole vote to one class; otherwise their probabilities are averaged.
        teach_alpha: whether the mixtures follow the vote, too.
        unrolled: second-order gradients of the mixtures: four times the work of the first order for them.
        latency_weight: mu, nats per ms: adds mu * sum over edges and operations of share * latency to the loss of the
            mixtures. The budget holds with 0 as well.
        epochs, batch_size, rate, alpha_rate: of the supernet.
        search_channels: width of the supernet's first stage at most.
        supernet_part: of the trainings that may be spent, the most that the supernet takes.
        finalists: candidates that are trained briefly, the largest student of the pool among them; below 2 there is
            nobody to compare with, and the largest network of the strongest cell is taken.
        share: of the full training for each finalist, less where the rest of the budget is less.
        sharp: validation examples that the report's sharpness is measured on; 0 leaves it out. It is charged as well:
            with 128, as much as 1,000 pairs of training examples, too much where about one training may be spent.
    """

    weight: float = 1.0
    temperature: float = 1.0
    snapshots: int = 3
    hard_votes: bool = False
    teach_alpha: bool = False
    unrolled: bool = False
    latency_weight: float = 0.0
    epochs: int = 24
    batch_size: int = 64
    rate: float = 0.05
    alpha_rate: float = 3e-3
    search_channels: int = 16
    supernet_part: float = 0.6
    finalists: int = 4
    share: float = 0.1
    sharp: int = 128

    def __post_init__(self) -> None:
        positive = ("temperature", "epochs", "batch_size", "rate", "alpha_rate", "search_channels")
        wrong = [name for name in positive if not 0 < getattr(self, name) < math.inf]
        wrong += [
            name
            for name in ("weight", "snapshots", "latency_weight", "finalists", "sharp")
            if not 0 <= getattr(self, name) < math.inf
        ]
        wrong += [name for name in ("supernet_part", "share") if not 0 < getattr(self, name) <= 1]
        if wrong:
            raise RecipeError(
                f"sd_darts has {', '.join(f'{name} = {getattr(self, name)}' for name in wrong)}",
                fix="rates, counts and the temperature are above 0; supernet_part and share are in (0, 1]; weights,"
                " snapshots, finalists and sharp are 0 or more",
            )

    def __call__(self, problem: Problem) -> Selection:
        """The tried candidates by score, the other admitted cells and the pool by capacity, the rejected last.

        Raises:
            RecipeError: no space "cells", a task that is no classification, or too little training for any supernet.
        """
        space = cells_of(problem)
        known: dict[str, Candidate] = {}

        def admit(skeleton: Skeleton, nodes: Nodes) -> Candidate:
            candidate = problem.admit(SPACE, space.plan(skeleton, nodes))
            return known.setdefault(candidate.identity, candidate)

        sizes = largest(space.skeletons(), reference_cell(space), admit)
        if not sizes:
            smallest = space.smallest(), reference_cell(space)
            undecided = torch.zeros(len(edges_of(len(smallest[1]))), len(space.operations))
            if walk_down(*smallest, undecided, space.operations, admit).rejected:
                return Selection(ranked(problem, known), {"sd_darts": "the smallest cells are over the budget"})
        skeleton = sizes[0].plan.skeleton if sizes else space.smallest()
        unit = reference_macs(problem.pool, known.values())
        supernet, examples, logs, notes = self.trained(problem, space, skeleton, unit, admit)

        field: list[list[Candidate]] = []
        for nodes in genotypes(supernet.alpha, space.operations, count=PICKS):
            likely = {(c.plan.stem_stride, c.plan.cells) for c in sizes[:FAMILIES]}
            around = [s for s in space.skeletons() if (s.stem_stride, s.cells) in likely]
            fitting = largest(around, nodes, admit)
            if not fitting:
                lowest = walk_down(space.smallest(), nodes, supernet.alpha, space.operations, admit)
                fitting = [lowest] if lowest.rejected is None else []
            field.append(fitting)
        tried = self.tried(problem, self.contenders(problem, interleaved(field)))
        for candidate in tried:
            known[candidate.identity] = candidate
        first = genotypes(supernet.alpha, space.operations)[0]
        notes |= described(problem, supernet, first, examples, logs, self.sharp)
        order = [candidate.identity for candidate in (*tried, *interleaved(field))]
        return Selection(ranked(problem, known, tuple(dict.fromkeys(order))), {"sd_darts": notes})

    def trained(
        self,
        problem: Problem,
        space: Cells,
        skeleton: Skeleton,
        unit: float,
        admit: Callable[[Skeleton, Nodes], Candidate],
    ) -> tuple[Supernet, Halves, list[EpochLog], dict[str, Any]]:
        """Charge the problem for a supernet that its budget affords, and train it."""
        proxy = proxy_of(skeleton, space.widths, self.search_channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(problem.seed)
            supernet = Supernet(proxy, space.shape, space.outputs, space.operations)
        macs = multiply_accumulates(supernet, torch.zeros(1, *space.shape))
        length = len(problem.splits.train)
        judged = min(JUDGED, len(problem.splits.val))
        judging = judged + min(self.sharp, judged) * (2 * (STEP + 1) + STEP + 2 * STEP * ITERATIONS)

        def price(count: int, epochs: int) -> float:
            passes = count / 2 * epochs * passes_per_pair(self.voters, self.unrolled) + judging
            return training_share(macs, passes, unit, length, problem.epochs)

        allowed = self.supernet_part * (problem.training - problem.spent)
        count, epochs = affordable(
            price, allowed, length, min(length, 2 * LEAST_BATCHES * self.batch_size), self.epochs
        )
        if count == 0:
            least = price(min(length, 2 * LEAST_BATCHES * self.batch_size), LEAST_EPOCHS) / self.supernet_part
            raise RecipeError(
                f"sd_darts may spend {problem.training - problem.spent:.3g} full trainings, and the smallest supernet"
                f" that is worth training needs {least:.3g}",
                fix="allow the search more training, lower search_channels, batch_size and sharp, or choose another"
                " selector (halving)",
            )
        share = price(count, epochs)
        problem.charge(share, "supernet")
        penalty, latencies = None, None
        if self.latency_weight > 0.0:
            latencies = operation_latencies(skeleton, space.operations, supernet.nodes, admit)
            per_operation = torch.tensor(latencies)

            def penalty(mixture: Tensor) -> Tensor:
                return self.latency_weight * (mixture * per_operation.to(mixture.device)).sum()

        supernet.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        parts = halves(count, length, problem.seed)
        numbers = SearchNumbers(
            epochs=epochs,
            batch_size=self.batch_size,
            rate=self.rate,
            alpha_rate=self.alpha_rate,
            alpha_gradient=second_order if self.unrolled else first_order,
            teach_alpha=self.teach_alpha,
        )
        past = Past(self.voters, self.temperature, hard_vote if self.hard_votes else soft_vote)
        frontend = problem.task.frontend()
        train = problem.splits.train
        logs = search(
            supernet,
            frontend,
            problem.task,
            train,
            parts,
            numbers,
            seed=problem.seed,
            teacher=past if self.voters else None,
            weight=self.weight,
            penalty=penalty,
        )
        notes: dict[str, Any] = {
            "proxy": dataclasses.asdict(proxy),
            "supernet_macs": macs,
            "reference_macs": unit,
            "examples": count,
            "epochs": epochs,
            "charged": share,
            "rule": "work of the supernet / (3 passes of the median affordable student over every training example,"
            f" {problem.epochs} epochs)",
            "operation_latencies_ms": None
            if latencies is None
            else dict(zip(space.operations, latencies, strict=True)),
        }
        return supernet, parts, logs, notes

    @property
    def voters(self) -> int:
        """Snapshots that are asked at every step."""
        return self.snapshots if self.weight > 0.0 else 0

    def contenders(self, problem: Problem, cells: Sequence[Candidate]) -> list[Candidate]:
        """Whom to train briefly: the first of these cells, and behind them the largest student of the pool."""
        known = {cell.identity for cell in cells}
        others = (c for c in sorted(problem.pool, key=by_size) if c.rejected is None and c.identity not in known)
        rivals = list(itertools.islice(others, 1))
        return [*cells[: max(0, self.finalists - len(rivals))], *rivals]

    def tried(self, problem: Problem, field: Sequence[Candidate]) -> list[Candidate]:
        """Train the field briefly with what is left of the budget; best first, diverged last."""
        if min(len(field), self.finalists) < 2:  # nobody to compare with
            return []
        share = min(self.share, (problem.training - problem.spent) / len(field))
        if share <= 0.0:
            return []
        outcomes = problem.train([Trial(candidate, share) for candidate in field])
        scored = [
            dataclasses.replace(candidate, score=outcome.score, fidelity=share)
            for candidate, outcome in zip(field, outcomes, strict=True)
        ]
        return sorted(scored, key=by_score)


def cells_of(problem: Problem) -> Cells:
    """The space that the search works on.

    Raises:
        RecipeError: there is none, or the task has no classes.
    """
    if problem.task.kind != "classification":
        raise RecipeError(
            f"sd_darts searches by votes on classes, and the task {problem.task.name!r} is {problem.task.kind}",
            fix="choose another selector, such as halving",
        )
    space = problem.spaces.get(SPACE)
    if not isinstance(space, Cells):
        raise RecipeError(
            f"sd_darts searches the space {SPACE!r} alone; here there are {', '.join(problem.spaces) or 'none'}",
            fix=f'add "{SPACE}" to select.spaces, or choose another selector, such as halving',
        )
    return space


def reference_cell(space: Cells) -> Nodes:
    """A cell of middling cost that stands for those to come: two convolutions in a row, wires around them."""
    name = next(name for name in ("separable_3x3", "conv_3x3") if name in space.operations)
    return (((0, name),), ((0, SKIP), (1, name)), ((0, name), (2, SKIP)))


def by_score(candidate: Candidate) -> tuple[float, float]:
    """Sorts the best score first, ties to the larger network, a training that diverged last."""
    score = candidate.score
    return (math.inf if score is None or math.isnan(score) else -score, by_size(candidate)[0])


def ranked(problem: Problem, known: dict[str, Candidate], first: Sequence[str] = ()) -> tuple[Candidate, ...]:
    """Everybody: those in `first`, by identity, then the rest by capacity, then the rejected."""
    everyone = {candidate.identity: candidate for candidate in problem.pool} | known
    ahead = [everyone.pop(identity) for identity in first]
    rest = sorted(everyone.values(), key=by_size)
    return (*ahead, *(c for c in rest if c.rejected is None), *(c for c in rest if c.rejected is not None))


def described(
    problem: Problem, supernet: Supernet, nodes: Nodes, parts: Halves, logs: Sequence[EpochLog], sharp: int
) -> dict[str, Any]:
    """What the report says of the search: figures on validation data, and the course of the losses.

    Args:
        sharp: examples for the sharpness; 0 leaves it out.
    """
    x, y = _features(problem, problem.splits.val, JUDGED, supernet.alpha.device)

    def score(network: nn.Module) -> float:
        found = Tally(problem.task)
        with torch.no_grad():
            for part, answers in zip(torch.split(x, AT_ONCE), torch.split(y, AT_ONCE), strict=True):
                found.add(network(part), answers)
        return found.value()

    found = discretisation(supernet.eval(), nodes, score)
    supernet.train()
    sharpness = sharpness_of(supernet, problem, x[:sharp], y[:sharp]) if sharp else {}
    return {
        "cell": [[list(edge) for edge in kept] for kept in nodes],
        "mixture": {
            "operations": list(supernet.operations),
            "shares": torch.softmax(supernet.alpha.detach(), dim=1).cpu().tolist(),
        },
        "supernet_score": found.supernet,
        "discrete_score": found.discrete,
        "gap": found.gap,
        "skips": skips(nodes),
        "weights_examples": len(parts.weights),
        "alpha_examples": len(parts.alpha),
        **sharpness,
        "epochs_log": [dataclasses.asdict(log) for log in logs],
    }


def sharpness_of(supernet: Supernet, problem: Problem, x: Tensor, y: Tensor) -> dict[str, float]:
    """How much a small step of the weights or mixtures may add to the loss of these examples, and how it curves."""
    with frozen_statistics(supernet):

        def loss() -> Tensor:
            return problem.task.loss(supernet(x), y).mean()

        return {
            "sharpness_weights": sam_sharpness(loss, supernet.weights(), RADIUS_WEIGHTS),
            "sharpness_alpha": sam_sharpness(loss, [supernet.alpha], RADIUS_ALPHA),
            "top_eigenvalue_alpha": top_eigenvalue(loss, [supernet.alpha], ITERATIONS, problem.seed),
        }


def _features(problem: Problem, examples: Examples, most: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features and labels of random examples: data may be sorted by class."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(problem.seed))
    batch = examples.batch(order[:most]).to(device)
    with torch.no_grad():
        return problem.task.frontend().to(device).eval()(*batch.inputs), labels_of(batch)


SELECTOR = SDDarts
