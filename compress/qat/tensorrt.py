"""Where TensorRT wants Q/DQ: on the inputs of what computes, never on outputs "as well".

Sources: NVIDIA TensorRT documentation, "Working with Quantized Types" (explicit quantisation, placement
recommendations) and its ONNX parser's headers. Symmetric only; activations per tensor, -128..127; weights per output
channel, -127..127, stored; biases float. Max-pools, reshapes and slices commute with Q, so the pair stands at the
consumer. Nothing stands between a convolution, its batch norm and its activation.
"""

import torch
from torch.fx import Node

from compress.qat import packed
from compress.qat import quantizer as q

# Depthwise convolutions stay float: the int8 kernel reads its input padded to four times the channels (32 -> 128 in the
# build logs of TensorRT-RTX 1.7 for compute capability 8.0; NVIDIA/TensorRT#2197), so it moves as many bytes as float
# does, in as many kernels, and rounds once more. Set to True for a device where a measurement says otherwise.
DEPTHWISE_INT8 = False
# NVIDIA's placement: only the skip branch carries Q/DQ, so that convolution, add and activation stay one kernel. With a
# pair on both branches the convolution writes int8 first and the add becomes a kernel of its own.
ADD_BOTH_INPUTS = False
# A classifier's last layer is cheap to quantise; a detector's prediction layers are not and should be float_modules.
LAST_LINEAR_INT8 = True


def mark(placement: q.Placement) -> list[q.Site]:
    """Mark one graph; see the module's docstring for the rules."""
    last = _last_linear(placement.nodes)
    sites = []
    for node in placement.nodes:
        if node.target in q.CONVOLUTIONS or node.target is q.LINEAR:
            sites.append(_weighted(placement, node, node is last))
        elif node.target in q.PRODUCTS:
            sites.append(_product(placement, node))
        elif node.target is q.LOOKUP:
            sites.append(placement.table(node))
        elif node.target in q.WITHOUT_INT8:
            sites.append(q.site(node, False, q.WITHOUT_INT8[node.target]))
        elif node.target in q.ADDS:
            _add(placement, node)
        elif node.target is q.CONCAT:
            placement.one_scale(q.tensors(node), node)
        elif node.target in q.AVERAGES or q.is_spatial_mean(node) or _is_gate(node):
            for source in q.tensors(node):
                placement.input(source, node)
    return sites


def _weighted(placement: q.Placement, node: Node, last: bool) -> q.Site:
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, Node)
    if not placement.is_weight(weight):
        return q.site(node, False, "its weight is computed")
    assert isinstance(weight, Node)
    if node.target is not q.LINEAR and q.is_depthwise(node) and not DEPTHWISE_INT8:
        return q.site(node, False, "depthwise: the int8 kernel pads its channels")
    if last and not LAST_LINEAR_INT8:
        return q.site(node, False, "last linear layer")
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


def _add(placement: q.Placement, node: Node) -> None:
    """Quantise the skip branch of a residual add; the branch that a convolution computes is added in its epilogue."""
    sources = q.tensors(node)
    if len(sources) != 2 or any(source.op == "get_attr" for source in sources):
        return
    fused = [source for source in sources if _ends_a_convolution(source)]
    # Where both branches are convolutions (a strided block), the later one runs last and can take the other as input.
    kept = fused[-1] if fused and not ADD_BOTH_INPUTS else None
    order = {candidate: position for position, candidate in enumerate(placement.nodes)}
    if kept is not None and len(fused) == 2:
        kept = max(fused, key=lambda source: order[source])
    for source in sources:
        if source is not kept:
            placement.input(source, node)


def _ends_a_convolution(node: Node) -> bool:
    """A convolution, or the batch norm behind one, that only the add reads."""
    if q.only_reader(node) is None:
        return False
    if node.target is q.BATCH_NORM:
        node = node.all_input_nodes[0]
    return node.target in q.CONVOLUTIONS and q.only_reader(node) is not None


def _is_gate(node: Node) -> bool:
    """A multiply whose second factor is one value per channel (squeeze-excite)."""
    if node.target is not q.MULTIPLY or len(q.tensors(node)) != 2:
        return False
    shapes = [source.meta["val"].shape for source in q.tensors(node)]
    gates = [all(size == 1 for size in shape[2:]) for shape in shapes]
    return len(shapes[0]) == len(shapes[1]) > 2 and gates.count(True) == 1


def _last_linear(nodes: list[Node]) -> Node | None:
    linear = [node for node in nodes if node.target is q.LINEAR]
    return linear[-1] if linear else None


RULES = q.Rules(
    dtype=torch.int8,
    low_code=-128,  # QuantizeLinear saturates at -128, so training does
    high_code=127,
    symmetric=True,
    mark=mark,
    captured=(packed.split,),
)
