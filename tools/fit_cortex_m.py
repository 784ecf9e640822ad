"""Fit instructions per multiply-accumulate of the C that exporters/onnx_to_c.py writes, on an emulated core.

    python tools/fit_cortex_m.py > profiles/latency/cortex_m.toml

Networks of every kind of layer are quantised by onnxruntime on random data, turned into C and emulated; the
instructions of each step are those of the kernel that `profiles` predicts for the same ONNX node. Needs
arm-none-eabi-gcc and qemu-system-arm. Errors are those of whole networks that were left out of the fit.
"""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from scipy.optimize import nnls

import profiles
from exporters import onnx_to_c
from profiles.fuse import Kernel, fuse
from profiles.latency import cortex_m
from profiles.runners import on_cortex_m

CORE = "cortex-m33"
MACS = ("dense", "grouped", "depthwise", "gemm", "matmul", "recurrent", "fft")


class Builder:
    """A chain of layers as an ONNX graph."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.rng, self.input, self.shape = rng, shape, shape
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.last = "x"

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *inputs], [name], name=name, **attributes))
        self.last = name
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.stored)}"
        values = self.rng.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        self.stored.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, channels: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True) -> "Builder":
        _, before, height, width = self.shape
        weight, bias = self.weight(channels, before // groups, kernel, kernel), self.weight(channels)
        pads, half = [kernel // 2] * 4, kernel // 2
        self.add("Conv", weight, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=groups)
        if relu:
            self.add("Relu")
        size = [(side + 2 * half - kernel) // stride + 1 for side in (height, width)]
        self.shape = (1, channels, *size)
        return self

    def residual(self, kernel: int) -> "Builder":
        before = self.last
        self.conv(self.shape[1], kernel, relu=False)
        self.add("Add", before)
        self.add("Relu")
        return self

    def pool(self, kind: str) -> "Builder":
        self.add(kind, kernel_shape=[2, 2], strides=[2, 2])
        self.shape = (*self.shape[:2], self.shape[2] // 2, self.shape[3] // 2)
        return self

    def head(self, classes: int) -> "Builder":
        self.add("GlobalAveragePool")
        self.add("Flatten")
        self.shape = (1, self.shape[1])
        return self.dense(classes)

    def dense(self, width: int, relu: bool = False) -> "Builder":
        self.add("Gemm", self.weight(width, self.shape[1]), self.weight(width), transB=1)
        if relu:
            self.add("Relu")
        self.shape = (1, width)
        return self

    def flatten(self) -> "Builder":
        self.add("Flatten")
        self.shape = (1, int(np.prod(self.shape)))
        return self

    def model(self) -> onnx.ModelProto:
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.input))
        y = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, list(self.shape))
        graph = helper.make_graph(self.nodes, "net", [x], [y], self.stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def networks(rng: np.random.Generator) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Small networks that together have every kind of layer in several sizes."""
    net = Builder((1, 1, 28, 28), rng).conv(8, 3, 2).conv(16, 3).pool("MaxPool").conv(32, 3).head(10)
    yield "convolutions", net.model()
    net = Builder((1, 3, 32, 32), rng).conv(16, 3, 2).residual(3).conv(32, 3, 2).residual(3).head(10)
    yield "residual", net.model()
    net = Builder((1, 3, 32, 32), rng).conv(12, 3, 2).conv(20, 3, 2).pool("AveragePool").conv(36, 3).head(10)
    yield "odd widths", net.model()
    net = Builder((1, 1, 40, 24), rng).conv(32, 3, 2)
    for _ in range(3):
        net.conv(32, 3, groups=32).conv(32, 1)
    yield "separable 32", net.head(12).model()
    net = Builder((1, 1, 40, 24), rng).conv(64, 5, 2)
    for _ in range(2):
        net.conv(64, 3, groups=64).conv(64, 1)
    yield "separable 64", net.head(12).model()
    net = (
        Builder((1, 3, 48, 48), rng)
        .conv(8, 3, 2)
        .conv(8, 3, groups=8)
        .conv(16, 1)
        .conv(16, 3, 2, groups=16)
        .conv(32, 1)
    )
    yield "mobile", net.conv(32, 3, 2, groups=32).conv(64, 1).head(2).model()
    yield "dense 784", Builder((1, 1, 28, 28), rng).flatten().dense(64, relu=True).dense(10).model()
    net = Builder((1, 1, 16, 40), rng).flatten()
    for width in (128, 128, 8, 128, 640):
        net.dense(width, relu=True)
    yield "autoencoder", net.model()
    net = Builder((1, 8, 16, 16), rng).conv(16, 3, groups=4).conv(32, 3, 2, groups=4).conv(32, 1).head(10)
    yield "grouped by 4", net.model()
    net = Builder((1, 4, 24, 24), rng).conv(24, 3, 2, groups=2).conv(48, 3, groups=8).conv(24, 1).head(10)
    yield "grouped by 2 and 8", net.model()


