"""Counts of rebuilt networks against the figures that are published for them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

torch = pytest.importorskip("torch")
TOOLS = Path(__file__).parents[2] / "tools"
HALF_A_UNIT = 0.005 + 1e-9  # published figures have two decimals
IN_THE_TEST = 40  # rows; `python tools/count_architectures.py` takes all


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    """tools/count_architectures.py, which holds the published figures and their source."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        import count_architectures

        yield count_architectures
        sys.path[:] = [entry for entry in sys.path if Path(entry) != TOOLS]


@pytest.fixture(scope="module")
def counts(tool: ModuleType) -> list[Any]:
    """The smaller half of the networks, which are built fastest."""
    rows = sorted((row for row in tool.PUBLISHED if row[3] > 0.5), key=lambda row: row[2])[:IN_THE_TEST]
    return [found for row in rows if (found := tool.count(*row)) is not None]


def test_at_least_thirty_architectures_are_within_one_percent(counts: list[Any]) -> None:
    within = {found.name for found in counts if found.within}
    assert len(within) >= 30


def test_every_parameter_count_is_the_published_one(counts: list[Any]) -> None:
    for found in counts:
        assert abs(found.params - found.published_params) <= HALF_A_UNIT, found.name


def test_what_is_left_is_what_the_published_counter_adds_for_norms_and_pools(counts: list[Any]) -> None:
    """With those added, every figure is the published one to its last digit."""
    for found in counts:
        assert abs(found.fvcore - found.published_gmacs) <= HALF_A_UNIT, found.name
