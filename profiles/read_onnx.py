"""An ONNX file as a neutral graph: shapes resolved for one batch size, Q/DQ pairs understood.

External weight files are not opened: counting needs shapes only.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.errors import ProfileError
from profiles.graph import FLOATS, Edge, Graph, Kind, Op, Weight, conv_macs, edge, fft_macs, recurrent_macs
from profiles.onnx_kinds import NORMS, POINTWISE, SHAPES, SOFTMAXES, plain_kind

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
STANDARD = ("", "ai.onnx")
LONG = 64  # elements; longer constants are not shapes
LARGEST = 1 << 34  # elements of one tensor; above it the model is refused


@dataclass
class _Reading:
    """What is known while the nodes are walked."""

    edges: dict[str, Edge]
    constants: dict[str, tuple[Weight, ...]]  # tensor -> stored tensors that it is computed from
    shapes: dict[str, tuple[int, ...]]  # of constants
    codes: set[str]  # tensors that hold int8 codes, or their dequantised values
    ops: list[Op] = field(default_factory=list)
    uncounted: Counter[str] = field(default_factory=Counter)


def read(model: "str | Path | ModelProto", batch: int = 1, example: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Read a model for one batch size.

    Args:
        model: a path, or a ModelProto (left unchanged).
        batch: >= 1; takes the place of the first dimension of every input.
        example: input name -> shape, for inputs with dynamic dimensions beside the batch.

    Raises:
        ProfileError: the file is not a readable ONNX model, a dimension is unknown, or shapes contradict each other.
    """
    import onnx

    if batch < 1:
        raise ProfileError(f"batch is {batch}", fix="pass a batch of at least 1")
    proto = _load(model)
    local = {(function.domain, function.name) for function in proto.functions}
    if any((node.domain, node.op_type) in local for node in proto.graph.node):
        from onnx import inliner

        proto = inliner.inline_local_functions(proto)
    light, stored = _skeleton(proto)
    _set_input_shapes(light.graph, batch, example or {})
    inputs = tuple(value.name for value in light.graph.input)
    _add_constants(light.graph, stored)
    try:
        inferred = onnx.shape_inference.infer_shapes(light, strict_mode=False, data_prop=True)
    except Exception as error:  # the checker raises several unrelated types
        raise ProfileError(
            f"the shapes of the ONNX model cannot be inferred: {str(error).splitlines()[0]}",
            fix="check the file with onnx.checker.check_model(path, full_check=True)",
        ) from error
    return _walk(inferred.graph, stored, inputs, batch)


def _load(model: "str | Path | ModelProto") -> "ModelProto":
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]

    if isinstance(model, onnx.ModelProto):
        return model
    path = Path(model)
    if not path.is_file():
        raise ProfileError(f"there is no file {path}", fix="pass the path of an ONNX file")
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} is not an ONNX model, or it is cut short", fix="export it again") from error
    if not proto.graph.node:
        raise ProfileError(f"{path} holds no operators", fix="export it again")
    return proto


def _skeleton(proto: "ModelProto") -> "tuple[ModelProto, dict[str, TensorProto]]":
    """The model's inputs, nodes and outputs without any stored tensor, and the stored tensors by name."""
    import onnx

    light = onnx.ModelProto()
    light.ir_version = proto.ir_version
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    graph = light.graph
    graph.name = proto.graph.name
    stored: dict[str, TensorProto] = {tensor.name: tensor for tensor in proto.graph.initializer}
    graph.input.extend(value for value in proto.graph.input if value.name not in stored)
    for original in proto.graph.output:
        value = graph.output.add()
        value.name = original.name  # without its shape, which may be that of another batch size
        value.type.tensor_type.elem_type = original.type.tensor_type.elem_type
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD:
            tensor = next((item.t for item in node.attribute if item.name == "value"), None)
            if tensor is not None:
                stored[node.output[0]] = tensor
                continue
        graph.node.append(node)
    return light, stored


