"""Small networks of the kinds that the pipeline exports, and their ONNX files, made once per session."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn

from exporters import torch_to_onnx
from profiles.target import Budget, Hardware, Target

FAKES = Path(__file__).parent / "fakes"
CLASSES = '["a", "b", "c"]'


class Residual(nn.Module):
    """conv, conv, skip, relu; the first convolution depthwise where asked."""

    def __init__(self, inputs: int, outputs: int, stride: int, depthwise: bool) -> None:
        super().__init__()
        middle = inputs if depthwise else outputs
        self.first = nn.Conv2d(inputs, middle, 3, stride, 1, groups=inputs if depthwise else 1, bias=False)
        self.norm1 = nn.BatchNorm2d(middle)
        self.second = nn.Conv2d(middle, outputs, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = nn.Identity() if stride == 1 and inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.norm2(self.second(torch.relu(self.norm1(self.first(x)))))
        return torch.relu(y + self.skip(x))


class Network(nn.Module):
    """Three residual blocks, global pool, dropout, classifier: (B, 3, 16, 16) -> (B, 3)."""

    def __init__(self, depthwise: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Residual(16, 16, 1, depthwise), Residual(16, 32, 2, depthwise))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 16, 16) -> (B, 3)."""
        x = self.blocks(torch.relu(self.norm(self.stem(x))))
        return self.head(self.drop(torch.flatten(self.pool(x), 1)))


