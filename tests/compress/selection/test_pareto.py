"""Fronts worked by hand, and what holds for every set of points."""

import math
import random

from compress.selection.pareto import dominates, pareto_front, pareto_layers


def test_front_worked_by_hand() -> None:
    points = [(1.0, 5.0), (2.0, 3.0), (3.0, 4.0), (4.0, 1.0), (5.0, 1.0)]
    assert pareto_front(points) == [0, 1, 3]
    assert pareto_layers(points) == [[0, 1, 3], [2, 4]]


def test_equal_points_stand_together() -> None:
    assert pareto_front([(1, 1), (1, 1), (2, 2)]) == [0, 1]


def test_a_nan_is_never_on_the_front() -> None:
    assert pareto_front([(math.nan, 0.0), (1.0, 1.0)]) == [1]
    assert pareto_layers([(math.nan, 0.0)]) == []


def test_nothing_gives_nothing() -> None:
    assert pareto_front([]) == []


def test_every_point_off_the_front_is_beaten_by_one_on_it() -> None:
    rng = random.Random(0)
    points = [(rng.randrange(12), rng.randrange(12), rng.randrange(12)) for _ in range(120)]
    front = pareto_front(points)
    for place, point in enumerate(points):
        beaten = any(dominates(points[other], point) for other in front)
        assert beaten is (place not in front)
    assert sorted(place for layer in pareto_layers(points) for place in layer) == list(range(120))
