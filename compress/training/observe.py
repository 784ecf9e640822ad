"""How the loop asks networks: mixed precision inside, taps collected, answers in float32."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.contracts.stages import Stage
from compress.taps import Taps, observe

Autocast = Callable[[], AbstractContextManager[Any]]


def as_float32(signals: Signals) -> Signals:
    """The same answers in float32: losses are computed in full precision. Integer answers stay what they are."""

    def full(value: Tensor) -> Tensor:
        return value.to(torch.float32) if value.is_floating_point() else value

    return Signals(
        full(signals.output),
        {name: full(value) for name, value in signals.others.items()},
        {name: full(value) for name, value in signals.taps.items()},
    )


class Observer:
    """Runs one network and collects the outputs of the tapped modules.

    Raises:
        RecipeError: a tap names no submodule, or one that the forward pass does not call.
    """

    def __init__(self, module: nn.Module, taps: Iterable[str], autocast: Autocast) -> None:
        self._module, self._autocast = module, autocast
        self._taps = Taps(module, sorted(set(taps)))

    def __call__(self, batch: Batch) -> Signals:
        """The network's answers to a batch, float32."""
        with self._autocast():
            return as_float32(observe(self._module, batch, self._taps))

    @property
    def stages(self) -> Mapping[str, Stage]:
        """Where the stages end that taps asked for; known after the first batch."""
        return self._taps.stages

    def close(self) -> None:
        """Remove the hooks."""
        self._taps.close()
