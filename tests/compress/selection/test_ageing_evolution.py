"""The parent is the best of its tournament, the oldest dies, and the search ends."""

import random
from collections.abc import Sequence

from compress.selection.ageing_evolution import ageing_evolution


def test_the_parent_is_the_best_of_each_sample_and_the_oldest_dies() -> None:
    scores = [3, 9, 1, 7, 5, 8]
    contests: list[list[int]] = []
    parents: list[int] = []
    alive = list(range(6))

    def values(members: Sequence[int]) -> list[float]:
        contests.append(list(members))
        return [float(scores[member]) for member in members]

    def child(parent: int) -> int:
        parents.append(parent)
        scores.append(scores[parent] - 4)
        return len(scores) - 1

    rng = random.Random(0)
    born = ageing_evolution(range(6), child=child, values=values, sample=3, children=40, rng=rng)
    assert born == list(range(6, 46))
    for contest, parent, new in zip(contests, parents, born, strict=True):
        assert set(contest) <= set(alive)
        assert len(contest) == 3
        assert scores[parent] == max(scores[member] for member in contest)
        alive = [*alive[1:], new]
    assert len({len(set(contest)) for contest in contests}) == 1


def test_it_climbs_where_children_are_near_their_parents() -> None:
    rng = random.Random(1)
    born = ageing_evolution(
        [0.0] * 10,
        child=lambda parent: parent + rng.choice((-1.0, 1.0)),
        values=lambda members: members,
        sample=5,
        children=200,
        rng=rng,
    )
    assert max(born) > 15.0  # a walk without selection would end near sqrt(20)


def test_it_ends_where_nothing_new_is_found() -> None:
    asked: list[int] = []
    assert (
        ageing_evolution(
            [1, 2, 3],
            child=lambda parent: asked.append(parent),
            values=lambda members: list(members),
            sample=8,
            children=9,
            rng=random.Random(0),
        )
        == []
    )
    assert asked == [3, 3, 3]
