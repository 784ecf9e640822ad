"""Generated C against onnxruntime, against numpy, and against itself."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters.artifact import Artifact
from exporters.c import arena
from exporters.c.graph import read
from exporters.c.lower import lower
from exporters.c.program import Program, Step, _affine
from exporters.errors import ExportError
from exporters.onnx_to_c import can_run, convert, sources
from profiles.runners import on_cortex_m
from profiles.runners.cortex_m import toolchain
from profiles.target import Target, target

Array = NDArray[Any]

CLIPS = 8
SHAPE = (1, 5, 11, 9)
needs_host = pytest.mark.skipif(toolchain.host_compiler() is None, reason="this machine has no C compiler")
needs_board = pytest.mark.skipif(on_cortex_m.available() is not None, reason=str(on_cortex_m.available()))


@pytest.fixture(scope="module")
def hearing_aid() -> Target:
    return target("hearing_aid")


@dataclass
class Net:
    """Builds a QDQ graph layer by layer; scales are random but sensible."""

    rng: np.random.Generator
    shape: tuple[int, ...]  # of the current tensor, with batch 1
    unsigned: bool = False  # uint8 activations
    whole_bias: bool = False  # biases as int32, which is what an integer kernel makes of a float one
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    at: str = "x"
    made: int = 0
    scale: float = 1.0  # of the last QuantizeLinear
    weight_scale: Array = field(default_factory=lambda: np.ones(1, np.float32))

    def __post_init__(self) -> None:
        self.start = self.shape

    def const(self, value: Array) -> str:
        self.made += 1
        self.constants.append(numpy_helper.from_array(np.asarray(value), f"c{self.made}"))
        return f"c{self.made}"

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        self.made += 1
        name = f"t{self.made}"
        names = [name, *(f"{name}_{k}" for k in range(1, outputs))]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"n{self.made}", **attributes))
        return name

    def qdq(self, scale: float | None = None, zero: int | None = None, of: str | None = None) -> "Net":
        scale = self.rng.uniform(0.02, 0.06) if scale is None else scale
        zero = int(self.rng.integers(-60, 60)) if zero is None else zero
        self.scale = float(np.float32(scale))
        s = self.const(np.float32(scale))
        z = self.const(np.uint8(zero + 128) if self.unsigned else np.int8(zero))
        self.at = self.op("DequantizeLinear", self.op("QuantizeLinear", of or self.at, s, z), s, z)
        return self

    def weights(self, shape: tuple[int, ...], gain: float = 1.0, axis: int = 0) -> str:
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        fan_in = np.prod(shape) / shape[axis]
        scale = (gain * self.rng.uniform(0.5, 2.0, shape[axis]) / (74 * np.sqrt(fan_in))).astype(np.float32)
        zeros = np.zeros(shape[axis], np.int8)
        self.weight_scale = scale
        return self.op("DequantizeLinear", self.const(codes), self.const(scale), self.const(zeros), axis=axis)

    def bias(self, size: int) -> str:
        value = self.rng.normal(0, 0.5, size).astype(np.float32)
        if not self.whole_bias:
            return self.const(value)
        scale = (np.float32(self.scale) * self.weight_scale).astype(np.float32)
        codes = np.rint(value / scale).astype(np.int32)
        return self.op("DequantizeLinear", self.const(codes), self.const(scale), axis=0)

    def conv(self, channels: int, kernel: tuple[int, ...], bias: bool = True, **attributes: Any) -> "Net":
        groups = attributes.get("group", 1)
        inputs = [self.at, self.weights((channels, self.shape[1] // groups, *kernel))]
        if bias:
            inputs.append(self.bias(channels))
        self.at = self.op("Conv", *inputs, kernel_shape=kernel, **attributes)
        axes = len(kernel)
        stride, dilation = attributes.get("strides", [1] * axes), attributes.get("dilations", [1] * axes)
        pads = attributes.get("pads", [0] * 2 * axes)
        spatial = [
            (size + pads[i] + pads[i + axes] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
            for i, size in enumerate(self.shape[2:])
        ]
        self.shape = (1, channels, *spatial)
        return self

    def apply(self, kind: str, *inputs: str, shape: tuple[int, ...] | None = None, **attributes: Any) -> "Net":
        self.at = self.op(kind, self.at, *inputs, **attributes)
        self.shape = shape or self.shape
        return self

    def linear(self, outputs: int) -> "Net":
        weight = self.weights((outputs, self.shape[1]))
        self.at = self.op("Gemm", self.at, weight, self.bias(outputs), transB=1)
        self.shape = (1, outputs)
        return self

    def save(self, path: Path) -> Path:
        dims = ["batch", *self.start[1:]]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
            [helper.make_tensor_value_info(self.at, TensorProto.FLOAT, None)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, path)
        return path


def plain(net: Net) -> None:
    net.qdq().conv(8, (3, 3), pads=[1, 1, 1, 1], strides=[2, 2]).apply("Relu").qdq(zero=-128)
    net.conv(6, (1, 1), bias=False).qdq()


def asymmetric_pads(net: Net) -> None:
    net.qdq().conv(5, (4, 3), pads=[2, 0, 1, 2], strides=[1, 2], dilations=[1, 2]).qdq()


def depthwise(net: Net) -> None:
    channels = net.shape[1]
    net.qdq().conv(channels, (3, 3), group=channels, pads=[1, 1, 1, 1]).apply("Relu").qdq(zero=-128)
    net.conv(7, (1, 1)).qdq()
    net.conv(7, (3, 2), group=7, strides=[2, 1], pads=[0, 1, 1, 0], dilations=[1, 2]).qdq()


def grouped(net: Net) -> None:
    net.qdq().conv(8, (1, 1)).qdq().conv(12, (3, 3), group=4, pads=[1, 1, 1, 1]).qdq()
    net.conv(24, (3, 3), group=12).qdq()  # depth multiplier


def residual(net: Net) -> None:
    net.qdq().conv(8, (1, 1)).qdq()
    skip = net.at
    net.conv(8, (3, 3), pads=[1, 1, 1, 1]).qdq()
    net.at = net.op("Add", skip, net.at)
    net.apply("Relu").qdq(0.05, -128)


def clipped(net: Net) -> None:
    low, high = net.const(np.float32(0)), net.const(np.float32(1.5))
    net.qdq().conv(4, (3, 3)).apply("Clip", low, high).qdq(0.02, -100)


def pooled(net: Net) -> None:
    net.qdq(0.03, 5).conv(8, (3, 3)).qdq(0.03, 5)
    _, c, h, w = net.shape
    net.apply("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    net.shape = (1, c, (h - 1) // 2 + 1, (w - 1) // 2 + 1)
    net.qdq(0.03, 5).apply("AveragePool", kernel_shape=[2, 2], strides=[1, 1])
    net.shape = (1, c, net.shape[2] - 1, net.shape[3] - 1)
    net.qdq(0.0217, -4)


def global_pool(net: Net) -> None:
    net.qdq().conv(8, (3, 3)).apply("Relu").qdq(0.031, -128)
    net.apply("GlobalAveragePool", shape=(1, 8, 1, 1)).qdq(0.0113, -128)
    net.apply("Flatten", shape=(1, 8)).linear(10).qdq()


def mean_and_gemm(net: Net) -> None:
    net.qdq().conv(9, (3, 3)).qdq(0.031, 3)
    net.apply("ReduceMean", net.const(np.array([2, 3])), keepdims=0, shape=(1, 9)).qdq(0.0117, -7)
    net.linear(5).apply("Relu").qdq(zero=-128).linear(3).qdq()


def flatten_image(net: Net) -> None:
    net.qdq().conv(3, (3, 3), strides=[2, 2]).qdq()
    net.apply("Reshape", net.const(np.array([-1, int(np.prod(net.shape))])), shape=(1, int(np.prod(net.shape))))
    net.qdq(0.04, 2).linear(6).qdq()


def concatenated(net: Net) -> None:
    net.qdq().conv(4, (1, 1)).qdq()
    left = net.at
    right = net.op("MaxPool", left, kernel_shape=[1, 1])
    net.conv(3, (1, 1)).qdq()
    net.at = net.op("Concat", left, net.at, right, axis=1)
    net.shape = (1, 11, *net.shape[2:])
    net.qdq(0.05, 0).conv(4, (1, 1)).qdq()


def table_functions(net: Net) -> None:
    net.qdq()
    gate = net.op("Sigmoid", net.at)
    net.at = net.op("Mul", net.at, gate)
    net.qdq(0.03, -100).apply("HardSwish").qdq(0.02, -110).conv(4, (1, 1)).qdq()


def squeeze_excite(net: Net) -> None:
    net.qdq().conv(6, (1, 1)).qdq(0.04, 3)
    body = net.at
    net.apply("GlobalAveragePool", shape=(1, 6, 1, 1)).qdq(0.013, 2).conv(6, (1, 1)).qdq()
    net.apply("Sigmoid").qdq(1 / 256, -128)
    net.at = net.op("Mul", body, net.at)
    net.qdq(0.05, 0)


def float_tail(net: Net) -> None:
    net.qdq().conv(4, (3, 3)).apply("Relu").apply("GlobalAveragePool", shape=(1, 4, 1, 1))
    net.apply("Flatten", shape=(1, 4)).qdq().linear(5).apply("Softmax", axis=-1)


def matmul_bias(net: Net) -> None:
    _, c, h, w = net.shape
    net.qdq().apply("Reshape", net.const(np.array([-1, c * h, w])), shape=(1, c * h, w)).qdq(0.03, 4)
    net.at = net.op("MatMul", net.at, net.weights((w, 6), axis=1))
    net.at = net.op("Add", net.const(net.rng.normal(0, 1, 6).astype(np.float32)), net.at)
    net.apply("Relu").qdq(0.04, -128)


def floats_only(net: Net) -> None:
    channels = net.shape[1]
    weight = net.rng.normal(0, 0.3, (6, channels, 3, 3)).astype(np.float32)
    net.at = net.op("Conv", net.at, net.const(weight), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    net.shape = (1, 6, *net.shape[2:])
    stats = [net.rng.uniform(0.5, 1.5, 6).astype(np.float32) for _ in range(4)]
    net.apply("BatchNormalization", *[net.const(value) for value in stats])
    net.apply("LeakyRelu", alpha=0.1).apply("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    net.apply("Transpose", perm=[0, 2, 3, 1]).apply("ReduceMean", net.const(np.array([1, 2])), keepdims=0)
    net.shape = (1, 6)
    net.at = net.op("Div", net.at, net.const(np.arange(1, 7, dtype=np.float32)))
    net.at = net.op("Gemm", net.at, net.const(net.rng.normal(0, 1, (6, 4)).astype(np.float32)))
    net.apply("Exp").apply("Log").apply("LogSoftmax", axis=1)


def float_windows_of_one_place(net: Net) -> None:
    """Strided, in groups, and with a border of zeros, between windows of nine places."""
    _, _, h, w = net.shape
    for shape, options in (
        ((6, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((8, 6, 1, 1), {}),
        ((4, 4, 1, 1), {"group": 2, "strides": [2, 3]}),
        ((5, 4, 1, 1), {"pads": [1, 0, 2, 1]}),
    ):
        bias = net.const(net.rng.normal(0, 1, shape[0]).astype(np.float32))
        weight = net.const(net.rng.normal(0, 0.3, shape).astype(np.float32))
        net.at = net.op("Conv", net.at, weight, bias, kernel_shape=list(shape[2:]), **options)
    net.shape = (1, 5, (h + 1) // 2 + 3, (w + 2) // 3 + 1)


QUANTISED = [
    plain,
    asymmetric_pads,
    depthwise,
    grouped,
    residual,
    clipped,
    pooled,
    global_pool,
    mean_and_gemm,
    flatten_image,
    concatenated,
    table_functions,
    squeeze_excite,
    matmul_bias,
]


def runtime(model: Path, inputs: Mapping[str, Array], optimised: bool = True) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    if optimised:  # else int8 activations run in floats, and ties fall otherwise
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    rows = [session.run(None, {k: v[i : i + 1] for k, v in inputs.items()})[0] for i in range(CLIPS)]
    return np.concatenate(rows).reshape(CLIPS, -1)


def build(layers: Any, tmp_path: Path, shape: tuple[int, ...], seed: int, **options: Any) -> tuple[Net, Path]:
    net = Net(np.random.default_rng(seed), shape, **options)
    layers(net)
    return net, net.save(tmp_path / "net.onnx")


def images(shape: tuple[int, ...], seed: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(seed).normal(0, 1, (CLIPS, *shape[1:])).astype(np.float32)}


def output_of(outputs: Mapping[str, Array]) -> Array:
    (only,) = outputs.values()
    return only.reshape(CLIPS, -1)


def one_dimensional(net: Net) -> None:
    net.qdq().conv(8, (5,), strides=[2], pads=[2, 2]).apply("Relu").qdq(zero=-128)
    net.conv(8, (3,), group=8, pads=[2, 0], dilations=[1]).qdq().conv(6, (1,)).qdq()


def steps_apart(net: Net, ours: Array, theirs: Array) -> Array:
    scale = next(numpy_helper.to_array(c) for c in net.constants if c.name == net.nodes[-1].input[1])
    return np.abs(ours - theirs) / float(scale)


def agrees(net: Net, ours: Array, theirs: Array, share: float) -> None:
    """At most `share` of the results differ, none by more than one step (steps are whole but for float noise)."""
    apart = steps_apart(net, ours, theirs)
    assert apart.max() < 1.5
    assert (apart > 0.5).mean() <= share


@needs_host
@pytest.mark.parametrize("layers", QUANTISED, ids=lambda layers: layers.__name__)
def test_equals_onnxruntime(layers: Any, tmp_path: Path, hearing_aid: Target) -> None:
    net, model = build(layers, tmp_path, SHAPE, 1)
    inputs = images(SHAPE, 2)
    folder = sources(model, hearing_aid, tmp_path / "c")
    ours = output_of(on_cortex_m.run_on_host(folder, inputs))
    assert np.ptp(ours) > 0
    assert json.loads((folder / "model.json").read_text())["fallback"] == []
    # onnxruntime has no integer MatMul with a bias, adds it in float and so breaks a few ties the other way
    agrees(net, ours, runtime(model, inputs), 0.001 if layers is matmul_bias else 0.0)


@needs_host
@pytest.mark.parametrize("layers", [plain, depthwise, residual, global_pool, mean_and_gemm], ids=lambda x: x.__name__)
def test_equals_the_graph_computed_in_floats(layers: Any, tmp_path: Path, hearing_aid: Target) -> None:
    net, model = build(layers, tmp_path, SHAPE, 3, whole_bias=True)
    inputs = images(SHAPE, 4)
    folder = sources(model, hearing_aid, tmp_path / "c")
    ours = output_of(on_cortex_m.run_on_host(folder, inputs))
    agrees(
        net, ours, runtime(model, inputs, optimised=False), 0.003
    )  # float sums round before a tie, int32 sums do not


@needs_host
@pytest.mark.parametrize("layers", [plain, depthwise, pooled], ids=lambda layers: layers.__name__)
def test_unsigned_activations(layers: Any, tmp_path: Path, hearing_aid: Target) -> None:
    net, model = build(layers, tmp_path, SHAPE, 5, unsigned=True)
    inputs = images(SHAPE, 6)
    folder = sources(model, hearing_aid, tmp_path / "c")
    # 8-bit dot products of unsigned inputs saturate on x86 without VNNI: compare with floats there
    agrees(net, output_of(on_cortex_m.run_on_host(folder, inputs)), runtime(model, inputs, False), 0.02)


@needs_host
def test_one_dimensional_convolution(tmp_path: Path, hearing_aid: Target) -> None:
    shape = (1, 3, 40)
    net, model = build(one_dimensional, tmp_path, shape, 7)
    inputs = images(shape, 8)
    folder = sources(model, hearing_aid, tmp_path / "c")
    agrees(net, output_of(on_cortex_m.run_on_host(folder, inputs)), runtime(model, inputs), 0.0)


@needs_host
@pytest.mark.parametrize(
    "layers", [floats_only, float_tail, float_windows_of_one_place], ids=lambda layers: layers.__name__
)
def test_float_kernels(layers: Any, tmp_path: Path, hearing_aid: Target) -> None:
    _, model = build(layers, tmp_path, (1, 3, 10, 8), 9)
    inputs = images((1, 3, 10, 8), 10)
    folder = sources(model, hearing_aid, tmp_path / "c")
    ours = output_of(on_cortex_m.run_on_host(folder, inputs))
    np.testing.assert_allclose(ours, runtime(model, inputs), rtol=2e-5, atol=2e-6)  # order of float32 sums


@needs_host
def test_a_bias_too_large_for_int32_keeps_its_value(tmp_path: Path, hearing_aid: Target) -> None:
    def layers(net: Net) -> None:
        net.qdq(0.02, 3)
        codes = net.rng.integers(-127, 128, (2, 5, 1, 1)).astype(np.int8)
        scale = np.array([1e-10, 0.004], np.float32)  # a dead channel: 0.7 is 3.5e11 steps of its sum
        weight = net.op("DequantizeLinear", net.const(codes), net.const(scale), axis=0)
        net.at = net.op("Conv", net.at, weight, net.const(np.array([0.7, -0.1], np.float32)))
        net.shape = (1, 2, *net.shape[2:])
        net.qdq(0.01, 0)

    net, model = build(layers, tmp_path, SHAPE, 11)
    inputs = images(SHAPE, 12)
    ours = output_of(on_cortex_m.run_on_host(sources(model, hearing_aid, tmp_path / "c"), inputs))
    agrees(net, ours, runtime(model, inputs, optimised=False), 0.001)


@needs_host
def test_sources_compile_without_warnings(tmp_path: Path, hearing_aid: Target) -> None:
    _, model = build(squeeze_excite, tmp_path, SHAPE, 1)
    folder = sources(model, hearing_aid, tmp_path / "c")
    compiler = toolchain.host_compiler()
    assert compiler is not None
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2", "model.c", "main.c", "-o", "main", "-lm"]
    shutil.copytree(folder, tmp_path / "copy")
    subprocess.run([compiler, *flags], cwd=tmp_path / "copy", check=True)
    subprocess.run([str(tmp_path / "copy" / "main")], check=True)


@needs_board
@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"])
def test_every_core_gives_the_bits_of_the_host(core: str, tmp_path: Path, hearing_aid: Target) -> None:
    def layers(net: Net) -> None:
        depthwise(net)
        squeeze_excite(net)

    _, model = build(layers, tmp_path, SHAPE, 13)
    inputs = images(SHAPE, 14)
    folder = sources(model, hearing_aid, tmp_path / "c")
    host = output_of(on_cortex_m.run_on_host(folder, inputs))
    with on_cortex_m.load(folder, core) as board:
        np.testing.assert_array_equal(output_of(board.run(inputs)), host)


@needs_board
@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m55"])  # their kernels are the least like the host's
@pytest.mark.parametrize("layers", [asymmetric_pads, grouped, mean_and_gemm, float_tail], ids=lambda x: x.__name__)
def test_odd_sizes_give_the_bits_of_the_host(layers: Any, core: str, tmp_path: Path, hearing_aid: Target) -> None:
    _, model = build(layers, tmp_path, SHAPE, 17)
    inputs = images(SHAPE, 18)
    folder = sources(model, hearing_aid, tmp_path / "c")
    host = output_of(on_cortex_m.run_on_host(folder, inputs))
    with on_cortex_m.load(folder, core) as board:
        np.testing.assert_array_equal(output_of(board.run(inputs)), host)


FIXED_POINT = """
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "base.c"

