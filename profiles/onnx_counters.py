"""Multiply-accumulates and weights of the ONNX operators that have any."""

from collections.abc import Callable, Mapping, Sequence
from math import prod

from profiles.graph import FLOATS, Kind, Op, Weight, conv_macs, fft_macs, recurrent_macs
from profiles.onnx_nodes import MICROSOFT, STANDARD, Node, Shape, Value
from profiles.onnx_shapes import (
    Inputs,
    at,
    attention_sizes,
    conv_operands,
    dft_axis,
    einsum_sizes,
    matmul_shape,
    ms_multi_head_sizes,
    product_operands,
    shape_at,
    stft_length,
)

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_CODES = frozenset({"int8", "uint8", "int4", "uint4", "int2", "uint2"})

Counter = Callable[[Node, Inputs, Sequence[Value]], "Op | None"]


def count(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    """The operator with its multiply-accumulates, its name left open; None where there is no counter or a shape is
    missing that it needs."""
    if node.domain in MICROSOFT:
        counter = _MICROSOFT.get(node.operator) or _STANDARD.get(node.operator)
    else:
        counter = _STANDARD.get(node.operator) if node.domain in STANDARD else None
    if counter is None or not outs or outs[0].shape is None:
        return None
    return counter(node, ins, outs)


def weights_of(values: Sequence[Value | None]) -> tuple[Weight, ...]:
    """Stored float or code tensors; scalars and indices are part of the program, not weights."""
    found = (item for value in values if value is not None and value.shape != () for item in value.sources or ())
    return tuple(dict.fromkeys(item for item in found if item.dtype in FLOATS or item.dtype in _CODES))


def _bias(value: Value | None) -> tuple[Weight, ...]:
    if value is None or value.sources is None:
        return ()
    return tuple(Weight(item.name, item.elements, item.dtype, bias=True) for item in value.sources)


def _edges(values: Sequence[Value | None]) -> tuple[str, ...]:
    """Names of what flows and has a known shape."""
    return tuple(v.name for v in values if v is not None and v.sources is None and v.shape is not None)


def _fixed(*values: Value | None) -> list[Value]:
    return [value for value in values if value is not None and value.sources is not None]


def _conv(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    left, right = conv_operands(node)
    source, weight = ins[left], ins[right]
    out = outs[0]
    assert source is not None
    assert weight is not None
    assert out.shape is not None
    if weight.shape is None:
        return None
    groups = node.integer("group", 1)
    macs, depth = conv_macs(prod(out.shape), weight.shape[1] * groups, groups, weight.shape[2:])
    integer = node.operator in ("QLinearConv", "ConvInteger")
    place = {"QLinearConv": 8, "ConvInteger": 99, "DeformConv": 3}.get(node.operator, 2)
    bias = at(ins, place)
    extra = [bias]  # what flows beside the operands
    if node.operator == "DeformConv":
        extra = [ins[2], bias, at(ins, 4)]
    elif node.operator == "FusedConv":
        extra = [bias, at(ins, 3)]
    int8 = integer or (source.codes and weight.codes)
    stored = (*weights_of(_fixed(weight)), *_bias(bias))
    flowing = _edges([source, weight, *extra])
    window, strides = windows(node, weight.shape[2:])
    return Op(
        node.name, node.operator, "conv", flowing, _edges(outs), macs, stored, depth, groups, out.shape[1], int8,
        window=window, strides=strides,
    )  # fmt: skip


def windows(node: Node, window: Sequence[int] | None = None) -> tuple[Shape, Shape]:
    """Extent per axis of what a convolution or a pool slides over its input, and its strides; () where unknown."""
    extent = tuple(node.integers("kernel_shape") or ()) if window is None else tuple(window)
    return extent, tuple(node.integers("strides") or ()) or (1,) * len(extent)


def _conv_transpose(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    source, weight = ins[0], ins[1]
    assert source is not None
    assert weight is not None
    if source.shape is None or weight.shape is None:
        return None
    groups = node.integer("group", 1)
    # Every element of the input meets every weight of its group once.
    macs, depth = conv_macs(prod(source.shape), weight.shape[1] * groups, groups, weight.shape[2:])
    stored = (*weights_of(_fixed(weight)), *_bias(at(ins, 2)))
    int8 = source.codes and weight.codes
    channels = weight.shape[1] * groups
    window, strides = windows(node, weight.shape[2:])
    return Op(
        node.name,
        node.operator,
        "conv_transpose",
        _edges(ins),
        _edges(outs),
        macs,
        stored,
        depth,
        groups,
        channels,
        int8,
        window=window,
        strides=strides,
    )


def _causal_conv(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    source, weight = shape_at(ins, 0), shape_at(ins, 1)
    if source is None or weight is None:
        return None
    stored = (*weights_of(_fixed(ins[1])), *_bias(at(ins, 2)))
    macs, depth = prod(source) * weight[2], weight[2]
    return Op(node.name, node.operator, "conv", _edges(ins), _edges(outs), macs, stored, depth, source[1], source[1])


_INTEGER_PRODUCTS = frozenset(
    {"QLinearMatMul", "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
)
_PRODUCT_BIAS = {"Gemm": 2, "QGemm": 6, "FusedGemm": 2, "GemmFastGelu": 2, "MatMulIntegerToFloat": 6,
                 "DynamicQuantizeMatMul": 4}  # fmt: skip


def _product(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    first, second = conv_operands(node)
    left, right = ins[first], ins[second]
    out = outs[0]
    assert left is not None
    assert right is not None
    assert out.shape is not None
    if left.shape is None or right.shape is None:
        return None
    if node.operator in ("Gemm", "QGemm", "FusedGemm", "FusedMatMul", "FusedMatMulActivation"):
        b = product_operands(node, ins)[1]
        depth = b[-2] if len(b) > 1 else b[0]
    else:
        depth = matmul_shape(left.shape, right.shape)[1]
    bias = at(ins, _PRODUCT_BIAS.get(node.operator, 99))
    fixed = _fixed(left, right)
    stored = (*weights_of(fixed), *_bias(bias))
    int8 = node.operator in _INTEGER_PRODUCTS or (left.codes and right.codes)
    kind: Kind = "gemm" if fixed else "matmul"
    channels = out.shape[-1] if out.shape else 1
    flowing = _edges([left, right, bias])
    macs = prod(out.shape) * depth
    return Op(node.name, node.operator, kind, flowing, _edges(outs), macs, stored, depth, 1, channels, int8)


def _matmul_nbits(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    """Weights of a few bits in blocks: N x K of them, packed in one tensor of bytes, with scales and zero points."""
    out = outs[0].shape
    assert out is not None
    rows, depth = node.integer("N", 0), node.integer("K", 0)
    bits = node.integer("bits", 4) if node.operator == "MatMulNBits" else 4
    kind = {2: "uint2", 4: "uint4", 8: "uint8"}.get(bits)
    packed = ins[1]
    if packed is None or kind is None or rows < 1 or depth < 1:
        return None
    name = packed.sources[0].name if packed.sources else packed.name
    stored = (Weight(name, rows * depth, kind), *weights_of(_fixed(at(ins, 2), at(ins, 3))), *_bias(at(ins, 5)))
    return Op(
        node.name, node.operator, "gemm", _edges(ins[:1]), _edges(outs), prod(out) * depth, stored, depth, 1, rows
    )


def _einsum(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    if any(item is None or item.shape is None for item in ins):
        return None
    terms, result, sizes = einsum_sizes(node, ins)
    out = outs[0].shape
    assert out is not None
    flowing, made = _edges(ins), _edges(outs)
    if len(terms) == 1:  # a transposition, a diagonal or a sum
        return Op(node.name, "Einsum", "reduce" if set(terms[0]) - set(result) else "copy", flowing, made)
    macs, depth = 0, 1
    left = set(terms[0])
    for index, term in enumerate(terms[1:], 1):  # operands from left to right, as runtimes take them
        later = set(result).union(*terms[index + 1 :])
        right = set(term)
        # What only one operand has and nobody needs later is summed before the product.
        shared = {label for label in left | right if label in later or (label in left and label in right)}
        macs += prod(sizes[label] for label in shared)
        left = (left | right) & later
        depth = prod(sizes[label] for label in shared - left)
    kind: Kind = "gemm" if len(flowing) < len(ins) else "matmul"
    stored = weights_of(_fixed(*ins))
    return Op(node.name, "Einsum", kind, flowing, made, macs, stored, depth, 1, out[-1] if out else 1)


def _recurrent(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    source, weight, state = shape_at(ins, 0), shape_at(ins, 1), shape_at(ins, 2)
    if source is None or weight is None or state is None:
        return None
    hidden = state[2]
    steps, rows = (source[1], source[0]) if node.integer("layout", 0) else (source[0], source[1])
    macs = recurrent_macs(GATES[node.operator], steps, rows, source[2], hidden, weight[0])
    stored = (*weights_of(_fixed(*ins[1:3])), *_bias(at(ins, 3)), *_bias(at(ins, 7)))
    depth = source[2] + hidden
    return Op(node.name, node.operator, "recurrent", _edges(ins), _edges(outs), macs, stored, depth, 1, hidden)


def _stft(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    out, signal, length = outs[0].shape, shape_at(ins, 0), stft_length(ins)
    if out is None or signal is None or length is None:
        return None
    macs = fft_macs(out[0] * out[1], length, real=len(signal) < 3 or signal[-1] == 1)
    return Op(node.name, "STFT", "fft", _edges(ins), _edges(outs), macs, weights_of(_fixed(*ins[2:3])), length)


def _dft(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    source, out, axis = shape_at(ins, 0), outs[0].shape, dft_axis(node, ins)
    if source is None or out is None or axis is None or len(source) != len(out):
        return None
    inverse = node.integer("inverse", 0) and node.integer("onesided", 0)
    points = out[axis] if inverse else max(source[axis], out[axis])
    transforms = prod(out[:-1]) // max(out[axis], 1)
    macs = fft_macs(transforms, points, real=source[-1] == 1 or bool(inverse))
    return Op(node.name, "DFT", "fft", _edges(ins), _edges(outs), macs, (), points)


def _attention(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    sizes = attention_sizes(node, ins)
    if sizes is None:
        return None
    batch, heads, _, queries, keys, size, value_size = sizes
    macs = batch * heads * queries * keys * (size + value_size)
    return Op(node.name, node.operator, "matmul", _edges(ins), _edges(outs), macs, weights_of(_fixed(*ins)), size)


def _ms_attention(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    source, weight = shape_at(ins, 0), shape_at(ins, 1)
    if source is None or weight is None:
        return None
    split = node.integers("qkv_hidden_sizes") or (weight[1] // 3,) * 3
    past = shape_at(ins, 4 if node.operator == "Attention" else 8)
    keys = source[1] + (past[3] if past is not None and len(past) == 5 else 0)
    projection = source[0] * source[1] * weight[0] * weight[1]
    macs = projection + source[0] * source[1] * keys * (split[0] + split[2])
    stored = (*weights_of(_fixed(ins[1])), *_bias(at(ins, 2)))
    int8 = node.operator == "QAttention"
    return Op(node.name, node.operator, "gemm", _edges(ins), _edges(outs), macs, stored, weight[0], 1, split[2], int8)


def _ms_multi_head(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    sizes = ms_multi_head_sizes(node, ins)
    if sizes is None:
        return None
    batch, heads, queries, keys, size, value_size = sizes
    macs = batch * heads * queries * keys * (size + value_size)
    stored = weights_of(_fixed(*ins))
    return Op(node.name, node.operator, "matmul", _edges(ins), _edges(outs), macs, stored, size)


def _linear_attention(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    """Per step and head: the outer product of key and value, the query's product with the state, and for the delta
    rules the state's answer to the key."""
    query, key, value = shape_at(ins, 0), shape_at(ins, 1), shape_at(ins, 2)
    if query is None or key is None or value is None:
        return None
    heads, kv_heads = node.integer("q_num_heads", 1), node.integer("kv_num_heads", 1)
    state = (key[2] // kv_heads) * (value[2] // kv_heads)
    updates = 2 if "delta" in node.text("update_rule", "gated_delta") else 1
    macs = query[0] * query[1] * state * (heads + updates * kv_heads)
    return Op(node.name, node.operator, "matmul", _edges(ins), _edges(outs), macs, (), key[2] // kv_heads)


def _batchnorm(node: Node, ins: Inputs, outs: Sequence[Value]) -> Op | None:
    stored = weights_of(ins[1:])
    return Op(node.name, node.operator, "batchnorm", _edges(ins[:1]), _edges(outs[:1]), 0, stored)


_STANDARD: Mapping[str, Counter] = {
    **dict.fromkeys(("Conv", "QLinearConv", "ConvInteger", "DeformConv"), _conv),
    "ConvTranspose": _conv_transpose,
    "CausalConvWithState": _causal_conv,
    **dict.fromkeys(("Gemm", "MatMul", "QLinearMatMul", "MatMulInteger"), _product),
    "Einsum": _einsum,
    **dict.fromkeys(GATES, _recurrent),
    "STFT": _stft,
    "DFT": _dft,
    "Attention": _attention,
    "LinearAttention": _linear_attention,
    "BatchNormalization": _batchnorm,
}
_MICROSOFT: Mapping[str, Counter] = {
    "FusedConv": _conv,
    **dict.fromkeys(
        (
            "DynamicQuantizeMatMul",
            "FusedGemm",
            "FusedMatMul",
            "FusedMatMulActivation",
            "GemmFastGelu",
            "MatMulIntegerToFloat",
            "QGemm",
        ),
        _product,
    ),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4"), _matmul_nbits),
    **dict.fromkeys(("Attention", "QAttention"), _ms_attention),
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention", "DecoderMaskedMultiHeadAttention"), _ms_multi_head),
}
