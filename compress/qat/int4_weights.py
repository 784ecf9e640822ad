"""Weights of linear layers and products in four bits, activations in float: for models that weights keep waiting.

Sources: NVIDIA TensorRT documentation, "Working with Quantized Types" (INT4 is weight-only, blocked along the input
axis); ONNX Runtime documentation, MatMulNBits. Convolutions keep float weights: no runtime here has such kernels.
"""

import torch
from torch.fx import Node

from compress.qat import quantizer as q
from compress.qat.blocks import BLOCKS, BlockedWeightPerChannel, block_of
from compress.qat.fake_quantize import ObservedActivation
from compress.qat.rounding import Rounding


def mark(placement: q.Placement) -> list[q.Site]:
    """Mark one graph; see the module's docstring for the rules."""
    sites = []
    for node in placement.nodes:
        if node.target is q.LINEAR:
            sites.append(_weight(placement, node, axis=0))
        elif node.target in q.PRODUCTS:
            sites.append(_weight(placement, node, axis=1))
        elif node.target in q.CONVOLUTIONS or node.target is q.LOOKUP or node.target in q.WITHOUT_INT8:
            sites.append(q.site(node, False, "no kernel with four-bit weights"))
    return sites


def _weight(placement: q.Placement, node: Node, axis: int) -> q.Site:
    weight = q.tensors(node)[1] if len(q.tensors(node)) > 1 else None
    if weight is None or not placement.is_weight(weight) or weight.meta["val"].dim() != 2:
        return q.site(node, False, "its weight is computed, or no matrix")
    inputs = int(weight.meta["val"].shape[1 - axis])
    if block_of(inputs) is None:
        return q.site(node, False, f"{inputs} inputs are no multiple of {min(BLOCKS)}, the smallest block")
    placement.weight(weight, node, axis=axis)
    return q.site(node, True)


RULES = q.Rules(
    dtype=torch.int8,
    low_code=-128,
    high_code=127,
    symmetric=True,
    mark=mark,
    ships="int4",
    least_opset=21,
    rounding=Rounding(ObservedActivation, BlockedWeightPerChannel),
)
