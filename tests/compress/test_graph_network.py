"""Graph networks against the equations of their papers, on graphs that fit on paper."""

import pytest
import torch
from torch import Tensor, nn

from compress.graph_network import GraphNetwork, NodeClassifier, gat, gcn, sage

PATH = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])  # 0-1-2
X = torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 0.0]])


def only(network: GraphNetwork, **values: Tensor) -> nn.Module:
    """The single layer with given weights and no bias."""
    layer = network.layers[0]
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(values.get(name.replace(".", "_"), torch.zeros_like(parameter)))
    return network.eval()


def test_gcn_averages_the_closed_neighbourhood_by_degrees() -> None:
    network = only(gcn((2, 2), 0.0), lin_weight=torch.eye(2))
    half, mixed = 1 / 2, 1 / 6**0.5  # degrees with loops: 2, 3, 2
    expected = torch.tensor([[half, 2 * mixed], [5 * mixed, 2 / 3], [4 * half, 2 * mixed]])
    torch.testing.assert_close(network(X, PATH), expected)


def test_sage_adds_the_neighbours_mean_to_the_node() -> None:
    network = only(sage((2, 2), 0.0), lin_l_weight=torch.eye(2), lin_r_weight=10 * torch.eye(2))
    expected = torch.tensor([[10.0, 2.0], [2.5, 20.0], [40.0, 2.0]])
    torch.testing.assert_close(network(X, PATH), expected)


def test_gat_without_preferences_is_the_mean_of_the_closed_neighbourhood() -> None:
    network = only(gat((2, 2), 0.0), lin_weight=torch.eye(2))
    expected = torch.tensor([[0.5, 1.0], [5 / 3, 2 / 3], [2.0, 1.0]])
    torch.testing.assert_close(network(X, PATH), expected)


def test_gat_shares_a_width_among_its_heads() -> None:
    assert gat((2, 8, 3), 0.0, heads=4)(X, PATH).shape == (3, 3)
    with pytest.raises(ValueError, match="10 cannot be shared by 4"):
        gat((2, 10, 3), 0.0, heads=4)


@pytest.mark.parametrize("make", [gcn, sage, gat])
def test_sparse_features_give_the_same_answers_and_gradients(make: object) -> None:
    torch.manual_seed(0)
    network = make((2, 8, 3), 0.0)  # type: ignore[operator]
    gradients = []
    for features in (X, X.to_sparse_coo().coalesce()):
        network.zero_grad()
        network(features, PATH).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for dense, sparse in zip(*gradients, strict=True):
        torch.testing.assert_close(dense, sparse)


def test_a_classifier_of_nodes_picks_from_the_whole_graph_in_full_precision() -> None:
    torch.manual_seed(0)
    network = NodeClassifier(gcn((2, 8, 3), 0.0)).eval()
    whole = network.graph(X, PATH)
    nodes = torch.tensor([2, 0, 2])
    with torch.autocast("cpu", torch.bfloat16):
        answer = network(torch.zeros(3, 2), nodes, X.to_sparse_coo(), PATH)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, whole[nodes])


def test_a_node_without_neighbours_answers_by_itself() -> None:
    network = only(gcn((2, 2), 0.0), lin_weight=torch.eye(2))
    torch.testing.assert_close(network(X, PATH[:, :2])[2], X[2])


def test_layers_have_a_relu_between_them_and_none_at_the_end() -> None:
    network = gcn((2, 2, 2), 0.0).eval()
    with torch.no_grad():
        for layer, sign in zip(network.layers, (1.0, -1.0), strict=True):
            layer.lin.weight.copy_(sign * torch.eye(2))
            layer.bias.zero_()
    assert bool((network(X.abs(), PATH) < 0).any())
    with torch.no_grad():
        network.layers[0].lin.weight.mul_(-1.0)
    assert network(X.abs(), PATH).abs().max() == 0
