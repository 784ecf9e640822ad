"""Attention as the operators that it consists of, so that both of its products can be quantised.

Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1; torch.nn.functional.scaled_dot_product_attention.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node, map_arg

aten = torch.ops.aten
ATTENTION = aten.scaled_dot_product_attention.default
# Added where the mask hides a key. Finite in half precision too, so that a row that hides every key gives the mean of
# the values and no NaN (torch's operator gives zeros there).
HIDDEN = -30_000.0


def decompose(graph: GraphModule) -> None:
    """Replace every scaled dot-product attention in place; shapes and module paths of the new nodes are filled in."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target is ATTENTION:
            with graph.graph.inserting_before(node):
                result = _written_out(graph, node)
            node.replace_all_uses_with(result)
            graph.graph.erase_node(node)
    graph.recompile()


def _written_out(graph: GraphModule, node: Node) -> Node:
    """dropout(softmax(scale * query key' + mask)) value."""

    def call(target: Any, *arguments: Any) -> Node:
        made = graph.graph.call_function(target, arguments)
        made.meta = {key: value for key, value in node.meta.items() if key in ("nn_module_stack", "stack_trace")}
        made.meta["val"] = _value(node, target, arguments)
        return made

    query, key, value, mask, dropout, causal, scale, grouped = _arguments(node)
    if grouped:
        key, value = (_repeated(call, query, tensor) for tensor in (key, value))
    width = query.meta["val"].shape[-1]
    scores = call(aten.matmul.default, query, call(aten.transpose.int, key, -2, -1))
    scores = call(aten.mul.Tensor, scores, 1.0 / math.sqrt(width) if scale is None else scale)
    if causal:
        mask = _causal(call, query, key)
    if mask is not None and mask.meta["val"].dtype == torch.bool:
        scores = call(aten.masked_fill.Scalar, scores, call(aten.logical_not.default, mask), HIDDEN)
    elif mask is not None:
        scores = call(aten.add.Tensor, scores, mask)
    weights = call(aten.softmax.int, scores, -1)
    if dropout > 0.0:
        weights = call(aten.dropout.default, weights, dropout, False)
    return call(aten.matmul.default, weights, value)


def _arguments(node: Node) -> tuple[Any, Any, Any, Any, float, bool, float | None, bool]:
    given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), node.args, strict=False))
    given.update(node.kwargs)
    return (
        given["query"],
        given["key"],
        given["value"],
        given.get("attn_mask"),
        float(given.get("dropout_p", 0.0)),  # type: ignore[arg-type]
        bool(given.get("is_causal", False)),
        given.get("scale"),  # type: ignore[return-value]
        bool(given.get("enable_gqa", False)),
    )


def _repeated(call: Callable[..., Node], query: Node, tensor: Node) -> Node:
    """Keys or values that several heads share, once for each head."""
    times = query.meta["val"].shape[-3] // tensor.meta["val"].shape[-3]
    return call(aten.repeat_interleave.self_int, tensor, times, -3) if times > 1 else tensor


def _causal(call: Callable[..., Node], query: Node, key: Node) -> Node:
    """(queries, keys), True where the key is not later than the query."""
    rows, columns = (_positions(call, tensor) for tensor in (query, key))
    return call(aten.le.Tensor, call(aten.unsqueeze.default, columns, 0), call(aten.unsqueeze.default, rows, 1))


def _positions(call: Callable[..., Node], tensor: Node) -> Node:
    size = tensor.meta["val"].shape[-2]
    if not isinstance(size, int):
        size = call(aten.sym_size.int, tensor, tensor.meta["val"].dim() - 2)
    made = call(aten.arange.default, size)
    device = tensor.meta["val"].device
    if device.type != "cpu":
        made.kwargs = {"device": device}
    return made


def _value(node: Node, target: Any, arguments: tuple[Any, ...]) -> Any:
    """What the new node computes, as a fake tensor of the graph's own mode."""
    mode = node.meta["val"].fake_mode
    values = map_arg(arguments, lambda argument: argument.meta["val"])
    with mode:
        return target(*values)


__all__ = ["ATTENTION", "HIDDEN", "decompose"]
