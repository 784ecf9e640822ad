"""The last map and the classifier are found in networks that share no names, against features taken by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.errors import RecipeError
from compress.residual_network import ResidualNetwork
from compress.selection.observation import at_search, observe

IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


class Functional(nn.Module):
    """Its ReLU and its mean are no modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.drop(self.features(x).mean(dim=(2, 3))))
        return output


class Tokens(nn.Module):
    """Rows of the image as tokens, classified each, then averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(8, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(F.gelu(self.mix(self.embed(x.squeeze(1))))).mean(dim=1)
        return output


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cells(x.squeeze(1))
        output: Tensor = self.head(states[:, -1])
        return output


def perceptron(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), *layers)


def squeeze() -> nn.Sequential:
    """Classified at each position, averaged afterwards, as SqueezeNet does."""
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_the_map_before_the_pooling_and_what_the_linear_layer_takes() -> None:
    network = Functional().train()
    seen = observe(network, IMAGES)
    with at_search(network), torch.no_grad():
        features, output = network.features(IMAGES), network(IMAGES)
    assert torch.equal(seen.features, features)
    assert torch.equal(seen.output, output)
    assert seen.classifier is not None
    torch.testing.assert_close(seen.classifier.inputs, features.mean(dim=(2, 3)))
    assert torch.equal(seen.vectors, seen.classifier.inputs)


def test_modules_of_a_residual_network() -> None:
    network, found = ResidualNetwork(1, (4, 8), (1, 1), 3), []
    handle = network.stages.register_forward_hook(lambda module, arguments, output: found.append(output))
    seen = observe(network, IMAGES)
    handle.remove()
    assert torch.equal(seen.features, found[0])
    assert seen.features.shape == (6, 8, 4, 4)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (Functional(), (6, 4, 6, 6)),
        (ResidualNetwork(1, (4, 8), (1, 1), 3), (6, 8, 4, 4)),
        (squeeze(), (6, 4, 6, 6)),
        (Tokens(), (6, 8, 5)),
        (Recurrent(), (6, 8, 6)),
        (perceptron(nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 3)), (6, 7)),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 3, 1), nn.Flatten()),
         (6, 4, 6, 6)),
    ],
)  # fmt: skip
def test_features_and_gradients_of_many_architectures(network: nn.Module, shape: tuple[int, ...]) -> None:
    seen = observe(network, IMAGES)
    assert seen.features.shape == shape
    assert seen.classifier is not None
    last = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    with at_search(network):
        F.cross_entropy(network(IMAGES), LABELS).backward()
    assert last.weight.grad is not None
    torch.testing.assert_close(seen.gradient(LABELS), last.weight.grad.flatten(1), rtol=1e-4, atol=1e-6)


def test_a_map_of_answers_is_classified_position_by_position() -> None:
    network = nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 3, 1))
    labels = torch.randint(0, 3, (6, 8, 8), generator=torch.Generator().manual_seed(1))
    seen = observe(network, IMAGES)
    F.cross_entropy(network(IMAGES), labels).backward()
    head = network[2]
    assert isinstance(head, nn.Conv2d)
    assert head.weight.grad is not None
    torch.testing.assert_close(seen.gradient(labels), head.weight.grad.flatten(1), rtol=1e-4, atol=1e-7)
    assert seen.features.shape == (6, 5, 8, 8)


def test_the_network_is_left_as_it_was() -> None:
    network = Functional().train()
    network.drop.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    momentum = network.norm.momentum
    observe(network, IMAGES, units=True)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert network.norm.momentum == momentum
    assert not network.conv._forward_hooks
    assert not network.conv._forward_pre_hooks


def test_batch_norms_take_the_batchs_statistics() -> None:
    network = Functional()
    network.norm.running_mean += 100.0  # type: ignore[operator]
    torch.testing.assert_close(observe(network.eval(), IMAGES).features, observe(network.train(), IMAGES).features)


def test_units_are_on_where_the_activation_is_positive() -> None:
    network = Functional()
    (active,) = observe(network, IMAGES, units=True).active
    assert torch.equal(active, observe(network, IMAGES).features.flatten(1) > 0)
    assert observe(network, IMAGES).active == ()


def test_what_is_no_classifier_says_so_and_keeps_its_features() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 6), nn.Flatten())
    seen = observe(network, IMAGES)
    assert seen.classifier is None
    assert seen.features.shape == (6, 4, 6, 6)
    with pytest.raises(RecipeError, match="of no linear layer"):
        seen.gradient(LABELS)


@pytest.mark.parametrize("labels", [None, torch.zeros(6), torch.zeros(6, 2, dtype=torch.int64)])
def test_labels_that_are_no_classes_are_refused(labels: Tensor | None) -> None:
    with pytest.raises(RecipeError, match="class index"):
        observe(Functional(), IMAGES).gradient(labels)


def test_networks_without_features_are_refused() -> None:
    with pytest.raises(RecipeError, match="no features"):
        observe(perceptron(nn.Linear(64, 3)), IMAGES)
    with pytest.raises(RecipeError, match="no features"):
        observe(nn.Flatten(), IMAGES)
    with pytest.raises(RecipeError, match="gave tuple"):
        observe(nn.GRU(8, 6, batch_first=True), IMAGES.squeeze(1))
