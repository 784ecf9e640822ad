"""Shapes of every ONNX operator against onnx's own test models, counts by hand, stored bytes by type."""

import warnings
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from profiles import read_onnx
from profiles.graph import Graph, totals
from profiles.onnx_nodes import Value, dtype_of
from profiles.onnx_shapes import BOUNDED
from profiles.onnx_walk import Scope, Walk

MICROSOFT = "com.microsoft"


def model(
    node: onnx.NodeProto | list[onnx.NodeProto],
    inputs: dict[str, tuple[Any, ...]],
    opset: int = 23,
    types: dict[str, int] | None = None,
    **stored: np.ndarray,
) -> onnx.ModelProto:
    nodes = node if isinstance(node, list) else [node]
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info(name, (types or {}).get(name, TensorProto.FLOAT), shape)
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in nodes[-1].output if name],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)])


def read(*args: Any, **kwargs: Any) -> Graph:
    return read_onnx.read(model(*args, **kwargs))


def f(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


# -- shapes ------------------------------------------------------------------------------------------------------------

# No rule for these: texts, training, trees, and one whose result is only a preview of an operator.
WITHOUT_RULE = {
    "Adagrad", "Adam", "ArrayFeatureExtractor", "Binarizer", "FlexAttention", "ImageDecoder", "LabelEncoder",
    "Momentum", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer", "TreeEnsemble",
}  # fmt: skip


def _given(walk: Walk, name: str, array: Any, dtype: str) -> Value:
    if array is None or isinstance(array, list):
        value = walk.flowing(name, None, dtype)
        value.items = None if array is None else tuple(
            _given(walk, f"{name}{index}", item, dtype) for index, item in enumerate(array)
        )  # fmt: skip
        return value
    array = numpy_helper.to_array(array) if isinstance(array, TensorProto) else np.asarray(array)
    value = walk.flowing(name, array.shape, dtype)
    value.data = array if array.size <= 1024 and array.dtype.kind in "iubf" else None
    return value


def test_shapes_and_types_are_those_of_onnxs_own_test_models() -> None:
    """Every operator of the standard with the arguments of its test cases, functions and control flow included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    wrong: list[str] = []
    unknown: Counter[str] = Counter()
    right = 0
    for case in cases:
        arrays, expected = case.data_sets[0]
        graph = case.model.graph
        walk, scope = Walk(case.model.functions), Scope()
        for info, array in zip(graph.input, arrays, strict=False):
            scope.values[info.name] = _given(walk, info.name, array, dtype_of(info.type.tensor_type.elem_type))
        results = walk.graph(graph, scope)
        if any("counted once" in note for note in walk.notes()):
            continue  # a loop over 16-bit floats, whose rounds are not known
        for info, found, array in zip(graph.output, results, expected, strict=False):
            if array is None or isinstance(array, list | TensorProto):
                continue
            operator = graph.node[0].op_type
            shape = np.asarray(array).shape
            if found is None or found.shape is None:
                unknown[operator] += 1
            elif operator in BOUNDED:
                right += 1
                if len(found.shape) != len(shape) or any(a < b for a, b in zip(found.shape, shape, strict=True)):
                    wrong.append(f"{case.name}: {found.shape} is no bound of {shape}")
            elif found.shape != shape:
                wrong.append(f"{case.name}: {found.shape} and not {shape}")
            elif found.dtype not in ("unknown", dtype_of(info.type.tensor_type.elem_type)):
                wrong.append(f"{case.name}: {found.dtype}")
            else:
                right += 1
    assert not wrong
    assert set(unknown) - {"Range", "OptionalHasElement"} <= WITHOUT_RULE | {
        "Scan"
    }  # opset 8's, over a batch of lengths
    assert unknown["Range"] <= 2  # of 16-bit floats, whose values are not followed
    assert right > 1500


@pytest.mark.parametrize(
    ("opset", "node", "stored", "shape"),
    [
        (7, helper.make_node("Unsqueeze", ["x"], ["y"], axes=[0, 3]), {}, (1, 2, 3, 1)),
        (13, helper.make_node("Unsqueeze", ["x", "a"], ["y"]), {"a": np.array([0, 3])}, (1, 2, 3, 1)),
        (9, helper.make_node("Slice", ["x"], ["y"], starts=[-2], ends=[9], axes=[1]), {}, (2, 2)),
        (7, helper.make_node("Pad", ["x"], ["y"], pads=[0, 1, 0, 2]), {}, (2, 6)),
        (18, helper.make_node("Pad", ["x", "p", "", "a"], ["y"]), {"p": np.array([1, 2]), "a": np.array([1])}, (2, 6)),
        (7, helper.make_node("Upsample", ["x"], ["y"], scales=[1.0, 2.2]), {}, (2, 6)),
        (7, helper.make_node("ReduceSum", ["x"], ["y"], axes=[-1], keepdims=0), {}, (2,)),
        (9, helper.make_node("TopK", ["x"], ["y", "i"], k=2), {}, (2, 2)),
        (18, helper.make_node("Split", ["x"], ["y", "z"], axis=1, num_outputs=2), {}, (2, 2)),
        (24, helper.make_node("Transpose", ["x"], ["y"]), {}, (3, 2)),
    ],
)
def test_arguments_are_found_where_the_opset_has_them(
    opset: int, node: onnx.NodeProto, stored: dict[str, np.ndarray], shape: tuple[int, ...]
) -> None:
    assert read(node, {"x": (2, 3)}, opset, **stored) is not None
    graph = read_onnx.read(model(node, {"x": (2, 3)}, opset, **stored), batch=2)
    assert graph.edges["y"].shape == shape


def test_a_shape_that_an_exporter_computes_is_followed() -> None:
    """Shape, Gather, arithmetic, Concat, Reshape: heads are split for any batch."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Gather", ["s", "two"], ["w"]),
        helper.make_node("Div", ["w", "heads"], ["size"]),
        helper.make_node("Concat", ["n", "minus", "heads", "size"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    stored = {"zero": [0], "two": [2], "heads": [4], "minus": [-1]}
    net = model(nodes, {"x": ("batch", 7, 12)}, **{name: np.array(value) for name, value in stored.items()})
    graph = read_onnx.read(net, batch=5)
    assert graph.edges["y"].shape == (5, 7, 4, 3)
    assert [op.operator for op in graph.ops] == ["Reshape"]  # the rest is known when the model is loaded


def test_sizes_that_depend_on_values_take_the_examples_or_their_largest() -> None:
    nodes = [helper.make_node("TopK", ["x", "k"], ["t", "i"]), helper.make_node("MatMul", ["t", "w"], ["y"])]
    net = model(nodes, {"x": (1, 9), "k": (1,)}, types={"k": TensorProto.INT64}, w=f(4, 5))
    graph = read_onnx.read(net, example={"k": np.array([4])})
    assert (graph.edges["t"].shape, totals(graph).macs) == ((1, 4), 20)
    unknown = read_onnx.read(net)
    assert unknown.uncounted == {"TopK": 1, "MatMul": 1}
    assert not unknown.ops
    assert totals(unknown).params == 20  # stored all the same
    assert any("TopK" in note and "not known" in note for note in unknown.notes)
    nonzero = [helper.make_node("Compress", ["x", "c"], ["d"], axis=1), helper.make_node("Relu", ["d"], ["y"])]
    bounded = read_onnx.read(model(nonzero, {"x": (1, 9), "c": (9,)}, types={"c": TensorProto.BOOL}))
    assert bounded.edges["y"].shape == (1, 9)
    assert any("at their largest: Compress" in note for note in bounded.notes)


def test_declared_shapes_help_where_an_operator_is_unknown() -> None:
    nodes = [
        helper.make_node("Mystery", ["x"], ["h"], domain="vendor"),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    net = model(nodes, {"x": ("batch", 6)}, w=f(8, 5))
    assert read_onnx.read(net, batch=3).uncounted == {"vendor.Mystery": 1, "MatMul": 1}
    net.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 8]))
    graph = read_onnx.read(net, batch=3)
    assert (totals(graph).macs, dict(graph.uncounted)) == (3 * 8 * 5, {"vendor.Mystery": 1})


