"""Read thousands of damaged ONNX files: `python tools/fuzz_onnx.py [--cases 10000] [--seed 0]`.

Files come from small generators and are damaged by seeded mutations of bytes (flips, cuts, splices) and of fields
(dimensions, names, attributes, operators, edges, stored values, opsets, graphs inside of graphs). A child process with
limits on memory and time reads each and predicts its cost; whoever answers with anything but a cost or a ProfileError
has found a bug here. Cases are named by seed and number, so any of them can be run again with --only.

Prints: cases, accepted, refused, crashes, hangs, other errors, the slowest case.
"""

import argparse
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

CASE_SECONDS = 5.0  # a case that takes longer is a hang; the goal is one second
MEMORY_BYTES = 3 << 30
FLOAT = TensorProto.FLOAT

Rng = random.Random


# -- generators of sound models ----------------------------------------------------------------------------------------


def _model(
    nodes: Sequence[NodeProto],
    inputs: dict[str, Sequence[int | str]],
    outputs: Sequence[str],
    stored: dict[str, np.ndarray] | None = None,
    opset: int = 20,
    functions: Sequence[onnx.FunctionProto] = (),
) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (stored or {}).items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("f", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=10, functions=list(functions))


def _f(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def _i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def convolutions() -> ModelProto:
    """Plain, grouped, transposed; pools, batch norm, a residual add and a head."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c1", "s", "b1", "m", "v"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], group=8, kernel_shape=[3, 3], auto_pad="SAME_UPPER"),
        helper.make_node("Add", ["r1", "c2"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("ConvTranspose", ["p", "w3"], ["t"], strides=[2, 2], output_padding=[1, 1]),
        helper.make_node("GlobalAveragePool", ["t"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "w4"], ["y"], transB=1),
    ]
    stored = {"w1": _f(8, 3, 3, 3), "b1": _f(8), "s": _f(8), "m": _f(8), "v": _f(8), "w2": _f(8, 1, 3, 3),
              "w3": _f(8, 4, 2, 2), "w4": _f(10, 4)}  # fmt: skip
    return _model(nodes, {"x": ["batch", 3, 16, 16]}, ["y"], stored)


def quantised() -> ModelProto:
    """Q/DQ pairs, QLinear and integer operators."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["d", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        helper.make_node("QLinearConv", ["cq", "s", "z", "w", "s", "z", "s", "z"], ["k"]),
        helper.make_node("ConvInteger", ["k", "w"], ["n"]),
        helper.make_node("Cast", ["n"], ["y"], to=1),
    ]
    stored = {"s": np.float32(0.1).reshape(()), "z": np.int8(0).reshape(()), "w": np.ones((4, 4, 1, 1), np.int8),
              "ws": _f(4), "wz": np.zeros(4, np.int8)}  # fmt: skip
    return _model(nodes, {"x": ["n", 4, 8, 8]}, ["y"], stored)


