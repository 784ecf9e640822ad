"""Nothing of the old weights is left, equal seeds give equal weights, distributions are those of the names."""

import copy

import pytest
import torch
from torch import nn

from compress.errors import RecipeError
from compress.residual_network import ResidualNetwork
from compress.selection.initialise import INITIALISERS, initialise


class Odd(nn.Module):
    """Parameters that belong to no known layer."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(1, 50, 64))
        self.scale = nn.Parameter(torch.full((8,), 1e-5))
        self.bias = nn.Parameter(torch.full((8,), 3.0))
        self.register_buffer("table", torch.arange(4.0))


def networks() -> list[nn.Module]:
    return [
        ResidualNetwork(1, (4, 8), (1, 1), 3, dropout=0.1),
        nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.PReLU(4), nn.GroupNorm(2, 4)),
        nn.LSTM(3, 5),
        nn.TransformerEncoderLayer(8, 2, 16),
        Odd(),
    ]


@pytest.mark.parametrize("init", sorted(INITIALISERS))
@pytest.mark.parametrize("number", range(5))
def test_nothing_of_the_old_weights_is_left(init: str, number: int) -> None:
    one = networks()[number]
    other = copy.deepcopy(one)
    with torch.no_grad():
        for tensor in (*other.parameters(), *(b for n, b in other.named_buffers() if "running" in n)):
            tensor.add_(torch.rand_like(tensor) + 1.0)
    for network in (one, other):
        initialise(network, init, 7)
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    initialise(other, init, 8)
    assert any(not torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_torchs_random_state_is_left_as_it_was() -> None:
    network = networks()[0]
    before = torch.random.get_rng_state()
    initialise(network, "gauss", 3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("init", "deviation"), [("gauss", 1.0), ("kaiming", (2 / (64 * 9)) ** 0.5)])
def test_convolutions_spread_as_the_name_says(init: str, deviation: float) -> None:
    layer = nn.Conv2d(32, 64, 3)
    initialise(layer, init, 0)
    assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.02)
    assert layer.bias is not None
    assert not layer.bias.any()


def test_norms_scale_by_one_also_where_the_network_starts_from_zero() -> None:
    network = ResidualNetwork(1, (4,), (1,), 3)
    initialise(network, "gauss", 0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones(4))
            assert torch.equal(module.running_var, torch.ones(4))  # type: ignore[arg-type]


def test_loose_parameters_and_buffers() -> None:
    network = Odd()
    initialise(network, "gauss", 0)
    assert float(network.places.detach().std()) == pytest.approx((50 * 64) ** -0.5, rel=0.1)
    assert torch.equal(network.scale, torch.ones(8))
    assert torch.equal(network.bias, torch.zeros(8))
    assert torch.equal(network.table, torch.arange(4.0))  # type: ignore[arg-type]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(RecipeError, match="'xavier'"):
        initialise(nn.Linear(2, 2), "xavier", 0)
