"""Where ONNX Runtime's CPU provider wants Q/DQ: around every operator, outputs too.

Its optimiser forms QLinearConv, QLinearAdd and their kin only from operators with Q/DQ on all inputs and on the
output; uint8 activations with int8 weights are what its x86 kernels are fast at (u8s8 on VNNI, which also makes a
reduced weight range needless). Source: ONNX Runtime documentation, "Quantize ONNX Models"; measured in both
directions, see the module's tests. The network's output stays float where a product computes it (a Gemm with integer
inputs, and a bias stored as int32, gives it directly) and is quantised where a convolution does.
"""

import torch

from compress.qat import integer_domain
from compress.qat import quantizer as q
from exporters.passes import bias_to_int32, drop_unused
from exporters.rewrite import named


def mark(placement: q.Placement) -> list[q.Site]:
    """Mark one graph; see the module's docstring for the rules."""
    return integer_domain.mark(placement, network_output=False, one_concat_scale=False)


RULES = q.Rules(
    dtype=torch.uint8,
    low_code=0,
    high_code=255,
    symmetric=False,
    mark=mark,
    passes=(named(bias_to_int32), named(drop_unused)),
)
