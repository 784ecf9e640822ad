"""TensorFlow Lite files: their operators computed in numpy against onnxruntime, and their bytes read back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import ExportError
from exporters.onnx_to_tflite import RELU, SAME, convert, lower
from exporters.tflite.file import Operator, Tensor

Array = NDArray[Any]


class Net:
    """A Q/DQ graph, layer by layer."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.start, self.channels = shape, shape[1]
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.at = "x"

    def const(self, value: object) -> str:
        name = f"c{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def qdq(self, scale: float = 0.04, zero: int = 0) -> "Net":
        pair = self.const(np.float32(scale)), self.const(np.int8(zero))
        self.at = self.op("DequantizeLinear", self.op("QuantizeLinear", self.at, *pair), *pair)
        return self

    def weights(self, shape: tuple[int, ...], axis: int = 0) -> str:
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        fan_in = float(np.prod(shape)) / shape[axis]
        scale = (self.rng.uniform(0.5, 2, shape[axis]) / (74 * np.sqrt(fan_in))).astype(np.float32)
        return self.op("DequantizeLinear", self.const(codes), self.const(scale), axis=axis)

    def conv(self, channels: int, kernel: tuple[int, int], relu: bool = False, **attributes: Any) -> "Net":
        weight = self.weights((channels, self.channels // attributes.get("group", 1), *kernel))
        bias = self.const(self.rng.normal(0, 0.3, channels).astype(np.float32))
        self.at = self.op("Conv", self.at, weight, bias, kernel_shape=kernel, **attributes)
        self.at = self.op("Relu", self.at) if relu else self.at
        self.channels = channels
        return self

    def save(self, path: Path) -> Path:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.start))],
            [helper.make_tensor_value_info(self.at, TensorProto.FLOAT, None)],
            self.stored,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        return path


def separable(net: Net) -> None:
    net.qdq(zero=3).conv(8, (3, 3), relu=True, strides=[2, 2], pads=[0, 0, 1, 1]).qdq(0.03, -128)  # SAME of 12 x 10
    net.conv(8, (3, 3), relu=True, group=8, pads=[1, 1, 1, 1]).qdq(0.03, -128)
    net.conv(12, (1, 1)).qdq(0.05, -7)


def symmetric_pads(net: Net) -> None:
    net.qdq(zero=-5).conv(6, (3, 3), relu=True, strides=[2, 2], pads=[1, 1, 1, 1]).qdq(0.03, -128)
    net.conv(5, (3, 3), dilations=[2, 1], pads=[0, 1, 3, 0]).qdq(0.05, 9)


def residual(net: Net) -> None:
    net.qdq().conv(6, (1, 1)).qdq(0.05, 4)
    skip = net.at
    net.conv(6, (3, 3), pads=[1, 1, 1, 1]).qdq(0.06, -3)
    net.at = net.op("Relu", net.op("Add", net.at, skip))
    net.qdq(0.05, -128)


def classifier(net: Net) -> None:
    net.qdq().conv(7, (3, 3), relu=True).qdq(0.04, -128)
    net.at = net.op("GlobalAveragePool", net.at)
    net.qdq(0.02, -128)
    net.at = net.op("Flatten", net.at)
    net.at = net.op(
        "Gemm", net.at, net.weights((4, 7)), net.const(net.rng.normal(0, 1, 4).astype(np.float32)), transB=1
    )
    net.qdq(0.05, 11)


def flattened(net: Net) -> None:
    net.qdq().conv(4, (3, 3), strides=[4, 4]).qdq(0.05, 2)
    net.at = net.op("MaxPool", net.at, kernel_shape=[2, 2], strides=[1, 1])
    net.qdq(0.05, 2)
    net.at = net.op("Flatten", net.at)
    net.at = net.op("Gemm", net.at, net.weights((3, 4 * 2 * 1)), transB=1)  # order of (C, H, W)
    net.qdq(0.06, 0)


def concatenated(net: Net) -> None:
    net.qdq().conv(4, (1, 1)).qdq(0.0517, 1)  # scales whose ratios put no code on a half
    left = net.at
    net.conv(3, (1, 1)).qdq(0.0313, -9)
    net.at = net.op("Concat", left, net.at, axis=1)
    net.channels = 7
    net.qdq(0.0607, 5).conv(2, (1, 1)).qdq(0.05, 0)


def averaged_signal(net: Net) -> None:
    """How torch writes AdaptiveAvgPool1d: an axis comes and goes around the mean, in front of the pair."""
    net.qdq().conv(4, (3, 3), relu=True).qdq(0.04, -128)
    net.at = net.op("Reshape", net.at, net.const(np.array([1, 4, 80], np.int64)))
    net.at = net.op("Unsqueeze", net.at, net.const(np.array([-2], np.int64)))
    net.at = net.op("Squeeze", net.op("GlobalAveragePool", net.at), net.const(np.array([-2], np.int64)))
    net.qdq(0.02, -128)
    net.at = net.op("Flatten", net.at)
    net.at = net.op("Gemm", net.at, net.weights((3, 4)), transB=1)
    net.qdq(0.05, 3)


