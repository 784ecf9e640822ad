"""The largest that fits comes first, and nothing is trained."""

from compress.selectors.largest_that_fits import SELECTOR
from tests.compress.selectors.problems import Numbered, candidate


def never(_number: int, _share: float, _seed: int) -> float:
    raise AssertionError("nothing is trained")


def test_orders_by_capacity_with_the_rejected_last() -> None:
    everyone = [
        candidate(0, macs=9_000, rejected="over"),
        candidate(1, macs=1_000),
        candidate(2, macs=4_000),
        candidate(3, macs=2_000),
    ]
    assert [c.plan.value for c in SELECTOR()(Numbered(everyone, never)).ranked] == [2, 3, 1, 0]


def test_ties_go_to_the_cheaper() -> None:
    everyone = [candidate(0, macs=1_000, latency_ms=2.0), candidate(1, macs=1_000, latency_ms=1.0)]
    assert [c.plan.value for c in SELECTOR()(Numbered(everyone, never)).ranked] == [1, 0]