def _add_constants(graph: "GraphProto", stored: "Mapping[str, TensorProto]") -> None:
    """Give shape inference the stored tensors: short ones with their values, long ones as inputs of their shape.

    Inference copies the model several times, and only short values (shapes, axes) matter to it.
    """
    import onnx

    for name, tensor in stored.items():
        if prod(tensor.dims) > LONG or tensor.data_location == onnx.TensorProto.EXTERNAL:
            graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
        else:
            copy = graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = name


def _set_input_shapes(graph: "GraphProto", batch: int, example: Mapping[str, Sequence[int]]) -> None:
    known: dict[str, int] = {}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        given = example.get(value.name)
        if given is not None and len(given) != len(dims):
            raise ProfileError(
                f"the example of input {value.name!r} has {len(given)} dimensions, the model's has {len(dims)}",
                fix="pass an example of the model's own shape",
            )
        if dims and dims[0].dim_param:
            known[dims[0].dim_param] = batch
        for dim, size in zip(dims[1:], (given or [])[1:], strict=False):
            if dim.dim_param:
                known[dim.dim_param] = int(size)
    for value in graph.input:
        given = example.get(value.name)
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if index == 0:
                dim.dim_value = batch
            elif dim.dim_param in known:
                dim.dim_value = known[dim.dim_param]
            elif given is not None:
                dim.dim_value = int(given[index])
            elif dim.dim_value <= 0:
                raise ProfileError(
                    f"dimension {index} of input {value.name!r} is dynamic ({dim.dim_param or 'unnamed'})",
                    fix=f"pass example={{{value.name!r}: array}} with an array of a typical shape",
                )


def _walk(graph: "GraphProto", stored: "Mapping[str, TensorProto]", inputs: tuple[str, ...], batch: int) -> Graph:
    from onnx import TensorProto

    names = {number: name.lower() for name, number in TensorProto.DataType.items()}
    names |= {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}
    edges: dict[str, Edge] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
        if value.name in stored or not kind.HasField("shape") or any(dim < 0 for dim in dims):
            continue
        edges[value.name] = edge(value.name, dims, _dtype(names.get(kind.elem_type, "float32")))
        if edges[value.name].elements > LARGEST:
            raise ProfileError(
                f"tensor {value.name!r} has the shape {dims}, which no device here can hold",
                fix="check the model and the batch size",
            )
    constants: dict[str, tuple[Weight, ...]] = {
        name: (Weight(name, prod(tensor.dims), _dtype(names.get(tensor.data_type, "float32"))),)
        for name, tensor in stored.items()
    }
    shapes = {name: tuple(tensor.dims) for name, tensor in stored.items()}
    state = _Reading(edges, constants, shapes, set())
    for index, node in enumerate(graph.node):
        _read_node(node, index, state)
    for name in inputs:
        if name not in edges:
            raise ProfileError(f"input {name!r} has no shape", fix="export the model with static shapes")
    outputs = tuple(value.name for value in graph.output if value.name in edges)
    return Graph(tuple(state.ops), edges, inputs, outputs, batch, dict(state.uncounted))


def _dtype(name: str) -> str:
    for short in ("float8", "float4"):
        if name.startswith(short):
            return short
    return name


