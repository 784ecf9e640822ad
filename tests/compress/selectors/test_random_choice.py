"""A random order of what fits: repeatable, complete, untrained."""

from compress.contracts.selector import Candidate
from compress.selectors.random_choice import SELECTOR
from profiles.cost import Cost

COST = Cost("t", "r", 1, "int8", 1, 1, 1, 1, 1.0, (0.0, 1.0), "predicted")
EVERYONE = [Candidate("a", n, COST, "over" if n % 4 == 0 else None) for n in range(40)]


def never(_candidate: Candidate, _share: float) -> float:
    raise AssertionError("nothing is trained")


def test_the_seed_decides() -> None:
    assert SELECTOR(seed=1)(EVERYONE, never) == SELECTOR(seed=1)(EVERYONE, never)
    assert SELECTOR(seed=1)(EVERYONE, never) != SELECTOR(seed=2)(EVERYONE, never)


def test_everyone_comes_back_with_the_rejected_last() -> None:
    ranked = SELECTOR()(EVERYONE, never)
    assert sorted(c.plan for c in ranked) == list(range(40))
    assert all(c.rejected is None for c in ranked[:30])
    assert ranked[:30] != EVERYONE[:30]
