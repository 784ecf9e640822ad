from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import profiles
from profiles.cost import Precision
from profiles.fuse import fuse
from profiles.graph import HEAVY, Graph, Kind, Op, Weight, edge

FAMILIES = ("nvidia-gpu", "x86-cpu", "cortex-m")


def graph(
    *ops: Op,
    inputs: tuple[str, ...] = ("x",),
    outputs: tuple[str, ...] = ("y",),
    shape: tuple[int, ...] = (1, 4, 25),
    sizes: Mapping[str, tuple[int, ...]] | None = None,
    codes: str = "",
) -> Graph:
    """A graph whose edges all have 100 floats, but for those in `sizes`; those in `codes` are int8."""
    names = {name for op in ops for name in (*op.inputs, *op.outputs)} | set(inputs)
    shapes = dict.fromkeys(names, shape) | dict(sizes or {})
    edges = {name: edge(name, shapes[name], "int8" if name in codes.split() else "float32") for name in sorted(names)}
    return Graph(ops, edges, inputs, outputs, 1)


def op(operator: str, kind: Kind, inputs: str, output: str, *weights: Weight, macs: int = 0) -> Op:
    return Op(f"{operator}_{output}", operator, kind, tuple(inputs.split()), (output,), macs, weights, 9, 1, 4)


def fused(built: Graph, family: str = "nvidia-gpu") -> list[tuple[str, ...]]:
    return [kernel.operators for kernel in fuse(built, family).kernels]


CONV = op("Conv", "conv", "x", "a", Weight("w", 36, "float32"), macs=900)


def test_activation_runs_at_the_end_of_its_convolution() -> None:
    assert fused(graph(CONV, op("Relu", "pointwise", "a", "y"))) == [("Conv", "Relu")]


def test_what_somebody_else_reads_is_not_fused_away() -> None:
    built = graph(
        CONV, op("Relu", "pointwise", "a", "b"), op("Conv", "conv", "b", "c"), op("Add", "pointwise", "a c", "y")
    )
    assert fused(built) == [("Conv",), ("Relu",), ("Conv", "Add")]


def test_an_output_of_the_network_is_written() -> None:
    built = graph(CONV, op("Relu", "pointwise", "a", "y"), outputs=("a", "y"))
    assert fused(built) == [("Conv",), ("Relu",)]


def test_an_addition_joins_the_later_of_its_makers() -> None:
    built = graph(CONV, op("Conv", "conv", "x", "b"), op("Add", "pointwise", "a b", "y"))
    plan = fuse(built, "nvidia-gpu")
    assert [kernel.operators for kernel in plan.kernels] == [("Conv",), ("Conv", "Add")]
    assert plan.kernels[1].reads == ("x", "a")
    assert fused(built, "cortex-m") == [("Conv",), ("Conv",), ("Add",)]


def test_batch_normalisation_becomes_a_bias() -> None:
    norm = op("BatchNormalization", "batchnorm", "a", "y", *(Weight(name, 4, "float32") for name in "gbmv"))
    (kernel,) = fuse(graph(CONV, norm), "nvidia-gpu").kernels
    assert sum(item.elements for item in kernel.weights) == 36 + 4
    biased = op("Conv", "conv", "x", "a", Weight("w", 36, "float32"), Weight("b", 4, "float32", bias=True), macs=900)
    (kernel,) = fuse(graph(biased, norm), "nvidia-gpu").kernels
    assert sum(item.elements for item in kernel.weights) == 36 + 4


def test_attention_is_one_kernel_on_a_gpu_only() -> None:
    built = graph(
        op("MatMul", "matmul", "x k", "s", macs=7),
        op("Softmax", "softmax", "s", "p"),
        op("MatMul", "matmul", "p v", "y", macs=5),
        inputs=("x", "k", "v"),
    )
    (kernel,) = fuse(built, "nvidia-gpu").kernels
    assert kernel.macs == 12
    assert set(kernel.reads) == {"x", "k", "v"}
    assert len(fused(built, "x86-cpu")) == 3


def test_scores_that_are_read_twice_are_kept() -> None:
    built = graph(
        op("MatMul", "matmul", "x k", "s", macs=7),
        op("Softmax", "softmax", "s", "p"),
        op("MatMul", "matmul", "p v", "y", macs=5),
        inputs=("x", "k", "v"),
        outputs=("y", "p"),
    )
    assert len(fused(built)) == 3


