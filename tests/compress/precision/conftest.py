"""A small convolutional network on handwritten digits, and the same function with one layer made sensitive."""

import copy
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.qat import prepare as qat

OUTLIER = 1000.0


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 8, 8) in [0, 1] with their classes; training and validation share none."""

    images: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> Batch:
        return Batch((self.images[index],), self.labels[index], index)


class Frontend(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.3) / 0.4


class Network(nn.Module):
    """Four convolutions and a linear layer: `body.0`, `body.3`, `body.6`, `body.9`, `head`."""

    def __init__(self) -> None:
        super().__init__()
        self.frontend = Frontend()
        blocks: list[nn.Module] = []
        for inputs, outputs, stride in ((1, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 2)):
            blocks += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.body = nn.Sequential(*blocks)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.frontend(x)).mean((2, 3)))


@cache
def _data() -> tuple[Digits, Digits]:
    found = load_digits()
    images = torch.from_numpy(found.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(found.target)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, val = order[:1300], order[1300:]
    return Digits(images[train], labels[train]), Digits(images[val], labels[val])


@cache
def _trained() -> Network:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train, _ = _data()
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(4):
        for index in torch.randperm(len(train.labels)).split(64):
            loss = nn.functional.cross_entropy(network(train.images[index]), train.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def with_outlier(network: Network) -> Network:
    """The same function; one channel between `body.3` and `body.6` is 1000 times larger than it was."""
    twin = copy.deepcopy(network)
    norm, after = twin.body[4], twin.body[6]
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(after, nn.Conv2d)
    channel = int(norm.weight.abs().argmax())  # one that lives
    with torch.no_grad():
        norm.weight[channel] *= OUTLIER
        norm.bias[channel] *= OUTLIER
        after.weight[:, channel] /= OUTLIER
    return twin


def score(output: Tensor, labels: Tensor) -> Tensor:
    return (output.argmax(1) == labels).float()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def train() -> Digits:
    return _data()[0]


@pytest.fixture(scope="session")
def val() -> Digits:
    return _data()[1]


@pytest.fixture
def network() -> Network:
    """Trained; a copy."""
    return copy.deepcopy(_trained())


@pytest.fixture
def outlier() -> Network:
    """Trained, with one sensitive layer: `body.6` reads the channel that is 1000 times too large."""
    return with_outlier(_trained())


def prepared(network: nn.Module, data: Digits, quantizer: str, floats: tuple[str, ...] = ("frontend",)) -> qat.Prepared:
    """Calibrated on 256 training examples, in evaluation mode."""
    found = qat.prepare(network, (data.images[:2],), quantizer, float_modules=floats)
    qat.calibrate(found, list(data.images[:256].split(64)))
    return found.eval()
