"""Random int8 graphs of every operator with an integer kernel: generated C against onnxruntime, code for code.

    python tools/c_graphs.py FIRST COUNT      # compares the graphs of seeds FIRST .. FIRST + COUNT - 1 on this machine

A graph has one or two inputs, three to eight operators in a row with branches that join again, and returns every
quantised tensor. Ranges of tensors come from running the graph, so that few codes stand at the ends.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import profiles
from exporters import onnx_to_c
from exporters.errors import ExportError
from profiles.runners import on_cortex_m
from profiles.runners.cortex_m import toolchain

Array = NDArray[Any]
INPUTS = 3  # per graph
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-ffp-contract=off", "-fno-math-errno")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def session(model: onnx.ModelProto, integers: bool) -> Any:
    """An onnxruntime session: with its integer kernels, or with the graph as written."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if integers else levels.ORT_DISABLE_ALL
    if integers:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Builder:
    """Builds a graph and computes its tensors on the way, as onnxruntime does with the graph as written."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[str] = []
        self.values: dict[str, Array] = {}
        self.steps: dict[str, tuple[np.float32, int]] = {}  # decoded tensor -> scale and zero point
        self.feeds: dict[str, Array] = {}

    def pick(self, *choices: Any) -> Any:
        """One of them."""
        return choices[int(self.rng.integers(len(choices)))]

    def const(self, value: Any) -> str:
        """A constant's name."""
        name = f"c{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def input(self, *shape: int) -> str:
        """A graph input of random numbers, quantised."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        self.feeds[name] = self.rng.normal(size=(INPUTS, *shape[1:])).astype(np.float32)
        self.values[name] = self.feeds[name]
        return self.pair(name)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node's output."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def measure(self, name: str) -> Array:
        """The values of a tensor, one input after the other."""
        if name not in self.values:
            runner = session(self.model([name]), integers=False)
            rows = [
                runner.run(None, {key: value[at : at + 1] for key, value in self.feeds.items()})[0]
                for at in range(INPUTS)
            ]
            self.values[name] = np.concatenate(rows)
        return self.values[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """At batch 1."""
        return (1, *self.measure(name).shape[1:])

    def pair(self, name: str, like: str | None = None) -> str:
        """QuantizeLinear and DequantizeLinear; a graph output. `like`: with the scale of another tensor."""
        if like is None:
            found = self.measure(name)
            low, high = min(0.0, float(found.min())), max(0.0, float(found.max()))
            scale = np.float32(max(high - low, 1e-3) / 250)
            zero = int(np.clip(np.rint(-128 - low / scale + self.rng.integers(0, 4)), -128, 127))
        else:
            scale, zero = self.steps[like]
        s, z = self.const(scale), self.const(np.int8(zero))
        made = self.op("DequantizeLinear", self.op("QuantizeLinear", name, s, z), s, z)
        self.steps[made] = (scale, zero)
        self.outputs.append(made)
        return made

    def weights(self, shape: tuple[int, ...], axis: int = 0) -> tuple[str, Array]:
        """Decoded int8 weights with a scale per output channel; and the scales."""
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        fan_in = np.prod(shape) / shape[axis]
        scale = (self.rng.uniform(0.5, 2.0, shape[axis]) / (74 * np.sqrt(fan_in))).astype(np.float32)
        zeros = np.zeros(shape[axis], np.int8)
        return self.op("DequantizeLinear", self.const(codes), self.const(scale), self.const(zeros), axis=axis), scale

    def bias(self, at: str, scale: Array) -> str:
        """int32 codes, as an integer kernel adds them."""
        step = (self.steps[at][0] * scale).astype(np.float32)
        codes = np.rint(self.rng.normal(0, 0.4, scale.size) / step).astype(np.int32)
        return self.op("DequantizeLinear", self.const(codes), self.const(step), axis=0)

    def model(self, outputs: list[str]) -> onnx.ModelProto:
        """The graph so far."""
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, results, self.stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _activated(net: Builder, at: str) -> str:
    kind = net.pick("none", "Relu", "Clip")
    if kind == "Relu":
        return net.op("Relu", at)
    if kind == "Clip":
        return net.op("Clip", at, net.const(np.float32(0)), net.const(np.float32(net.pick(0.7, 6.0))))
    return at


def _convolved(net: Builder, at: str) -> str:
    _, channels, *spatial = net.shape(at)
    kernel = [int(net.rng.integers(1, min(4, size) + 1)) for size in spatial]
    attributes: dict[str, Any] = {"kernel_shape": kernel}
    attributes["strides"] = [int(net.rng.integers(1, 4)) for _ in spatial]
    if net.pick(True, False):
        attributes["dilations"] = [1 + int((k - 1) * 2 + 1 <= size) for k, size in zip(kernel, spatial, strict=True)]
    attributes["pads"] = [int(net.rng.integers(0, k)) for k in (*kernel, *kernel)]
    groups = net.pick(1, 1, channels, channels, *(g for g in (2, 3, 4) if channels % g == 0))
    made = channels if groups == channels and net.pick(True, True, False) else groups * int(net.rng.integers(1, 8))
    weight, scale = net.weights((made, channels // groups, *kernel))
    inputs = [at, weight, *((net.bias(at, scale),) if net.pick(True, True, False) else ())]
    return net.pair(_activated(net, net.op("Conv", *inputs, group=groups, **attributes)))


def _gemm(net: Builder, at: str) -> str:
    flat = net.op("Flatten", at)
    width = int(np.prod(net.shape(at)[1:]))
    net.steps[flat] = net.steps[at]
    made = int(net.rng.integers(1, 20))
    transposed = net.pick(0, 1)
    weight, scale = net.weights((made, width) if transposed else (width, made), 0 if transposed else 1)
    return net.pair(_activated(net, net.op("Gemm", flat, weight, net.bias(at, scale), transB=transposed)))


def _joined(net: Builder, at: str) -> str:
    other = _table(net, at) if net.pick(True, False) else _convolved_alike(net, at)
    kind = net.pick("Add", "Mul", "Concat")
    if kind == "Concat":
        return net.pair(net.op("Concat", at, other, at, axis=net.pick(1, -1)))
    made = net.op(kind, *net.pick((at, other), (other, at)))
    return net.pair(net.op("Relu", made) if kind == "Add" and net.pick(True, False) else made)


def _convolved_alike(net: Builder, at: str) -> str:
    channels, axes = net.shape(at)[1], len(net.shape(at)) - 2
    weight, scale = net.weights((channels, channels, *([3] * axes)))
    return net.pair(net.op("Conv", at, weight, net.bias(at, scale), pads=[1] * 2 * axes))


def _excited(net: Builder, at: str) -> str:
    pooled = net.pair(net.op("GlobalAveragePool", at))
    channels = net.shape(at)[1]
    weight, scale = net.weights((channels, channels, *([1] * (len(net.shape(at)) - 2))))
    gate = net.pair(net.op("Sigmoid", net.pair(net.op("Conv", pooled, weight, net.bias(pooled, scale)))))
    return net.pair(net.op("Mul", at, gate))


def _pooled(net: Builder, at: str) -> str:
    spatial = net.shape(at)[2:]
    kernel = [int(net.rng.integers(1, min(3, size) + 1)) for size in spatial]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": [int(net.rng.integers(1, 3)) for _ in kernel]}
    attributes["pads"] = [int(net.rng.integers(0, (k + 1) // 2)) for k in (*kernel, *kernel)]
    if net.pick(True, False):
        return net.pair(net.op("MaxPool", at, **attributes), like=at)
    return net.pair(net.op("AveragePool", at, count_include_pad=net.pick(0, 1), **attributes))


def _pooled_whole(net: Builder, at: str) -> str:
    return net.pair(net.op(net.pick("GlobalAveragePool", "GlobalAveragePool"), at))


def _table(net: Builder, at: str) -> str:
    kind = net.pick("Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "HardSigmoid", "Relu")
    return net.pair(net.op(kind, at))


def _resized(net: Builder, at: str) -> str:
    axes = len(net.shape(at)) - 2
    scales = net.const(np.array([1.0, 1.0, *([2.0] * axes)], np.float32))
    made = net.op("Resize", at, "", scales, mode="nearest", nearest_mode="floor",
                  coordinate_transformation_mode="asymmetric")  # fmt: skip
    return net.pair(made, like=at)


def _transposed(net: Builder, at: str) -> str:
    perm = [0, *(1 + int(k) for k in net.rng.permutation(len(net.shape(at)) - 1))]
    return net.pair(net.op("Transpose", at, perm=perm), like=at)


def _padded(net: Builder, at: str) -> str:
    axes = len(net.shape(at)) - 2
    widths = [0, 0, *net.rng.integers(0, 3, axes), 0, 0, *net.rng.integers(0, 3, axes)]
    return net.pair(net.op("Pad", at, net.const(np.array(widths, np.int64))), like=at)


def _sliced(net: Builder, at: str) -> str:
    size = net.shape(at)[2]
    start = int(net.rng.integers(0, size))
    bounds = [net.const(np.array([value], np.int64)) for value in (start, size, 2, net.pick(1, 2))]
    return net.pair(net.op("Slice", at, *bounds), like=at)


OPERATORS: tuple[Callable[[Builder, str], str], ...] = (
    _convolved, _convolved, _convolved, _convolved, _joined, _joined, _excited, _pooled, _pooled,
    _table, _resized, _transposed, _padded, _sliced,
)  # fmt: skip


def build(seed: int) -> Builder:
    """The graph of a seed."""
    net = Builder(seed)
    channels = int(net.rng.integers(1, 9))
    spatial = [int(size) for size in net.rng.integers(5, 13, net.pick(1, 2, 2))]
    at = net.input(1, channels, *spatial)
    if net.pick(True, False, False):
        at = net.pair(net.op("Add", at, net.input(1, channels, *spatial)))
    for _ in range(int(net.rng.integers(3, 9))):
        shape = net.shape(at)
        if np.prod(shape) > 4000:
            at = net.pair(net.op("GlobalAveragePool", at))
            continue
        at = OPERATORS[int(net.rng.integers(len(OPERATORS)))](net, at)
    if net.pick(True, False):
        at = net.pair(net.op("GlobalAveragePool", at))
    if net.pick(True, True, False):
        at = _gemm(net, at)
        if net.pick(True, False):
            net.outputs.append(net.op("Softmax", at, axis=-1))
    return net


def on_host(folder: Path, inputs: Mapping[str, Array], flags: Iterable[str]) -> Mapping[str, Array]:
    """Compile strictly with the given flags and run on this machine."""
    compiler = toolchain.host_compiler()
    assert compiler is not None
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        facts = on_cortex_m._facts(folder)
        count = on_cortex_m._write_inputs(work / "in.bin", facts, inputs)
        sources = [str(folder / "model.c"), str(toolchain.FOLDER / "host.c")]
        command = [compiler, *STRICT, *flags, f"-I{folder}", *sources, "-o", "host", "-lm"]
        for step in (command, [str(work / "host")]):
            done = subprocess.run(step, cwd=work, capture_output=True, text=True, check=False)
            if done.returncode:
                raise AssertionError((done.stderr or done.stdout)[-600:])
        return on_cortex_m._read_outputs(work / "out.bin", facts, count)


def compare(seeds: Iterable[int], core: str | None = None, sanitize: bool = False) -> dict[str, Any]:
    """Codes of generated C against onnxruntime's integer kernels.

    Args:
        core: an emulated core; None is this machine, with the compiler's warnings as errors.
        sanitize: with the address and undefined-behaviour sanitizers.

    Returns:
        graphs, codes, differ (pairs of a seed and what differs), operators (name -> how often).
    """
    target = profiles.target("hearing-aid")
    codes, count, differ, operators = 0, 0, [], Counter[str]()
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            net = build(seed)
            model = net.model(list(dict.fromkeys(net.outputs)))
            folder = Path(scratch) / str(seed)
            folder.mkdir()
            onnx.save(model, str(folder / "net.onnx"))
            count += 1
            operators.update(node.op_type for node in net.nodes)
            try:
                made = onnx_to_c.sources(folder / "net.onnx", target, folder)
                if core is None:
                    ours = on_host(made, net.feeds, SANITIZED if sanitize else ("-O0",))
                else:
                    with on_cortex_m.load(made, core) as board:
                        ours = board.run(net.feeds)
            except (ExportError, AssertionError) as error:
                differ.append((seed, str(error)))
                continue
            runner = session(model, integers=True)
            names = [value.name for value in runner.get_outputs()]
            rows = [runner.run(None, {k: v[at : at + 1] for k, v in net.feeds.items()}) for at in range(INPUTS)]
            for place, name in enumerate(names):
                theirs = np.concatenate([row[place] for row in rows])
                step = net.steps[name][0] if name in net.steps else 4e-6  # floats of a Softmax
                apart = np.abs(theirs - ours[name].reshape(theirs.shape)) / step
                codes += theirs.size
                if (apart > 0.5).any():
                    kind = _maker(net, name)
                    differ.append((seed, f"{kind}: {int((apart > 0.5).sum())} of {theirs.size} by {apart.max():.2f}"))
                    break
    return {"graphs": count, "codes": codes, "differ": differ, "operators": dict(operators)}


def _maker(net: Builder, name: str) -> str:
    made = {node.output[0]: node for node in net.nodes}
    if name not in net.steps:
        return f"{name} of {made[name].op_type}"
    quantiser = made[made[name].input[0]]
    before = made.get(quantiser.input[0])
    return f"{name} of {before.op_type if before else 'an input'} {list(before.attribute) if before else ''}"


if __name__ == "__main__":
    first, number = map(int, sys.argv[1:3])
    print(compare(range(first, first + number), sanitize=len(sys.argv) > 3))
