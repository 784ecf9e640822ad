"""Evolution in which everybody dies of age: the search of training-free scores.

Source: Real, Aggarwal, Huang, Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019,
arXiv:1802.01548, algorithm 1. The parent is the best of a random sample; a released script of arXiv:2303.15678 sorts
the other way round and breeds from the worst.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

M = TypeVar("M")


def ageing_evolution(
    first: Sequence[M],
    *,
    child: Callable[[M], M | None],
    values: Callable[[Sequence[M]], Sequence[float]],
    sample: int,
    children: int,
    rng: random.Random,
) -> list[M]:
    """Breed `children` more members; the population stays as large as it begins.

    Args:
        first: the first population, the oldest in front; at least one.
        child: a changed copy that is new and affordable, or None where none was found.
        values: of several members, higher is better; asked for in each tournament, so that it may compare them with
            everybody known so far.
        sample: members of a tournament.
        children: how many are born at most; fewer where `child` finds none for as many parents in a row as live.

    Returns:
        The children, in the order of birth.
    """
    alive = deque(first)
    born: list[M] = []
    barren = 0
    while len(born) < children and barren < len(alive):
        contest = rng.sample(list(alive), min(sample, len(alive)))
        found = values(contest)
        parent = contest[max(range(len(contest)), key=lambda place: (found[place], -place))]
        new = child(parent)
        if new is None:
            barren += 1
            continue
        barren = 0
        born.append(new)
        alive.append(new)
        alive.popleft()
    return born
