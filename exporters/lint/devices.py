"""P13, P14, P16: what depends on the device and its runtime."""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from exporters.lint.codes import code_type
from exporters.lint.finding import ALL, BUILT, ORT, TENSORRT, Hit, Rule
from exporters.lint.view import CLAMPS, View, attribute

PLACED_FOR = {  # quantizer -> runtime; those that are not here place nothing that a runtime would mind
    "tensorrt": "tensorrt",
    "tensorrt_fp8": "tensorrt",
    "onnxruntime_x86": "onnxruntime",
    "cortex_m": "c",
}
_FP8_SINCE = 8.9  # compute capability
_FLOATS_OF_8_BITS = frozenset({TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2})


def _int8_units(view: View) -> Iterator[Hit]:
    count = sum(view.in_int8(product) for product in view.products)
    if not count:
        return
    if not view.device.has_int8:
        yield Hit(
            None,
            f"{view.device.name or 'the device'} has no int8 units: {count} quantised products run in float, behind "
            "kernels that round",
            "ship float16 for it",
        )
    elif view.device.capability == "7.5":
        yield Hit(
            None,
            f"{count} products are quantised, and TensorRT-RTX runs int8 convolutions of compute capability 7.5 in "
            "float and refuses its int8 matrix products beside float32",
            "ship float16 for it, or build with TensorRT itself",
        )


def _fp8(view: View) -> Iterator[Hit]:
    try:
        capability = float(view.device.capability)
    except ValueError:
        return
    for node in view.quantizers():
        if capability < _FP8_SINCE and code_type(view, node) in _FLOATS_OF_8_BITS:
            yield Hit(
                node,
                f"fp8 compiles from compute capability {_FP8_SINCE} on, and the target has {view.device.capability}",
                "quantise to int8",
            )
            return  # all others say the same


def _placement(view: View) -> Iterator[Hit]:
    wanted = view.device.quantizer
    made = next((entry.value for entry in view.model.metadata_props if entry.key == "quantizer"), "")
    if PLACED_FOR.get(made, view.device.runtime) != view.device.runtime and any(True for _ in view.quantizers()):
        yield Hit(
            None,
            f"the file was quantised by the rules of {made!r}, and {view.device.name} wants {wanted!r}",
            f"quantise for this target: compress pipeline --target {view.device.name}",
            level="note",
        )
    if view.device.runtime == "onnxruntime":
        yield from _kept_float_by_onnxruntime(view)


def _kept_float_by_onnxruntime(view: View) -> Iterator[Hit]:
    """Products that its optimiser cannot turn into QLinearConv, QLinearMatMul or QGemm."""
    for product in view.products:
        node = product.node
        if not product.quantised or node.op_type == "MatMul":
            continue  # MatMul needs no output pair: MatMulIntegerToFloat
        if node.op_type == "ConvTranspose":
            yield Hit(
                node,
                "it is quantised, and onnxruntime has no int8 transposed convolution: inputs and weights are decoded",
                "leave it in float (float_modules)",
            )
            continue
        weight = product.weight_dq
        if node.op_type == "Gemm" and weight is not None and not "".join(weight.input[2:]):
            yield Hit(
                node,
                "the DequantizeLinear of its weight has no zero point: a Gemm runs in float then",
                "write the zero points, also where they are all 0",
            )
            continue
        tensor, clamps = view.after(node.output[0], CLAMPS)
        readers = view.readers.get(tensor, [])
        pair = readers[0] if len(readers) == 1 and tensor not in view.outputs else None
        if pair is None or pair.op_type != "QuantizeLinear":
            if node.op_type == "Conv":
                yield Hit(
                    node,
                    "its output is not quantised, so it runs in float and decodes its weights every time",
                    "put a pair behind it (the quantizer 'onnxruntime_x86')",
                )
            elif len(node.input) > 2 and node.input[2] and view.dequantizer(node.input[2]) is None:
                yield Hit(
                    node,
                    "a Gemm with a float bias and no pair behind it runs in float and decodes its weights every time",
                    "write its bias as int32 codes of the product of both scales, or put a pair behind it",
                )
            continue
        for clamp in clamps:
            if not _covered(view, clamp, pair):
                yield Hit(
                    node,
                    f"the {clamp.op_type} behind it stays: its pair covers values that the {clamp.op_type} cuts off "
                    "(a signed or widened range), so the convolution runs in float",
                    "quantise activations to uint8 with zero point 0 behind Relu",
                )
                break


def _covered(view: View, clamp: NodeProto, pair: NodeProto) -> bool:
    """Whether the pair's own range cuts off at least what the clamp does, so that the clamp can go."""
    scale = view.value(pair.input[1])
    zero = view.value(pair.input[2]) if len(pair.input) > 2 and pair.input[2] else np.zeros(1, np.uint8)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu":
        return True  # not for this rule to say
    info = np.iinfo(zero.dtype.name)
    step, offset = float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0])
    low, high = (info.min - offset) * step, (info.max - offset) * step
    least, most = _bounds(view, clamp)
    return low >= least - step / 2 and high <= most + step / 2


def _bounds(view: View, clamp: NodeProto) -> tuple[float, float]:
    if clamp.op_type == "Relu":
        return 0.0, np.inf
    found = [-np.inf, np.inf]
    for position, name in enumerate(("min", "max")):
        given = attribute(clamp, name)
        value = view.value(clamp.input[position + 1]) if len(clamp.input) > position + 1 else None
        if value is not None and value.size == 1:
            found[position] = float(value.reshape(-1)[0])
        elif isinstance(given, float):
            found[position] = given
    return found[0], found[1]


RULES = (
    Rule(
        "P13",
        "The device has int8 kernels",
        f"NVIDIA's table of CUDA GPUs (no int8 units on Jetson Nano and TX2); {BUILT.replace('SM80', 'SM75')}",
        "slow",
        TENSORRT,
        _int8_units,
    ),
    Rule(
        "P14",
        "fp8 is for compute capability 8.9 and later",
        f"{BUILT.replace('SM80', 'SM75, SM80, SM86 (refused), SM89 and SM120 (compiled)')}",
        "refused",
        TENSORRT,
        _fp8,
    ),
    Rule(
        "P16",
        "Q/DQ stand where this runtime wants them",
        f"{ORT}: QLinearConv is formed only where the output is quantised too; {BUILT}",
        "slow",
        ALL,
        _placement,
    ),
)
