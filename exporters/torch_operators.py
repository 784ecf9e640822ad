"""Quantisation that torch has no operator for, and what each becomes in ONNX: float8 pairs, and blocks of int4.

Torch's own `quantized_decomposed` operators know integers with one scale per tensor or channel. These compute the same
as ONNX's QuantizeLinear and DequantizeLinear do, so that a converted module can be run in torch too.

Source: ONNX, operators QuantizeLinear and DequantizeLinear (opset 19: float8, opset 21: int4 and blocks); float8
rounding, Micikevicius et al. 2022, arXiv:2209.05433, table 1.
"""

from collections.abc import Callable
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor

LARGEST_E4M3 = 448.0
INT4 = (-8, 7)


@torch.library.custom_op("compress::quantize_float8", mutates_args=())
def quantize_float8(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """x / scale as E4M3, nearest with ties to even, saturated at +-448.

    Args:
        x: any shape, float32.
        scale: a scalar, > 0.
        zero: a scalar 0 of type float8_e4m3fn; ONNX reads the type from it.
    """
    return (x / scale).clamp(-LARGEST_E4M3, LARGEST_E4M3).to(torch.float8_e4m3fn)


@torch.library.custom_op("compress::dequantize_float8", mutates_args=())
def dequantize_float8(codes: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
    """codes * scale, float32.

    Args:
        codes: float8_e4m3fn, any shape.
        scale: a scalar, or one per index of `axis`.
        zero: zeros of type float8_e4m3fn in the scale's shape.
        axis: the channel dimension; without meaning for a scalar scale.
    """
    return codes.to(torch.float32) * _along(scale, axis, codes.dim())


@torch.library.custom_op("compress::dequantize_int4", mutates_args=())
def dequantize_int4(codes: Tensor, scale: Tensor, axis: int, block: int) -> Tensor:
    """codes * scale, float32; each run of `block` codes along `axis` has one scale.

    Args:
        codes: int8 holding -8..7, any shape.
        scale: the codes' shape with `axis` divided by `block`.
    """
    return codes.to(torch.float32) * scale.repeat_interleave(block, dim=axis)


@quantize_float8.register_fake
def _quantized(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    return torch.empty_like(x, dtype=torch.float8_e4m3fn)


@dequantize_float8.register_fake
def _dequantized(codes: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
    return torch.empty_like(codes, dtype=torch.float32)


@dequantize_int4.register_fake
def _dequantized_blocks(codes: Tensor, scale: Tensor, axis: int, block: int) -> Tensor:
    return torch.empty_like(codes, dtype=torch.float32)


def _along(scale: Tensor, axis: int, dimensions: int) -> Tensor:
    return scale if scale.dim() == 0 else scale.reshape([-1 if dim == axis else 1 for dim in range(dimensions)])


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Torch operator -> what writes it in ONNX, for `torch.onnx.export(custom_translation_table=...)`."""
    from onnxscript import opset19, opset21

    def to_float8(x: Any, scale: Any, zero: Any) -> Any:
        return opset19.QuantizeLinear(x, scale, zero)

    def from_float8(codes: Any, scale: Any, zero: Any, axis: int) -> Any:
        return opset19.DequantizeLinear(codes, scale, zero, axis=axis)

    def from_int4(codes: Any, scale: Any, axis: int, block: int) -> Any:
        four: Any = opset21.Cast(codes, to=TensorProto.INT4)
        return opset21.DequantizeLinear(four, scale, axis=axis, block_size=block)

    return {
        torch.ops.compress.quantize_float8.default: to_float8,
        torch.ops.compress.dequantize_float8.default: from_float8,
        torch.ops.compress.dequantize_int4.default: from_int4,
    }
