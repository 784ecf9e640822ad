"""Give every quantisation scale a value that runtimes can divide by.

A dead output channel (all its weights are zero, for example after pruning) has scale 0, and TensorRT refuses the whole
model for it; a scale of infinity is accepted silently and gives zeros or NaN. Channels far below the largest one
carry nothing that the output can show.

Requires: scales are constants.
Ensures: every scale is finite and at least 2^-24 of the largest scale of its tensor, and a normal float32. Stored codes
are not changed: an output moves by at most 127 * 2^-24 of the largest scale per weight, by nothing where the codes are
zero.

Raises ExportError for NaN, infinite or negative scales, and for a per-tensor scale of zero: those say that calibration
saw no data, and no floor can mend that.
"""

import numpy as np
from onnx import ModelProto, numpy_helper

from exporters import graph
from exporters.errors import ExportError

LARGEST_CHANGE = 2.0**-16  # relative, of the outputs: 127 * 2^-24 of the largest scale, per weight of a floored channel

RELATIVE_FLOOR = 2.0**-24
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


def apply(model: ModelProto) -> ModelProto:
    """A model whose scales are all usable."""
    model = graph.copy(model)
    known = graph.constants(model.graph)
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[1] not in known:
            continue
        tensor = known[node.input[1]]
        scale = graph.array(tensor)
        values = scale.astype(np.float64)
        if not np.isfinite(values).all() or (values < 0).any():
            raise ExportError(
                f"a quantisation scale of {node.name or node.output[0]!r} is not a finite positive number",
                fix="calibrate again on data without NaN or infinity",
            )
        largest = float(values.max(initial=0.0))
        if largest < SMALLEST_NORMAL:
            if values.size > 1 or node.input[0] in known:
                largest = 1.0  # every channel is dead: all codes are zero, any scale means the same
            else:
                raise ExportError(
                    f"the quantisation scale of {node.name or node.output[0]!r} is zero: its tensor was always zero",
                    fix="calibrate on real data, or leave that tensor in float",
                )
        floor = max(largest * RELATIVE_FLOOR, SMALLEST_NORMAL)
        raised = np.maximum(values, floor).astype(scale.dtype)
        if not np.array_equal(raised, scale):
            tensor.CopyFrom(numpy_helper.from_array(raised, tensor.name))
    return model