def attention() -> ModelProto:
    """Products, softmax, layer norm, a shape that is computed, and both Attention operators."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g"], ["l"]),
        helper.make_node("MatMul", ["l", "w"], ["qkv"]),
        helper.make_node("Split", ["qkv"], ["q", "k", "v"], axis=2, num_outputs=3),
        helper.make_node("Shape", ["q"], ["sh"]),
        helper.make_node("Gather", ["sh", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "tail"], ["to"], axis=0),
        helper.make_node("Reshape", ["q", "to"], ["qh"]),
        helper.make_node("Transpose", ["qh"], ["qt"], perm=[0, 2, 1, 3]),
        helper.make_node("Attention", ["q", "k", "v"], ["o"], q_num_heads=2, kv_num_heads=2),
        helper.make_node("MultiHeadAttention", ["q", "k", "o"], ["u"], domain="com.microsoft", num_heads=2),
        helper.make_node("FusedMatMul", ["u", "k"], ["h"], domain="com.microsoft", transB=1),
        helper.make_node("Softmax", ["h"], ["sm"]),
        helper.make_node("Einsum", ["sm", "v"], ["y"], equation="bij,bjd->bid"),
        helper.make_node("ReduceMean", ["qt", "axes"], ["y2"]),
    ]
    stored = {"g": _f(8), "w": _f(8, 24), "zero": _i(0), "tail": _i(6, 2, 4), "axes": _i(1)}
    return _model(nodes, {"x": ["batch", 6, 8]}, ["y", "y2"], stored, 23)


def recurrent() -> ModelProto:
    """LSTM both ways, GRU, RNN, and the transforms of audio."""
    nodes = [
        helper.make_node("STFT", ["x", "step", "window"], ["sp"], onesided=1),
        helper.make_node("ReduceSumSquare", ["sp", "last"], ["p"], keepdims=0),
        helper.make_node("Transpose", ["p"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r"], ["l", "h"], hidden_size=5, direction="bidirectional"),
        helper.make_node("GRU", ["t", "gw", "gr"], ["g"], hidden_size=4),
        helper.make_node("RNN", ["t", "nw", "nr"], ["y"], hidden_size=3),
        helper.make_node("DFT", ["sp"], ["y2"], axis=1) if False else helper.make_node("Identity", ["g"], ["y2"]),
    ]
    stored = {"step": np.int64(8).reshape(()), "window": _f(16), "last": _i(3), "w": _f(2, 20, 9), "r": _f(2, 20, 5),
              "gw": _f(1, 12, 9), "gr": _f(1, 12, 4), "nw": _f(1, 3, 9), "nr": _f(1, 3, 3)}  # fmt: skip
    return _model(nodes, {"x": ["batch", 64, 1]}, ["y", "y2", "l"], stored)


def shapes() -> ModelProto:
    """Everything that a stored integer can blow up."""
    nodes = [
        helper.make_node("ConstantOfShape", ["dims"], ["zeros"]),
        helper.make_node("Expand", ["x", "big"], ["e"]),
        helper.make_node("Tile", ["e", "times"], ["t"]),
        helper.make_node("Pad", ["t", "pads"], ["p"]),
        helper.make_node("Range", ["start", "limit", "delta"], ["range"]),
        helper.make_node("Slice", ["p", "from", "until", "axis", "delta1"], ["s"]),
        helper.make_node("Resize", ["s", "", "scales"], ["z"]),
        helper.make_node("OneHot", ["range", "depth", "onoff"], ["hot"]),
        helper.make_node("TopK", ["z", "k"], ["top", "where"]),
        helper.make_node("Reshape", ["top", "flat"], ["y"]),
        helper.make_node("Mul", ["zeros", "hot"], ["y2"]),
        helper.make_node("NonZero", ["z"], ["nz"]),
        helper.make_node("Cast", ["nz"], ["y3"], to=1),
        helper.make_node("DepthToSpace", ["x4"], ["y4"], blocksize=2),
        helper.make_node("Col2Im", ["cols", "image", "block"], ["y5"]),
    ]
    stored = {"dims": _i(4, 6), "big": _i(2, 3, 4), "times": _i(1, 2, 2), "pads": _i(0, 1, 1, 0, 1, 1),
              "start": np.int64(0).reshape(()), "limit": np.int64(4).reshape(()), "delta": np.int64(1).reshape(()),
              "from": _i(0), "until": _i(6), "axis": _i(1), "delta1": _i(1), "scales": np.float32([1, 2, 2]),
              "depth": np.int64(6).reshape(()), "onoff": np.float32([0, 1]), "k": _i(3), "flat": _i(0, -1),
              "image": _i(5, 5), "block": _i(1, 5)}  # fmt: skip
    inputs: dict[str, Sequence[int | str]] = {"x": ["n", 3, 4], "x4": ["n", 8, 3, 3], "cols": ["n", 5, 5]}
    return _model(nodes, inputs, ["y", "y2", "y3", "y4", "y5"], stored)


def _graph(nodes: Sequence[NodeProto], inputs: Sequence[str], outputs: Sequence[str]) -> GraphProto:
    return helper.make_graph(
        list(nodes),
        "part",
        [helper.make_tensor_value_info(name, FLOAT, None) for name in inputs],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
    )


def control() -> ModelProto:
    """If, Loop, Scan, SequenceMap and sequences."""
    then = _graph([helper.make_node("MatMul", ["x", "w"], ["a"])], [], ["a"])
    other = _graph([helper.make_node("Relu", ["x"], ["b"])], [], ["b"])
    body = _graph(
        [
            helper.make_node("Identity", ["c"], ["go"]),
            helper.make_node("MatMul", ["h", "w"], ["h2"]),
            helper.make_node("Identity", ["h2"], ["out"]),
        ],
        ["i", "c", "h"],
        ["go", "h2", "out"],
    )
    step = _graph(
        [helper.make_node("Add", ["s", "e"], ["s2"]), helper.make_node("Identity", ["s2"], ["o"])],
        ["s", "e"],
        ["s2", "o"],
    )
    each = _graph([helper.make_node("MatMul", ["one", "w"], ["mapped"])], ["one"], ["mapped"])
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["yes"], to=9),
        helper.make_node("If", ["yes"], ["f"], then_branch=then, else_branch=other),
        helper.make_node("Loop", ["trips", "", "f"], ["l", "all"], body=body),
        helper.make_node("Scan", ["zero", "l"], ["last", "sums"], body=step, num_scan_inputs=1),
        helper.make_node("SequenceConstruct", ["l", "f"], ["seq"]),
        helper.make_node("SequenceMap", ["seq"], ["seq2"], body=each),
        helper.make_node("ConcatFromSequence", ["seq2"], ["y"], axis=0),
        helper.make_node("Identity", ["sums"], ["y2"]),
    ]
    stored = {"w": _f(4, 4), "trips": np.int64(3).reshape(()), "zero": _f(4)}
    return _model(nodes, {"x": ["n", 4]}, ["y", "y2", "all"], stored)


def functions() -> ModelProto:
    """Functions that call each other, with an attribute that is passed on."""
    inner = helper.make_function(
        "f", "inner", ["a"], ["b"], [helper.make_node("LeakyRelu", ["a"], ["b"])], [helper.make_opsetid("", 20)], ["k"]
    )
    outer = helper.make_function(
        "f",
        "outer",
        ["a", "w"],
        ["c"],
        [
            helper.make_node("MatMul", ["a", "w"], ["m"]),
            helper.make_node("inner", ["m"], ["n"], domain="f"),
            helper.make_node("inner", ["n"], ["c"], domain="f"),
        ],
        [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)],
    )
    nodes = [
        helper.make_node("outer", ["x", "w"], ["h"], domain="f"),
        helper.make_node("outer", ["h", "w"], ["y"], domain="f"),
        helper.make_node("Unknown", ["y"], ["y2"], domain="somewhere"),
    ]
    return _model(nodes, {"x": ["n", 4]}, ["y", "y2"], {"w": _f(4, 4)}, 20, [inner, outer])


def external() -> ModelProto:
    """Weights in another file, int4 codes, a sparse tensor."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("DequantizeLinear", ["w4", "s"], ["d"]),
        helper.make_node("MatMul", ["h", "d"], ["k"]),
        helper.make_node("MatMul", ["k", "sp"], ["y"]),
    ]
    model = _model(nodes, {"x": ["n", 600]}, ["y"], {"w": _f(600, 8), "s": np.float32(0.1).reshape(())}, 21)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "19200")):
        weight.external_data.add(key=key, value=value)
    codes = model.graph.initializer.add(name="w4", data_type=TensorProto.INT4, dims=[8, 4])
    codes.raw_data = bytes(16)
    sparse = model.graph.sparse_initializer.add(dims=[4, 4])
    sparse.values.CopyFrom(numpy_helper.from_array(_f(3), "sp"))
    sparse.indices.CopyFrom(numpy_helper.from_array(_i(0, 5, 10), "sp_at"))
    return model


