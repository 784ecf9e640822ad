"""Cross-layer equalisation: the function stays, ranges become equal, and rounding costs less."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from compress.qat import prepare as qat
from compress.qat.equalize import Equalized, equalize_activations, equalize_weights

SAME = 1e-5  # of the largest output: float rounding through a few layers


def separable(act: type[nn.Module] = nn.ReLU, seed: int = 0) -> nn.Sequential:
    """A depthwise network whose channels span five octaves, made up for by the weights of the next layer."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    wide = 3
    for out, groups, kernel in ((16, 1, 3), (16, 16, 3), (24, 1, 1), (24, 24, 3), (32, 1, 1)):
        layers += [
            nn.Conv2d(wide, out, kernel, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out),
            act(),
        ]
        wide = out
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    factor = torch.ones(3)
    with torch.no_grad():
        for module in network:
            if isinstance(module, nn.Conv2d):
                module.weight.div_(factor.reshape(-1, 1, 1, 1) if module.groups > 1 else factor.reshape(1, -1, 1, 1))
            elif isinstance(module, nn.BatchNorm2d):
                factor = torch.exp2(torch.empty_like(module.weight).uniform_(-2.5, 2.5))
                module.weight.uniform_(0.5, 1.5).mul_(factor)
                module.bias.normal_(0, 0.3).mul_(factor)
                module.running_mean.normal_(0, 0.1)  # type: ignore[operator, union-attr]
                module.running_var.uniform_(0.3, 2.0)  # type: ignore[operator, union-attr]
            elif isinstance(module, nn.Linear):
                module.weight.div_(factor)
    return network.eval()


def mixed(seed: int = 0) -> nn.Sequential:
    """Convolutions without batch norm, groups, pools, a flatten over places, and linear layers."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, groups=4), nn.AvgPool2d(2), nn.ReLU(inplace=True), nn.Dropout(0.3),
        nn.Conv2d(12, 6, 1), nn.Flatten(), nn.Linear(6 * 9, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 10),
    ).eval()  # fmt: skip


def batch(seed: int = 7, size: int = 16) -> Tensor:
    return torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(seed))


def both(network: nn.Module) -> list[Equalized]:
    return [equalize_weights(network, (batch()[:1],)), equalize_activations(network, [(batch(),)])]


def per_tensor_rounded(network: nn.Sequential) -> nn.Sequential:
    """Weights rounded to eight bits with one scale per layer, as they are once batch norm is folded into them."""
    with torch.no_grad():
        for layer, norm in itertools.pairwise(network):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                assert norm.running_var is not None
                factor = (norm.weight * (norm.running_var + norm.eps).rsqrt()).reshape(-1, 1, 1, 1)
                scale = (layer.weight * factor).abs().max() / 127
                layer.weight.copy_((layer.weight * factor / scale).round() * scale / factor)
    return network


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("build", [separable, mixed])
def test_the_function_stays(build: type, seed: int) -> None:
    network = build(seed=seed)
    x = batch()
    with torch.no_grad():
        expected = network(x)
        for found in both(network):
            assert torch.equal(network(x), expected)  # the original is left alone
            assert float((found.model(x) - expected).abs().max()) <= SAME * float(expected.abs().max())
            assert any(
                not torch.equal(a, b) for a, b in zip(found.model.parameters(), network.parameters(), strict=True)
            )


def test_every_pair_is_found_through_pools_flatten_and_groups() -> None:
    pairs = [(pair.first, pair.second) for pair in both(mixed())[0].pairs]
    assert pairs == [("0", "3"), ("3", "7"), ("7", "9"), ("9", "12")]
    pairs = [(pair.first, pair.second) for pair in both(separable())[1].pairs]
    assert pairs == [("0", "3"), ("3", "6"), ("6", "9"), ("9", "12"), ("12", "17")]


def test_two_layers_by_hand() -> None:
    network = nn.Sequential(nn.Linear(1, 2, bias=True), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[8.0], [1.0]]))
        network[0].bias.copy_(torch.tensor([4.0, 3.0]))
        network[2].weight.copy_(torch.tensor([[2.0, 9.0]]))
    found = equalize_weights(network, (torch.ones(1, 1),))
    # s = sqrt(8 * 2) / 2 = 2 and sqrt(1 * 9) / 9 = 1/3: both weights become 4 and 3.
    torch.testing.assert_close(found.pairs[0].factors, torch.tensor([2.0, 1 / 3]))
    torch.testing.assert_close(found.model[0].weight, torch.tensor([[4.0], [3.0]]))  # type: ignore[index]
    torch.testing.assert_close(found.model[0].bias, torch.tensor([2.0, 9.0]))  # type: ignore[index]
    torch.testing.assert_close(found.model[2].weight, torch.tensor([[4.0, 3.0]]))  # type: ignore[index]


def test_weight_ranges_become_equal() -> None:
    found = equalize_weights(separable(), (batch()[:1],)).model
    assert isinstance(found, nn.Sequential)
    norm, depthwise = found[1], found[3]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    folded = found[0].weight.abs().amax((1, 2, 3)) * norm.weight.abs() * (norm.running_var + norm.eps).rsqrt()  # type: ignore[operator, union-attr]
    torch.testing.assert_close(folded, depthwise.weight.abs().amax((1, 2, 3)), rtol=0.01, atol=0)  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_per_tensor_rounding_of_a_depthwise_network_loses_a_hundredth(seed: int) -> None:
    network, x = separable(seed=seed), batch()
    equal = equalize_weights(network, (x[:1],)).model
    assert isinstance(equal, nn.Sequential)
    with torch.no_grad():
        expected = network(x)
        before = (per_tensor_rounded(separable(seed=seed))(x) - expected).square().mean()
        after = (per_tensor_rounded(equal)(x) - expected).square().mean()
    assert float(after) < 0.01 * float(before)


def test_our_own_quantiser_loses_a_quarter_at_most() -> None:
    """Per-channel weights do not mind the channels' spread, the activations between do."""
    network, x = separable(), batch()
    errors = []
    with torch.no_grad():
        expected = network(x)
        for student in (network, *(found.model for found in both(network))):
            model = qat.prepare(student, (x[:1],), "onnxruntime_x86")
            qat.calibrate(model, [x])
            errors.append(float((model(x) - expected).square().mean()))
    assert max(errors[1:]) < 0.25 * errors[0]