static uint32_t state = 1;
static uint32_t next(void) { return state = state * 1664525u + 1013904223u; }

int main(void)
{
    long different = 0, near = 0;
    for (long i = 0; i < 4000000; i++) {
        const float multiplier = ldexpf(1.0f + (float)(next() >> 9) / 8388608.0f, (int)(next() >> 8) % 44 - 42);
        const int32_t goal = (int32_t)(next() >> 8) % 600 - 300;
        int32_t sum = (int32_t)next() >> ((next() >> 8) % 32), expected;
        if (i & 1) { /* as near to a half as there is a sum */
            const double wanted = (goal + 0.5) / (double)multiplier;
            sum = fabs(wanted) < 2e9 ? (int32_t)wanted : sum;
            near++;
        }
        expected = model_round((float)sum * multiplier, 3, -131, 124);
        different += model_requantize(sum, multiplier, 3, -131, 124) != (int8_t)expected;
    }
    printf("%ld %ld", different, near);
    return 0;
}
"""


@needs_host
def test_requantising_without_a_floating_point_unit_equals_floats(tmp_path: Path) -> None:
    (tmp_path / "fixed.c").write_text(FIXED_POINT)
    compiler = toolchain.host_compiler()
    kernels = Path(arena.__file__).parent / "kernels"
    flags = ["-O2", "-std=c99", "-ffp-contract=off", "-DMODEL_FIXED", f"-I{kernels}"]
    subprocess.run([str(compiler), *flags, "fixed.c", "-o", "fixed", "-lm"], cwd=tmp_path, check=True)
    said = subprocess.run([str(tmp_path / "fixed")], capture_output=True, text=True, check=True).stdout
    different, near = map(int, said.split())
    assert different == 0
    assert near == 2_000_000


@needs_board
@pytest.mark.parametrize(
    "layers", [asymmetric_pads, grouped, pooled, concatenated, mean_and_gemm], ids=lambda x: x.__name__
)
def test_the_board_equals_onnxruntime(layers: Any, tmp_path: Path, hearing_aid: Target) -> None:
    net, model = build(layers, tmp_path, SHAPE, 15)
    inputs = images(SHAPE, 16)
    with on_cortex_m.load(sources(model, hearing_aid, tmp_path / "c")) as board:
        agrees(net, output_of(board.run(inputs)), runtime(model, inputs), 0.0)


# The spectral front-end.

RATE, FRAME, HOP, BANDS = 8000, 256, 128, 32


def mel_matrix(bins: int) -> Array:
    """Triangles whose width grows; (bins, BANDS). Their shape does not matter here."""
    centres = np.geomspace(2, bins - 2, BANDS)
    width = np.maximum(1.5, centres / 6)
    return np.maximum(0, 1 - np.abs(np.arange(bins)[:, None] - centres) / width).astype(np.float32)


def spectral(net: Net, power: str, samples: int, frame: int = FRAME, hop: int = HOP) -> None:
    """Waveform -> log-mel (1, BANDS, frames), with the power spectrum written in one of the usual ways."""
    window = np.hanning(frame + 1)[:-1].astype(np.float32)
    column = net.op("Unsqueeze", net.at, net.const(np.array([2])))
    inputs = [column, net.const(np.int64(hop)), net.const(window), net.const(np.int64(frame))]
    net.at = net.op("STFT", *inputs, onesided=1)
    two, last = net.const(np.float32(2)), net.const(np.array([-1]))
    if power == "pow":
        net.at = net.op("Transpose", net.at, perm=[0, 2, 1, 3])
        net.at = net.op("ReduceSum", net.op("Pow", net.at, two), last, keepdims=0)
        net.at = net.op("Transpose", net.at, perm=[0, 2, 1])
    elif power == "gather":
        parts = [net.op("Gather", net.at, net.const(np.int64(k)), axis=3) for k in (0, 1)]
        net.at = net.op("Add", *[net.op("Mul", part, part) for part in parts])
    elif power == "norm":
        net.at = net.op("Pow", net.op("ReduceL2", net.at, last, keepdims=0), two)
    elif power == "magnitude":
        net.at = net.op("ReduceL2", net.at, last, keepdims=0)
    net.at = net.op("MatMul", net.at, net.const(mel_matrix(frame // 2 + 1)))
    net.at = net.op("Log", net.op("Clip", net.at, net.const(np.float32(1e-6))))
    net.at = net.op("Div", net.op("Add", net.at, net.const(np.float32(5))), net.const(np.float32(3)))
    net.at = net.op("Transpose", net.at, perm=[0, 2, 1])


def reference_log_mel(waveforms: Array, magnitude: bool) -> Array:
    window = np.hanning(FRAME + 1)[:-1]
    starts = np.arange(0, waveforms.shape[1] - FRAME + 1, HOP)
    frames = waveforms.astype(np.float64)[:, starts[:, None] + np.arange(FRAME)] * window
    spectrum = np.abs(np.fft.rfft(frames)) ** (1 if magnitude else 2)
    bands = np.maximum(spectrum @ mel_matrix(FRAME // 2 + 1).astype(np.float64), 1e-6)
    return np.swapaxes((np.log(bands) + 5) / 3, 1, 2)


def waveforms(samples: int, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    levels = 10 ** rng.uniform(-3, 0, (CLIPS, 1))
    sound = np.sin(np.arange(samples) * rng.uniform(0.05, 3, (CLIPS, 1))) + 0.1 * rng.normal(size=(CLIPS, samples))
    return {"x": np.clip(levels * sound, -1, 1).astype(np.float32)}


@needs_host
@pytest.mark.parametrize("power", ["pow", "gather", "norm", "magnitude"])
def test_log_mel_equals_numpy_and_onnxruntime(power: str, tmp_path: Path, hearing_aid: Target) -> None:
    net = Net(np.random.default_rng(0), (1, RATE))
    spectral(net, power, RATE)
    model = net.save(tmp_path / "mel.onnx")
    inputs = waveforms(RATE, 1)
    artifact = convert(model, hearing_aid, tmp_path)
    ours = output_of(on_cortex_m.run_on_host(artifact.path, inputs))
    expected = reference_log_mel(inputs["x"], power == "magnitude").reshape(CLIPS, -1)
    # float32 spectra: an error of 1e-7 of the loudest bin is what a quiet band's log sees
    np.testing.assert_allclose(ours, expected, atol=2e-3)
    np.testing.assert_allclose(ours, runtime(model, inputs), atol=2e-3)
    assert np.abs(ours - expected).mean() < 2e-6
    steps = json.loads((artifact.path / "model.json").read_text())["steps"]
    assert steps[0]["ops"][0] == "STFT"
    assert steps[0]["ops"][-1] == "MatMul"  # one kernel, frame by frame
    frames = 1 + (RATE - FRAME) // HOP
    assert artifact.facts["arena_bytes"] < 4 * (frames * BANDS + 4 * FRAME)  # no whole spectrum in memory
    assert artifact.facts["weight_bytes"] < 5000  # bands are sparse


@needs_host
@pytest.mark.parametrize("power", ["pow", "magnitude"])
def test_log_mel_in_integers(power: str, tmp_path: Path) -> None:
    """A core without a floating-point unit. The graph divides log-mel by 3: differences here are a third of them."""
    net = Net(np.random.default_rng(0), (1, RATE))
    spectral(net, power, RATE)
    net.qdq(0.02, 0)
    model = net.save(tmp_path / "mel.onnx")
    inputs = waveforms(RATE, 1)
    m3 = target("cortex-m3")
    folder = sources(model, m3, tmp_path / "codes")
    assert "model_spectrum_fixed" in (folder / "model.c").read_text()
    assert "model_spectrum_fixed" not in (sources(model, m3, tmp_path / "f", fixed_point=False) / "model.c").read_text()
    expected = reference_log_mel(inputs["x"], power == "magnitude").reshape(CLIPS, -1)
    ours = output_of(on_cortex_m.run_on_host(folder, inputs))
    codes = np.clip(np.rint(expected / 0.02), -128, 127) * 0.02
    assert (np.abs(ours - codes) > 0.01).mean() < 0.002  # codes of the first layer that differ, by one:
    assert np.abs(ours - codes).max() < 0.021
    plain = Net(np.random.default_rng(0), (1, RATE))
    spectral(plain, power, RATE)
    floats = output_of(on_cortex_m.run_on_host(sources(plain.save(tmp_path / "p.onnx"), m3, tmp_path / "p"), inputs))
    assert 3 * np.abs(floats - expected).max() < 5e-3
    assert 3 * np.abs(floats - expected).mean() < 1e-4


@needs_host
def test_a_silent_frame_in_integers_is_zero(tmp_path: Path) -> None:
    net = Net(np.random.default_rng(0), (1, RATE))
    spectral(net, "pow", RATE)
    folder = sources(net.save(tmp_path / "mel.onnx"), target("cortex-m3"), tmp_path / "c")
    quiet = {"x": np.zeros((CLIPS, RATE), np.float32)}
    quiet["x"][0, 4000] = 1e-30  # a frame whose largest sample is tiny
    ours = output_of(on_cortex_m.run_on_host(folder, quiet))
    np.testing.assert_allclose(ours, (np.log(1e-6) + 5) / 3, rtol=1e-5)


@needs_host
@pytest.mark.parametrize("frame", [8, 16, 32, 64, 512, 1024])
def test_spectrum_of_every_length(frame: int, tmp_path: Path, hearing_aid: Target) -> None:
    net = Net(np.random.default_rng(0), (1, 2 * frame + 5, 1))
    window = net.rng.uniform(0.2, 1, frame).astype(np.float32)
    hop = net.const(np.int64(frame // 2 + 1))
    net.at = net.op("STFT", net.at, hop, net.const(window), onesided=1)
    model = net.save(tmp_path / "stft.onnx")
    inputs = images((1, 2 * frame + 5, 1), 3)
    ours = output_of(on_cortex_m.run_on_host(sources(model, hearing_aid, tmp_path / "c"), inputs))
    starts = np.arange(0, frame + 6, frame // 2 + 1)
    spectrum = np.fft.rfft(inputs["x"][:, :, 0].astype(np.float64)[:, starts[:, None] + np.arange(frame)] * window)
    expected = np.stack([spectrum.real, spectrum.imag], axis=-1).reshape(CLIPS, -1)
    np.testing.assert_allclose(ours, expected, atol=4e-7 * frame)  # float32 sums of `frame` terms


def test_a_frame_that_is_no_power_of_two_is_refused(tmp_path: Path, hearing_aid: Target) -> None:
    net = Net(np.random.default_rng(0), (1, RATE))
    spectral(net, "pow", RATE, frame=200, hop=80)
    with pytest.raises(ExportError, match="frames of 200 samples; there are powers of two"):
        convert(net.save(tmp_path / "mel.onnx"), hearing_aid, tmp_path)


# Refusals.


def one_node(tmp_path: Path, kind: str, *constants: Array, domain: str = "", **attributes: Any) -> Path:
    net = Net(np.random.default_rng(0), SHAPE)
    inputs = [net.const(value) for value in constants]
    net.at = net.op(kind, net.at, *inputs, domain=domain, **attributes)
    return net.save(tmp_path / "one.onnx")


def test_an_operator_without_kernel_is_named(tmp_path: Path, hearing_aid: Target) -> None:
    with pytest.raises(ExportError, match=r"Det node 'n1' has no C kernel; there are .*Conv.*Gemm"):
        convert(one_node(tmp_path, "Det"), hearing_aid, tmp_path)


def test_another_domain_is_refused(tmp_path: Path, hearing_aid: Target) -> None:
    with pytest.raises(ExportError, match=r"com\.microsoft::Gelu"):
        convert(one_node(tmp_path, "Gelu", domain="com.microsoft"), hearing_aid, tmp_path)


def test_a_product_of_two_activations_is_refused(tmp_path: Path, hearing_aid: Target) -> None:
    net = Net(np.random.default_rng(0), SHAPE)
    net.at = net.op("MatMul", net.at, net.op("Transpose", net.at, perm=[0, 1, 3, 2]))
    with pytest.raises(ExportError, match="multiplies two computed tensors"):
        convert(net.save(tmp_path / "two.onnx"), hearing_aid, tmp_path)


def test_activation_scales_per_channel_are_refused(tmp_path: Path, hearing_aid: Target) -> None:
    scales, zeros = np.full(5, 0.1, np.float32), np.zeros(5, np.int8)
    with pytest.raises(ExportError, match="5 scales for an activation"):
        convert(one_node(tmp_path, "QuantizeLinear", scales, zeros, axis=1), hearing_aid, tmp_path)


def test_what_is_not_onnx_is_refused(tmp_path: Path, hearing_aid: Target) -> None:
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ExportError, match="cannot be read"):
        convert(tmp_path / "text.onnx", hearing_aid, tmp_path)


def test_other_families_are_refused(tmp_path: Path) -> None:
    jetson = target("jetson")
    assert "nvidia-gpu" in str(can_run(jetson))
    with pytest.raises(ExportError, match="nvidia-gpu"):
        convert(tmp_path / "any.onnx", jetson, tmp_path)


# What is written.


def contents(artifact: Artifact) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(artifact.path.iterdir())}


def test_the_same_model_gives_the_same_bytes(tmp_path: Path, hearing_aid: Target) -> None:
    _, model = build(residual, tmp_path, SHAPE, 1)
    first, second = (convert(model, hearing_aid, tmp_path / name) for name in ("a", "b"))
    assert contents(first) == contents(second)
    assert dict(first.facts) == dict(second.facts)
    assert contents(convert(model, hearing_aid, tmp_path / "a")) == contents(second)  # over what was there


@needs_board
def test_the_library_links_and_its_size_is_told(tmp_path: Path, hearing_aid: Target) -> None:
    _, model = build(residual, tmp_path, SHAPE, 1)
    artifact = convert(model, hearing_aid, tmp_path)
    written = {"main.c", "model.c", "model.h", "model.json", "Makefile", "CMakeLists.txt"}
    assert set(contents(artifact)) == {"libnet.a", *written}
    flash, ram = artifact.facts["flash_bytes"], artifact.facts["static_ram_bytes"]
    assert isinstance(flash, int)
    assert isinstance(ram, int)
    assert int(str(artifact.facts["weight_bytes"])) < flash < 12_000
    assert int(str(artifact.facts["arena_bytes"])) <= ram < int(str(artifact.facts["arena_bytes"])) + 64
    command = ["arm-none-eabi-gcc", *toolchain.core_of("cortex-m33").flags, "--specs=nosys.specs", "main.c"]
    subprocess.run(
        [*command, "-L.", "-lnet", "-lm", "-o", str(tmp_path / "main.elf")],
        cwd=artifact.path,
        check=True,
        capture_output=True,
    )


def test_without_a_compiler_the_sources_are_written(
    tmp_path: Path, hearing_aid: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, model = build(plain, tmp_path, SHAPE, 1)
    monkeypatch.setenv("PATH", str(tmp_path))
    artifact = convert(model, hearing_aid, tmp_path)
    assert "libnet.a was not built: arm-none-eabi-gcc is not installed" in artifact.note
    assert "arm-none-eabi-gcc -mcpu=cortex-m33" in artifact.note
    assert artifact.facts["flash_bytes"] is None
    assert "libnet.a" not in contents(artifact)


# Memory.


def overlaps(program: Program, plan: arena.Plan) -> list[tuple[int, int]]:
    """Pairs of buffers that share bytes while both hold something that is still read."""
    times = arena.lifetimes(program.steps)
    found = []
    for a in times:
        for b in times:
            if a >= b:
                continue
            (a0, a1), (b0, b1) = times[a], times[b]
            at_once = max(a0, b0) <= min(a1, b1)
            handed_over = any(
                step.inplace is not None
                and {step.inplace.number, *(w.number for w in step.writes)} >= {a, b}
                and times[step.inplace.number][1] == at
                and step.inplace.number in (a, b)
                for at, step in enumerate(program.steps)
                if at == max(a0, b0)
            )
            start_a, start_b = plan.offsets[a], plan.offsets[b]
            end_a, end_b = start_a + program.buffers[a].bytes, start_b + program.buffers[b].bytes
            if at_once and not handed_over and start_a < end_b and start_b < end_a:
                found.append((a, b))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_live_buffers_never_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    program = Program()
    live = [program.buffer("int8_t", 8, "input")]
    for _ in range(int(rng.integers(2, 25))):
        reads = tuple(live[k] for k in sorted({int(k) for k in rng.integers(0, len(live), 2)}))
        kind = str(rng.choice(["int8_t", "float", "int32_t"]))
        write = program.buffer(kind, int(rng.integers(1, 500)))
        scratch = (program.buffer("int8_t", int(rng.integers(1, 300))),) if rng.random() < 0.5 else ()
        over = reads[0] if rng.random() < 0.5 and reads[0].place == "arena" else None
        program.add(Step("s", (), "", reads, (write,), scratch, over))
        live.append(write)
    plan = arena.plan(program)
    assert overlaps(program, plan) == []
    assert all(offset % arena.ALIGNMENT == 0 for offset in plan.offsets.values())
    assert all(plan.offsets[n] + program.buffers[n].bytes + arena.SLACK <= plan.bytes for n in plan.offsets)


@pytest.mark.parametrize("layers", [residual, concatenated, squeeze_excite, floats_only], ids=lambda x: x.__name__)
def test_live_tensors_of_a_network_never_overlap(layers: Any, tmp_path: Path) -> None:
    _, model = build(layers, tmp_path, SHAPE, 1)
    program = lower(read(model)).program
    assert overlaps(program, arena.plan(program)) == []


def test_the_plan_of_a_chain_is_its_two_largest_neighbours() -> None:
    program = Program()
    sizes = (100, 400, 300, 200)
    buffers = [program.buffer("int8_t", size) for size in sizes]
    for a, b in pairwise(buffers):
        program.add(Step("s", (), "", (a,), (b,)))
    assert arena.plan(program).bytes == 408 + 304  # 400 and 300, four bytes of slack each, multiples of eight


def test_loops_of_a_transposition_worked_by_hand() -> None:
    order = np.arange(6).reshape(2, 3).T.reshape(-1)  # 0 3 1 4 2 5
    assert _affine(np.stack([np.arange(6), order])) == [(3, (2, 1)), (2, (1, 3))]


# What the project's own quantiser and exporter write.


@needs_host
def test_a_quantised_student_end_to_end(tmp_path: Path, hearing_aid: Target) -> None:
    torch = pytest.importorskip("torch")
    prepare = pytest.importorskip("compress.qat.prepare")
    from compress.qat.convert import convert as finish
    from exporters import torch_to_onnx

    class Student(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            nn = torch.nn
            self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            self.mix = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
            self.head = nn.Linear(8, 10)

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            x = torch.relu(x + self.mix(self.deep(x)))
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    inputs = images((1, 3, 16, 12), 1)
    x = torch.from_numpy(inputs["x"])
    student = prepare.prepare(Student(), (x[:1],), "cortex_m")
    prepare.calibrate(student, [x])
    path = tmp_path / "student.onnx"
    torch_to_onnx.convert(
        finish(student.eval()), (x[:2],), path, opset=20, input_names=["x"], output_names=["y"], metadata={}
    )
    artifact = convert(path, hearing_aid, tmp_path)
    assert artifact.facts["fallback"] == []
    steps = json.loads((artifact.path / "model.json").read_text())["steps"]
    assert [step["precision"] for step in steps if step["macs"]] == ["int8"] * 4
    ours = output_of(on_cortex_m.run_on_host(artifact.path, inputs))
    step = float(np.min(np.diff(np.unique(ours))))
    apart = np.abs(ours - runtime(path, inputs)) / step
    assert apart.max() < 1.5
    assert (apart > 0.5).mean() <= 0.02  # 80 logits: at most one beside a tie
