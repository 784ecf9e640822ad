"""Free sizes of a module's inputs, in the structure that torch.export wants them in."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn


def as_arguments(module: nn.Module, free: Sequence[dict[int, Any]]) -> tuple[Any, ...]:
    """One entry per input, as forward's own parameters take them: those of `*inputs` are one tuple.

    Args:
        free: of each input, axis -> what is free about it.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    kinds = [parameter.kind for parameter in parameters]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(free)
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*free[:named], tuple(free[named:]))