class Data(CalibrationDataReader):  # type: ignore[misc]
    """Random inputs for ranges."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.left = iter([{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(8)])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self.left, None)


def steps(model: onnx.ModelProto, folder: Path, rng: np.random.Generator) -> list[tuple[Kernel | None, float]]:
    """Every predicted kernel with its emulated instructions; None collects what no kernel was predicted for."""
    plain, quantised = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(model, str(plain))
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    extra = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    quantize_static(
        str(plain), str(quantised), Data(shape, rng), QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, extra_options=extra,
    )  # fmt: skip
    target = profiles.target("hearing-aid")
    artifact = onnx_to_c.convert(quantised, target, folder)
    kernels = {kernel.name: kernel for kernel in fuse(profiles.read(quantised), "cortex-m").kernels}
    with on_cortex_m.load(artifact.path, CORE) as loaded:
        counted = loaded.emulate({"x": rng.normal(size=shape).astype(np.float32)}).steps[0]
        names = [step["name"] for step in loaded.facts["steps"]]
    found: list[tuple[Kernel | None, float]] = []
    rest = 0.0
    for name, count in zip(names, counted, strict=True):
        if name in kernels:
            found.append((kernels[name], float(count)))
        else:
            rest += float(count)
    return [*found, (None, rest)]


NAMES = [field.name for field in fields(cortex_m.Constants) if not field.name.startswith("cycles")]


def design(kernel: Kernel) -> list[float]:
    """How often each constant counts in one kernel: `cortex_m.instructions` is linear in them."""
    row = []
    for name in NAMES:
        only = {field.name: 0.0 for field in fields(cortex_m.Constants)}
        constants = cortex_m.Constants(**{**only, name: 1.0, "cycles_per_instruction_range": (0.0, 0.0)})
        row.append(cortex_m.instructions(kernel, constants))
    return row


def fit(cases: list[list[tuple[Kernel | None, float]]]) -> NDArray[np.float64]:
    """The constants, by non-negative least squares on relative errors of kernels and of whole networks."""
    rows, goals = [], []
    for case in cases:
        pairs = [(design(kernel), count) for kernel, count in case if kernel is not None and count > 0]
        for row, count in pairs:
            rows.append(np.array(row) / count * 0.5)
            goals.append(0.5)
        whole = sum(count for _, count in case)
        rows.append(np.sum([row for row, _ in pairs], axis=0) / whole)
        goals.append(1.0)
    return np.asarray(nnls(np.array(rows), np.array(goals))[0])


def total(case: list[tuple[Kernel | None, float]], constants: NDArray[np.float64]) -> float:
    """Predicted over emulated instructions of a network."""
    predicted = sum(float(np.dot(design(kernel), constants)) for kernel, _ in case if kernel is not None)
    return predicted / sum(count for _, count in case)


def main() -> None:
    logging.disable(logging.WARNING)
    rng = np.random.default_rng(0)
    cases: dict[str, list[tuple[Kernel | None, float]]] = {}
    for name, model in networks(rng):
        with tempfile.TemporaryDirectory() as scratch:
            cases[name] = steps(model, Path(scratch), rng)
    constants = fit(list(cases.values()))
    left_out = {}
    for name, case in cases.items():
        left_out[name] = total(case, fit([other for key, other in cases.items() if key != name]))
    errors = np.abs(np.array(list(left_out.values())) - 1)
    cycles = on_cortex_m.CYCLES[CORE]
    worst = 1 + float(np.max(errors))
    print("# Written by tools/fit_cortex_m.py; what the constants mean is in cortex_m.py.")
    print(
        "# interval: factors on the predicted median: the range of cycles per instruction, widened by the error of the"
    )
    print("# instruction counts.")
    for name, ratio in left_out.items():
        print(f"#   {name}: {ratio:.2f} of the emulated instructions when left out")
    print(f"\n[{CORE}]")
    error = f"median error {np.median(errors):.0%}, largest {errors.max():.0%}"
    print(
        f'origin = "instructions of generated C on an emulated {CORE}, {len(cases)} networks, each left out once: '
        f"{error}; "
        f'cycles per instruction: {cycles.source}"'
    )
    for name, value in zip(NAMES, constants, strict=True):
        print(f"{name} = {value if value else FALLBACK[name]:.4g}")
    print(f"cycles_per_instruction = {cycles.median}")
    print(f"cycles_per_instruction_range = [{cycles.low}, {cycles.high}]")
    print(f"interval = [{cycles.low / cycles.median / worst:.3f}, {cycles.high / cycles.median * worst:.3f}]")


# What no network above has: products of activations, recurrent layers and transforms, in floats. Two loads, one fused
# multiply-add and a share of the loop. The transform's is that of one log-mel front-end (30 frames of 256 samples,
# 129 x 20 filters, 868,450 instructions in all).
FALLBACK = {name: 0.0 for name in NAMES} | {
    "float_mac": 4.0,
    "matmul": 4.0,
    "recurrent": 5.0,
    "fft": 6.0,
    "grouped": 2.0,
}


if __name__ == "__main__":
    main()
