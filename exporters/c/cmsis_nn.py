"""Calls of the user's own CMSIS-NN in place of the convolution kernels here (its API from 4.0 to 7.0).

CMSIS-NN requantises by a fixed-point product (a 32-bit multiplier and a shift per channel, rounded twice), not by the
float product that onnxruntime uses: a code may differ by one from the other kernels'.
"""

from dataclasses import dataclass

import numpy as np

from exporters.c.context import Ending
from exporters.c.graph import Array
from exporters.c.program import Buffer, Program, Quant
from exporters.c.windows import Window

LARGEST_CHANNELS_AT_ONCE = 124  # of a depthwise layer on vector cores


@dataclass(frozen=True)
class Layer:
    """One convolution for CMSIS-NN: `codes` (output, row, column, input), `bias` int32 without the input's zero."""

    codes: Array
    bias: Array
    multiplier: Array
    frame: Window
    quant: Quant
    ending: Ending


def fixed_point(multiplier: Array) -> tuple[Array, Array]:
    """(multipliers, shifts) with multiplier = m * 2^(shift - 31), m from 2^30 to 2^31 - 1, as TFLite has them."""
    fraction, exponent = np.frexp(multiplier.astype(np.float64))
    whole = np.rint(fraction * 2.0**31)
    exponent = np.where(whole == 2.0**31, exponent + 1, exponent)
    whole = np.where(whole == 2.0**31, 2.0**30, whole)
    low = exponent < -31  # nothing is left of such a sum
    return np.where(low, 0, whole).astype(np.int64), np.where(low, 0, exponent).astype(np.int64)


def convolution(program: Program, layer: Layer, source: Buffer, target: Buffer, label: str) -> tuple[str, Buffer]:
    """(C, its scratch memory): arm_convolve_wrapper_s8."""
    _, kh, kw, count = layer.codes.shape
    size = 4 * (kh * kw * count + 8)  # two columns as int16, or four as int8
    weights = program.constant(layer.codes, "int8_t")
    return _call(program, layer, source, target, label, ("arm_convolve_wrapper_s8", "conv", size, weights), count)


def depthwise(program: Program, layer: Layer, source: Buffer, target: Buffer, label: str) -> tuple[str, Buffer]:
    """(C, its scratch memory): arm_depthwise_conv_wrapper_s8."""
    channels, kh, kw, _ = layer.codes.shape
    size = kh * kw * max(2 * channels, 4 * LARGEST_CHANNELS_AT_ONCE)
    weights = program.constant(layer.codes.reshape(channels, kh * kw).T, "int8_t")
    kind = ("arm_depthwise_conv_wrapper_s8", "dw_conv", size, weights)
    return _call(program, layer, source, target, label, kind, channels)


def _call(
    program: Program,
    layer: Layer,
    source: Buffer,
    target: Buffer,
    label: str,
    kind: tuple[str, str, int, str],
    channels: int,
) -> tuple[str, Buffer]:
    function, parameters, size, weights = kind
    frame, outputs = layer.frame, layer.codes.shape[0]
    scratch = program.buffer("int32_t", (size + 3) // 4, label=f"{label}_cmsis_nn")
    whole, shift = fixed_point(layer.multiplier)
    factors = program.constant(whole, "int32_t"), program.constant(shift, "int32_t")
    (kh, kw), (sh, sw), (dh, dw), (top, left) = frame.kernel, frame.stride, frame.dilation, frame.pad
    depth, multiple = (1, ".ch_mult = 1, ") if parameters == "dw_conv" else (outputs, "")
    code = (
        f"static const cmsis_nn_{parameters}_params params = {{.input_offset = {-layer.quant.zero}, "
        f".output_offset = {layer.ending.quant.zero}, {multiple}.stride = {{.w = {sw}, .h = {sh}}}, "
        f".padding = {{.w = {left}, .h = {top}}}, .dilation = {{.w = {dw}, .h = {dh}}}, "
        f".activation = {{.min = {layer.ending.low}, .max = {layer.ending.high}}}}};\n"
        f"static const cmsis_nn_per_channel_quant_params factors = {{.multiplier = (int32_t *){factors[0]}, "
        f".shift = (int32_t *){factors[1]}}};\n"
        f"static const cmsis_nn_dims in = {{1, {frame.size_in[0]}, {frame.size_in[1]}, {channels}}};\n"
        f"static const cmsis_nn_dims filter = {{{depth}, {kh}, {kw}, {channels}}};\n"
        f"static const cmsis_nn_dims bias = {{1, 1, 1, {outputs}}};\n"
        f"static const cmsis_nn_dims out = {{1, {frame.size_out[0]}, {frame.size_out[1]}, {outputs}}};\n"
        f"const cmsis_nn_context context = {{{scratch.token}, {scratch.bytes}}};\n"
        f"MODEL_CHECK({function}_get_buffer_size(&params, &in, &filter, &out) <= {scratch.bytes});\n"
        f"MODEL_CHECK({function}(&context, &params, &factors, &in, {source.token}, &filter, {weights}, &bias, "
        f"{program.constant(layer.bias, 'int32_t')}, &out, {target.token}) == ARM_CMSIS_NN_SUCCESS);"
    )
    return code, scratch