def _read_node(node: "NodeProto", index: int, state: _Reading) -> None:
    operator = node.op_type
    given = [name for name in node.input if name]
    outputs = tuple(name for name in node.output if name)
    name = node.name or f"{operator}_{index}"
    if operator in SHAPES or all(item in state.constants for item in given):
        _fold(node, given, outputs, state)
        return
    if operator in QUANTIZERS:
        _read_quantizer(node, name, state)
        return
    shape_only = all(item.dtype == "int64" for item in map(state.edges.get, outputs) if item) and any(
        item in state.edges for item in outputs
    )
    flowing = tuple(item for item in given if item not in state.constants)
    indices = shape_only and operator != "TopK" and all(_is_index(item, state) for item in flowing)
    if indices and all(item in state.edges and state.edges[item].elements <= LONG for item in outputs):
        _fold(node, given, outputs, state)  # arithmetic on integer scalars and short vectors: indices and shapes
        return
    for item in outputs:
        if item not in state.edges:
            _infer(node, item, state)
    counter = COUNTERS.get(operator)
    if counter is not None and all(item in state.edges for item in (*flowing, *outputs[:1])):
        op = counter(node, name, flowing, outputs, state)
        if op is not None:
            state.ops.append(op)
            return
    kind = plain_kind(operator)
    if operator in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        _check_reshape(name, flowing, outputs, state)
    if kind == "other":
        state.uncounted[operator] += 1
    known_in = tuple(item for item in flowing if item in state.edges)
    known_out = tuple(item for item in outputs if item in state.edges)
    window, strides = _steps(node) if kind == "pool" else ((), ())
    op = Op(name, operator, kind, known_in, known_out, weights=_weights(given, state), window=window, strides=strides)
    state.ops.append(_spread_codes(op, state))


def _check_reshape(name: str, flowing: Sequence[str], outputs: Sequence[str], state: _Reading) -> None:
    """Refuse a graph in which another batch size is written down as a constant."""
    before, after = state.edges.get(flowing[0]), state.edges.get(outputs[0])
    if before is not None and after is not None and before.elements != after.elements:
        raise ProfileError(
            f"operator {name!r} turns {before.shape} into {after.shape}: the model is made for another batch size",
            fix="export it with a dynamic batch dimension, or ask for the batch it was exported with",
        )


def _is_index(name: str, state: _Reading) -> bool:
    known = state.edges.get(name)
    return known is not None and known.dtype in ("int64", "int32", "bool") and known.elements <= LONG


def _fold(node: "NodeProto", given: Sequence[str], outputs: Sequence[str], state: _Reading) -> None:
    """The node's outputs are known when the model is loaded; they stand for the stored tensors they come from."""
    sources = tuple(dict.fromkeys(weight for item in given for weight in state.constants.get(item, ())))
    if node.op_type in QUANTIZERS:
        sources = state.constants.get(node.input[0], ())  # not its scales and zero points
        if node.op_type == "QuantizeLinear":
            sources = tuple(Weight(item.name, item.elements, "int8", item.bias) for item in sources)
        state.codes.update(outputs)
    elif node.op_type in SHAPES:
        sources = ()
    elif any(item in state.codes for item in given):
        state.codes.update(outputs)
    for item in outputs:
        state.constants[item] = sources
        known = state.edges.get(item)
        if known is not None:
            state.shapes[item] = known.shape
        elif given:
            state.shapes[item] = state.shapes.get(given[0], ())


def _read_quantizer(node: "NodeProto", name: str, state: _Reading) -> None:
    source, result = node.input[0], node.output[0]
    known = state.edges.get(result)
    if known is None and source in state.edges:
        dtype = "float32" if node.op_type == "DequantizeLinear" else "int8"
        state.edges[result] = edge(result, state.edges[source].shape, dtype)
    if node.op_type == "QuantizeLinear":
        state.ops.append(Op(name, node.op_type, "quantize", (source,), (result,)))
    else:
        state.ops.append(Op(name, node.op_type, "dequantize", (source,), (result,)))
        state.codes.add(result)


def _spread_codes(op: Op, state: _Reading) -> Op:
    """Operators that only move values keep their codes (Q commutes with them), so the runtime moves one byte each."""
    moves = op.kind in ("view", "copy") or op.operator == "MaxPool"
    if not (moves and op.inputs and all(item in state.codes for item in op.inputs)):
        return op
    state.codes.update(op.outputs)
    for item in op.outputs:
        state.edges[item] = replace(state.edges[item], dtype="int8")
    return replace(op, int8=True)