def old() -> ModelProto:
    """Opset 7, where arguments were attributes."""
    nodes = [
        helper.make_node("Unsqueeze", ["x"], ["u"], axes=[1]),
        helper.make_node("Pad", ["u"], ["p"], pads=[0, 0, 0, 0, 0, 1], mode="constant"),
        helper.make_node("Slice", ["p"], ["s"], starts=[0], ends=[4], axes=[2]),
        helper.make_node("Squeeze", ["s"], ["q"], axes=[1]),
        helper.make_node("Split", ["q"], ["a", "b"], axis=1, split=[1, 3]),
        helper.make_node("Upsample", ["p"], ["up"], scales=[1.0, 1.0, 2.0]),
        helper.make_node("ReduceSum", ["up"], ["y"], axes=[2]),
        helper.make_node("Mul", ["a", "b"], ["y2"]),
    ]
    return _model(nodes, {"x": ["n", 4]}, ["y", "y2"], None, 7)


def deep(levels: int = 20) -> ModelProto:
    """Ifs inside of Ifs."""
    part = _graph([helper.make_node("Relu", ["x"], ["z"])], [], ["z"])
    for level in range(levels):
        branch = helper.make_node("If", ["yes"], [f"z{level}"], then_branch=part, else_branch=part)
        part = _graph([branch], [], [f"z{level}"])
        if level >= 4:  # both branches double the file: from here on only one goes on
            break
    nodes = [
        helper.make_node("Cast", ["x"], ["yes"], to=9),
        helper.make_node("If", ["yes"], ["y"], then_branch=part, else_branch=part),
    ]
    return _model(nodes, {"x": [1]}, ["y"])