def test_a_known_name_in_another_domain_is_another_operator() -> None:
    graph = read(helper.make_node("MatMul", ["x", "w"], ["y"], domain="vendor"), {"x": (1, 6)}, w=f(6, 4))
    assert graph.uncounted == {"vendor.MatMul": 1}
    assert totals(graph).macs == 0


# -- batch -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "example", "shapes"),
    [
        ({"x": ("frames", "batch", 4)}, {"x": (9, 1, 4)}, {"x": (9, 3, 4)}),  # the symbol stands second
        ({"x": ("batch_size", 4), "s": (2, "batch_size", 8)}, {}, {"x": (3, 4), "s": (2, 3, 8)}),
        ({"x": ("s0", 4), "z": ("s0", 2)}, {}, {"x": (3, 4), "z": (3, 2)}),  # no name says so
        ({"x": (1, 4), "s": (2, 1, 8)}, {}, {"x": (3, 4), "s": (2, 1, 8)}),  # static: only what shares it
        ({"x": (None, 4)}, {}, {"x": (3, 4)}),
    ],
)
def test_the_batch_goes_where_it_belongs(
    inputs: dict[str, tuple[Any, ...]], example: dict[str, tuple[int, ...]], shapes: dict[str, tuple[int, ...]]
) -> None:
    nodes = [helper.make_node("Relu", [name], [f"{name}_y"]) for name in inputs]
    graph = read_onnx.read(model(nodes, inputs), batch=3, example=example)
    assert {name: graph.edges[name].shape for name in inputs} == shapes