def _weights(given: Sequence[str], state: _Reading) -> tuple[Weight, ...]:
    """Stored float or code tensors among the inputs; scalars and indices are part of the program, not weights."""
    found = (weight for item in given for weight in state.constants.get(item, ()) if state.shapes.get(item) != ())
    small = ("int8", "uint8", "int4", "uint4")
    return tuple(dict.fromkeys(item for item in found if item.dtype in FLOATS or item.dtype in small))


def _attribute(node: "NodeProto", name: str, default: Any) -> Any:
    from onnx import helper

    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def _shape(name: str, state: _Reading) -> tuple[int, ...]:
    known = state.edges.get(name)
    return known.shape if known is not None else state.shapes.get(name, ())


_Counter = Callable[["NodeProto", str, tuple[str, ...], tuple[str, ...], _Reading], "Op | None"]


def _count_conv(
    node: "NodeProto", name: str, flowing: tuple[str, ...], outputs: tuple[str, ...], state: _Reading
) -> Op | None:
    quantised = node.op_type == "QLinearConv"
    weight_name = node.input[3 if quantised else 1]
    weight = _shape(weight_name, state)
    if len(weight) < 3 or len(_shape(outputs[0], state)) < 3:
        return None
    groups = int(_attribute(node, "group", 1))
    out = state.edges[outputs[0]]
    macs, depth = conv_macs(out.elements, weight[1] * groups, groups, weight[2:])
    integer = quantised or node.op_type == "ConvInteger"
    int8 = integer or (node.input[0] in state.codes and weight_name in state.codes)
    bias = node.input[8] if quantised and len(node.input) > 8 else node.input[2] if len(node.input) > 2 else ""
    if integer and not quantised:
        bias = ""
    weights = (*_weights([weight_name], state), *_bias(bias, state))
    kept = tuple(item for item in flowing if item == node.input[0] or (not integer and item in node.input[:3]))
    fused = node.input[3:4] if node.op_type == "FusedConv" else ()
    kept += tuple(item for item in fused if item in state.edges)
    return Op(
        name,
        node.op_type,
        "conv",
        kept,
        outputs,
        macs,
        weights,
        depth,
        groups,
        out.shape[1],
        int8,
        *_steps(node, weight),
    )


