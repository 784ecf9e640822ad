"""A student costed from memory costs what its ONNX file does."""

from pathlib import Path

import pytest
import torch
from torch import nn

import profiles
from compress.precision.cost import Pricer, graph_of, narrowed
from compress.qat import prepare as qat
from exporters import torch_to_onnx
from tests.compress.precision.conftest import Digits, prepared

X86_ERROR = 0.04  # onnxruntime's names for averages and last products differ in places


@pytest.mark.parametrize(
    ("quantizer", "target", "floats", "tolerance"),
    [
        ("tensorrt", "jetson", (), 1e-9),
        ("tensorrt", "jetson", ("body.6",), 1e-9),
        ("onnxruntime_x86", "x86", (), X86_ERROR),
        ("cortex_m", "cortex-m4", (), 1e-9),
    ],
)
def test_equals_the_cost_of_the_file(
    network: nn.Module,
    train: Digits,
    tmp_path: Path,
    quantizer: str,
    target: str,
    floats: tuple[str, ...],
    tolerance: float,
) -> None:
    converted = qat.convert(prepared(network, train, quantizer, ("frontend", *floats)))
    example = (train.images[:2],)
    fast = profiles.profile(graph_of(converted, example), target=target)  # type: ignore[arg-type]
    path = tmp_path / "model.onnx"
    torch_to_onnx.convert(converted, example, path, opset=20, input_names=["x"], output_names=["y"], metadata={})
    slow = profiles.profile(path, target=target)
    assert fast.latency_ms == pytest.approx(slow.latency_ms, rel=tolerance)
    assert fast.weight_bytes == slow.weight_bytes
    assert fast.peak_activation_bytes == slow.peak_activation_bytes
    assert (fast.macs, fast.precision) == (slow.macs, slow.precision)
    assert [layer.precision for layer in fast.layers] == [layer.precision for layer in slow.layers]


@pytest.fixture
def pricer(network: nn.Module, train: Digits) -> Pricer:
    return Pricer(network, (train.images[:2],), profiles.target("jetson"), "tensorrt")


def test_every_layer_has_a_cost_in_each_precision(pricer: Pricer) -> None:
    found = {costs.layer.name: costs for costs in pricer.by_layer()}
    assert list(found) == ["body.0", "body.3", "body.6", "body.9", "head"]
    assert all(set(costs.latency_ms) == {"int8", "fp16", "fp32"} for costs in found.values())
    # 32 x 32 x 3 x 3 weights, and 32 biases that int8 keeps in 32 bits.
    assert found["body.6"].weight_bytes == {"int8": 9216 + 128, "fp16": 2 * (9216 + 32), "fp32": 4 * (9216 + 32)}
    large = found["body.6"].latency_ms
    assert large["int8"] < large["fp16"] < large["fp32"]
    parts = sum(costs.latency_ms["int8"] for costs in found.values())
    assert parts < pricer.assignment().latency_ms  # the rest: starting, the front end, the average


def test_a_float_layer_costs_its_weights_and_its_conversions(pricer: Pricer) -> None:
    integers, one = pricer.assignment(), pricer.assignment(("body.6",))
    assert one.weight_bytes == integers.weight_bytes + 3 * 9216
    assert integers.latency_ms < one.latency_ms
    half = pricer.assignment(("body.6",), "fp16")
    assert half.weight_bytes < one.weight_bytes
    assert {layer.name: layer.precision for layer in half.layers}["conv2d_2"] == "fp16"
    assert {layer.name: layer.precision for layer in half.layers}["conv2d_1"] == "int8"


def test_a_whole_float_student_rounds_nothing(pricer: Pricer) -> None:
    cost = pricer.floating("fp32")
    assert {layer.precision for layer in cost.layers} == {"fp32"}
    assert not any("QuantizeLinear" in layer.ops for layer in cost.layers)
    assert pricer.floating("fp16").weight_bytes * 2 == cost.weight_bytes


def test_narrowing_changes_no_count(network: nn.Module, train: Digits) -> None:
    converted = qat.convert(prepared(network, train, "tensorrt"))
    wide = graph_of(converted, (train.images[:2],))  # type: ignore[arg-type]
    narrow = narrowed(wide, "float16")
    assert [op.macs for op in narrow.ops] == [op.macs for op in wide.ops]
    assert {edge.dtype for edge in narrow.edges.values()} == {"float16", "int8"}
    torch.testing.assert_close(sum(op.macs for op in wide.ops), profiles.profile(wide, target="jetson").macs)
