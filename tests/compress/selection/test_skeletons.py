"""Walking through sizes, and the arithmetic of what a supernet costs."""

import pytest
import torch
from torch import nn

from compress.contracts.selector import Candidate
from compress.selection.skeletons import (
    affordable,
    families,
    interleaved,
    largest,
    multiply_accumulates,
    operation_latencies,
    passes_per_pair,
    proxy_of,
    training_share,
    walk_down,
)
from compress.spaces.cells import Plan
from compress.structure.cell_network import Nodes, Skeleton
from profiles.cost import Cost

OPERATIONS = ("none", "skip", "conv_1x1", "conv_3x3")
WORK = {"skip": 0, "conv_1x1": 1, "conv_3x3": 9}
CELL: Nodes = (((0, "conv_3x3"),), ((0, "skip"), (1, "conv_1x1")), ((1, "conv_3x3"), (2, "conv_1x1")))  # 20 units
WIDTHS = (8, 16, 32, 64)
SKELETONS = [Skeleton(stride, width, (depth,)) for stride in (1, 2) for depth in (1, 2) for width in WIDTHS]


class Shop:
    """Costs worked in the head: units of the cell, times width squared, times depth, over the stride squared."""

    def __init__(self, most: float) -> None:
        self.most, self.asked = most, 0

    def __call__(self, skeleton: Skeleton, nodes: Nodes) -> Candidate:
        self.asked += 1
        units = sum(WORK[name] for kept in nodes for _, name in kept)
        macs = int((1 + units) * skeleton.channels**2 * sum(skeleton.cells) / skeleton.stem_stride**2)
        cost = Cost("t", "r", 1, "int8", macs, macs, macs, 1, macs / 1000, (0.0, 1e9), "predicted")
        plan = Plan(skeleton.stem_stride, skeleton.channels, skeleton.cells, nodes)
        return Candidate("cells", plan, cost, None if macs <= self.most else "too dear")


def test_the_widest_admitted_of_every_family_the_largest_first() -> None:
    shop = Shop(21 * 32**2)
    found = [(c.plan.stem_stride, c.plan.cells, c.plan.channels) for c in largest(SKELETONS, CELL, shop)]
    assert set(found) == {(1, (1,), 32), (1, (2,), 16), (2, (1,), 64), (2, (2,), 32)}
    macs = [c.cost.macs for c in largest(SKELETONS, CELL, shop)]
    assert macs == sorted(macs, reverse=True)
    assert len(families(SKELETONS)) == 4
    assert shop.asked <= 2 * 4 * 3  # halving four widths asks at most three times


def test_what_does_not_fit_at_any_width_is_left_out() -> None:
    assert [c.plan.stem_stride for c in largest(SKELETONS, CELL, Shop(21 * 64 / 4))] == [2]
    assert largest(SKELETONS, CELL, Shop(1)) == []


def test_walking_down_gives_up_first_what_the_mixture_wanted_least() -> None:
    alpha = torch.zeros(6, len(OPERATIONS))
    alpha[0, 3] = 3.0  # edge 0-1: the convolution is wanted most
    alpha[2, 2] = 0.5  # edge 1-2
    alpha[4, 3] = 0.1  # edge 1-3: wanted least
    alpha[5, 2] = 1.0  # edge 2-3
    smallest = Skeleton(1, 8, (1,))
    assert walk_down(smallest, CELL, alpha, OPERATIONS, Shop(21 * 64)).plan.nodes == CELL
    fits = walk_down(smallest, CELL, alpha, OPERATIONS, Shop(20 * 64))
    assert fits.plan.nodes == (CELL[0], CELL[1], ((1, "skip"), (2, "conv_1x1")))
    lower = walk_down(smallest, CELL, alpha, OPERATIONS, Shop(11 * 64))
    assert lower.plan.nodes == (CELL[0], ((0, "skip"), (1, "skip")), ((1, "skip"), (2, "conv_1x1")))
    assert walk_down(smallest, CELL, alpha, OPERATIONS, Shop(1)).rejected == "too dear"


def test_latencies_of_operations_are_differences_per_edge() -> None:
    latencies = operation_latencies(Skeleton(1, 10, (2,)), OPERATIONS, 3, Shop(1))
    assert latencies == pytest.approx([0.0, 0.0, 0.2, 1.8])  # 100 * 2 cells * units / 1000 ms


def test_the_proxy_is_narrow_and_one_cell_deep() -> None:
    assert proxy_of(Skeleton(2, 64, (3, 3)), WIDTHS, 20) == Skeleton(2, 16, (1, 1))
    assert proxy_of(Skeleton(2, 8, (3,)), WIDTHS, 20) == Skeleton(2, 8, (1,))
    assert proxy_of(Skeleton(2, 64, (1,)), WIDTHS, 1) == Skeleton(2, 8, (1,))


def test_the_share_worked_by_hand() -> None:
    assert passes_per_pair(3, unrolled=False) == 9.0
    assert passes_per_pair(0, unrolled=True) == 15.0
    # A supernet five times as large as a student, 9,000 passes; a full training is 3 * 1,000 * 10 passes.
    assert training_share(5e6, 9_000, 1e6, 1_000, 10) == pytest.approx(1.5)


def test_a_budget_takes_examples_first_and_then_epochs() -> None:
    def price(count: int, epochs: int) -> float:
        return count * epochs + 100.0

    assert affordable(price, 1e9, most=5_000, least=500, epochs=20) == (5_000, 20)
    assert affordable(price, 40_100.0, most=5_000, least=500, epochs=20) == (2_000, 20)
    assert affordable(price, 6_100.0, most=5_000, least=500, epochs=20) == (500, 12)
    assert affordable(price, 1_600.0, most=5_000, least=500, epochs=20) == (500, 3)
    assert affordable(price, 1_599.0, most=5_000, least=500, epochs=20) == (0, 0)


def test_lists_are_dealt_in_turn_without_repetition() -> None:
    a, b, c = (Shop(1e9)(Skeleton(1, width, (1,)), CELL) for width in (8, 16, 32))
    assert interleaved([[a, b], [b, c], []]) == [a, b, c]


def test_multiply_accumulates_of_a_network_worked_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 25, 3))
    assert multiply_accumulates(network.train(), torch.zeros(7, 2, 5, 5)) == 25 * 4 * 9 + 3 * 100
    assert network.training
