"""What a training-free score has to show before it may decide: that it orders students better than their size does.

Source: arXiv:2303.15678's published table, on which the score correlates with the accuracy (0.73) and the number of
parameters alone does so more (0.97), with nothing left of the score once parameters are held still.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compress.contracts.selector import Candidate
from compress.selection.correlation import kendall, partial_spearman, spearman
from compress.selection.ranking import capacity

COSTS: Mapping[str, Callable[[Candidate], float]] = {
    "parameters": lambda candidate: float(candidate.cost.params),
    "latency": lambda candidate: candidate.cost.latency_ms,
    "capacity": lambda candidate: capacity(candidate.cost),
}


def against_size(tried: Sequence[Candidate], score: Mapping[str, float]) -> dict[str, Any]:
    """Rank correlations of a score with the trained accuracy, beside those of the control.

    Args:
        tried: students with a trained score; others are left out.
        score: identity -> training-free score.

    Returns:
        plain data: "students"; "spearman" and "kendall" of the score; "given_parameters", "given_latency" and
        "given_capacity", its partial Spearman with that held still; "of_parameters", "of_latency" and "of_capacity",
        Spearman of these alone. None where a figure is undefined.
    """
    known = [
        candidate
        for candidate in tried
        if candidate.score is not None
        and math.isfinite(candidate.score)
        and math.isfinite(score.get(candidate.identity, math.nan))
    ]
    truth = [candidate.score or 0.0 for candidate in known]
    cheap = [score[candidate.identity] for candidate in known]
    figures = {"spearman": spearman(cheap, truth), "kendall": kendall(cheap, truth)}
    for name, cost in COSTS.items():
        sizes = [cost(candidate) for candidate in known]
        figures[f"given_{name}"] = partial_spearman(cheap, truth, sizes)
        figures[f"of_{name}"] = spearman(sizes, truth)
    return {"students": len(known)} | {
        name: value if math.isfinite(value) else None for name, value in sorted(figures.items())
    }