def other_positions(net: Net) -> None:
    """The rows of a map behind each other: positions keep their order, and channels stay channels."""
    net.qdq().conv(4, (1, 1)).qdq(0.05, 2)
    net.at = net.op("Reshape", net.at, net.const(np.array([1, 4, 6, 20], np.int64)))
    net.conv(5, (3, 3), strides=[2, 3]).qdq(0.05, -4)
    net.at = net.op("Flatten", net.at)
    net.at = net.op("Gemm", net.at, net.weights((3, 5 * 2 * 6)), transB=1)
    net.qdq(0.06, 0)


CASES = [
    separable,
    symmetric_pads,
    residual,
    classifier,
    flattened,
    concatenated,
    averaged_signal,
    other_positions,
]


def real(tensor: Tensor, codes: Array) -> Array:
    shape = [1] * codes.ndim
    if len(tensor.scales) > 1:
        shape[tensor.axis] = -1
    return (codes.astype(np.float64) - tensor.zero) * np.array(tensor.scales).reshape(shape if codes.ndim else ())


def encode(tensor: Tensor, values: Array, activation: int) -> Array:
    values = np.maximum(values, 0) if activation == RELU else values
    return np.clip(np.rint(values / tensor.scales[0]) + tensor.zero, -128, 127).astype(np.int8)


