"""The four networks of MLPerf Tiny as int8 ONNX graphs with random weights, to compare costs with published results.

    python tools/mlperf_tiny.py FOLDER                             # one .onnx per network, and multiply-accumulates
    python tools/mlperf_tiny.py FOLDER published_latency.csv       # emulated and predicted cycles beside published ones

Shapes are those of the benchmark's reference models (github.com/mlcommons/tiny, benchmark/training): DS-CNN for
keyword spotting, MobileNetV1 0.25 for visual wake words, a ResNet of eight layers for CIFAR-10 images, and a
fully-connected autoencoder for machine sounds. Batch normalisation is folded into the convolutions. Costs on a
microcontroller depend on shapes, not on what the weights are.
"""

import csv
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Network:
    """A chain of layers (with skips) as a float ONNX graph of batch 1. `shape` is that of the last tensor."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.rng, self.input, self.shape = rng, shape, shape
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.last = "x"

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node that reads the last tensor."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *inputs], [name], name=name, **attributes))
        self.last = name
        return name

    def weight(self, *shape: int) -> str:
        """Random weights that keep the size of what they are applied to."""
        name = f"w{len(self.stored)}"
        values = self.rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        self.stored.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> "Network":
        """Convolution padded so that the size is divided by the stride and rounded up (TensorFlow's SAME)."""
        sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
        steps = (stride, stride) if isinstance(stride, int) else stride
        before, spatial = self.shape[1], self.shape[2:]
        after = [-(-side // step) for side, step in zip(spatial, steps, strict=True)]
        missing = [
            max(0, (out - 1) * step + size - side)
            for out, step, size, side in zip(after, steps, sizes, spatial, strict=True)
        ]
        pads = [m // 2 for m in missing] + [m - m // 2 for m in missing]
        weight, bias = self.weight(channels, before // groups, *sizes), self.weight(channels)
        self.add("Conv", weight, bias, kernel_shape=sizes, strides=steps, pads=pads, group=groups)
        if relu:
            self.add("Relu")
        self.shape = (1, channels, *after)
        return self

    def separable(self, channels: int, stride: int = 1) -> "Network":
        """Depthwise 3x3, then pointwise."""
        return self.conv(self.shape[1], 3, stride, groups=self.shape[1]).conv(channels, 1)

    def block(self, channels: int, stride: int) -> "Network":
        """Residual block of two 3x3 convolutions; a 1x1 convolution beside it where the shape changes."""
        start, shape = self.last, self.shape
        self.conv(channels, 3, stride).conv(channels, 3, relu=False)
        branch, after = self.last, self.shape
        if shape != after:
            self.last, self.shape = start, shape
            self.conv(channels, 1, stride, relu=False)
            start = self.last
        self.last = branch
        self.add("Add", start)
        self.add("Relu")
        return self

    def residual(self, kernel: int) -> "Network":
        """One convolution with a skip around it."""
        before = self.last
        self.conv(self.shape[1], kernel, relu=False)
        self.add("Add", before)
        self.add("Relu")
        return self

    def pool(self, kind: str) -> "Network":
        """MaxPool or AveragePool of 2 x 2."""
        self.add(kind, kernel_shape=[2, 2], strides=[2, 2])
        self.shape = (*self.shape[:2], self.shape[2] // 2, self.shape[3] // 2)
        return self

    def head(self, classes: int) -> "Network":
        """Mean over the whole image, then fully connected."""
        self.add("GlobalAveragePool")
        self.add("Flatten")
        self.shape = (1, self.shape[1])
        return self.dense(classes)

    def flatten(self) -> "Network":
        """(1, C, H, W) -> (1, C * H * W)."""
        self.add("Flatten")
        self.shape = (1, int(np.prod(self.shape)))
        return self

    def dense(self, width: int, relu: bool = False) -> "Network":
        """Fully connected."""
        self.add("Gemm", self.weight(width, self.shape[1]), self.weight(width), transB=1)
        if relu:
            self.add("Relu")
        self.shape = (1, width)
        return self

    def model(self) -> onnx.ModelProto:
        """The graph."""
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.input))
        y = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, list(self.shape))
        graph = helper.make_graph(self.nodes, "net", [x], [y], self.stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def ds_cnn(rng: np.random.Generator) -> onnx.ModelProto:
    """Keyword spotting: 49 frames of 10 coefficients, 12 words. Zhang et al., arXiv:1711.07128."""
    net = Network((1, 1, 49, 10), rng).conv(64, (10, 4), 2)
    for _ in range(4):
        net.separable(64)
    return net.head(12).model()


def mobilenet(rng: np.random.Generator) -> onnx.ModelProto:
    """Visual wake words: 96 x 96 RGB, two classes. Howard et al., arXiv:1704.04861, width 0.25."""
    net = Network((1, 3, 96, 96), rng).conv(8, 3, 2)
    for channels, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2)):
        net.separable(channels, stride)
    for _ in range(5):
        net.separable(128)
    return net.separable(256, 2).separable(256).head(2).model()


def resnet8(rng: np.random.Generator) -> onnx.ModelProto:
    """CIFAR-10 images: 32 x 32 RGB, ten classes. He et al., arXiv:1512.03385, one block in each of three stages."""
    net = Network((1, 3, 32, 32), rng).conv(16, 3)
    return net.block(16, 1).block(32, 2).block(64, 2).head(10).model()


def autoencoder(rng: np.random.Generator) -> onnx.ModelProto:
    """Machine sounds: five frames of 128 bands through a bottleneck of 8. Koizumi et al., arXiv:2006.05822."""
    net = Network((1, 640), rng)
    for width in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        net.dense(width, relu=True)
    return net.dense(640).model()


NETWORKS: Mapping[str, Callable[[np.random.Generator], onnx.ModelProto]] = MappingProxyType(
    {
        "ds-cnn (kws)": ds_cnn,
        "mobilenet-v1-0.25 (vww)": mobilenet,
        "resnet8 (ic)": resnet8,
        "fc-autoencoder (ad)": autoencoder,
    }
)
# Multiply-accumulates that published tables give for these networks. They count a few of the final pool and softmax.
PUBLISHED_MACS: Mapping[str, int] = MappingProxyType(
    {
        "ds-cnn (kws)": 2_664_790,
        "mobilenet-v1-0.25 (vww)": 7_491_970,
        "resnet8 (ic)": 12_505_750,
        "fc-autoencoder (ad)": 264_192,
    }
)


_QUANTISED = frozenset({"Conv", "Gemm", "Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Concat", "MatMul"})


def quantised(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """`model` with int8 Q/DQ pairs: after every operator and the activation behind it, ranges from random inputs.

    Weights are symmetric, one scale per output channel; activations have one scale and a zero point, -128 after a Relu.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    wanted = [graph.input[0].name]
    for node in graph.node:
        after = readers.get(node.output[0], [])
        followed = len(after) == 1 and after[0].op_type in ("Relu", "Clip")
        if (node.op_type in _QUANTISED or node.op_type in ("Relu", "Clip")) and not followed:
            wanted.append(node.output[0])
    ranges = _ranges(model, wanted, rng)
    nodes: list[onnx.NodeProto] = []
    decoded: dict[str, str] = {}

    def pair(name: str, low: float, high: float) -> None:
        scale = np.float32(max(high - low, 1e-6) / 255)
        zero = np.int8(np.clip(np.rint(-128 - low / scale), -128, 127))
        names = [f"{name}_scale", f"{name}_zero"]
        graph.initializer.extend(
            numpy_helper.from_array(np.array(v), n) for v, n in zip((scale, zero), names, strict=True)
        )
        nodes.append(helper.make_node("QuantizeLinear", [name, *names], [f"{name}_codes"], name=f"{name}_quantize"))
        decoded[name] = f"{name}_decoded"
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}_codes", *names], [decoded[name]], name=f"{name}_dequantize")
        )

    def weights(name: str, axis: int) -> str:
        values = stored[name]
        over = tuple(k for k in range(values.ndim) if k != axis)
        scale = (np.maximum(np.abs(values).max(axis=over), 1e-6) / 127).astype(np.float32)
        wide = scale.reshape([-1 if k == axis else 1 for k in range(values.ndim)])
        codes = np.rint(values / wide).astype(np.int8)
        names = [f"{name}_codes", f"{name}_scale", f"{name}_zero"]
        parts = (codes, scale, np.zeros(scale.shape, np.int8))
        graph.initializer.extend(numpy_helper.from_array(part, n) for part, n in zip(parts, names, strict=True))
        nodes.append(helper.make_node("DequantizeLinear", names, [f"{name}_decoded"], axis=axis))
        return f"{name}_decoded"

    first = graph.input[0].name
    pair(first, *ranges[first])
    outputs = {value.name for value in graph.output}
    for node in list(graph.node):
        heavy = node.op_type in ("Conv", "Gemm") and node.input[1] in stored
        inputs = [decoded.get(name, name) for name in node.input]
        if heavy:
            inputs[1] = weights(node.input[1], 0)
        del node.input[:]
        node.input.extend(inputs)
        nodes.append(node)
        if node.output[0] in ranges:
            pair(node.output[0], *ranges[node.output[0]])
    for value in graph.output:
        if value.name in outputs and value.name in decoded:
            value.name = decoded[value.name]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return result


def _ranges(model: onnx.ModelProto, names: list[str], rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Least and greatest value of every tensor over a few random inputs; zero is inside."""
    from onnxruntime import InferenceSession, SessionOptions  # type: ignore[attr-defined]

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    given = model.graph.input[0].name
    inner = [name for name in names if name != given]
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inner)
    options = SessionOptions()
    options.intra_op_num_threads = 1
    session = InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    ranges = dict.fromkeys(names, (0.0, 0.0))
    for _ in range(4):
        x = rng.normal(size=shape).astype(np.float32)
        for name, value in zip((given, *inner), (x, *session.run(inner, {given: x})), strict=True):
            low, high = ranges[name]
            ranges[name] = (min(low, float(np.min(np.asarray(value)))), max(high, float(np.max(np.asarray(value)))))
    return ranges


def write(name: str, folder: Path) -> Path:
    """The int8 ONNX file of one network, below `folder`."""
    rng = np.random.default_rng(0)
    path = folder / f"{name.split(' ')[0].replace('.', '')}.onnx"
    onnx.save(quantised(NETWORKS[name](rng), rng), str(path))
    return path


ENGINES = ("X-CUBE-AI", "STMicroelectronics", "Krai", "CMSIS-NN", "Plumerai", "Bosch", "renesas", "Renesas")
"""Engines with hand-tuned int8 kernels: CMSIS-NN's class. microTVM belongs to it where it calls CMSIS-NN."""
CORE_OF: Mapping[str, str] = MappingProxyType(
    {"(Cortex-M4)": "cortex-m4", "(Cortex-M7)": "cortex-m7", "(Cortex-M33)": "cortex-m33"}
)


@dataclass(frozen=True)
class Published:
    """One result of a microcontroller: `cycles` is latency times clock."""

    core: str
    model: str
    device: str
    cycles: float


def published(table: Path) -> list[Published]:
    """Results of int8 engines with hand-tuned kernels on these networks, from a table of published latencies."""
    found = []
    with table.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            core = next((core for mark, core in CORE_OF.items() if row["device"].endswith(mark)), None)
            tuned = row["runtime"].startswith(ENGINES) or (
                row["runtime"] == "microTVM" and "cmsis" in row["source_path"].lower()
            )
            if core is not None and tuned and row["precision"] == "int8" and row["model"] in NETWORKS:
                cycles = float(row["ms_per_item"]) * float(row["core_clock_mhz"]) * 1e3
                found.append(Published(core, row["model"], row["device"], cycles))
    return found


def _compare(paths: Mapping[str, Path], table: Path) -> None:
    """Cycles of our C (emulated, and predicted from the graph) beside the published range, in millions."""
    import profiles
    from exporters import onnx_to_c
    from profiles.latency import cortex_m
    from profiles.runners import on_cortex_m

    rows = published(table)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {
            n: onnx_to_c.convert(p, profiles.target("hearing-aid"), Path(scratch) / p.stem).path
            for n, p in paths.items()
        }
        print(f"{'core':<11} {'network':<24} {'instructions':>12} {'emulated cycles':>22} {'predicted':>9}  published")
        for core in ("cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"):
            for name, path in paths.items():
                with on_cortex_m.load(folders[name], core) as board:
                    x = np.random.default_rng(0).normal(size=(1, board.facts["inputs"]["x"])).astype(np.float32)
                    count = float(board.emulate({"x": x}).instructions[0]) / 1e6
                    outputs = sum(step["outputs"] for step in board.facts["steps"]) / 1e6
                per = cortex_m.cycles(core)
                ours = per.of(count, outputs)
                target = profiles.target(core)
                predicted = profiles.profile(path, target).latency_ms * target.hardware.clock_mhz / 1e3
                those = [row.cycles / 1e6 for row in rows if row.core == core and row.model == name]
                cells = "none here"
                if those:
                    inside = "inside" if min(those) <= ours <= max(those) else "outside"
                    cells = f"{min(those):.3g} to {max(those):.3g} ({len(those)} values): {inside}"
                    devices = sorted(
                        {row.device.split(" (")[0] for row in rows if row.core == core and row.model == name}
                    )
                    cells += f"  [{', '.join(devices)}]"
                between = f"{ours:.3f} ({ours * per.low:.2f} to {ours * per.high:.2f})"
                print(f"{core:<11} {name:<24} {count:>12.3f} {between:>22} {predicted:>9.3f}  {cells}")


def main() -> None:
    """Write all of them, and compare where a table is given."""
    import profiles

    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: write(name, folder) for name in NETWORKS}
    for name, path in paths.items():
        macs = profiles.profile(path, target="hearing-aid").macs
        print(f"{name:26} {macs:>10} multiply-accumulates, published {PUBLISHED_MACS[name]:>10}: {path}")
    if len(sys.argv) > 2:
        _compare(paths, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
