"""What orders candidates before training."""

import math
from dataclasses import replace

import pytest

from compress.selection.ranking import capacity, expense
from profiles.cost import Cost

COST = Cost("t", "r", 1, "int8", 10_000, 100, 100, 1, 0.01, (0.01, 0.01), "predicted")


def test_capacity_worked_by_hand() -> None:
    assert capacity(COST) == pytest.approx(math.log(1_000))  # the root of 10,000 x 100


def test_expense_worked_by_hand() -> None:
    assert expense(COST) == pytest.approx(math.log(10_000) / 3)  # 0.01 x 10,000 x 100


def test_both_rise_with_size() -> None:
    larger = replace(COST, macs=20_000, params=200, weight_bytes=200)
    assert capacity(larger) > capacity(COST)
    assert expense(larger) > expense(COST)


def test_expense_tells_apart_what_takes_the_same_time() -> None:
    assert expense(replace(COST, macs=20_000)) > expense(COST)
    assert expense(replace(COST, latency_ms=0.02)) > expense(COST)
