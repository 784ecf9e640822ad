"""Reading what happens inside a network."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compress.catalog import suggestion
from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.errors import RecipeError


class Taps:
    """Records the outputs of named submodules at every forward pass, until closed.

    A module that is called several times in one pass leaves its last output; one that gives a tuple or a mapping
    (a recurrent layer) leaves the first tensor in it. A deep copy of the network is not recorded.

    Args:
        module: the network; names are relative to it.
        names: as `module.named_modules()` says them.

    Raises:
        RecipeError: a name is not a submodule; says which there are.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        there = dict(module.named_modules())
        there.pop("", None)
        for name in names:
            if name not in there:
                listed = ", ".join(there) if len(there) <= MANY else f"{', '.join(list(there)[:MANY])}, ..."
                raise RecipeError(
                    f"{type(module).__name__} has no module called {name!r}; there are {listed or 'none'}",
                    fix=suggestion(name, list(there), otherwise="name one of these modules"),
                )
        self._seen: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for name in dict.fromkeys(names):
            self._handles.append(there[name].register_forward_hook(_Recorder(name, self._seen)))
        self._names = tuple(dict.fromkeys(names))

    @property
    def names(self) -> tuple[str, ...]:
        """What is recorded, in the order asked for."""
        return self._names

    def read(self) -> dict[str, Tensor]:
        """Outputs by name since the last `read`, which are then forgotten so that no graph outlives its step.

        Raises:
            RecipeError: a tapped module was not called.
        """
        missing = [name for name in self._names if name not in self._seen]
        if missing:
            self._seen.clear()
            raise RecipeError(
                f"the tapped module {missing[0]!r} was not called in the forward pass",
                fix="tap a module that every forward pass calls",
            )
        values = {name: self._seen[name] for name in self._names}
        self._seen.clear()
        return values

    def close(self) -> None:
        """Remove the hooks. A second call does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._seen.clear()

    def __enter__(self) -> "Taps":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


MANY = 60
"""Module names that an error lists before it stops."""


def observe(module: nn.Module, batch: Batch, taps: Taps) -> Signals:
    """Run `module` on a batch's inputs and collect what it says.

    A tuple's first tensor is the output and the rest are `others` by position ("1", "2", ...); a mapping's first value
    is the output and the rest keep their names.
    """
    answer = module(*batch.inputs)
    values = taps.read() if taps.names else {}
    if isinstance(answer, Tensor):
        return Signals(answer, taps=values)
    named = _named_tensors(answer)
    if not named:
        raise RecipeError(
            f"{type(module).__name__} gave {type(answer).__name__}, not a tensor",
            fix="let forward() return a tensor, a tuple of tensors or a mapping of tensors",
        )
    first, *rest = named
    return Signals(named[first], {name: named[name] for name in rest}, values)


def detached(signals: Signals) -> Signals:
    """The same answers without gradients, floating-point ones as float32, whatever precision the pass ran in."""
    return Signals(
        _plain(signals.output),
        {name: _plain(value) for name, value in signals.others.items()},
        {name: _plain(value) for name, value in signals.taps.items()},
    )


def _plain(value: Tensor) -> Tensor:
    return value.detach().to(torch.float32) if value.is_floating_point() else value.detach()


class _Recorder:
    """The forward hook of one module."""

    def __init__(self, name: str, seen: dict[str, Tensor]) -> None:
        self._name = name
        self._seen = seen

    def __call__(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self._seen[self._name] = output
            return
        tensors = _named_tensors(output)
        if tensors:
            self._seen[self._name] = next(iter(tensors.values()))

    def __deepcopy__(self, memo: Any) -> "_Recorder":
        # A copy of the network (an average of it, say) must neither write here nor carry our activations along.
        return _Recorder(self._name, {})


def _named_tensors(answer: Any) -> dict[str, Tensor]:
    if isinstance(answer, Mapping):
        return {str(name): value for name, value in answer.items() if isinstance(value, Tensor)}
    if isinstance(answer, tuple | list):
        return {str(place): value for place, value in enumerate(answer) if isinstance(value, Tensor)}
    return {}