def _steps(node: "NodeProto", weight: tuple[int, ...] = ()) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Extent per axis of the window that a convolution or a pool slides over its input, and its strides."""
    window = tuple(weight[2:] or _attribute(node, "kernel_shape", ()))
    return window, tuple(_attribute(node, "strides", ())) or (1,) * len(window)


def _bias(name: str, state: _Reading) -> tuple[Weight, ...]:
    return tuple(
        Weight(item.name, item.elements, "int32" if item.dtype == "int32" else item.dtype, bias=True)
        for item in state.constants.get(name, ())
    )


def _count_conv_transpose(
    node: "NodeProto", name: str, flowing: tuple[str, ...], outputs: tuple[str, ...], state: _Reading
) -> Op | None:
    weight = _shape(node.input[1], state)
    source = state.edges.get(node.input[0])
    if len(weight) < 3 or source is None:
        return None
    groups = int(_attribute(node, "group", 1))
    macs, depth = conv_macs(source.elements, weight[1] * groups, groups, weight[2:])
    weights = (*_weights([node.input[1]], state), *_bias(node.input[2] if len(node.input) > 2 else "", state))
    int8 = node.input[0] in state.codes and node.input[1] in state.codes
    window, strides = _steps(node, weight)
    channels = weight[1] * groups
    return Op(
        name,
        node.op_type,
        "conv_transpose",
        flowing,
        outputs,
        macs,
        weights,
        depth,
        groups,
        channels,
        int8,
        window,
        strides,
    )


def _count_gemm(
    node: "NodeProto", name: str, flowing: tuple[str, ...], outputs: tuple[str, ...], state: _Reading
) -> Op | None:
    left, right = node.input[0], node.input[3 if node.op_type in ("QLinearMatMul", "QGemm") else 1]
    integer = node.op_type in ("QLinearMatMul", "QGemm", "MatMulInteger")
    shape = _shape(left, state)
    if not shape:
        return None
    transposed = bool(_attribute(node, "transA", 0)) and len(shape) == 2
    depth = shape[0] if transposed else shape[-1]
    out = state.edges[outputs[0]]
    fixed = [item for item in (left, right) if item in state.constants]
    if node.op_type == "Gemm":
        bias = node.input[2] if len(node.input) > 2 else ""
    else:
        bias = node.input[6] if node.op_type == "QGemm" and len(node.input) > 6 else ""
    weights = (*_weights(fixed, state), *_bias(bias, state))
    int8 = integer or (left in state.codes and right in state.codes)
    kept = tuple(item for item in flowing if item in (left, right, bias))
    kind: Kind = "gemm" if fixed else "matmul"
    channels = out.shape[-1] if out.shape else 1
    return Op(name, node.op_type, kind, kept, outputs, out.elements * depth, weights, depth, 1, channels, int8)


def _count_einsum(
    node: "NodeProto", name: str, flowing: tuple[str, ...], outputs: tuple[str, ...], state: _Reading
) -> Op | None:
    equation = _attribute(node, "equation", b"").decode().replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if "." in equation or len(terms) != 2:
        return None
    sizes: dict[str, int] = {}
    for term, item in zip(terms, node.input, strict=True):
        sizes |= dict(zip(term, _shape(item, state), strict=False))
    out = state.edges[outputs[0]]
    macs = prod(sizes.values())
    kind: Kind = "gemm" if len(flowing) == 1 else "matmul"
    depth = macs // max(out.elements, 1)
    return Op(name, "Einsum", kind, flowing, outputs, macs, _weights(node.input, state), depth, 1, out.shape[-1])


def _count_recurrent(
    node: "NodeProto", name: str, flowing: tuple[str, ...], outputs: tuple[str, ...], state: _Reading
) -> Op | None:
    source = _shape(node.input[0], state)
    weight = _shape(node.input[1], state)  # (directions, gates * hidden, inputs)
    if len(source) != 3 or len(weight) != 3:
        return None
    gates = GATES[node.op_type]
    hidden = weight[1] // gates
    steps, rows = (source[1], source[0]) if _attribute(node, "layout", 0) else (source[0], source[1])
    macs = recurrent_macs(gates, steps, rows, source[2], hidden, weight[0])
    weights = (*_weights(node.input[1:3], state), *_bias(node.input[3] if len(node.input) > 3 else "", state))
    return Op(name, node.op_type, "recurrent", flowing, outputs, macs, weights, source[2] + hidden, 1, hidden)


def _count_stft(
    node: "NodeProto", name: str, flowing: tuple[str, ...], outputs: tuple[str, ...], state: _Reading
) -> Op | None:
    out, signal = state.edges[outputs[0]].shape, _shape(node.input[0], state)
    length = _window_length(node, state)
    if len(out) != 4 or length is None:
        return None
    macs = fft_macs(out[0] * out[1], length, real=len(signal) < 3 or signal[-1] == 1)
    return Op(name, "STFT", "fft", flowing, outputs, macs, _weights(node.input[2:3], state), length)


def _window_length(node: "NodeProto", state: _Reading) -> int | None:
    """Points of one transform: the window's length, or twice the number of frequencies less one."""
    if len(node.input) > 2 and node.input[2] and _shape(node.input[2], state):
        return _shape(node.input[2], state)[0]
    out = state.edges.get(node.output[0])
    if out is None:
        return None
    return (out.shape[2] - 1) * 2 if _attribute(node, "onesided", 1) else out.shape[2]