def long(count: int = 400) -> ModelProto:
    """A chain of cheap operators."""
    nodes = [helper.make_node("Relu", [f"t{index}"], [f"t{index + 1}"]) for index in range(count)]
    return _model(nodes, {"t0": ["n", 3]}, [f"t{count}"])


GENERATORS: tuple[Callable[[], ModelProto], ...] = (
    convolutions, quantised, attention, recurrent, shapes, control, functions, external, old, deep, long,
)  # fmt: skip


# -- mutations ---------------------------------------------------------------------------------------------------------

_SIZES = (0, 1, -1, 2, 3, 7, 64, 1 << 16, 1 << 31, 1 << 33, (1 << 63) - 1, -(1 << 63), 1 << 40)
_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
_NAMES = ("", "x", "y", "w", "\x00", "../../etc/passwd", "a" * 5000, "n\n", "é", "%s%n", "/abs", "con/../..")


def _size(rng: Rng) -> int:
    return rng.choice(_SIZES) if rng.random() < 0.7 else rng.randrange(-4, 300)


def _graphs(model: ModelProto) -> list[GraphProto]:
    found = [model.graph]
    for graph in found:  # it grows
        for node in graph.node:
            found += [item.g for item in node.attribute if item.type == AttributeProto.GRAPH][:50]
        if len(found) > 200:
            break
    return found


def _flip(data: bytes, rng: Rng) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(data: bytes, rng: Rng) -> bytes:
    return data[: rng.randrange(len(data))]


def _remove(data: bytes, rng: Rng) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randrange(1, 64) :]


def _insert(data: bytes, rng: Rng) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.randrange(1, 64)) + data[start:]


def _splice(data: bytes, rng: Rng) -> bytes:
    other = rng.choice(GENERATORS)().SerializeToString()
    start, length = rng.randrange(len(other)), rng.randrange(1, 400)
    at = rng.randrange(len(data))
    return data[:at] + other[start : start + length] + data[at + rng.randrange(length + 1) :]


def _repeat(data: bytes, rng: Rng) -> bytes:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 200)]
    return data[:start] + piece * rng.choice((2, 10, 1000)) + data[start:]


BYTES: tuple[Callable[[bytes, Rng], bytes], ...] = (_flip, _flip, _cut, _remove, _insert, _splice, _repeat)


def _input_dims(model: ModelProto, rng: Rng) -> None:
    kind = rng.choice(model.graph.input).type.tensor_type
    choice = rng.randrange(5)
    if choice == 0:
        kind.ClearField("shape")
    elif choice == 1:
        kind.shape.dim.add(dim_value=_size(rng))
    elif choice == 2:
        kind.elem_type = rng.randrange(-1, 40)
    elif len(kind.shape.dim):
        dim = rng.choice(kind.shape.dim)
        if rng.random() < 0.3:
            dim.dim_param = rng.choice(_NAMES)
        else:
            dim.dim_value = _size(rng)


def _stored_dims(model: ModelProto, rng: Rng) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    choice = rng.randrange(4)
    if choice == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = _size(rng)
    elif choice == 1:
        tensor.dims.append(_size(rng))
    elif choice == 2:
        tensor.data_type = rng.randrange(-1, 40)
    else:
        tensor.raw_data = rng.randbytes(rng.randrange(64))


def _stored_values(model: ModelProto, rng: Rng) -> None:
    inside = [item for item in model.graph.initializer if item.data_location != TensorProto.EXTERNAL]
    integers = [item for item in inside if item.data_type == TensorProto.INT64]
    if integers:
        tensor = rng.choice(integers)
        values = numpy_helper.to_array(tensor).copy().reshape(-1)
        if values.size:
            values[rng.randrange(values.size)] = _size(rng)
        tensor.raw_data = values.tobytes()


def _names(model: ModelProto, rng: Rng) -> None:
    node = rng.choice(rng.choice(_graphs(model)).node or model.graph.node)
    edges = rng.choice((node.input, node.output))
    every = [name for item in model.graph.node for name in (*item.input, *item.output)]
    if not edges:
        edges.append(rng.choice(every))
        return
    index = rng.randrange(len(edges))
    choice = rng.randrange(4)
    if choice == 0:
        del edges[index]
    elif choice == 1:
        edges[index] = rng.choice(_NAMES)
    else:
        edges[index] = rng.choice(every)  # cycles and duplicates


