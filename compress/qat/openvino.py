"""Where OpenVINO's CPU plugin wants Q/DQ: on the inputs of what computes.

Its low-precision transformations move every dequantisation behind the operator that it feeds, so pairs stand on inputs:
activations uint8 with a zero point, weights int8 per output channel, both inputs of an addition, concatenations with
one scale. Pools and clamps commute. An output is quantised by the pair of whatever reads it.
Source: OpenVINO documentation, "OpenVINO Low Precision Transformations"; measured on the compiled models' runtime
graphs with OpenVINO 2026.4: every convolution and linear layer of six networks reads u8. Transposed convolutions stay
float there, and so do the products of attention, which the plugin compiles into one f32 Subgraph per block.
"""

import torch
from torch.fx import Node

from compress.qat import quantizer as q


def mark(placement: q.Placement) -> list[q.Site]:
    """Mark one graph; see the module's docstring for the rules."""
    sites = []
    for node in placement.nodes:
        if node.target in q.CONVOLUTIONS or node.target is q.LINEAR:
            sites.append(_weighted(placement, node))
        elif node.target in q.PRODUCTS:
            sites.append(_product(placement, node))
        elif node.target is q.LOOKUP:
            sites.append(placement.table(node))
        elif node.target in q.WITHOUT_INT8:
            sites.append(q.site(node, False, q.WITHOUT_INT8[node.target]))
        elif node.target in q.ADDS or node.target is q.MULTIPLY:
            _both(placement, node)
        elif node.target is q.CONCAT:
            placement.one_scale(q.tensors(node), node)
        elif node.target in q.AVERAGES or q.is_spatial_mean(node):
            placement.input(node.all_input_nodes[0], node)
    return sites


def _weighted(placement: q.Placement, node: Node) -> q.Site:
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, Node)
    if not placement.is_weight(weight):
        return q.site(node, False, "its weight is computed")
    assert isinstance(weight, Node)
    placement.input(source, node)
    placement.weight(weight, node, axis=0)
    return q.site(node, True)


def _product(placement: q.Placement, node: Node) -> q.Site:
    sources = q.tensors(node)
    if len(sources) != 2:
        return q.site(node, False, "it multiplies a tensor with itself")
    left, right = sources
    if placement.is_weight(left) or (placement.is_weight(right) and right.meta["val"].dim() != 2):
        return q.site(node, False, "its constant is not a matrix on the right")
    placement.input(left, node)
    if placement.is_weight(right):
        placement.weight(right, node, axis=1)
    else:
        placement.input(right, node)
    return q.site(node, True)


def _both(placement: q.Placement, node: Node) -> None:
    """Both inputs of an addition or product of two computed tensors of real numbers."""
    sources = q.tensors(node)
    if len(sources) != 2 or any(s.op == "get_attr" or not s.meta["val"].is_floating_point() for s in sources):
        return
    for source in sources:
        placement.input(source, node)


RULES = q.Rules(dtype=torch.uint8, low_code=0, high_code=255, symmetric=False, mark=mark)
