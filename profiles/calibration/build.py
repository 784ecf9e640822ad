"""Small ONNX networks from random weights, in float32 or with the Q/DQ pairs that onnxruntime's int8 kernels want.

Timing asks for the shapes and the kernels of a trained network, not for its answers: weights are random, and the
scales of codes are such that values stay in range.
"""

from collections.abc import Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

OPSET = 20
IR_VERSION = 10
RECTIFIED = frozenset({"Relu", "Clip", "HardSigmoid", "Sigmoid"})  # never below zero: codes start at zero


class Net:
    """A network while layers are added to it. Values are named by strings; `shape` gives their shapes.

    Args:
        shape: of the only input "x", batch first; (N, C, H, W), (N, C, L) or (N, K).
        rng: where weights come from.
        int8: whether every layer gets codes: uint8 activations, int8 weights per output channel, float biases.
    """

    def __init__(self, shape: Sequence[int], rng: np.random.Generator, int8: bool = False) -> None:
        self.int8 = int8
        self.shape: dict[str, tuple[int, ...]] = {"x": tuple(shape)}
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._stored: list[onnx.TensorProto] = []
        self._centred: dict[str, bool] = {}  # of values with codes: whether these are on both sides of zero
        self.x = self._codes("x", centred=True) if int8 else "x"

    def conv(
        self,
        x: str,
        channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        act: str = "Relu",
        skip: str = "",
        padded: bool = True,
    ) -> str:
        """A convolution with as many spatial axes as `x`.

        Args:
            act: what follows it: an operator of `activation`, or "" for none.
            skip: a value that is added before the activation.
            padded: by half a kernel on each side, which keeps the size at stride 1; else not at all.
        """
        batch, before, *size = self.shape[x]
        axes = len(size)
        weight = self._weight(channels, before // groups, *[kernel] * axes)
        pad = kernel // 2 if padded else 0
        out = tuple((side + 2 * pad - kernel) // stride + 1 for side in size)
        y = self._node(
            "Conv", [x, weight, self._bias(channels)], (batch, channels, *out),
            kernel_shape=[kernel] * axes, strides=[stride] * axes, pads=[pad] * 2 * axes, group=groups,
        )  # fmt: skip
        if skip:
            return self.add(self._codes_if(y), skip, act)
        return self.activation(y, act)

    def up(self, x: str, channels: int) -> str:
        """A transposed convolution of 2x2 at stride 2, in float."""
        batch, before, height, width = self.shape[x]
        weight = self._constant("w", (before, channels, 2, 2), 1 / sqrt(before))
        shape = (batch, channels, 2 * height, 2 * width)
        y = self._node("ConvTranspose", [x, weight], shape, kernel_shape=[2, 2], strides=[2, 2])
        return self._codes_if(y)

    def gemm(self, x: str, width: int, act: str = "") -> str:
        """A fully connected layer on (N, K)."""
        batch, depth = self.shape[x]
        return self.activation(
            self._node("Gemm", [x, self._weight(width, depth), self._bias(width)], (batch, width), transB=1), act
        )

    def linear(self, x: str, width: int, act: str = "") -> str:
        """A product with a stored matrix over the last axis of (N, T, K), and a bias."""
        *rest, depth = self.shape[x]
        shape = (*rest, width)
        weight = self._weight(depth, width, axis=1)
        y = self._node("MatMul", [x, weight], shape)
        if self.int8:  # the integer product gives codes; the bias is added to them
            y = self._codes(y)
        return self.activation(self._node("Add", [y, self._bias(width)], shape), act)

    def matmul(self, left: str, right: str) -> str:
        """A product of two activations."""
        shape = (*self.shape[left][:-1], self.shape[right][-1])
        return self._codes_if(self._node("MatMul", [left, right], shape))

    def attention(self, x: str, heads: int) -> str:
        """Self-attention on (N, T, D) as exporters write it: three products, two batched ones, a softmax, a product."""
        batch, steps, width = self.shape[x]
        parts = []
        for turn in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            part = self.reshape(self.linear(x, width), (batch, steps, heads, width // heads))
            parts.append(self.transpose(part, turn))
        scale = self._stored_array("s", np.array(1 / sqrt(width // heads), np.float32))
        scores = self.matmul(parts[0], parts[1])
        scores = self._codes_if(self._node("Mul", [scores, scale], self.shape[scores]))
        mixed = self.transpose(self.matmul(self.softmax(scores), parts[2]), [0, 2, 1, 3])
        return self.linear(self.reshape(mixed, (batch, steps, width)), width)

    def activation(self, x: str, act: str) -> str:
        """`x` through Relu, Clip (0 to 6), Sigmoid, Tanh, HardSwish, HardSigmoid, Gelu, LeakyRelu, or Silu."""
        shape = self.shape[x]
        if act == "Clip":
            low, high = (self._stored_array("l", np.array(value, np.float32)) for value in (0, 6))
            x = self._node("Clip", [x, low, high], shape)
        elif act == "Silu":  # two operators in ONNX
            x = self._codes_if(x)
            gate = self._codes_if(self._node("Sigmoid", [x], shape))
            x = self._node("Mul", [x, gate], shape)
        elif act:
            if act not in ("Relu", "LeakyRelu"):
                x = self._codes_if(x)
            x = self._node(act, [x], shape)
        return self._codes(x, centred=act not in RECTIFIED) if self.int8 else x

    def add(self, x: str, other: str, act: str = "") -> str:
        """The sum of two values of one shape, then an activation."""
        return self.activation(self._node("Add", [x, other], self.shape[x]), act)

    def mul(self, x: str, other: str) -> str:
        """The product of two values; `other` may be broadcast."""
        return self._codes_if(self._node("Mul", [x, other], self.shape[x]))

    def squeeze(self, x: str, width: int, gate: str = "Sigmoid") -> str:
        """Squeeze-and-excitation: channels weighted by a small network on their means."""
        channels = self.shape[x][1]
        inner = self.conv(self.mean(x), width, 1)
        return self.mul(x, self.conv(inner, channels, 1, act=gate))

    def pool(self, x: str, kind: str, window: int = 2, stride: int = 2) -> str:
        """MaxPool or AveragePool, without padding where the window is even."""
        batch, channels, *size = self.shape[x]
        pad = (window - 1) // 2
        out = tuple((side + 2 * pad - window) // stride + 1 for side in size)
        axes = len(size)
        y = self._node(
            kind, [x], (batch, channels, *out),
            kernel_shape=[window] * axes, strides=[stride] * axes, pads=[pad] * 2 * axes,
        )  # fmt: skip
        return self._codes_like(y, x)

    def mean(self, x: str) -> str:
        """Global average pooling."""
        batch, channels, *size = self.shape[x]
        return self._codes_if(self._node("GlobalAveragePool", [x], (batch, channels, *(1 for _ in size))))

    def flatten(self, x: str) -> str:
        """(N, everything else)."""
        shape = self.shape[x]
        return self._codes_like(self._node("Flatten", [x], (shape[0], prod(shape[1:]))), x)

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """The same elements in another shape."""
        target = self._stored_array("d", np.array(shape, np.int64))
        return self._codes_like(self._node("Reshape", [x, target], tuple(shape)), x)

    def transpose(self, x: str, turn: Sequence[int]) -> str:
        """Axes in another order."""
        shape = tuple(self.shape[x][axis] for axis in turn)
        return self._codes_like(self._node("Transpose", [x], shape, perm=list(turn)), x)

    def resize(self, x: str, mode: str = "nearest") -> str:
        """Twice the height and width; mode is nearest or linear."""
        batch, channels, height, width = self.shape[x]
        scales = self._stored_array("f", np.array([1, 1, 2, 2], np.float32))
        y = self._node(
            "Resize", [x, "", scales], (batch, channels, 2 * height, 2 * width), mode=mode,
            coordinate_transformation_mode="asymmetric" if mode == "nearest" else "half_pixel",
            **({"nearest_mode": "floor"} if mode == "nearest" else {}),
        )  # fmt: skip
        return self._codes_like(y, x)

    def concat(self, *values: str) -> str:
        """Channels of several values one after the other."""
        first = self.shape[values[0]]
        channels = sum(self.shape[item][1] for item in values)
        return self._codes_if(self._node("Concat", list(values), (first[0], channels, *first[2:]), axis=1))

    def norm(self, x: str) -> str:
        """Layer normalisation over the last axis."""
        width = self.shape[x][-1]
        ones = self._stored_array("g", np.ones(width, np.float32))
        y = self._node("LayerNormalization", [x, ones, self._bias(width)], self.shape[x], axis=-1)
        return self._codes_if(y)

    def instance_norm(self, x: str) -> str:
        """Normalisation of each channel over its positions."""
        channels = self.shape[x][1]
        ones = self._stored_array("g", np.ones(channels, np.float32))
        return self._codes_if(self._node("InstanceNormalization", [x, ones, self._bias(channels)], self.shape[x]))

    def softmax(self, x: str) -> str:
        """Over the last axis."""
        return self._codes_if(self._node("Softmax", [x], self.shape[x], axis=-1), centred=False)

    def average(self, x: str) -> str:
        """(N, T, D) -> (N, D): the mean over the steps."""
        batch, _, width = self.shape[x]
        axes = self._stored_array("a", np.array([1], np.int64))
        return self._codes_if(self._node("ReduceMean", [x, axes], (batch, width), keepdims=0))

    def recurrent(self, x: str, kind: str, hidden: int) -> str:
        """LSTM or GRU over (N, T, K), in float; gives (N, T, hidden)."""
        batch, steps, depth = self.shape[x]
        gates = {"LSTM": 4, "GRU": 3}[kind]
        weights = [self._constant("w", (1, gates * hidden, size), 1 / sqrt(size)) for size in (depth, hidden)]
        bias = self._constant("b", (1, 2 * gates * hidden), 0.1)
        x = self.transpose(x, [1, 0, 2])
        y = self._node(kind, [x, *weights, bias], (steps, 1, batch, hidden), hidden_size=hidden)
        return self.transpose(self.reshape(self._codes_if(y), (steps, batch, hidden)), [1, 0, 2])

    def stft(self, x: str, length: int) -> str:
        """Spectra of (N, T, 1) over windows of `length` points, half of which overlap; in float."""
        batch, samples, _ = self.shape[x]
        step = self._stored_array("h", np.array(length // 2, np.int64))
        window = self._stored_array("w", np.hanning(length).astype(np.float32))
        shape = (batch, (samples - length) // (length // 2) + 1, length // 2 + 1, 2)
        return self._node("STFT", [x, step, window], shape, onesided=1)

    def head(self, x: str, classes: int) -> str:
        """Means of the channels and a fully connected layer."""
        return self.gemm(self.flatten(self.mean(x)), classes)

    def model(self, *outputs: str, coded: bool = False) -> "onnx.ModelProto":
        """The finished model.

        Args:
            coded: whether the last Q/DQ pair stays, without which the last operator runs in float.
        """
        from onnx import TensorProto, helper

        names = list(outputs) if coded else [self._uncoded(name) for name in outputs]
        self._drop_unused(names)
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.shape["x"]))
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(self.shape[name])) for name in names]
        graph = helper.make_graph(self._nodes, "net", [x], ends, self._stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _uncoded(self, name: str) -> str:
        makers = {output: node for node in self._nodes for output in node.output}
        if name in makers and makers[name].op_type == "DequantizeLinear":
            return str(makers[makers[name].input[0]].input[0])
        return name

    def _drop_unused(self, wanted: Sequence[str]) -> None:
        needed, kept = set(wanted), []
        for node in reversed(self._nodes):
            if not needed.isdisjoint(node.output):
                kept.append(node)
                needed.update(node.input)
        self._nodes = kept[::-1]
        self._stored = [tensor for tensor in self._stored if tensor.name in needed]

    def _node(self, kind: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> str:
        from onnx import helper

        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        self.shape[name] = shape
        return name

    def _codes_if(self, x: str, centred: bool = True) -> str:
        return self._codes(x, centred) if self.int8 else x

    def _codes_like(self, y: str, x: str) -> str:
        """An operator that only moves or picks values keeps the codes of its input."""
        return self._codes(y, self._centred.get(x, True)) if self.int8 else y

    def _codes(self, x: str, centred: bool = True) -> str:
        """Round `x` to uint8 codes and back."""
        scale = self._stored_array("s", np.array(4 / 255 if centred else 2 / 255, np.float32))
        zero = self._stored_array("z", np.array(128 if centred else 0, np.uint8))
        shape = self.shape[x]
        codes = self._node("QuantizeLinear", [x, scale, zero], shape)
        y = self._node("DequantizeLinear", [codes, scale, zero], shape)
        self._centred[y] = centred
        return y

    def _weight(self, *shape: int, axis: int = 0) -> str:
        """A stored weight; in int8, codes with a scale for each index along `axis`."""
        deviation = 1 / sqrt(prod(shape) / shape[axis])
        if not self.int8:
            return self._constant("w", shape, deviation)
        codes = self._stored_array("q", self._rng.integers(-127, 128, shape).astype(np.int8))
        scales = self._stored_array("s", np.full(shape[axis], deviation / 64, np.float32))
        zeros = self._stored_array("z", np.zeros(shape[axis], np.int8))
        return self._node("DequantizeLinear", [codes, scales, zeros], shape, axis=axis)

    def _bias(self, channels: int) -> str:
        return self._constant("b", (channels,), 0.1)

    def _constant(self, letter: str, shape: tuple[int, ...], deviation: float) -> str:
        values = self._rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
        return self._stored_array(letter, values)

    def _stored_array(self, letter: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"{letter}{len(self._stored)}"
        self._stored.append(numpy_helper.from_array(values, name))
        self.shape[name] = values.shape
        return name
