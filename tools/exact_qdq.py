"""A Q/DQ graph computed in float64, so that it equals its fake-quantised network in every code.

In float32 two runtimes add up products in different orders. Now and then a value lies so close to a half that the last
bit decides its code, and in a deep network one such code changes many behind it: a comparison in float32 must allow for
that, and then lets small faults through as well. Sums in float64 leave such flips to about one value in a million, and
what remains is a fault of the graph.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Float = NDArray[np.float64]
CODES = ("QuantizeLinear", "DequantizeLinear")


def _along(values: Any, x: NDArray[Any], axis: int | None) -> Float:
    """Scales or zero points in float64, one for all of `x` or one per position of `axis`."""
    array = np.asarray(values, np.float64)
    if array.size == 1:
        return array.reshape(())
    shape = [1] * x.ndim
    shape[1 if axis is None else axis] = -1
    return array.reshape(shape)


class QuantizeLinear(OpRun):
    """Codes of float64 values, half to even. The fake quantiser rounds values to float32 first, and so does this."""

    op_domain = ""

    def _run(self, x: Any, scale: Any, zero: Any = None, axis: int | None = None, **_: Any) -> tuple[NDArray[Any]]:
        kind = np.dtype(np.uint8) if zero is None else zero.dtype
        ends = np.iinfo(kind)
        shift = 0.0 if zero is None else _along(zero, x, axis)
        codes = np.rint(x.astype(np.float32) * (1.0 / _along(scale, x, axis)).astype(np.float32))
        return (np.clip(codes + shift, ends.min, ends.max).astype(kind),)


class DequantizeLinear(OpRun):
    """What codes stand for: the float32 product, as every runtime and the fake quantiser have it, kept in float64.

    A sum of two such values takes one of 65,536 values at most. One that lies on a half is then met thousands of times
    in a residual network, so that both sides must have the very same summands.
    """

    op_domain = ""

    def _run(self, x: Any, scale: Any, zero: Any = None, axis: int | None = None, **_: Any) -> tuple[Float]:
        shift = 0.0 if zero is None else _along(zero, x, axis)
        codes = (x.astype(np.float64) - shift).astype(np.float32)
        return ((codes * _along(scale, x, axis).astype(np.float32)).astype(np.float64),)


def answers(path: Path, *features: NDArray[Any]) -> Float:
    """The only output of a graph with per-tensor or per-channel Q/DQ pairs, for its inputs in order; integers stay."""
    model = onnx.load(path)
    scales = {node.input[1] for node in model.graph.node if node.op_type in CODES}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in scales:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in model.graph.node:  # integers become numbers of the width that all others have here
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    evaluator = ReferenceEvaluator(model, new_ops=[QuantizeLinear, DequantizeLinear])
    names = [value.name for value in model.graph.input]
    exact = [values if np.issubdtype(values.dtype, np.integer) else values.astype(np.float64) for values in features]
    (answer,) = evaluator.run(None, dict(zip(names, exact, strict=True)))
    return np.asarray(answer, np.float64)