def test_a_spectral_front_end_stays_in_floats() -> None:
    built = graph(
        op("STFT", "fft", "x", "s", macs=50),
        op("MatMul", "gemm", "s", "m", Weight("mel", 20, "float32"), macs=40),
        op("Log", "pointwise", "m", "l"),
        op("Conv", "conv", "l", "y", Weight("w", 36, "float32"), macs=900),
    )
    kernels = fuse(built, "cortex-m", "int8").kernels
    assert [(kernel.operators, kernel.precision) for kernel in kernels] == [
        (("STFT",), "fp32"),
        (("MatMul", "Log"), "fp32"),
        (("Conv",), "int8"),
    ]
    assert [kernel.weight_bytes for kernel in kernels] == [0, 80, 36]
    assert [(kernel.read_bytes, kernel.written_bytes) for kernel in kernels] == [(400, 400), (400, 100), (100, 100)]


def test_the_logarithm_of_a_result_is_no_front_end() -> None:
    built = graph(CONV, op("Softmax", "softmax", "a", "p"), op("Log", "pointwise", "p", "y"))
    assert fuse(built, "cortex-m", "int8").kernels[0].precision == "int8"


def test_a_view_is_the_same_buffer() -> None:
    built = graph(CONV, op("Reshape", "view", "a", "r"), op("Relu", "pointwise", "r", "y"))
    assert fused(built) == [("Conv", "Relu")]


# --- rules of GPU runtimes; what TensorRT-RTX 1.7.1 builds of such networks is beside each ---


def test_an_image_is_brought_to_channels_last_first() -> None:
    built = graph(op("Conv", "conv", "x", "y", Weight("w", 36, "float32"), macs=900), shape=(1, 4, 5, 5))
    assert fused(built) == [("Reformat",), ("Conv",)]  # __myl_Move, correlation
    assert fused(built, "x86-cpu") == fused(built, "cortex-m") == [("Conv",)]
    reformat, conv = fuse(built, "nvidia-gpu").kernels
    assert (reformat.read_bytes, reformat.written_bytes, conv.reads) == (400, 400, reformat.writes)


def test_an_activation_written_as_two_operators_is_an_epilogue() -> None:
    built = graph(CONV, op("Sigmoid", "pointwise", "a", "s"), op("Mul", "pointwise", "a s", "y"))
    assert fused(built) == [("Conv", "Sigmoid", "Mul")]  # CorrSilu
    (kernel,) = fuse(built, "nvidia-gpu").kernels
    assert kernel.vector_elements == 200
    assert kernel.reads == ("x",)


def test_a_gate_that_somebody_else_reads_stays_outside() -> None:
    built = graph(CONV, op("Sigmoid", "pointwise", "a", "s"), op("Mul", "pointwise", "a s", "y"), outputs=("s", "y"))
    assert fused(built)[0] == ("Conv",)


def test_branches_that_meet_only_after_another_layer_are_no_epilogue() -> None:
    built = graph(
        CONV,
        op("Sigmoid", "pointwise", "a", "s"),
        op("Conv", "conv", "s", "c", Weight("v", 36, "float32"), macs=900),
        op("Mul", "pointwise", "a c", "y"),
    )
    assert fused(built) == [("Conv",), ("Sigmoid",), ("Conv", "Mul")]


def test_a_concatenation_is_written_in_place_by_what_makes_its_parts() -> None:
    built = graph(
        CONV,
        op("Conv", "conv", "x", "b", Weight("v", 36, "float32"), macs=900),
        op("Concat", "copy", "a b", "c"),
        op("Conv", "conv", "c", "y", Weight("u", 72, "float32"), macs=900),
        sizes={"c": (1, 8, 25)},
    )
    plan = fuse(built, "nvidia-gpu")
    assert [kernel.operators for kernel in plan.kernels] == [("Conv",), ("Conv", "Concat"), ("Conv",)]
    assert [kernel.writes for kernel in plan.kernels] == [("c",), ("c",), ("y",)]
    assert [kernel.written_bytes for kernel in plan.kernels] == [400, 400, 400]  # each writes its part
    assert plan.kernels[2].read_bytes == 800
    assert set(plan.sizes) == {"x", "c", "y"}
    assert fused(built, "x86-cpu")[2] == ("Concat",)


