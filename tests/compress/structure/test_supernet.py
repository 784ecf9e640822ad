"""Mixtures, what is read off them, and that a decided mixture is its discrete network."""

import math

import pytest
import torch

from compress.structure.cell_network import OPERATIONS, SKIP, CellNetwork, Skeleton, edges_of
from compress.structure.convnets import reduced
from compress.structure.statistics import frozen_statistics
from compress.structure.supernet import Supernet, discretised, entropy, genotypes, skips

THREE = ("none", "skip", "conv_3x3")
SMALL = Skeleton(1, 8, (1, 1))
ROUNDING = 1e-6
ALL_EDGES = 3


def supernet(operations: tuple[str, ...] = THREE, shape: tuple[int, ...] = (1, 8, 8)) -> Supernet:
    torch.manual_seed(0)
    return Supernet(SMALL, shape, 5, operations)


def decided(network: Supernet, choice: list[str], gap: float = 50.0) -> None:
    """Set alpha so that each edge has one operation, by a difference of `gap`."""
    with torch.no_grad():
        network.alpha.zero_()
        for row, name in enumerate(choice):
            network.alpha[row, network.operations.index(name)] = gap


def test_the_mixture_worked_by_hand_does_not_know_a_constant() -> None:
    network = supernet().eval()
    row = torch.tensor([0.5, 0.0, -0.5])
    torch.testing.assert_close(
        torch.softmax(row, dim=0), torch.tensor([0.50648039, 0.30719589, 0.18632372]), rtol=0, atol=1e-7
    )
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        network.alpha.copy_(row.expand(6, 3))
        before = network(x)
        network.alpha.add_(torch.arange(6.0).unsqueeze(1))
        torch.testing.assert_close(network(x), before, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 32)])
def test_a_decided_mixture_equals_its_discrete_network(shape: tuple[int, ...], training: bool) -> None:
    network = supernet(OPERATIONS, shape)
    for _ in range(3):  # running statistics that differ from their start
        network.train()(torch.randn(16, *shape))
    choice = ["conv_3x3", "skip", "separable_5x5", "max_3x3", "dilated_separable_3x3", "average_3x3"]
    decided(network, choice)
    nodes = genotypes(network.alpha, network.operations, keep=ALL_EDGES)[0]
    assert [name for kept in nodes for _, name in kept] == choice
    plain = discretised(network.train(training), nodes)
    x = torch.randn(7, *shape)
    with torch.no_grad(), frozen_statistics(network), frozen_statistics(plain):
        torch.testing.assert_close(plain(x), network(x), rtol=0, atol=ROUNDING)


def test_none_and_skip_are_not_in_the_discrete_network() -> None:
    nodes = (((0, SKIP),), ((0, SKIP), (1, SKIP)), ((0, "conv_3x3"), (2, SKIP)))
    network = CellNetwork(SMALL, nodes, (1, 8, 8), 5)
    names = [name for name, _ in network.named_modules() if ".edges." in name]
    assert {name.rpartition(".edges.")[2].partition(".")[0] for name in names} == {"0_3"}
    x = torch.randn(2, 1, 8, 8)
    assert network(x).shape == (2, 5)


def test_derivation_keeps_the_two_strongest_edges_and_never_none() -> None:
    operations = ("none", "skip", "conv_3x3")
    alpha = torch.zeros(len(edges_of(3)), 3)
    alpha[:, 0] = 1.0  # "none" is the strongest everywhere
    alpha[0, 2] = 0.1
    alpha[1, 1], alpha[2, 2] = 0.3, 0.2
    alpha[3, 1], alpha[4, 2], alpha[5, 2] = 0.5, 0.1, 0.4  # of node 3's edges the middle one is the weakest
    first = genotypes(alpha, operations)[0]
    assert first == (((0, "conv_3x3"),), ((0, "skip"), (1, "conv_3x3")), ((0, "skip"), (2, "conv_3x3")))
    assert skips(first) == 2


def test_an_edge_that_is_mostly_none_is_dropped_before_one_that_is_not() -> None:
    """Edges are compared by the softmax with "none" in it: a large logit on an edge that is mostly "none" is little."""
    alpha = torch.zeros(6, 3)
    alpha[3] = torch.tensor([9.0, 6.0, 0.0])  # share of skip 0.047
    alpha[4] = torch.tensor([0.0, 0.0, 2.0])
    alpha[5] = torch.tensor([0.0, 0.0, 1.0])
    assert genotypes(alpha, THREE)[0][2] == ((1, "conv_3x3"), (2, "conv_3x3"))


def test_runners_up_are_the_next_most_probable_and_differ() -> None:
    torch.manual_seed(1)
    alpha = torch.randn(6, 3)
    found = genotypes(alpha, THREE, count=8)
    assert len(set(found)) == 8
    assert found[0] == genotypes(alpha, THREE)[0]
    log_p = torch.log_softmax(alpha.double(), dim=1)
    row = {edge: n for n, edge in enumerate(edges_of(3))}

    def score(nodes: object) -> float:
        assert isinstance(nodes, tuple)
        return sum(
            float(log_p[row[source, node], THREE.index(name)])
            for node, kept in enumerate(nodes, 1)
            for source, name in kept
        )

    scores = [score(nodes) for nodes in found]
    assert scores == sorted(scores, reverse=True)
    # Every cell there is: 2 ways for node 1, 4 for node 2, 3 * 4 for node 3.
    everything = genotypes(alpha, THREE, count=96)
    assert score(everything[1]) == pytest.approx(scores[1])


def test_entropy_falls_from_log_of_the_choices_to_nothing() -> None:
    network = supernet()
    assert entropy(torch.zeros(6, 3)) == pytest.approx(math.log(3))
    decided(network, ["skip"] * 6)
    assert entropy(network.alpha) == pytest.approx(0.0, abs=1e-9)


def test_no_batch_norm_of_the_search_has_a_factor_and_alpha_is_stored_with_the_weights() -> None:
    network = supernet()
    assert all(m.weight is None for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert "alpha" in network.state_dict()
    assert all(weight is not network.alpha for weight in network.weights())
    assert len(network.weights()) == len(list(network.parameters())) - 1


def test_frozen_statistics_use_the_batch_and_remember_nothing() -> None:
    network = supernet().train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    x = torch.randn(8, 1, 8, 8)
    with frozen_statistics(network):
        inside = network(x)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    torch.testing.assert_close(network(x), inside)
    assert any(not torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to choose"):
        supernet(("none",))


def test_short_axes_are_reduced_less() -> None:
    assert (reduced(40, 8), reduced(10, 8), reduced(3, 8)) == (8, 2, 1)
