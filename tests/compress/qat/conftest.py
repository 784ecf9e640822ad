"""Six small students, one per shape of network that the quantisers must know, with batch norm that has lived."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.qat import prepare as qat
from exporters import torch_to_onnx


class Frontend(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25


class Student(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.frontend = Frontend()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.frontend(x))


def conv(cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout, eps=1e-3)
    )


class Residual(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.first = conv(cin, cout, stride=stride)
        self.second = conv(cout, cout)
        self.skip = conv(cin, cout, 1, stride) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.relu(self.first(x)))
        y += self.skip(x)
        return self.relu(y)


class Inverted(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.body = nn.Sequential(
            conv(channels, wide, 1), nn.Hardswish(inplace=True), conv(wide, wide, groups=wide), nn.ReLU6(inplace=True)
        )
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, wide, 1), nn.Hardsigmoid())
        self.project = conv(wide, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + self.project(y * self.gate(y))


class Branches(nn.Module):
    def __init__(self, cin: int) -> None:
        super().__init__()
        self.left = nn.Sequential(conv(cin, 16), nn.ReLU())
        self.right = nn.Sequential(conv(cin, 16, 1), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.after = nn.Sequential(conv(32, 16), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.pool(torch.cat([self.left(x), self.right(x)], 1)))


class SpatialMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def residual() -> nn.Module:
    return nn.Sequential(conv(3, 16), nn.ReLU(inplace=True), Residual(16, 16, 1), Residual(16, 32, 2), *head(32))


def separable() -> nn.Module:
    return nn.Sequential(
        conv(3, 16, stride=2), nn.Hardswish(), Inverted(16), conv(16, 16, groups=16), nn.ReLU(), *head(16)
    )


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=True), nn.BatchNorm2d(16), nn.ReLU6(),
        nn.Conv2d(16, 32, 3, padding="same"), nn.ReLU6(),
        nn.AvgPool2d(2), conv(32, 16), nn.ReLU6(), SpatialMean(), nn.Dropout(0.5), nn.Linear(16, 10),
    )  # fmt: skip


def audio() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, 16, 9, 4, 4), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 16, 3, padding=1, groups=4, bias=False), nn.BatchNorm1d(16), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def concat() -> nn.Module:
    return nn.Sequential(conv(3, 16), nn.ReLU(), Branches(16), *head(16))


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 16 * 16, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Dropout(0.2), nn.Linear(48, 32),
        nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip


NETWORKS = {
    "residual": residual,
    "separable": separable,
    "plain": plain,
    "audio": audio,
    "concat": concat,
    "mlp": mlp,
}


# Exports take seconds each: every network goes to at least two runtimes, not to all.
EXPORTED = {
    "tensorrt": ("residual", "separable", "audio", "concat"),
    "onnxruntime_x86": ("residual", "separable", "plain", "mlp"),
    "cortex_m": ("plain", "audio", "concat", "mlp"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that ask for `made` run on the networks exported for the runtime of their file (or all)."""
    if "made" in metafunc.fixturenames:
        own = metafunc.module.__name__.rpartition("test_")[2]
        pairs = [(name, q) for q, found in EXPORTED.items() for name in found if own in (q, "convert")]
        metafunc.parametrize("made", pairs, indirect=True, ids=["-".join(pair) for pair in pairs])


def build(name: str, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    student = Student(NETWORKS[name]())
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.3, 2.0)
                module.weight.uniform_(-1.5, 1.5)  # of both signs: folding a negative factor flips codes
                module.bias.normal_(0, 0.3)
    return student


def batch(name: str, size: int = 32, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 512) if name == "audio" else (3, 16, 16)
    return torch.rand(size, *shape, generator=generator)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=list(NETWORKS))
def name(request: pytest.FixtureRequest) -> str:
    """Each network in turn."""
    return str(request.param)


@pytest.fixture
def make() -> Callable[..., Student]:
    """build(name, seed) -> a student."""
    return build


@pytest.fixture
def inputs() -> Callable[..., Tensor]:
    """batch(name, size, seed) -> inputs of that student, in [0, 1]."""
    return batch


@dataclass(frozen=True)
class Exported:
    """One student after a little fine-tuning, in the forms that must agree."""

    x: Tensor
    model: qat.Prepared
    converted: nn.Module
    path: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Exported]:
    """exported(name, quantizer); each is made once."""
    folder = tmp_path_factory.mktemp("exported")

    @cache
    def export(name: str, quantizer: str) -> Exported:
        torch.set_num_threads(1)
        x = batch(name)
        model = qat.prepare(build(name), (x[:1],), quantizer)
        qat.calibrate(model, [x])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for _ in range(2):
            loss = nn.functional.cross_entropy(model.train()(x), torch.arange(len(x)) % 10)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        converted = qat.convert(model.eval())
        path = folder / f"{name}-{quantizer}.onnx"
        torch_to_onnx.convert(converted, (x[:2],), path, opset=20, input_names=["x"], output_names=["y"], metadata={})
        return Exported(x, model, converted, path)

    return export


@pytest.fixture
def made(request: pytest.FixtureRequest, exported: Callable[[str, str], Exported]) -> Exported:
    """Each exported student in turn."""
    return exported(*request.param)