def test_a_part_of_two_concatenations_or_an_input_is_copied() -> None:
    twice = graph(
        CONV,
        op("Conv", "conv", "x", "b", Weight("v", 36, "float32"), macs=900),
        op("Concat", "copy", "a b", "c"),
        op("Concat", "copy", "b a", "d"),
        outputs=("c", "d"),
        sizes={"c": (1, 8, 25), "d": (1, 8, 25)},
    )
    assert fused(twice) == [("Conv",), ("Conv", "Concat"), ("Concat",)]
    given = graph(CONV, op("Concat", "copy", "a x", "y"), sizes={"y": (1, 8, 25)})
    assert fused(given) == [("Conv",), ("Concat",)]


def test_a_channel_shuffle_is_one_kernel() -> None:
    built = graph(
        CONV,
        op("Concat", "copy", "a x", "c"),
        op("Reshape", "view", "c", "r"),
        op("Transpose", "copy", "r", "t"),
        op("Reshape", "view", "t", "u"),
        Op("Split_y", "Split", "copy", ("u",), ("y", "z")),
        outputs=("y", "z"),
    )
    plan = fuse(built, "nvidia-gpu")
    assert [kernel.operators for kernel in plan.kernels] == [("Conv",), ("Concat", "Transpose", "Split")]
    assert plan.kernels[1].writes == ("y", "z")
    assert not plan.kernels[1].in_place


def test_activations_run_with_the_split_that_makes_their_inputs() -> None:
    built = graph(
        CONV,
        Op("Split_s", "Split", "copy", ("a",), ("s", "t")),
        op("Relu", "pointwise", "s", "y"),
        op("Relu", "pointwise", "t", "z"),
        outputs=("y", "z"),
    )
    assert fused(built) == [("Conv",), ("Split", "Relu", "Relu")]  # ConcReshTranSlicSlicReluTranSlicRelu


def test_a_pointwise_kernel_that_moves_values_is_not_in_place() -> None:
    built = graph(op("Relu", "pointwise", "x", "a"), op("Transpose", "copy", "a", "y"))
    (kernel,) = fuse(built, "nvidia-gpu").kernels
    assert (kernel.kind, kernel.in_place) == ("pointwise", False)


# --- codes ---

ROUND = op("QuantizeLinear", "quantize", "a", "q")
NUMBERS = op("DequantizeLinear", "dequantize", "q", "d")


def coded(operator: str, inputs: str, output: str) -> Op:
    return replace(op(operator, "conv", inputs, output, Weight(f"w{output}", 36, "int8"), macs=900), int8=True)


def test_codes_run_from_one_convolution_to_the_next() -> None:
    built = graph(CONV, ROUND, NUMBERS, coded("Conv", "d", "y"), codes="q")
    first, second = fuse(built, "nvidia-gpu").kernels
    assert (first.operators, first.precision, first.written_bytes) == (("Conv", "QuantizeLinear"), "fp32", 100)
    assert (second.precision, second.read_bytes, second.written_bytes) == ("int8", 100, 400)


def test_a_convolution_with_one_operand_in_codes_runs_in_floats() -> None:
    weights_only = op("Conv", "conv", "x", "y", Weight("w", 36, "int8"), macs=900)  # rule P1
    (kernel,) = fuse(graph(weights_only), "nvidia-gpu").kernels
    assert (kernel.precision, kernel.weight_bytes) == ("fp32", 36)


def test_a_transposed_convolution_and_a_recurrent_layer_have_no_kernel_for_codes_on_gpus() -> None:
    for kind in ("conv_transpose", "recurrent"):  # rule P8
        layer = replace(coded("Layer", "d", "y"), kind=kind)
        built = graph(CONV, ROUND, NUMBERS, layer, codes="q")
        assert fuse(built, "nvidia-gpu").kernels[1].precision == "fp32"
        assert fuse(built, "nvidia-gpu").kernels[1].read_bytes == 100