def _attributes(model: ModelProto, rng: Rng) -> None:
    nodes = [node for graph in _graphs(model) for node in graph.node if node.attribute]
    if not nodes:
        return
    node = rng.choice(nodes)
    item = rng.choice(node.attribute)
    choice = rng.randrange(8)
    if choice == 0:
        node.attribute.remove(item)
    elif choice == 1:
        item.type = rng.randrange(0, 16)
    elif choice == 2:
        item.name = rng.choice([other.name for one in nodes for other in one.attribute])
    elif choice == 3:
        # Serialised first: protobuf's C code ends the process when a message is copied into a part of itself.
        copied = rng.choice(rng.choice(nodes).attribute).SerializeToString()
        node.attribute.add().ParseFromString(copied)
    elif item.type == AttributeProto.INT:
        item.i = _size(rng)
    elif item.type == AttributeProto.INTS:
        if item.ints and choice < 6:
            item.ints[rng.randrange(len(item.ints))] = _size(rng)
        else:
            item.ints.append(_size(rng))
    elif item.type == AttributeProto.STRING:
        item.s = rng.choice((b"", b"\xff\xfe", b"...->", b"a,b,c->d", b"SAME_LOWER", b"ij,jk->ik", b"....,...->."))
    elif item.type == AttributeProto.FLOATS and item.floats:
        item.floats[rng.randrange(len(item.floats))] = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))


def _operator(model: ModelProto, rng: Rng) -> None:
    node = rng.choice(rng.choice(_graphs(model)).node or model.graph.node)
    choice = rng.randrange(4)
    if choice < 2:
        node.op_type = rng.choice(_OPERATORS)
    elif choice == 2:
        node.op_type = rng.choice(("", "Conv2d", "é", "outer", "inner", "a" * 300))
    else:
        node.domain = rng.choice(("", "ai.onnx", "com.microsoft", "f", "somewhere", "ai.onnx.ml"))


def _nodes(model: ModelProto, rng: Rng) -> None:
    nodes = rng.choice(_graphs(model)).node
    if not nodes:
        return
    choice = rng.randrange(5)
    if choice == 0:
        del nodes[rng.randrange(len(nodes))]
    elif choice == 1:
        copied = rng.choice(nodes).SerializeToString()
        nodes.add().ParseFromString(copied)
    elif choice == 2:
        order = list(nodes)
        rng.shuffle(order)
        copies = [NodeProto.FromString(node.SerializeToString()) for node in order]
        del nodes[:]
        nodes.extend(copies)
    elif choice == 3:
        nodes.add().CopyFrom(rng.choice(rng.choice(GENERATORS)().graph.node))
    else:
        inside = NodeProto(op_type=rng.choice(("If", "Loop", "Scan", "SequenceMap")), output=["deep"])
        inside.input.extend(rng.choice(nodes).input)
        for name in ("body", "then_branch", "else_branch"):
            attribute = inside.attribute.add(name=name, type=AttributeProto.GRAPH)
            attribute.g.CopyFrom(rng.choice(GENERATORS)().graph)
        nodes.append(inside)


def _outside(model: ModelProto, rng: Rng) -> None:
    choice = rng.randrange(6)
    if choice == 0:
        del model.opset_import[:]
    elif choice == 1:
        model.opset_import[0].version = rng.choice((0, 1, 6, 7, 13, 24, 28, 99, -5))
    elif choice == 2 and model.functions:
        calls = rng.choice(model.functions)
        calls.node.add(op_type=calls.name, domain=calls.domain, input=calls.input, output=["again"])
    elif choice == 3:
        model.graph.output.add(name=rng.choice(_NAMES))
    elif choice == 4:
        copied = rng.choice(model.graph.input).SerializeToString()
        model.graph.input.add().ParseFromString(copied)
    else:
        for tensor in model.graph.initializer:
            if tensor.external_data:
                tensor.external_data[0].value = rng.choice((*_NAMES, "/etc/passwd", "C:\\w", "..\\w", "a/../b"))


FIELDS: tuple[Callable[[ModelProto, Rng], None], ...] = (
    _input_dims, _stored_dims, _stored_values, _stored_values, _names, _attributes, _attributes, _operator, _operator,
    _nodes, _outside,
)  # fmt: skip


