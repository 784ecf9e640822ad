"""The largest that fits comes first, and nothing is trained."""

from compress.contracts.selector import Candidate
from compress.selectors.largest_that_fits import SELECTOR
from profiles.cost import Cost


def candidate(plan: str, macs: int, params: int, rejected: str | None = None, latency_ms: float = 1.0) -> Candidate:
    cost = Cost("t", "r", 1, "int8", macs, params, params, 1, latency_ms, (0.0, 1.0), "predicted")
    return Candidate("a", plan, cost, rejected)


def never(_candidate: Candidate, _share: float) -> float:
    raise AssertionError("nothing is trained")


def test_orders_by_capacity_with_the_rejected_last() -> None:
    everyone = [
        candidate("too large", 9_000, 900, rejected="over"),
        candidate("small", 1_000, 100),
        candidate("large", 4_000, 400),
        candidate("middle", 2_000, 400),
    ]
    assert [c.plan for c in SELECTOR()(everyone, never)] == ["large", "middle", "small", "too large"]


def test_ties_go_to_the_cheaper() -> None:
    everyone = [candidate("slow", 1_000, 100, latency_ms=2.0), candidate("fast", 1_000, 100, latency_ms=1.0)]
    assert [c.plan for c in SELECTOR()(everyone, never)] == ["fast", "slow"]