@pytest.mark.parametrize(("skip", "read"), [("d", 200), ("f", 500)])
def test_a_residual_addition_reads_codes_where_the_skip_branch_is_rounded(skip: str, read: int) -> None:
    # Rule P3. f: the float tensor in front of the rounding, which a second reader keeps alive.
    built = graph(
        op("Conv", "conv", "x", "a", Weight("w", 36, "float32"), macs=900),
        op("Relu", "pointwise", "a", "f"),
        op("QuantizeLinear", "quantize", "f", "q"),
        NUMBERS,
        coded("Conv", "d", "c"),
        op("Add", "pointwise", f"c {skip}", "y"),
        codes="q",
    )
    last = fuse(built, "nvidia-gpu").kernels[-1]
    assert last.operators == ("Conv", "Add")
    assert last.read_bytes == (100 if skip == "d" else read)  # the same codes once, or codes and floats


def test_a_tensor_that_is_rounded_twice_is_rounded_once() -> None:
    built = graph(
        CONV,
        ROUND,
        NUMBERS,
        coded("Conv", "d", "c"),
        op("QuantizeLinear", "quantize", "a", "q2"),
        op("DequantizeLinear", "dequantize", "q2", "d2"),
        op("Add", "pointwise", "c d2", "y"),
        codes="q q2",
    )
    plan = fuse(built, "nvidia-gpu")
    assert [kernel.operators for kernel in plan.kernels] == [("Conv", "QuantizeLinear"), ("Conv", "Add")]
    assert plan.kernels[1].reads == ("q",)


def test_onnxruntime_computes_in_integers_where_the_result_is_rounded() -> None:
    last = fuse(graph(CONV, ROUND, NUMBERS, coded("Conv", "d", "y"), codes="q"), "x86-cpu").kernels[1]
    assert (last.precision, last.coded, last.weight_bytes) == ("fp32", True, 36)
    rounded = op("QuantizeLinear", "quantize", "b", "y")
    inner = fuse(graph(CONV, ROUND, NUMBERS, coded("Conv", "d", "b"), rounded, codes="q y"), "x86-cpu").kernels[1]
    assert (inner.precision, inner.coded) == ("int8", True)
    product = replace(coded("MatMul", "d", "y"), kind="gemm")
    assert fuse(graph(CONV, ROUND, NUMBERS, product, codes="q"), "x86-cpu").kernels[1].precision == "int8"


@pytest.mark.parametrize(
    ("between", "code", "precision"),
    [
        ("Relu", "uint8", "int8"),  # codes from zero up do what the activation does
        ("Relu", "int8", "fp32"),  # signed ones do not: onnxruntime keeps it, and so the floats before it
        ("Sigmoid", "uint8", "fp32"),
        ("Add", "uint8", "fp32"),
    ],
)
def test_onnxruntime_keeps_floats_for_what_rounding_does_not_do(between: str, code: str, precision: str) -> None:
    built = graph(
        CONV,
        ROUND,
        NUMBERS,
        coded("Conv", "d", "b"),
        op(between, "pointwise", "b d" if between == "Add" else "b", "c"),
        op("QuantizeLinear", "quantize", "c", "y"),
        codes="q y",
    )
    edges = dict(built.edges) | {name: edge(name, (1, 4, 25), code) for name in ("q", "y")}
    kernel = fuse(replace(built, edges=edges), "x86-cpu").kernels[1]
    assert kernel.operators == ("Conv", between, "QuantizeLinear")
    assert (kernel.precision, kernel.coded) == (precision, True)


def test_rounding_behind_a_max_pool_is_done_in_front_of_it() -> None:
    built = graph(  # rule P6
        CONV,
        op("MaxPool", "pool", "a", "p"),
        op("QuantizeLinear", "quantize", "p", "q"),
        NUMBERS,
        coded("Conv", "d", "y"),
        codes="q",
    )
    conv, pool, _ = fuse(built, "nvidia-gpu").kernels
    assert (conv.written_bytes, pool.read_bytes, pool.written_bytes, pool.precision) == (100, 100, 100, "int8")
    conv, pool, _ = fuse(built, "x86-cpu").kernels
    assert (conv.written_bytes, pool.read_bytes) == (400, 400)


