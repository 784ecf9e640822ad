"""Draw candidates from several spaces and cost them: small and large ones, and many around the budget's edge."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compress.contracts.selector import Candidate
from compress.contracts.space import Plan, Space
from compress.selection.ranking import capacity, expense
from profiles.cost import Cost

STRATA = 8  # equal steps of log multiply-accumulates between a space's smallest and largest candidate
TRIES = 60  # draws in a row that gave nothing new, after which a space counts as exhausted
CORNERS = 0.5  # of a space's share at most


@dataclass
class Drawing:
    """What has been drawn from one space so far."""

    name: str
    space: Space[Any]
    rng: random.Random
    corners: list[Plan]  # those that are still to come
    drawn: list[Candidate] = field(default_factory=list)
    seen: set[Plan] = field(default_factory=set)
    exhausted: bool = False


def next_plan(drawing: Drawing) -> Plan | None:
    """A plan that this space has not given yet, or None where `TRIES` draws found none."""
    if drawing.corners:
        return drawing.corners.pop(0)
    for attempt in range(TRIES):
        turn = (len(drawing.drawn) + attempt) % 4
        plan: Plan
        if turn % 2 == 0 or not drawing.drawn:
            plan = drawing.space.sample(drawing.rng)
        else:
            parents = at_the_edge(drawing.drawn) if turn == 1 else thinnest_stratum(drawing.drawn)
            plan = drawing.space.mutate(drawing.rng.choice(parents).plan, drawing.rng)
        if plan not in drawing.seen:
            return plan
    return None


def at_the_edge(drawn: list[Candidate]) -> list[Candidate]:
    """The accepted with most capacity and the rejected with least expense: what lies between decides."""
    most = max(4, len(drawn) // 25)
    accepted = sorted((c for c in drawn if c.rejected is None), key=lambda c: -capacity(c.cost))
    rejected = sorted((c for c in drawn if c.rejected is not None), key=lambda c: expense(c.cost))
    return accepted[:most] + rejected[:most]


def thinnest_stratum(drawn: list[Candidate]) -> list[Candidate]:
    """The candidates of the size that is rarest so far."""
    sizes = [math.log(max(1, candidate.cost.macs)) for candidate in drawn]
    low, step = min(sizes), max(1e-9, (max(sizes) - min(sizes)) / STRATA)
    strata: dict[int, list[Candidate]] = {}
    for candidate, size in zip(drawn, sizes, strict=True):
        strata.setdefault(min(STRATA - 1, int((size - low) / step)), []).append(candidate)
    return min(strata.values(), key=len)


def corners_within(space: Space[Any], most: int) -> list[Plan]:
    """At most `most` of the space's corners: evenly picked, with the first and the last."""
    corners: list[Plan] = list(dict.fromkeys(space.corners()))
    if len(corners) <= most:
        return corners
    return [corners[round(place * (len(corners) - 1) / (most - 1))] for place in range(most)]


def propose(
    spaces: Mapping[str, Space[Any]],
    *,
    count: int,
    cost: Callable[[str, Any], Cost],
    reject: Callable[[str, Any, Cost], str | None],
    seed: int,
    on_candidate: Callable[[Candidate], None] | None = None,
) -> list[Candidate]:
    """Distinct candidates, each costed, with the reason where it was rejected.

    Every space gives the same number: first its corners, then in turn independent draws, mutations of candidates at the
    budget's edge, and mutations of candidates whose size is rare so far. A space that holds fewer leaves its place to
    the others. The same arguments give the same candidates in the same order.

    Args:
        spaces: by name.
        count: how many to draw in all; fewer come only where the spaces together hold fewer.
        cost: (space, plan) -> what it costs on the target. It may be slow; it is called once per candidate.
        reject: (space, plan, cost) -> why the candidate leaves, or None.
        seed: of every draw.
        on_candidate: called with each one, in order.
    """
    quota = -(-count // max(1, len(spaces)))
    drawings = [
        Drawing(name, space, random.Random(f"{seed}/{name}"), corners_within(space, max(2, int(CORNERS * quota))))
        for name, space in spaces.items()
    ]
    candidates: list[Candidate] = []
    while len(candidates) < count and not all(drawing.exhausted for drawing in drawings):
        for drawing in drawings:
            if drawing.exhausted or len(candidates) == count:
                continue
            plan = next_plan(drawing)
            if plan is None:
                drawing.exhausted = True
                continue
            figures = cost(drawing.name, plan)
            candidate = Candidate(drawing.name, plan, figures, reject(drawing.name, plan, figures))
            drawing.seen.add(plan)
            drawing.drawn.append(candidate)
            candidates.append(candidate)
            if on_candidate is not None:
                on_candidate(candidate)
    return candidates
