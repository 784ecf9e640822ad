"""Marks for runtimes that compute whole operators in integers: every tensor between two operators is quantised.

Shared by the x86 and the Cortex-M rules. An operator's inputs carry the scale of whatever computed them; its output is
quantised once, after the batch norm and the clamp that fold into it. Source: Jacob et al. 2018, arXiv:1712.05877,
section 3 and figure 1.1 (placement), appendix A.2 and A.3 (add and concatenation).
"""

from torch.fx import Node

from compress.qat import quantizer as q

_TAKE_CODES = frozenset({*q.CONVOLUTIONS, q.LINEAR, *q.PRODUCTS, q.CONCAT, *q.AVERAGES, *q.CURVES, *q.CLAMPS})


def mark(placement: q.Placement, *, network_output: bool, one_concat_scale: bool) -> list[q.Site]:
    """Mark one graph in topological order.

    Args:
        placement: the graph's marks.
        network_output: quantise what the network returns too, and what nothing reads as codes. What a convolution
            computes is quantised in any case: there are no integer convolutions with a float output.
        one_concat_scale: give all inputs of a concatenation and its output one scale, so that codes are only copied.
            Otherwise each keeps its own, and the kernel looks new codes up: then the ReLU in front of an input still
            folds into its convolution, which a zero point that another input's negative values need would forbid.

    Returns:
        The weighted operators and products.
    """
    sites = []
    for node in placement.nodes:
        if node.target in q.CONVOLUTIONS or node.target is q.LINEAR:
            sites.append(_weighted(placement, node, network_output))
        elif node.target in q.PRODUCTS:
            sites.append(_product(placement, node, network_output))
        elif node.target is q.LOOKUP:
            sites.append(placement.table(node))
        elif node.target in q.WITHOUT_INT8:
            sites.append(q.site(node, False, q.WITHOUT_INT8[node.target]))
        elif (node.target in q.ADDS or node.target is q.MULTIPLY) and _both_computed(node):
            for source in q.tensors(node):
                placement.input(source, node)
            _output(placement, q.tail(node, q.CLAMPS), network_output)
        elif node.target is q.CONCAT and one_concat_scale:
            placement.output_like(node, placement.one_scale(q.tensors(node), node))
        elif node.target is q.CONCAT:
            for source in q.tensors(node):
                placement.input(source, node)
            _output(placement, node, network_output)
        elif node.target in q.AVERAGES or q.is_spatial_mean(node):
            # An average spans less than its input does: a scale of its own saves most of the rounding error.
            placement.input(node.all_input_nodes[0], node)
            _output(placement, node, network_output)
        elif node.target in q.CURVES:
            placement.input(node.all_input_nodes[0], node)
            _output(placement, node, network_output)
        elif node.target in q.MAX_POOLS or node.target in q.MOVES:
            source = node.all_input_nodes[0]
            if placement.is_quantized(source):
                placement.input(source, node)
                placement.output_like(node, (source, node))
        elif node.target in q.CLAMPS and not placement.is_quantized(node):
            source = node.all_input_nodes[0]  # a clamp that folds into nothing in front of it
            if placement.is_quantized(source):
                placement.input(source, node)
                _output(placement, node, network_output)
    return sites


def _weighted(placement: q.Placement, node: Node, network_output: bool) -> q.Site:
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, Node)
    assert isinstance(weight, Node)
    if not placement.is_weight(weight):
        return q.site(node, False, "its weight is computed")
    placement.input(source, node)
    placement.weight(weight, node, axis=0)
    _output(placement, q.tail(node, q.CLAMPS), network_output or node.target in q.CONVOLUTIONS)
    return q.site(node, True)


def _product(placement: q.Placement, node: Node, network_output: bool) -> q.Site:
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
    _output(placement, q.tail(node, q.CLAMPS), network_output)
    return q.site(node, True)


def _read_as_codes(node: Node) -> bool:
    """Whether a reader of this tensor takes codes, also through operators that only move them."""
    return any(
        _read_as_codes(reader)
        if reader.target in q.MOVES or reader.target in q.MAX_POOLS or reader.target in q.DROPOUTS
        else reader.target in _TAKE_CODES
        or q.is_spatial_mean(reader)
        or (reader.target in q.ADDS | {q.MULTIPLY} and _both_computed(reader))
        for reader in node.users
    )


def _both_computed(node: Node) -> bool:
    """Two computed tensors of real numbers, not a tensor and a constant."""
    sources = q.tensors(node)
    return len(sources) == 2 and all(
        source.op != "get_attr" and source.meta["val"].is_floating_point() for source in sources
    )


def _output(placement: q.Placement, node: Node, network_output: bool) -> None:
    # Softmax, norms, powers and divisions take numbers, as the caller of the network does, and products and additions
    # can give them: a pair between the two would round scores or an embedding for nothing.
    if network_output or _read_as_codes(node):
        placement.output(node)