@pytest.mark.parametrize(
    ("channels", "groups", "depth", "padding"),
    [
        (32, 1, 27, 4 / 3),  # 3 input channels become 4 (rule P10)
        (32, 1, 17 * 9, 20 / 17),
        (32, 1, 16 * 9, 1.0),
        (16, 16, 9, 4.0),  # depthwise: 16 become 64 (rule P9)
        (64, 64, 9, 1.0),
    ],
)
def test_channels_are_padded_for_int8(channels: int, groups: int, depth: int, padding: float) -> None:
    conv = Op("c", "Conv", "conv", ("x",), ("y",), 900, (), depth, groups, channels, window=(3, 3))
    (kernel,) = fuse(graph(conv), "nvidia-gpu", "int8").kernels
    assert kernel.padding == pytest.approx(padding)
    assert kernel.macs == 900  # what counts stays
    assert fuse(graph(conv), "nvidia-gpu", "fp16").kernels[0].padding == 1.0
    assert fuse(graph(conv), "cortex-m", "int8").kernels[0].padding == 1.0


def test_a_result_that_nobody_reads_is_not_written() -> None:
    pool = Op("pool", "max_pool2d_with_indices", "pool", ("x",), ("y", "indices"))
    for family in FAMILIES:
        (kernel,) = fuse(graph(pool), family).kernels
        assert (kernel.writes, kernel.written_bytes) == (("y",), 400)


# --- what no rule may change ---


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """Random graphs of the operators that the rules look at."""
    made, ops = ["x"], []
    for index in range(draw(st.integers(1, 14))):
        kind, operator = draw(
            st.sampled_from(
                [
                    ("conv", "Conv"),
                    ("matmul", "MatMul"),
                    ("gemm", "Gemm"),
                    ("pointwise", "Relu"),
                    ("pointwise", "Add"),
                    ("batchnorm", "BatchNormalization"),
                    ("copy", "Concat"),
                    ("copy", "Split"),
                    ("view", "Reshape"),
                    ("softmax", "Softmax"),
                    ("quantize", "QuantizeLinear"),
                    ("pool", "MaxPool"),
                    ("fft", "DFT"),
                    ("reduce", "ReduceMean"),
                ]
            )
        )
        many = 3 if operator == "Concat" else 2 if operator in ("Add", "MatMul") else 1
        inputs = tuple(draw(st.lists(st.sampled_from(made), min_size=many, max_size=many)))
        outputs = tuple(f"e{index}_{part}" for part in range(2 if operator == "Split" else 1))
        heavy = kind in HEAVY
        weights = (Weight(f"w{index}", 4, "float32"),) if kind in ("conv", "gemm", "batchnorm") else ()
        macs = draw(st.integers(1, 1000)) if heavy else 0
        ops.append(Op(f"op{index}", operator, kind, inputs, outputs, macs, weights, 9, 1, 4))
        made += outputs
    outputs = tuple(draw(st.lists(st.sampled_from(made[1:]), min_size=1, max_size=3, unique=True)))
    shapes = {name: draw(st.sampled_from([(1, 4, 25), (1, 4, 25), (1, 4, 1)])) for name in made}
    return graph(*ops, outputs=outputs, sizes=shapes)


@given(networks(), st.sampled_from(FAMILIES), st.sampled_from([None, "fp16", "int8"]))
@settings(max_examples=300, deadline=None)
def test_kernels_run_in_order_and_nothing_is_lost(built: Graph, family: str, precision: Precision | None) -> None:
    plan = fuse(built, family, precision)
    assert sum(kernel.macs for kernel in plan.kernels) == sum(op.macs for op in built.ops)
    aliases = ("view", "dequantize")
    lost = sum(op.kind not in aliases for op in built.ops) - sum(len(kernel.operators) for kernel in plan.kernels)
    # A GPU's products are written in their new layout at once, and what is rounded twice is rounded once.
    assert 0 <= lost <= sum(op.kind in ("copy", "quantize") for op in built.ops)
    assert lost == 0 or family == "nvidia-gpu"
    there = set(plan.inputs)
    for kernel in plan.kernels:
        assert set(kernel.reads) <= there | set(kernel.writes)
        there |= set(kernel.writes)
        assert kernel.read_bytes >= 0
        assert kernel.written_bytes > 0
    assert set(plan.outputs) <= there
    assert there <= set(plan.sizes)


