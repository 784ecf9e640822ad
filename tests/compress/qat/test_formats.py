"""Number formats beside int8: their rounding by hand, their graphs in the runtimes, and who may have them."""

import dataclasses
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import profiles
from compress.errors import RecipeError
from compress.qat import formats
from compress.qat import prepare as qat
from compress.qat.blocks import BlockedWeightPerChannel, block_of, block_scales
from compress.qat.float8 import fake_quantize, round_e4m3
from compress.qat.quantizer import names, rules
from exporters import build_log, onnx_to_rtx_engine, torch_to_onnx
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles.runners import on_onnxruntime

needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx")
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs openvino")


class Mixed(nn.Module):
    """A convolution with batch norm, two linear layers, a product of two tensors: (B, 3, 8, 8) -> (B, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.wide = nn.Linear(16, 64)
        self.narrow = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = torch.relu(self.norm(self.conv(x))).flatten(2).transpose(1, 2)
        mixed = torch.softmax(x @ x.transpose(1, 2), -1) @ x
        return self.narrow(torch.relu(self.wide(mixed)).mean(1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made = Mixed()
    made(torch.randn(32, 3, 8, 8))
    return made.eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def exported(
    network: nn.Module, images: Tensor, quantizer: str, path: Path
) -> tuple[Tensor, nn.Module, onnx.ModelProto]:
    prepared = qat.prepare(network, (images[:4],), quantizer)
    qat.calibrate(prepared, [images])
    converted = qat.convert(prepared)
    opset = max(20, rules(quantizer).least_opset)
    torch_to_onnx.convert(
        converted, (images[:4],), path, opset=opset, input_names=["input"], output_names=["y"], metadata={}
    )
    return prepared(images).detach(), converted, onnx.load(path)


def run(path: Path, images: Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": images.numpy()})[0]


def test_e4m3_by_hand() -> None:
    """Three mantissa bits: steps of 1/8 from 1, of 32 from 256 to 448; the least subnormal is 2^-9; ties to even."""
    given = [1.0, 1.0625, 1.1875, 1.07, 240.0, 272.0, 300.0, 448.0, 500.0, -1e9, 2.0**-9, 2.0**-10, 2.9 * 2.0**-10, 0.0]
    wanted = [1.0, 1.0, 1.25, 1.125, 240.0, 256.0, 288.0, 448.0, 448.0, -448.0, 2.0**-9, 0.0, 2.0**-9, 0.0]
    assert round_e4m3(torch.tensor(given)).tolist() == wanted
    assert torch.isnan(round_e4m3(torch.tensor([float("nan")]))).all()


def test_the_scale_places_448_at_the_largest_value_and_gradients_stop_beyond_it() -> None:
    x = torch.tensor([0.5, 2.0, 3.0], requires_grad=True)
    scale = torch.tensor(2.0 / 448.0)  # calibrated on a largest magnitude of 2
    rounded = fake_quantize(x, scale)
    rounded.sum().backward()
    torch.testing.assert_close(rounded.detach(), torch.tensor([0.5, 2.0, 2.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0]


def test_rounding_costs_at_most_a_sixteenth_wherever_the_value_lies() -> None:
    x = torch.rand(10000, generator=torch.Generator().manual_seed(0)) * 447 + 2.0**-6
    assert float(((round_e4m3(x) - x) / x).abs().max()) <= 2.0**-4


def test_four_bits_by_hand() -> None:
    """The larger of max / 7 and -min / 8; a block of zeros does not break it, and blocks do not see each other."""
    weight = torch.zeros(1, 64)
    weight[0, :3] = torch.tensor([7.0, -8.0, 3.0])
    weight[0, 32:34] = torch.tensor([0.7, 0.2])
    scales = block_scales(weight, 32)
    torch.testing.assert_close(scales, torch.tensor([[1.0, 0.1]]))
    assert block_scales(torch.zeros(2, 32), 32).tolist() == [[2.0**-24], [2.0**-24]]


def test_the_search_never_does_worse_than_the_largest_magnitude() -> None:
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    weight[:, 5] *= 6  # an outlier that stretches every block

    def error(scales: Tensor) -> Tensor:
        blocks = weight.reshape(16, -1, 32)
        wide = scales.unsqueeze(-1)
        return ((blocks / wide).round().clamp(-8, 7) * wide - blocks).square().sum(-1)

    plain = torch.maximum(weight.reshape(16, -1, 32).amax(-1) / 7, -weight.reshape(16, -1, 32).amin(-1) / 8)
    found, reach = error(block_scales(weight, 32)), error(plain)
    assert bool((found <= reach).all())
    assert float(found.sum()) < 0.97 * float(reach.sum())


def test_blocks_divide_the_inputs() -> None:
    assert [block_of(inputs) for inputs in (256, 192, 96, 100)] == [128, 64, 32, None]


@pytest.mark.parametrize("quantizer", [name for name in names() if rules(name).ships != "bf16"])
def test_onnxruntime_computes_what_torch_computes(
    quantizer: str, network: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    prepared, converted, _ = exported(network, images, quantizer, tmp_path / "m.onnx")
    converted_output = converted(images).detach().numpy()
    size = float(prepared.abs().max())
    np.testing.assert_allclose(converted_output, prepared.numpy(), rtol=0, atol=1e-2 * size)
    np.testing.assert_allclose(run(tmp_path / "m.onnx", images), converted_output, rtol=0, atol=1e-2 * size)
    if rules(quantizer).ships in (
        "fp32",
        "fp16",
        "int4",
    ):  # no activation is rounded, so nothing can fall over a border
        np.testing.assert_allclose(run(tmp_path / "m.onnx", images), converted_output, rtol=0, atol=1e-5 * size)


def test_float8_is_stored_as_float8_and_trains(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    _, _, model = exported(network, images, "tensorrt_fp8", tmp_path / "m.onnx")
    stored = {len(t.dims) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT8E4M3FN}
    assert {0, 1, 2, 4} <= stored, "zero points per tensor and channel, matrices and a convolution"
    prepared = qat.prepare(network, (images[:4],), "tensorrt_fp8")
    qat.calibrate(prepared, [images])
    prepared.train()
    prepared(images).square().mean().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in prepared.parameters())
    assert sum(site.quantized for site in prepared.sites) == 5


def test_four_bit_weights_take_half_a_byte_and_stand_at_their_product(
    network: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    _, _, model = exported(network, images, "int4_weights", tmp_path / "m.onnx")
    (packed,) = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT4]
    assert sorted(packed.dims) == [5, 64]
    assert len(packed.raw_data) == 5 * 64 // 2
    makers = {name: node for node in model.graph.node for name in node.output}
    readers = [n for n in model.graph.node if any(packed.name in makers[i].input for i in n.input if i in makers)]
    assert {node.op_type for node in readers} <= {"MatMul", "Gemm"}
    prepared = qat.prepare(network, (images[:4],), "int4_weights")
    why = {site.module: site.reason for site in prepared.sites if not site.quantized}
    assert "no multiple of 32" in why["wide"]
    (weight,) = prepared.weights()
    assert isinstance(weight, BlockedWeightPerChannel)
    assert weight.scale.shape == (5, 1)


def test_onnxruntime_does_not_rewrite_float8_into_something_else(
    network: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    """Its extended rewrites refuse this graph, and change the values of others."""
    exported(network, images, "tensorrt_fp8", tmp_path / "m.onnx")
    found = on_onnxruntime.load(tmp_path / "m.onnx").run({"input": images.numpy()})["y"]
    np.testing.assert_allclose(found, run(tmp_path / "m.onnx", images), rtol=0, atol=1e-6)


@needs_rtx
@pytest.mark.parametrize(
    ("quantizer", "capability", "kernel"), [("tensorrt_fp8", "8.9", "FP8"), ("tensorrt_fp8", "12.0", "FP8")]
)
def test_tensorrt_has_kernels_for_it(
    quantizer: str, capability: str, kernel: str, network: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    exported(network, images, quantizer, tmp_path / "m.onnx")
    options = BuildOptions(capability=capability, batches=(1, 2, 4), name="e.engine")
    onnx_to_rtx_engine.convert(tmp_path / "m.onnx", profiles.target("h100"), tmp_path, options=options)
    found = build_log.kernels((tmp_path / "e.build.log").read_text())
    assert Counter(k.input_type for k in found if k.heavy) == {kernel: 5}


@needs_rtx
def test_ampere_refuses_float8_and_takes_four_bits(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    exported(network, images, "tensorrt_fp8", tmp_path / "m.onnx")
    options = BuildOptions(capability="8.0", batches=(1, 2, 4), name="e.engine")
    with pytest.raises(ExportError, match="fp8_e4m3"):
        onnx_to_rtx_engine.convert(tmp_path / "m.onnx", profiles.target("a100"), tmp_path, options=options)
    exported(network, images, "int4_weights", tmp_path / "four.onnx")
    built = onnx_to_rtx_engine.convert(tmp_path / "four.onnx", profiles.target("a100"), tmp_path, options=options)
    assert built.path.stat().st_size > 0


def test_a_device_gets_only_what_it_computes() -> None:
    h100, nano, a100, x86, core = (profiles.target(n) for n in ("h100", "jetson-nano", "a100", "x86", "hearing_aid"))
    assert formats.chosen(h100, "fp8").quantizer == "tensorrt_fp8"
    assert formats.chosen(a100, "bf16").quantizer == "bfloat16"
    assert formats.chosen(a100, "int4").precision == "fp16"
    assert formats.chosen(nano, "target") is nano
    assert nano.quantizer == "float16"
    assert formats.chosen(nano, "fp16") is nano
    assert formats.chosen(x86, "fp32").quantizer == "float32"
    for target, wanted, why in (
        (a100, "fp8", "no fp8 arithmetic"),
        (nano, "int8", "no int8 arithmetic"),
        (x86, "bf16", "computes bf16 in float32"),
        (core, "int4", "without four-bit weights"),
    ):
        with pytest.raises(RecipeError, match=why):
            formats.chosen(target, wanted)
    pretender = dataclasses.replace(a100, hardware=dataclasses.replace(a100.hardware, tops={"fp8": 1.0}))
    with pytest.raises(RecipeError, match=r"compute capability 8\.0, and FP8 starts at 8\.9"):
        formats.chosen(pretender, "fp8")


@needs_openvino
def test_openvino_runs_every_product_in_int8(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    from exporters.lint import on_openvino
    from exporters.lint.view import device, view

    _, _, model = exported(network, images, "openvino", tmp_path / "m.onnx")
    found = on_openvino.verdict(model, (), view(model, device(profiles.target("x86"))))
    assert found.facts["heavy_layers_int8"] == found.facts["heavy_layers"]
