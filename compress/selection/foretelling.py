"""Which cheap scores foretold the dear ones: rank correlations, with and without the students' size, and what trusting
a cheap score alone would have lost.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.selection.correlation import (
    Estimate,
    Statistic,
    bootstrap,
    kendall,
    partial_spearman,
    regret,
    spearman,
)

FEW = 5  # students below which a rank correlation says nothing: of 4 random orders 1 in 24 is perfect
RESAMPLES = 300


@dataclass(frozen=True)
class Foretold:
    """One cheap score held against the true one.

    Attributes:
        name: of the score.
        count: students that have both.
        kendall, spearman: with the true score; None below `FEW` students.
        given: covariate -> partial Spearman with it held still, such as the parameter count; a score that is the
            covariate itself has NaN there.
        loss: how much the true score of this score's favourite is below the best one's, among those students; equal
            favourites count with their mean.
    """

    name: str
    count: int
    kendall: Estimate | None
    spearman: Estimate | None
    given: Mapping[str, Estimate | None]
    loss: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain data; what is undefined becomes None."""
        return {
            "name": self.name,
            "count": self.count,
            "kendall": _plain(self.kendall),
            "spearman": _plain(self.spearman),
            "given": {name: _plain(estimate) for name, estimate in self.given.items()},
            "loss": self.loss,
        }


def foretold(
    cheap: Mapping[str, Mapping[str, float]],
    truth: Mapping[str, float],
    covariates: Mapping[str, Mapping[str, float]],
    *,
    seed: int,
) -> list[Foretold]:
    """Every cheap score against the true one, in the order given.

    Args:
        cheap: name -> student -> score, higher is better.
        truth: student -> score of the highest fidelity; students without a finite one are left out.
        covariates: name -> student -> figure to hold still, for every student of `truth`.
        seed: of the bootstrap's draws.
    """
    known = [student for student, score in truth.items() if math.isfinite(score)]
    rows = []
    for name, scores in cheap.items():
        students = [student for student in known if not math.isnan(scores.get(student, math.nan))]
        a, b = [scores[student] for student in students], [truth[student] for student in students]
        given = {
            other: _estimate(partial_spearman, [a, b, [figures[student] for student in students]], seed)
            for other, figures in covariates.items()
        }
        rows.append(
            Foretold(
                name,
                len(students),
                _estimate(kendall, [a, b], seed),
                _estimate(spearman, [a, b], seed),
                given,
                _loss(a, b),
            )
        )
    return rows


def table(students: Mapping[str, Mapping[str, Any]], *, seed: int) -> dict[str, Any]:
    """The cheap scores against the score of the highest share of training that at least `FEW` students had.

    Where none had so many, the highest share there is; the rows then say that they are too few. Students that were
    trained so far were picked by cheaper scores: among them a cheap score looks worse than it is among all.

    Args:
        students: as `history.figures` says of each, with "scores": "share" of the training and "score" each.
        seed: of the bootstrap's draws.
    """
    by_share: dict[float, dict[str, float]] = defaultdict(dict)
    for identity, row in students.items():
        for entry in row["scores"]:
            if entry["score"] is not None:
                by_share[entry["share"]][identity] = entry["score"]
    if not by_share:
        return {"share": None, "students": 0, "few": FEW, "rows": []}
    enough = [share for share, scores in by_share.items() if len(scores) >= FEW]
    share = max(enough or by_share)
    truth = by_share[share]
    rows = {identity: students[identity] for identity in truth}
    cheap: dict[str, dict[str, float]] = {
        "parameters": {i: float(row["params"]) for i, row in rows.items()},
        "multiply-accumulates": {i: float(row["macs"]) for i, row in rows.items()},
        "capacity": {i: row["capacity"] for i, row in rows.items()},
        "latency": {i: row["latency_ms"] for i, row in rows.items()},
    }
    for name in sorted({name for row in rows.values() for name in row["proxies"]}):
        cheap[name] = {i: row["proxies"][name] for i, row in rows.items() if name in row["proxies"]}
    for less in sorted(other for other in by_share if other < share):
        cheap[f"score after {100 * less:g} % of the training"] = by_share[less]
    covariates = {
        "parameters": {i: math.log(max(1, row["params"])) for i, row in rows.items()},
        "latency": {i: row["latency_ms"] for i, row in rows.items()},
    }
    found = foretold(cheap, truth, covariates, seed=seed)
    return {"share": share, "students": len(truth), "few": FEW, "rows": [row.to_json() for row in found]}


def _estimate(statistic: Statistic, columns: Sequence[Sequence[float]], seed: int) -> Estimate | None:
    if len(columns[0]) < FEW:
        return None
    return bootstrap(statistic, *columns, seed=seed, resamples=RESAMPLES)


def _loss(scores: Sequence[float], truth: Sequence[float]) -> float | None:
    if not scores:
        return None
    favourites = [place for place, score in enumerate(scores) if score == max(scores)]
    return sum(regret(truth, place) for place in favourites) / len(favourites)


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None or math.isnan(estimate.value):
        return None
    ends = [None if math.isnan(end) else end for end in (estimate.low, estimate.high)]
    return {"value": estimate.value, "low": ends[0], "high": ends[1]}