def windows(op: Operator, x: Array, kernel: tuple[int, int]) -> Array:
    """(rows, columns, kh, kw, C) of (1, H, W, C), padded with real zeros as TensorFlow pads."""
    stride = op.options["stride_h"], op.options["stride_w"]
    dilation = op.options.get("dilation_h", 1), op.options.get("dilation_w", 1)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if op.options["padding"] == SAME:
        sizes = [-(-side // step) for side, step in zip(x.shape[1:3], stride, strict=True)]
        missing = [
            max(0, (n - 1) * s + r - side) for n, s, r, side in zip(sizes, stride, reach, x.shape[1:3], strict=True)
        ]
        x = np.pad(x, [(0, 0), *[(m // 2, m - m // 2) for m in missing], (0, 0)])
    rows, columns = ((side - r) // s + 1 for side, r, s in zip(x.shape[1:3], reach, stride, strict=True))
    found = np.empty((rows, columns, *kernel, x.shape[3]))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride[0], j * stride[1]
            found[i, j] = x[0, top : top + reach[0] : dilation[0], left : left + reach[1] : dilation[1]]
    return found


def compute(op: Operator, values: dict[int, Array]) -> Array:
    """What an operator gives, as TensorFlow Lite's specification of int8 operators says, in float64."""
    first, out = op.inputs[0], op.outputs[0]
    codes = values[id(first)]
    x = real(first, codes)
    if op.kind in ("RESHAPE", "PAD", "MAX_POOL_2D"):
        assert (out.scales, out.zero) == (first.scales, first.zero)
        if op.kind == "RESHAPE":
            return codes.reshape(out.shape)
        if op.kind == "PAD":
            return np.pad(codes, op.inputs[1].data, constant_values=first.zero)
        kernel = op.options["filter_h"], op.options["filter_w"]
        return windows(op, codes, kernel).max(axis=(2, 3))[None].astype(np.int8)
    if op.kind == "CONV_2D":
        weight = real(op.inputs[1], op.inputs[1].data)
        y = np.einsum("abijc,oijc->abo", windows(op, x, weight.shape[1:3]), weight)[None]
    elif op.kind == "DEPTHWISE_CONV_2D":
        weight = real(op.inputs[1], op.inputs[1].data)
        y = np.einsum("abijc,ijc->abc", windows(op, x, weight.shape[1:3]), weight[0])[None]
    elif op.kind == "FULLY_CONNECTED":
        y = x @ real(op.inputs[1], op.inputs[1].data).T
    elif op.kind == "ADD":
        y = x + real(op.inputs[1], values[id(op.inputs[1])])
    elif op.kind == "MEAN":
        y = x.mean(axis=(1, 2), keepdims=bool(op.options["keep_dims"]))
    elif op.kind == "CONCATENATION":
        y = np.concatenate([real(t, values[id(t)]) for t in op.inputs], axis=op.options["axis"])
    else:
        assert op.kind == "QUANTIZE"
        y = x
    if len(op.inputs) == 3:  # the bias, int32 at scale of input times weights
        y = y + real(op.inputs[2], op.inputs[2].data)
    return encode(out, y, op.options.get("activation", 0))


@pytest.mark.parametrize("layers", CASES, ids=lambda layers: layers.__name__)
def test_operators_equal_onnxruntime(layers: Callable[[Net], None], tmp_path: Path) -> None:
    net = Net((1, 3, 12, 10))
    layers(net)
    model = net.save(tmp_path / "net.onnx")
    x = np.random.default_rng(1).normal(0, 1, net.start).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    lowered = lower(model)
    (entry,), (end,) = lowered.inputs, lowered.outputs
    values = {id(entry): encode(entry, np.moveaxis(x, 1, -1).astype(np.float64), 0)}
    for op in lowered.operators:
        values[id(op.outputs[0])] = compute(op, values)
        assert values[id(op.outputs[0])].shape == op.outputs[0].shape
    got = real(end, values[id(end)])
    got = np.moveaxis(got, -1, 1) if got.ndim == 4 else got
    steps = np.abs(got - expected) / end.scales[0]
    assert np.ptp(got) > 0
    assert steps.max() < 1.5  # the bias is rounded to int32 here: one step where a value is next to a half
    assert (steps > 0.5).mean() < 0.02


def test_padding_that_tensorflow_names_needs_no_operator(tmp_path: Path) -> None:
    for layers, pads in ((separable, 0), (symmetric_pads, 2)):
        net = Net((1, 3, 12, 10))
        layers(net)
        kinds = [op.kind for op in lower(net.save(tmp_path / "net.onnx")).operators]
        assert kinds.count("PAD") == pads


def test_what_is_not_quantised_stays_outside(tmp_path: Path) -> None:
    net = Net((1, 3, 12, 10))
    net.at = net.op("Mul", net.at, net.const(np.float32(0.5)))
    separable(net)
    net.at = net.op("Softmax", net.at, axis=1)
    artifact = convert(net.save(tmp_path / "net.onnx"), None, tmp_path)
    assert [name.split()[0] for name in artifact.facts["outside"]] == ["Mul", "Softmax"]
    assert "runs in floats" in artifact.note
    assert artifact.facts["operators"] == {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 1}


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    net = Net((1, 3, 12, 10))
    separable(net)
    model = net.save(tmp_path / "net.onnx")
    first = convert(model, None, tmp_path / "a").path.read_bytes()
    assert first == convert(model, None, tmp_path / "b").path.read_bytes()
    assert first[4:8] == b"TFL3"


def test_bytes_read_back(tmp_path: Path) -> None:
    schema = pytest.importorskip("ethosu.vela.tflite.Model")
    net = Net((1, 3, 12, 10))
    residual(net)
    model = net.save(tmp_path / "net.onnx")
    read = schema.Model.GetRootAs(convert(model, None, tmp_path).path.read_bytes(), 0)
    lowered = lower(model)
    graph = read.Subgraphs(0)
    assert read.Version() == 3
    assert graph.OperatorsLength() == len(lowered.operators)
    wanted = {t.name: t for op in lowered.operators for t in (*op.inputs, *op.outputs)}
    for number in range(graph.TensorsLength()):
        tensor = graph.Tensors(number)
        expected = wanted[tensor.Name().decode()]
        assert tuple(tensor.ShapeAsNumpy()) == expected.shape
        np.testing.assert_allclose(tensor.Quantization().ScaleAsNumpy(), expected.scales, rtol=1e-6)
        assert set(tensor.Quantization().ZeroPointAsNumpy()) == {expected.zero}
        if expected.data is not None:
            stored = read.Buffers(tensor.Buffer()).DataAsNumpy()
            np.testing.assert_array_equal(stored.view(expected.data.dtype), expected.data.reshape(-1))


def test_operators_without_a_counterpart_are_named(tmp_path: Path) -> None:
    net = Net((1, 8, 12, 10))
    net.qdq().conv(8, (3, 3), group=2).qdq()
    with pytest.raises(ExportError, match=r"Conv node 'n\d+' has no int8 counterpart in TensorFlow Lite as it is used"):
        lower(net.save(tmp_path / "grouped.onnx"))
    net = Net((1, 3, 12, 10))
    net.qdq().conv(4, (3, 3))
    net.at = net.op("Clip", net.at, net.const(np.float32(0)), net.const(np.float32(2)))
    net.qdq()
    with pytest.raises(ExportError, match=r"clamps to other bounds than Relu and Clip\(0, 6\)"):
        lower(net.save(tmp_path / "clipped.onnx"))


def test_a_float_model_is_refused(tmp_path: Path) -> None:
    net = Net((1, 3, 12, 10))
    net.at = net.op("Relu", net.at)
    with pytest.raises(ExportError, match="has no quantised layers"):
        convert(net.save(tmp_path / "float.onnx"), None, tmp_path)