def test_kernels_are_as_many_as_tensorrt_rtx_builds(tmp_path: Path) -> None:
    """Stem, pool, branches that are concatenated, a gate written as two operators, a residual addition, a mean."""
    pytest.importorskip("tensorrt_rtx")
    onnx = pytest.importorskip("onnx")
    from exporters import build_log, child, for_tensorrt, rtx_build

    generator = np.random.default_rng(0)
    nodes, stored = [], []

    def conv(source: str, out: str, outputs: int, inputs: int, side: int) -> None:
        values = generator.standard_normal((outputs, inputs, side, side)).astype(np.float32)
        stored.append(onnx.numpy_helper.from_array(values, f"w_{out}"))
        nodes.append(onnx.helper.make_node("Conv", [source, f"w_{out}"], [out], pads=[side // 2] * 4, name=out))

    def plain(operator: str, inputs: str, out: str, **attributes: object) -> None:
        nodes.append(onnx.helper.make_node(operator, inputs.split(), [out], name=f"{operator}_{out}", **attributes))

    conv("x", "stem", 32, 3, 3)
    plain("Relu", "stem", "a")
    plain("MaxPool", "a", "p", kernel_shape=[2, 2], strides=[2, 2])
    conv("p", "left", 32, 32, 1)
    plain("Relu", "left", "l")
    conv("p", "right", 32, 32, 3)
    plain("Relu", "right", "r")
    plain("Concat", "l r", "c", axis=1)
    conv("c", "gated", 64, 64, 3)
    plain("Sigmoid", "gated", "s")
    plain("Mul", "gated s", "g")
    conv("g", "last", 64, 64, 3)
    plain("Add", "last g", "sum")
    plain("Relu", "sum", "e")
    plain("GlobalAveragePool", "e", "y")
    values = [
        onnx.helper.make_tensor_value_info(name, 1, shape)
        for name, shape in (("x", [1, 3, 32, 32]), ("y", [1, 64, 1, 1]))
    ]
    made = onnx.helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    model = tmp_path / "given.onnx"
    onnx.save(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), str(model))
    (tmp_path / rtx_build.MODEL).write_bytes(for_tensorrt.prepare(model).SerializeToString(deterministic=True))
    (tmp_path / rtx_build.REQUEST).write_text('{"capability": "SM80", "profile": {}}', "utf-8")
    outcome = child.run(
        child.python("exporters.rtx_build"),
        folder=tmp_path,
        seconds=60,
        memory_bytes=4 << 30,
        environment=child.plain_environment(),
    )
    assert outcome.why() is None
    log = build_log.kernels((tmp_path / rtx_build.LOG).read_text("utf-8"))
    built = [kernel for kernel in log if kernel.type not in ("wait", "signal")]
    ours = fuse(profiles.read(model), "nvidia-gpu").kernels
    assert [kernel.operators for kernel in ours] == [
        ("Reformat",),
        ("Conv", "Relu"),
        ("MaxPool",),
        ("Conv", "Relu"),
        ("Conv", "Relu", "Concat"),
        ("Conv", "Sigmoid", "Mul"),
        ("Conv", "Add", "Relu"),
        ("GlobalAveragePool",),
    ]
    assert len(built) == len(ours)


def test_a_transform_leaves_what_its_window_also_makes() -> None:
    """A kernel with a second result that somebody else reads stays a kernel of its own."""
    built = graph(
        Op("w", "Relu", "pointwise", ("x",), ("a",)),
        Op("s", "Split", "copy", ("a",), ("b", "c")),
        Op("f", "DFT", "fft", ("b",), ("d",), 1),
        Op("r", "Relu", "pointwise", ("c",), ("e",)),
        outputs=("d", "e"),
        sizes={name: (1, 4, 25) for name in "xabcde"},
    )
    kernels = fuse(built, "nvidia-gpu").kernels
    assert {name for kernel in kernels for name in kernel.writes} >= {"c", "d", "e"}


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "fp32"), ("float16", "fp16"), ("bfloat16", "bf16")])
def test_a_float_kernel_that_rounds_at_its_end_computes_in_its_own_type(dtype: str, precision: Precision) -> None:
    built = graph(CONV, op("QuantizeLinear", "quantize", "a", "y"), codes="y")
    typed = {name: edge(name, item.shape, dtype) if name != "y" else item for name, item in built.edges.items()}
    (kernel,) = fuse(replace(built, edges=typed), "nvidia-gpu").kernels
    assert kernel.operators == ("Conv", "QuantizeLinear")
    assert kernel.precision == precision