def case(seed: int, number: int) -> bytes:
    """The bytes of one damaged file."""
    rng = random.Random(f"{seed}/{number}")
    model = GENERATORS[number % len(GENERATORS)]()
    damage_fields = rng.random() < 0.7
    if damage_fields:
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            try:
                rng.choice(FIELDS)(model, rng)
            except (ValueError, TypeError, IndexError):  # protobuf itself refuses some values
                continue
    data = model.SerializeToString()
    if not damage_fields or rng.random() < 0.1:
        data = rng.choice(BYTES)(data, rng)
    return data


# -- running -----------------------------------------------------------------------------------------------------------


def examine(path: Path, number: int, predict: bool) -> str:
    """What happens to one file: "accepted", "refused", or the error that nobody should see."""
    import profiles

    batch = (1, 1, 3)[number % 3]
    try:
        graph = profiles.read(path, batch)
        if predict:
            profiles.profile(graph, "jetson" if number % 2 else "hearing-aid")
    except profiles.ProfileError:
        return "refused"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"error {type(error).__name__}: {error!s:.80} at {Path(where.filename).name}:{where.lineno}"
    return "accepted"


def child(seed: int, first: int, last: int, folder: Path, predict: bool) -> None:
    """Examine cases one after the other; one line each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    path = folder / "case.onnx"
    path.write_bytes(convolutions().SerializeToString())
    examine(path, 0, predict)  # imports are not part of the first case
    for number in range(first, last):
        path.write_bytes(case(seed, number))
        start = time.perf_counter()
        result = examine(path, number, predict).replace("\n", " ")
        print(f"{number}\t{time.perf_counter() - start:.4f}\t{result}", flush=True)


def run(seed: int, cases: int, predict: bool = True) -> dict[int, tuple[float, str]]:
    """Examine cases in child processes: case -> seconds and what happened."""
    done: dict[int, tuple[float, str]] = {}
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        while number < cases:
            command = [sys.executable, __file__, "--seed", str(seed), "--child", str(number), str(cases), folder]
            command += [] if predict else ["--read"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                waited = 30.0  # the first case waits for imports
                while True:
                    ready, _, _ = select.select([process.stdout], [], [], waited)
                    line = process.stdout.readline() if ready else ""
                    if not line:
                        break
                    waited = CASE_SECONDS + 5  # making a case takes time too
                    index, seconds, result = line.rstrip("\n").split("\t", 2)
                    done[int(index)] = (float(seconds), result)
                    number = int(index) + 1
                if number >= cases:
                    break
                hung = process.poll() is None
                process.kill()
                process.wait()
                done[number] = (CASE_SECONDS, "hang" if hung else f"crash, exit status {process.returncode}")
                number += 1
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone and show where it fails")
    parser.add_argument("--read", action="store_true", help="read the files and predict nothing")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.seed, int(args.child[0]), int(args.child[1]), Path(args.child[2]), not args.read)
        return
    if args.only is not None:
        import profiles

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "case.onnx"
            path.write_bytes(case(args.seed, args.only))
            graph = profiles.read(path, (1, 1, 3)[args.only % 3])
            print(graph if args.read else profiles.profile(graph, "jetson" if args.only % 2 else "hearing-aid"))
        return
    started = time.perf_counter()
    done = run(args.seed, args.cases, not args.read)
    kinds = Counter(result.split(" ")[0].rstrip(",") for _, result in done.values())
    slowest = max(done, key=lambda number: done[number][0])
    print(f"{len(done)} cases with seed {args.seed} in {time.perf_counter() - started:.0f} s")
    for kind in ("accepted", "refused", "crash", "hang", "error"):
        print(f"{kind:>9} {kinds[kind]}")
    print(f"  slowest {done[slowest][0] * 1e3:.0f} ms, case {slowest} ({done[slowest][1]})")
    print(f"  over 1 s {sum(seconds > 1 for seconds, _ in done.values())}")
    found: dict[str, list[int]] = {}
    for number, (_, result) in sorted(done.items()):
        if result.split(" ")[0].rstrip(",") in ("crash", "hang", "error"):
            found.setdefault(result.rpartition(" at ")[2] or result, []).append(number)
    for where, numbers in found.items():
        print(f"  {len(numbers)} cases, first {numbers[0]}: {done[numbers[0]][1]} [{where}]")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
