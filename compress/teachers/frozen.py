"""A trained network that no longer changes."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.contracts.stages import Stage
from compress.contracts.teacher import Teacher
from compress.privileged import told
from compress.taps import Taps, detached, observe


class FrozenTeacher(Teacher):
    """Always in eval mode, never with gradients; its parameters stop requiring them.

    Args:
        module: raw inputs -> outputs.
        taps: submodules of `module` whose outputs are in `Signals.taps` under the same names.
        fingerprint: changes whenever the weights do; see `teachers.fingerprints.of_module`.
        privileged: what `module` takes behind the inputs, by its names in `Batch.extras` and `Batch.common`.

    Raises:
        RecipeError: a tap names no submodule.
    """

    def __init__(
        self, module: nn.Module, *, taps: Sequence[str] = (), fingerprint: str, privileged: Sequence[str] = ()
    ) -> None:
        self._module = module.eval().requires_grad_(False)
        self._taps = Taps(module, taps)
        self._fingerprint = fingerprint
        self._privileged = tuple(privileged)

    @property
    def cacheable(self) -> bool:
        return True

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def observe(self, batch: Batch) -> Signals:
        """Outputs and taps as float32, whatever precision the pass itself ran in.

        Raises:
            TaskError: the batch lacks a privileged input.
        """
        self._module.eval()  # whoever moves `modules()` about may also have called .train()
        with torch.no_grad():
            return detached(observe(self._module, told(batch, self._privileged), self._taps))

    @property
    def stages(self) -> Mapping[str, Stage]:
        return self._taps.stages

    def modules(self) -> Mapping[str, nn.Module]:
        return {"network": self._module}

    def close(self) -> None:
        """Remove the taps' hooks from the network."""
        self._taps.close()
