"""How like a teacher a student is before either is trained: DisWOT's two terms, over several draws of everything.

Source: Dong, Li, Wei, arXiv:2303.15678, "semantic" and "relation" similarity metrics. Proposed here: means over several
draws of (teacher's weights, batch, student's weights), as the channels of two random networks have no counterparts and
one draw is mostly luck; and terms that are compared by rank or z-score, as their plain sum is ruled by the larger one.
"""

import copy
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Examples
from compress.errors import RecipeError
from compress.selection.correlation import ranks
from compress.selection.initialise import initialise
from compress.selection.observation import observe
from compress.similarity import relation_distance, semantic_distance


@dataclass(frozen=True)
class Draw:
    """The teacher's side of one draw.

    Attributes:
        seed: of the student's weights.
        features: of the teacher's last map, (B, ...).
        gradient: of its classifier, (K, D), or why there is none.
    """

    seed: int
    inputs: tuple[Tensor, ...]
    labels: Tensor | None
    features: Tensor
    gradient: Tensor | str


@dataclass(frozen=True)
class Likeness:
    """A student's terms, each the mean over the draws; higher is more like the teacher.

    Attributes:
        relation: -M_r, <= 0; NaN where the features are not finite.
        semantic: -M_s, -4 to 0; NaN where `undefined` says why.
        relation_sd, semantic_sd: standard deviation over the draws; NaN for a single one.
    """

    relation: float
    semantic: float
    relation_sd: float
    semantic_sd: float
    undefined: str = ""


def batches(examples: Examples, size: int, count: int, seed: int, *, noise: bool) -> list[Batch]:
    """`count` batches of different examples.

    Args:
        examples: of the train split.
        size: of a batch; all examples where there are fewer.
        noise: normal noise with the mean and deviation of each batch instead of its inputs, as in the paper's own
            correlation experiments; labels stay.

    Raises:
        RecipeError: fewer than two examples, or noise in place of integers.
    """
    if len(examples) < 2:
        raise RecipeError("diswot compares examples with each other, and there are fewer than two", fix="add data")
    drawn = []
    for number in range(count):
        rng = random.Random(f"{seed}/diswot/{number}")
        batch = examples.batch(torch.tensor(rng.sample(range(len(examples)), min(size, len(examples)))))
        if noise:
            if not all(tensor.is_floating_point() for tensor in batch.inputs):
                raise RecipeError(
                    "noise cannot stand in for integers such as token ids",
                    fix="write noise = false, or another selector",
                )
            source = torch.Generator().manual_seed(rng.randrange(2**31))
            batch = batch.with_inputs(
                *(torch.randn(tensor.shape, generator=source) * tensor.std() + tensor.mean() for tensor in batch.inputs)
            )
        drawn.append(batch)
    return drawn


def draws(teacher: nn.Module, drawn: Sequence[Batch], init: str, seed: int) -> tuple[Draw, ...]:
    """The teacher's architecture with fresh weights, seen once per batch. The trained teacher is left as it is.

    Raises:
        RecipeError: no such initialiser, or a teacher with no features before its output.
    """
    network, found = copy.deepcopy(teacher), []
    for number, batch in enumerate(drawn):
        mix = random.Random(f"{seed}/weights/{number}")
        initialise(network, init, mix.randrange(2**31))
        seen = observe(network, batch.inputs)
        try:
            gradient: Tensor | str = seen.gradient(batch.labels)
        except RecipeError as error:
            gradient = error.what
        found.append(Draw(mix.randrange(2**31), batch.inputs, batch.labels, seen.features, gradient))
    return tuple(found)


def likeness(student: nn.Module, against: Sequence[Draw], init: str) -> Likeness:
    """Both terms of one student. Its weights are drawn anew, also those that it inherited.

    Raises:
        RecipeError: a student with no features before its output.
    """
    network, relations, semantics, why = copy.deepcopy(student), [], [], ""
    for draw in against:
        initialise(network, init, draw.seed)
        seen = observe(network, draw.inputs)
        relations.append(-float(relation_distance(seen.features, draw.features)))
        try:
            ours = seen.gradient(draw.labels)
            if isinstance(draw.gradient, str):
                why = f"of the teacher: {draw.gradient}"
            elif ours.shape != draw.gradient.shape:
                why = f"its classifier sees {ours.shape[1]} channels and the teacher's {draw.gradient.shape[1]}"
            else:
                semantics.append(-float(semantic_distance(ours, draw.gradient)))
        except RecipeError as error:
            why = error.what
    return Likeness(mean(relations), mean(semantics), deviation(relations), deviation(semantics), why)


def mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return statistics.fmean(values) if values else math.nan


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample, NaN below two values or where one of them is."""
    return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan


def rank_shares(values: Sequence[float]) -> list[float]:
    """0 for the lowest, 1 for the highest, 0.5 where all are equal or one is alone; what is not finite becomes NaN."""
    known = [value for value in values if math.isfinite(value)]
    places = iter(ranks(known)) if known else iter(())
    last = max(1, len(known) - 1)
    middle = 0.5 if len(known) == 1 else 0.0
    return [middle + (float(next(places)) - 1) / last if math.isfinite(value) else math.nan for value in values]


def z_scores(values: Sequence[float]) -> list[float]:
    """Deviations from the mean over the standard deviation, 0 where all are equal; what is not finite becomes NaN."""
    known = [value for value in values if math.isfinite(value)]
    centre, spread = (statistics.fmean(known), statistics.pstdev(known)) if known else (0.0, 0.0)
    return [(value - centre) / (spread or 1.0) if math.isfinite(value) else math.nan for value in values]


def by_mean(shares: Callable[[Sequence[float]], list[float]]) -> Callable[[Sequence[Likeness]], list[float]]:
    """The mean of the terms that a student has, each against all students that have it."""

    def totals(pool: Sequence[Likeness]) -> list[float]:
        relation, semantic = shares([one.relation for one in pool]), shares([one.semantic for one in pool])
        return [
            -math.inf if math.isnan(one) else one if math.isnan(other) else 0.5 * (one + other)
            for one, other in zip(relation, semantic, strict=True)
        ]

    return totals


def plain_sum(pool: Sequence[Likeness]) -> list[float]:
    """The paper's unit weights; relations alone where a student of the pool has no semantic term."""
    both = all(math.isfinite(one.semantic) for one in pool)
    sums = [one.relation + one.semantic if both else one.relation for one in pool]
    return [value if math.isfinite(value) else -math.inf for value in sums]


COMBINED: Mapping[str, Callable[[Sequence[Likeness]], list[float]]] = {
    "rank": by_mean(rank_shares),
    "zscore": by_mean(z_scores),
    "sum": plain_sum,
}
"""How the two terms become one score, over a pool of students; -inf for one that cannot be scored."""
