"""Recurrent layers of any length, while a torch module is captured as a graph.

torch finds the shapes that a recurrent layer gives by running it step by step, which fixes the number of steps in
the graph. Here only the shapes are computed: they follow from those of the input.

Source: the definitions of torch.nn.LSTM and torch.nn.GRU (shapes of outputs).
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import global_decomposition_table

aten = torch.ops.aten
_KEYS = (torch._C.DispatchKey.CompositeImplicitAutograd, torch._C.DispatchKey.Autograd)


def _lstm(
    x: Tensor,
    hx: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    width = hx[0].shape[2] * (2 if bidirectional else 1)
    return x.new_empty((*x.shape[:2], width)), torch.empty_like(hx[0]), torch.empty_like(hx[1])


def _gru(
    x: Tensor,
    hx: Tensor,
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]:
    return x.new_empty((*x.shape[:2], hx.shape[2] * (2 if bidirectional else 1))), torch.empty_like(hx)


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Inside, tracing an LSTM or GRU computes shapes only, so that their length stays free. Never run a network here:
    its recurrent layers would give numbers without meaning.
    """
    with _kernel(aten.lstm.input, _lstm), _kernel(aten.gru.input, _gru):
        yield


@contextlib.contextmanager
def _kernel(operator: Any, shapes: Callable[..., Any]) -> Iterator[None]:
    """Swap what torch's tracing calls for an operator, as torch.export's own patches for recurrent layers do."""
    table = global_decomposition_table["post_autograd"]
    known, kernels = table.get(operator), {key: operator.py_kernels.get(key) for key in _KEYS}
    table[operator] = shapes
    for key in _KEYS:
        operator.py_kernels[key] = shapes
    operator._dispatch_cache.clear()  # else what was traced before decides
    try:
        yield
    finally:
        _restore(table, operator, known)
        for key, kernel in kernels.items():
            _restore(operator.py_kernels, key, kernel)
        operator._dispatch_cache.clear()


def _restore(table: Any, key: Any, value: Any) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
