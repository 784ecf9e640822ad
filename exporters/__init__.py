"""From one file to another: torch to ONNX, ONNX to an engine, C or a bundle; and `load`, which runs any of them.

`exporters.load` is imported when it is asked for, so that importing a builder stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporters.loading import Model, load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'exporters' has no attribute {name!r}")
    return vars(importlib.import_module("exporters.loading"))[name]
