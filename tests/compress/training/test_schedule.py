"""Schedules: values worked by hand, and what the edge refuses."""

import pytest

from compress.contracts.clock import Clock
from compress.errors import RecipeError
from compress.training.schedule import Cosine, Decay, Linear, Step, read_weight, weight_at


def at(step: int, epoch: int = 0) -> Clock:
    return Clock("p", step, 100, epoch, 10)


def test_values_worked_by_hand() -> None:
    assert weight_at(0.5, at(7)) == 0.5
    assert weight_at(Linear(1.0, 0.0), at(25)) == pytest.approx(0.75)
    assert weight_at(Cosine(1.0, 0.0), at(0)) == 1.0
    assert weight_at(Cosine(1.0, 0.0), at(50)) == pytest.approx(0.5)
    assert weight_at(Cosine(0.0, 2.0), at(50)) == pytest.approx(1.0)
    assert [weight_at(Step(1.0, 0.5, 3), at(0, epoch)) for epoch in (0, 2, 3, 6)] == [1.0, 1.0, 0.5, 0.25]
    assert weight_at(Decay(0.002, 0.995), at(100)) == pytest.approx(0.0012115, rel=1e-4)


def test_recipes_write_numbers_and_tables() -> None:
    assert read_weight(1, "r") == 1.0
    assert read_weight({"schedule": "linear", "start": 1, "end": 0.5}, "r") == Linear(1.0, 0.5)
    assert read_weight({"schedule": "step", "start": 1.0, "factor": 0.9, "epochs": 10}, "r") == Step(1.0, 0.9, 10)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (-1.0, "weight is -1.0"),
        (float("nan"), "weight is nan"),
        (True, "and is True"),
        ("high", "and is 'high'"),
        ({"start": 1.0}, "linear, cosine, step, decay"),
        ({"schedule": "linear", "start": 1.0}, "lacks 'end'"),
        ({"schedule": "linear", "start": 1.0, "end": 0.0, "speed": 1}, "unknown key 'speed'"),
        ({"schedule": "linear", "start": 1.0, "end": float("inf")}, "end is inf"),
        ({"schedule": "step", "start": 1.0, "factor": 0.5, "epochs": 0}, "epochs is 0"),
    ],
)
def test_the_edge_refuses(data: object, found: str) -> None:
    with pytest.raises(RecipeError, match=found):
        read_weight(data, "objective 'x'")