def _count_dft(
    node: "NodeProto", name: str, flowing: tuple[str, ...], outputs: tuple[str, ...], state: _Reading
) -> Op | None:
    source, out = _shape(node.input[0], state), state.edges[outputs[0]].shape
    if len(source) < 2 or len(source) != len(out):
        return None
    inverse = bool(_attribute(node, "inverse", 0))
    # The transformed axis is an attribute up to opset 19 and an input from 20; its default is the last but one.
    axis = int(_attribute(node, "axis", 1 if len(source) == 3 else len(source) - 2))
    points = max(source[axis], out[axis]) if not (inverse and _attribute(node, "onesided", 0)) else out[axis]
    transforms = prod(out[:-1]) // max(out[axis], 1)
    macs = fft_macs(transforms, points, real=source[-1] == 1)
    return Op(name, "DFT", "fft", flowing, outputs, macs, (), points)


def _count_attention(
    node: "NodeProto", name: str, flowing: tuple[str, ...], outputs: tuple[str, ...], state: _Reading
) -> Op | None:
    query, key, value = (_shape(item, state) for item in node.input[:3])
    if not len(query) == len(key) == len(value) or len(query) not in (3, 4):
        return None
    if len(query) == 4:  # (batch, heads, sequence, head size)
        scores = query[0] * query[1] * query[2] * key[2]
        macs, depth = scores * (query[3] + value[3]), query[3]
    else:  # (batch, sequence, heads * head size)
        heads = int(_attribute(node, "q_num_heads", _attribute(node, "num_heads", 1)))
        kv_heads = int(_attribute(node, "kv_num_heads", heads))
        macs = query[0] * query[1] * key[1] * (query[2] + value[2] // kv_heads * heads)
        depth = query[2] // heads
    return Op(name, node.op_type, "matmul", flowing, outputs, macs, (), depth)


def _count_batchnorm(
    node: "NodeProto", name: str, flowing: tuple[str, ...], outputs: tuple[str, ...], state: _Reading
) -> Op | None:
    return Op(name, node.op_type, "batchnorm", flowing[:1], outputs[:1], 0, _weights(node.input[1:], state))


COUNTERS: Mapping[str, _Counter] = {
    **dict.fromkeys(("Conv", "QLinearConv", "ConvInteger", "FusedConv"), _count_conv),
    "ConvTranspose": _count_conv_transpose,
    **dict.fromkeys(
        ("Gemm", "MatMul", "QLinearMatMul", "QGemm", "MatMulInteger", "FusedMatMul", "FusedGemm"), _count_gemm
    ),
    "Einsum": _count_einsum,
    **dict.fromkeys(GATES, _count_recurrent),
    "STFT": _count_stft,
    "DFT": _count_dft,
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _count_attention),
    "BatchNormalization": _count_batchnorm,
}


def _infer(node: "NodeProto", output: str, state: _Reading) -> None:
    """Shapes that onnx leaves open: operators of com.microsoft, and transforms whose lengths are stored tensors."""
    first = state.edges.get(node.input[0]) if node.input else None
    if first is None or output != node.output[0]:
        return
    same = node.op_type in POINTWISE or node.op_type in SOFTMAXES or node.op_type in NORMS
    if same:
        shapes = [_shape(item, state) for item in node.input if item in state.edges]
        widest = max(shapes, key=prod)
        state.edges[output] = edge(output, widest, first.dtype)
    elif node.op_type in ("QGemm", "FusedGemm", "FusedMatMul"):
        right = _shape(node.input[3 if node.op_type == "QGemm" else 1], state)
        if len(right) >= 2:
            columns = right[-2] if _attribute(node, "transB", 0) else right[-1]
            state.edges[output] = edge(output, (*first.shape[:-1], columns), first.dtype)
    elif node.op_type == "QLinearGlobalAveragePool":
        state.edges[output] = edge(output, (*first.shape[:2], *(1 for _ in first.shape[2:])), first.dtype)
