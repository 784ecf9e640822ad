"""torch's table of how its operators are written in ONNX, read once in a process instead of once per export.

`torch.onnx.export` parses the source of some five hundred functions each time it is called. That takes 0.5 s (measured,
torch 2.13), two thirds of what the export of a small network takes, and gives the same table every time. torch offers
no way to keep it, so that this stands in for the constructor; where a version of torch has none of that name, exports
take as long as they ever did.
"""

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import torch

_PLACE = "torch.onnx._internal.exporter._registration"
_kept: dict[int, tuple[frozenset[str], Any]] = {}  # by opset: operators that torch had, and the table of then


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Inside, every table is a copy of the first one for its opset: what an export adds to one is not in the next.

    A package that registers operators (torchao's pairs around codes) changes what is in a table: it is read again then.
    """
    registry = _registry()
    if registry is None:
        yield
        return
    original = registry.__dict__["from_torchlib"]

    def from_torchlib(cls: Any, *arguments: Any, **named: Any) -> Any:
        opset = named.get("opset_version", arguments[0] if arguments else None)
        if cls is not registry or opset is None or len(arguments) + len(named) != 1:
            return original.__get__(None, cls)(*arguments, **named)
        operators = frozenset(torch._C._dispatch_get_all_op_names())
        if opset not in _kept or _kept[opset][0] != operators:
            _kept[opset] = operators, original.__get__(None, cls)(opset_version=opset)
        table = cls()
        table._opset_version = opset
        table.functions = {operator: list(ways) for operator, ways in _kept[opset][1].functions.items()}
        return table

    registry.from_torchlib = classmethod(from_torchlib)
    try:
        yield
    finally:
        registry.from_torchlib = original


def _registry() -> Any:
    """torch's class of tables; None where it is not as it is known here."""
    try:
        registry = importlib.import_module(_PLACE).ONNXRegistry
        table = registry()
    except (ImportError, AttributeError, TypeError):
        return None
    known = isinstance(registry.__dict__.get("from_torchlib"), classmethod) and set(vars(table)) == {
        "_opset_version",
        "functions",
    }
    return registry if known else None