def test_an_input_without_axes_has_no_batch() -> None:
    nodes = [helper.make_node("Add", ["x", "t"], ["y"])]
    assert read_onnx.read(model(nodes, {"x": ("batch", 2), "t": ()}), batch=4).edges["t"].shape == ()
    with pytest.raises(read_onnx.ProfileError, match="no input has a batch dimension"):
        read_onnx.read(model([helper.make_node("Relu", ["t"], ["y"])], {"t": ()}), batch=4)


# -- counts ------------------------------------------------------------------------------------------------------------

B, S, T, H, D = 2, 6, 6, 4, 8  # batch, queries, keys, heads, head size


@pytest.mark.parametrize(
    ("node", "inputs", "stored", "macs"),
    [
        # 4-D: (batch, heads, sequence, size); the products with keys and with values
        (
            helper.make_node("Attention", ["q", "k", "v"], ["y"]),
            {"q": (B, H, S, D), "k": (B, H, T, D), "v": (B, H, T, 5)},
            {},
            B * H * S * T * (D + 5),
        ),
        # grouped queries: two heads of keys for four of queries
        (
            helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=H, kv_num_heads=2),
            {"q": (B, S, H * D), "k": (B, T, 2 * D), "v": (B, T, 2 * D)},
            {},
            B * H * S * T * 2 * D,
        ),
        # ten past keys
        (
            helper.make_node("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "nk", "nv"]),
            {"q": (B, H, 1, D), "k": (B, H, 1, D), "v": (B, H, 1, D), "pk": (B, H, 10, D), "pv": (B, H, 10, D)},
            {},
            B * H * 11 * 2 * D,
        ),
        (
            helper.make_node("Attention", ["q", "w", "b"], ["y"], domain=MICROSOFT, num_heads=H),
            {"q": (B, S, 32)},
            {"w": f(32, 96), "b": f(96)},
            B * S * 32 * 96 + B * S * S * 2 * 32,
        ),
        (
            helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain=MICROSOFT, num_heads=H),
            {"q": (B, S, 32), "k": (B, 9, 32), "v": (B, 9, 32)},
            {},
            B * S * 9 * 2 * 32,
        ),
        (
            helper.make_node("FusedMatMul", ["q", "k"], ["y"], domain=MICROSOFT, transA=1),
            {"q": (B, S, 3), "k": (B, S, 5)},
            {},
            B * 3 * 5 * S,
        ),
        (
            helper.make_node("MatMulNBits", ["q", "w", "s"], ["y"], domain=MICROSOFT, K=32, N=7, bits=4, block_size=16),
            {"q": (B, S, 32)},
            {"w": np.ones((7, 2, 8), np.uint8), "s": f(14)},
            B * S * 32 * 7,
        ),
        (
            helper.make_node("ConvTranspose", ["q", "w"], ["y"], group=2),
            {"q": (B, 4, 5)},
            {"w": f(4, 3, 3)},
            B * 20 * 9,
        ),
        (
            helper.make_node("DeformConv", ["q", "w", "o"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            {"q": (B, 4, 5, 5), "o": (B, 18, 5, 5)},
            {"w": f(6, 4, 3, 3)},
            B * 25 * 6 * 4 * 9,
        ),
        # left to right: (ij, jk) costs i j k, then (ik, kl) costs i k l
        (
            helper.make_node("Einsum", ["q", "w", "s"], ["y"], equation="ij,jk,kl->il"),
            {"q": (2, 3)},
            {"w": f(3, 4), "s": f(4, 5)},
            2 * 3 * 4 + 2 * 4 * 5,
        ),
        # what one operand alone has is summed before the product
        (helper.make_node("Einsum", ["q", "w"], ["y"], equation="ij,kl->ik"), {"q": (2, 3)}, {"w": f(4, 5)}, 2 * 4),
        (
            helper.make_node("Einsum", ["q", "w"], ["y"], equation="...ij,jk->...ik"),
            {"q": (2, 7, 5, 3)},
            {"w": f(3, 4)},
            2 * 7 * 5 * 3 * 4,
        ),
        # two directions
        (
            helper.make_node("LSTM", ["q", "w", "s"], ["y", "h", "c"], hidden_size=5, direction="bidirectional"),
            {"q": (7, B, 3)},
            {"w": f(2, 20, 3), "s": f(2, 20, 5)},
            2 * 7 * B * 20 * (3 + 5),
        ),
        (
            helper.make_node("GRU", ["q", "w", "s"], ["y"], hidden_size=5, layout=1),
            {"q": (B, 7, 3)},
            {"w": f(1, 15, 3), "s": f(1, 15, 5)},
            7 * B * 15 * (3 + 5),
        ),
        # 5 N log2 N operations of 16 points are 320, half of them for real input, two of which are one MAC
        (helper.make_node("DFT", ["q"], ["y"], axis=1, onesided=1), {"q": (B, 16, 1)}, {}, B * 80),
        (helper.make_node("DFT", ["q"], ["y"], axis=1), {"q": (B, 16, 2)}, {}, B * 160),
    ],
)
def test_multiply_accumulates_by_hand(
    node: onnx.NodeProto, inputs: dict[str, tuple[int, ...]], stored: dict[str, np.ndarray], macs: int
) -> None:
    opset = 19 if node.op_type == "DFT" else 23
    net = model(node, inputs, opset, **stored)
    batch = next(iter(inputs.values()))[0]
    graph = read_onnx.read(net, batch)
    assert totals(graph).macs == macs
    assert not graph.uncounted


def test_integer_operators_run_on_codes() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w"], ["m"]),
        helper.make_node("ConvInteger", ["c", "v"], ["n"]),
        helper.make_node("QLinearMatMul", ["q", "s", "z", "w", "ws", "wz", "s", "z"], ["k"]),
    ]
    stored = {"w": np.ones((6, 5), np.int8), "v": np.ones((3, 2, 1, 1), np.uint8), "ws": np.float32(1).reshape(()),
              "wz": np.int8(0).reshape(())}  # fmt: skip
    net = model(nodes, {"x": (4, 6), "c": (4, 2, 3, 3)}, types={"c": TensorProto.UINT8}, **stored)
    graph = read_onnx.read(net, 4)
    found = {op.operator: (op.macs, op.int8) for op in graph.ops if op.kind != "quantize"}
    assert found == {"MatMulInteger": (120, True), "ConvInteger": (4 * 9 * 6, True), "QLinearMatMul": (120, True)}
    assert (graph.edges["m"].dtype, graph.edges["k"].dtype) == ("int32", "uint8")


