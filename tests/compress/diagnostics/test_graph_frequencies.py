"""Shares of low and high graph frequencies."""

import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.diagnostics.graph_frequencies import GraphFrequencies, high_share, low_share, smoothed

RING = torch.tensor([[0, 1, 2, 3, 1, 2, 3, 0], [1, 2, 3, 0, 0, 1, 2, 3]])  # with loops every degree is 3
FLAT, ALTERNATING = torch.ones(4, 2).double(), torch.tensor([[1.0], [-1], [1], [-1]]).double()


def test_what_is_equal_everywhere_has_no_high_frequencies() -> None:
    assert high_share(FLAT, RING) == pytest.approx(0.0, abs=1e-15)
    assert low_share(FLAT, RING) == pytest.approx(1.0)


def test_what_alternates_is_the_largest_eigenvector() -> None:
    assert high_share(ALTERNATING, RING) == pytest.approx(4 / 3)  # A~ has the eigenvalue (1 - 2) / 3
    assert low_share(ALTERNATING, RING) == pytest.approx(1 / 3)


def test_smoothing_is_the_normalised_adjacency() -> None:
    path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    half, mixed = 1 / 2, 1 / 6**0.5
    matrix = torch.tensor([[half, mixed, 0], [mixed, 1 / 3, mixed], [0, mixed, half]]).double()
    torch.testing.assert_close(smoothed(torch.eye(3).double(), path), matrix)


def test_nodes_without_neighbours_keep_what_they_say() -> None:
    alone = torch.zeros(2, 0, dtype=torch.int64)
    assert (low_share(ALTERNATING, alone), high_share(ALTERNATING, alone)) == (1.0, 0.0)
    z = Signals(ALTERNATING)
    batch = Batch((ALTERNATING,), None, torch.arange(4), {"node": torch.arange(4)}, {"graph_edges": alone})
    assert GraphFrequencies().measure(iter([(batch, z, z)]))["high_student"] == 0.0
    half = torch.tensor([[0, 1], [1, 0]])  # nodes 2 and 3 are isolated
    expected = torch.tensor([[0.0], [0.0], [1.0], [-1.0]]).double()
    torch.testing.assert_close(smoothed(ALTERNATING, half), expected)


def test_nothing_has_no_share() -> None:
    assert high_share(torch.zeros(4, 1).double(), RING) == low_share(torch.zeros(4, 1).double(), RING) == 0.0


def answer(nodes: Tensor, z: Tensor, h: Tensor) -> tuple[Batch, Signals, Signals]:
    batch = Batch((z[nodes],), None, nodes, {"node": nodes}, {"graph_edges": RING})
    return batch, Signals(z[nodes]), Signals(h[nodes])


def test_batches_are_put_together_in_the_order_of_the_nodes() -> None:
    z, h = FLAT[:, :1] + 0.5 * ALTERNATING, ALTERNATING
    cut = [answer(nodes, z, h) for nodes in (torch.tensor([3, 0]), torch.tensor([1, 2]))]
    found = GraphFrequencies().measure(iter(cut))
    assert found["high_teacher"] == pytest.approx(4 / 3)
    assert found["high_student"] == pytest.approx(0.5 * 4 / 3 / 1.25**0.5)
    assert found["high_kept"] == pytest.approx(found["high_student"] / found["high_teacher"])
    assert found["low_teacher"] == pytest.approx(1 / 3)


def test_without_the_whole_graph_there_are_no_figures() -> None:
    part = answer(torch.tensor([0, 1]), FLAT, FLAT)
    assert GraphFrequencies().measure(iter([part])) == {}
    plain = Batch((FLAT,), None, torch.arange(4))
    assert GraphFrequencies().measure(iter([(plain, Signals(FLAT), Signals(FLAT))])) == {}
    assert GraphFrequencies().measure(iter([])) == {}
