"""Where TensorRT wants float8 Q/DQ: on the inputs of convolutions and products, on Ada, Hopper and later.

Sources: NVIDIA TensorRT documentation, "Working with Quantized Types" (FP8 is E4M3, symmetric, per tensor for
activations); measured with TensorRT-RTX 1.7: for compute capability 8.9 and 12.0 convolutions and matrix products with
such pairs become FP8 kernels, with scales per tensor or per channel of the weight alike; 8.0 and 8.6 refuse them.

Additions and pools are not marked: nothing says that they gain, and a pair there rounds once more.
"""

import torch
from torch.fx import Node

from compress.qat import quantizer as q
from compress.qat.float8 import Float8Activation, Float8WeightPerChannel
from compress.qat.rounding import Rounding
from exporters.torch_operators import LARGEST_E4M3


def mark(placement: q.Placement) -> list[q.Site]:
    """Mark one graph; see the module's docstring for the rules."""
    sites = []
    for node in placement.nodes:
        if node.target in q.CONVOLUTIONS or node.target is q.LINEAR:
            sites.append(_weighted(placement, node))
        elif node.target in q.PRODUCTS:
            sites.append(_product(placement, node))
        elif node.target is q.LOOKUP:
            sites.append(q.site(node, False, "a table lookup multiplies nothing"))
        elif node.target in q.WITHOUT_INT8:
            sites.append(q.site(node, False, q.WITHOUT_INT8[node.target].replace("int8", "fp8")))
    return sites


def _weighted(placement: q.Placement, node: Node) -> q.Site:
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, Node)
    if not placement.is_weight(weight):
        return q.site(node, False, "its weight is computed")
    assert isinstance(weight, Node)
    if node.target is not q.LINEAR and q.is_depthwise(node):
        return q.site(node, False, "depthwise: one product per value, nothing for a tensor core")
    placement.input(source, node)
    placement.weight(weight, node, axis=0)
    return q.site(node, True)


def _product(placement: q.Placement, node: Node) -> q.Site:
    for position, source in enumerate(q.tensors(node)):
        if placement.is_weight(source):
            if position != 1 or source.meta["val"].dim() != 2:
                return q.site(node, False, "its constant is not a matrix on the right")
            placement.weight(source, node, axis=1)
        else:
            placement.input(source, node)
    return q.site(node, True)


RULES = q.Rules(
    dtype=torch.float8_e4m3fn,
    low_code=-int(LARGEST_E4M3),
    high_code=int(LARGEST_E4M3),
    symmetric=True,
    mark=mark,
    ships="fp8",
    least_opset=19,
    rounding=Rounding(Float8Activation, Float8WeightPerChannel),
)