# -- stored bytes ------------------------------------------------------------------------------------------------------


def test_stored_bytes_by_type() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w4", "s"], ["d4"]),
        helper.make_node("DequantizeLinear", ["w8", "s"], ["d8"]),
        helper.make_node("MatMul", ["x", "d4"], ["a"]),
        helper.make_node("MatMul", ["a", "d8"], ["b"]),
        helper.make_node("MatMul", ["b", "half"], ["c"]),
        helper.make_node("MatMul", ["c", "half"], ["e"]),  # tied
        helper.make_node("Transpose", ["half"], ["t"]),
        helper.make_node("MatMul", ["e", "t"], ["y"]),  # tied through a transposition
    ]
    net = model(nodes, {"x": ("batch", 5)}, s=np.float32(1).reshape(()), half=np.ones((7, 7), np.float16))
    net.graph.initializer.append(helper.make_tensor("w4", TensorProto.INT4, [5, 3], bytes(8), raw=True))
    net.graph.initializer.append(helper.make_tensor("w8", TensorProto.FLOAT8E4M3FN, [3, 7], bytes(21), raw=True))
    found = totals(read_onnx.read(net))
    # 15 codes of four bits take 8 bytes
    assert found.weight_bytes_by_dtype == {"int4": 8, "float8": 21, "float16": 98}
    assert found.params == 15 + 21 + 49


def test_few_bit_weights_are_counted_as_what_they_mean() -> None:
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain=MICROSOFT, K=32, N=7, bits=4, block_size=16)
    graph = read(node, {"x": (1, 32)}, w=np.ones((7, 2, 8), np.uint8), s=f(14))
    assert totals(graph).weight_bytes_by_dtype == {"uint4": 7 * 32 // 2, "float32": 56}


def test_a_sparse_tensor_stores_its_values() -> None:
    net = model(helper.make_node("MatMul", ["x", "w"], ["y"]), {"x": (1, 6)})
    sparse = net.graph.sparse_initializer.add(dims=[6, 9])
    sparse.values.CopyFrom(numpy_helper.from_array(f(5), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(5), "w_places"))
    found = totals(read_onnx.read(net))
    assert (found.params, found.macs) == (5, 54)


def test_traffic_of_a_graph_by_hand() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Concat", ["x", "h"], ["y"], axis=1)]
    graph = read(nodes, {"x": (1, 5)})
    assert totals(graph).activation_bytes == 4 * (5 + 5) + 4 * (5 + 5 + 10)