class LogMel(nn.Module):
    """(B, 1600) samples -> (B, frames, 20) log energies."""

    def __init__(self, size: int = 256, window: int = 200, center: bool = False) -> None:
        super().__init__()
        self.size, self.center = size, center
        self.register_buffer("window", torch.hann_window(window))
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("bands", torch.rand(size // 2 + 1, 20, generator=generator))

    def forward(self, samples: Tensor) -> Tensor:
        """See the class."""
        spectrum = torch.view_as_real(
            torch.stft(
                samples,
                n_fft=self.size,
                hop_length=80,
                win_length=len(self.window),
                window=self.window,
                center=self.center,
                onesided=True,
                return_complex=True,
            )
        )
        power = spectrum.square().sum(-1)
        return torch.log(torch.clamp(power.transpose(1, 2) @ self.bands, min=1e-6))


@dataclass(frozen=True)
class Exported:
    """A module, what it was exported as, and inputs for both."""

    module: nn.Module
    path: Path
    inputs: Tensor
    facts: Mapping[str, object]

    def torch_outputs(self) -> NDArray[np.float32]:
        """What the module gives for the inputs."""
        with torch.no_grad():
            found: NDArray[np.float32] = self.module(self.inputs).numpy()
        return found

    def onnx_outputs(self) -> NDArray[np.float32]:
        """What onnxruntime gives for them."""
        return run(self.path.read_bytes(), {"input": self.inputs.numpy()})[0]


def run(model: bytes | ModelProto, inputs: dict[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
    """Outputs by onnxruntime, without its own graph rewrites, so that a pass cannot hide behind them."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(None, dict(inputs))
    return found


@pytest.fixture(scope="session")
def run_onnx() -> Callable[[bytes | ModelProto, dict[str, NDArray[np.generic]]], list[NDArray[np.float32]]]:
    """`run`, for tests that cannot import this file."""
    return run


@pytest.fixture(scope="session")
def make_network() -> Callable[[bool], nn.Module]:
    """A float network with running statistics that are not 0 and 1, always the same."""

    def make(depthwise: bool = False) -> nn.Module:
        torch.manual_seed(0)
        network = Network(depthwise)
        with torch.no_grad():
            for _ in range(3):
                network(torch.randn(16, 3, 16, 16) + 0.5)
        return network.eval()

    return make


@pytest.fixture(scope="session")
def quantise() -> Callable[[nn.Module, Tensor, str], nn.Module]:
    """Post-training quantisation with the pipeline's own rules: module, example, quantizer -> converted module."""
    from compress.qat import prepare as qat

    def make(module: nn.Module, example: Tensor, quantizer: str) -> nn.Module:
        prepared = qat.prepare(module, (example,), quantizer)
        generator = torch.Generator().manual_seed(1)
        qat.calibrate(prepared, [torch.randn(8, *example.shape[1:], generator=generator) for _ in range(2)])
        return qat.convert(prepared)

    return make


def _export(module: nn.Module, path: Path, inputs: Tensor) -> Exported:
    made = torch_to_onnx.convert(
        module, (inputs[:4],), path, opset=20, input_names=["input"], output_names=["logits"], metadata={}
    )
    return Exported(module, path, inputs, made.facts)


@pytest.fixture(scope="session")
def inputs() -> Tensor:
    """(9, 3, 16, 16), normal."""
    return torch.randn(9, 3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="session")
def float_model(
    make_network: Callable[[bool], nn.Module], inputs: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """The float network."""
    return _export(make_network(False), tmp_path_factory.mktemp("float") / "model.onnx", inputs)


@pytest.fixture(scope="session")
def int8_model(
    make_network: Callable[[bool], nn.Module],
    quantise: Callable[[nn.Module, Tensor, str], nn.Module],
    inputs: Tensor,
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    """The network quantised for TensorRT."""
    module = quantise(make_network(False), inputs[:4], "tensorrt")
    return _export(module, tmp_path_factory.mktemp("int8") / "model.onnx", inputs)


@pytest.fixture(scope="session")
def depthwise_model(
    make_network: Callable[[bool], nn.Module],
    quantise: Callable[[nn.Module, Tensor, str], nn.Module],
    inputs: Tensor,
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    """The depthwise network quantised with a quantised output (cortex_m rules)."""
    module = quantise(make_network(True), inputs[:4], "cortex_m")
    return _export(module, tmp_path_factory.mktemp("depthwise") / "model.onnx", inputs)


@pytest.fixture
def log_mel() -> Callable[..., nn.Module]:
    """The front-end's class."""
    return LogMel


@pytest.fixture
def int8_proto(int8_model: Exported) -> ModelProto:
    """The int8 network, to be changed by a test."""
    return onnx.load(int8_model.path)


@pytest.fixture
def a100() -> Target:
    """An A100, as far as builders ask."""
    return target("a100", "8.0", "8.6")


@pytest.fixture
def orin() -> Target:
    """An Orin: no ahead-of-time builder knows its compute capability."""
    return target("jetson", "8.7", "8.6")


@pytest.fixture
def x86() -> Target:
    """A processor with onnxruntime."""
    return target("x86", "", "", "onnxruntime")


def target(name: str, capability: str, check: str, runtime: str = "tensorrt") -> Target:
    """A target with what builders read and nothing else."""
    return Target(
        name=name,
        device=name.upper(),
        family="nvidia-gpu",
        runtime=runtime,
        runtime_version="",
        precision="int8",
        quantizer="tensorrt",
        opset=20,
        width_multiple=16,
        builders=(),
        checks=(),
        runners=(),
        compute_capability=capability,
        check_capability=check,
        budget=Budget(),
        hardware=Hardware(clock_mhz=1.0, units=1, tops={}, bandwidth_gbs=1.0),
        sources={},
    )


@pytest.fixture
def unchanged_by() -> Callable[..., None]:
    """Check that two models give the same outputs: exactly, or within `tolerance` where one is given."""

    def check(
        before: ModelProto, after: ModelProto, inputs: dict[str, NDArray[np.generic]], tolerance: float = 0.0
    ) -> None:
        onnx.checker.check_model(after, full_check=True)
        for first, second in zip(run(before, inputs), run(after, inputs), strict=True):
            np.testing.assert_allclose(second, first, rtol=0.0, atol=tolerance)

    return check


@pytest.fixture(scope="session")
def fakes() -> Path:
    """The folder with the stand-ins for TensorRT and the CUDA driver."""
    return FAKES


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stand-in for the CUDA driver's library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make the stand-in for the CUDA driver with")
    folder = tmp_path_factory.mktemp("driver")
    command = [compiler, "-shared", "-fPIC", "-O1", str(FAKES / "cuda.c"), "-o", str(folder / "libcuda.so.1")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def start(driver: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Start a bundle's script beside the stand-ins: folder, words, and variables of the environment."""

    def run(folder: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        child = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(FAKES),
            "LD_LIBRARY_PATH": str(driver),
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        command = [sys.executable, "-B", str(folder / "build_engine.py"), "--measure-seconds", "0.02", *words]
        return subprocess.run(command, env=child, capture_output=True, text=True, check=False)

    return run
