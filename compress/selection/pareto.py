"""Which points no other beats, and in which order the rest follows."""

from collections.abc import Sequence


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether `one` is nowhere larger and somewhere smaller."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Positions of the points that no other dominates, ascending. Equal points stand or fall together.

    Args:
        points: each of the same length; smaller is better in every coordinate (negate what should be large). A point
            with a NaN is never on the front.
    """
    valid = [place for place, point in enumerate(points) if all(value == value for value in point)]
    return [
        place
        for place in valid
        if not any(dominates(points[other], points[place]) for other in valid if other != place)
    ]


def pareto_layers(points: Sequence[Sequence[float]]) -> list[list[int]]:
    """The front, the front of what remains without it, and so on; points with a NaN are in none."""
    layers: list[list[int]] = []
    left = list(range(len(points)))
    while True:
        front = [left[place] for place in pareto_front([points[place] for place in left])]
        if not front:
            return layers
        layers.append(front)
        left = [place for place in left if place not in set(front)]