def test_equal_activations_reach_a_depthwise_layer() -> None:
    found = equalize_activations(separable(), [(batch(),)]).model
    assert isinstance(found, nn.Sequential)
    with torch.no_grad():
        span = found[:3](batch()).abs().amax((0, 2, 3))
    alive = span[span > 0]
    torch.testing.assert_close(alive, torch.full_like(alive, float(alive.mean())), rtol=1e-4, atol=0)


def test_relu6_is_skipped_and_named_or_replaced_on_request() -> None:
    network = separable(nn.ReLU6)
    skipped = equalize_weights(network, (batch()[:1],))
    assert [(pair.first, pair.second) for pair in skipped.pairs] == [("12", "17")] * 0
    assert [s.reason for s in skipped.skipped][:5] == ["ReLU6 is not homogeneous"] * 5
    replaced = equalize_weights(network, (batch()[:1],), replace_relu6=True)
    assert len(replaced.pairs) == 5
    assert not any(isinstance(module, nn.ReLU6) for module in replaced.model.modules())
    with torch.no_grad():
        expected = separable(nn.ReLU)(batch())
        assert float((replaced.model(batch()) - expected).abs().max()) <= SAME * float(expected.abs().max())


def test_layers_that_cannot_be_rescaled_are_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 3, 1)
            self.b = nn.Conv2d(3, 3, 1)
            self.c = nn.Conv2d(3, 3, 1)
            self.d = nn.Conv2d(3, 3, 1)
            self.plain = nn.BatchNorm2d(3, affine=False)
            self.e = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            y = torch.relu(self.b(y)) + y  # a is read twice, b is added
            y = torch.sigmoid(self.c(y))
            y = torch.relu(self.plain(self.d(y)))
            return self.e(torch.relu(self.e(y)))

    torch.manual_seed(0)
    found = equalize_weights(Odd(), (torch.randn(1, 3, 4, 4),))
    reasons = {skipped.layer: skipped.reason for skipped in found.skipped}
    assert not found.pairs
    assert "several layers" in reasons["a"]
    assert "add" in reasons["b"]
    assert "sigmoid" in reasons["c"]
    assert "no weights of its own" in reasons["d"]
    assert "shared" in reasons["e"]


def test_dead_channels_stay_finite() -> None:
    network = separable()
    with torch.no_grad():
        network[0].weight[3] = 0.0
        network[1].bias[3] = -1.0
        network[3].weight[5] = 0.0
        network[1].weight[7] = 0.0
    x = batch()
    with torch.no_grad():
        expected = network(x)
        for found in both(network):
            assert all(bool(p.isfinite().all()) for p in found.model.parameters())
            assert float((found.model(x) - expected).abs().max()) <= SAME * float(expected.abs().max())


def test_refuses_to_measure_activations_without_data() -> None:
    with pytest.raises(ValueError, match="without a batch"):
        equalize_activations(separable(), [])
