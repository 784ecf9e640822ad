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
from compress.contracts.stages import Stage, read_stage
from compress.errors import RecipeError
from compress.structure.stages import feature, find_stages


class Taps:
    """Records the outputs of named submodules at every forward pass, until closed.

    A module that is called several times in one pass leaves its last output; one that gives a tuple or a mapping
    (a recurrent layer) leaves the first tensor in it. A deep copy of the network is not recorded.

    Names that `contracts.stages.stage` makes are looked for when the first inputs are known (`find`); their features
    are (B, channels, positions ...) whatever the network's family. Names for one end share one tensor.

    Args:
        module: the network; names are relative to it.
        names: as `module.named_modules()` says them, or of stages.

    Raises:
        RecipeError: a name is not a submodule; says which there are.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self._module = module
        self._stages: dict[str, Stage] = {}
        self._shared: dict[str, str] = {}  # name of a stage -> an earlier name for the same end
        self._sought = [name for name in dict.fromkeys(names) if read_stage(name) is not None]
        there = dict(module.named_modules())
        there.pop("", None)
        for name in names:
            if name not in there and name not in self._sought:
                listed = ", ".join(there) if len(there) <= MANY else f"{', '.join(list(there)[:MANY])}, ..."
                raise RecipeError(
                    f"{type(module).__name__} has no module called {name!r}; there are {listed or 'none'}",
                    fix=suggestion(name, list(there), otherwise="name one of these modules"),
                )
        self._seen: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for name in dict.fromkeys(names):
            if name not in self._sought:
                self._handles.append(there[name].register_forward_hook(_Recorder(name, self._seen)))
        self._names = tuple(dict.fromkeys(names))

    @property
    def stages(self) -> Mapping[str, Stage]:
        """What `find` found, by the name asked for."""
        return dict(self._stages)

    def find(self, inputs: Sequence[Tensor]) -> None:
        """Look for the stages that are asked for by number, by running the network once; a second call does nothing.

        Args:
            inputs: of the network, (B, ...) each.

        Raises:
            RecipeError: the network has none.
        """
        for name in self._sought:
            number, of = read_stage(name) or (1, 1)
            found = find_stages(self._module, inputs, of)[number - 1]
            same = next((other for other, end in self._stages.items() if end.module == found.module), None)
            self._stages[name] = found
            if same is not None:
                self._shared[name] = self._shared.get(same, same)
                continue
            recorder = _Recorder(name, self._seen, found)
            self._handles.append(self._module.get_submodule(found.module).register_forward_hook(recorder))
        self._sought = []
        self._seen.clear()

    @property
    def names(self) -> tuple[str, ...]:
        """What is recorded, in the order asked for."""
        return self._names

    def read(self) -> dict[str, Tensor]:
        """Outputs by name since the last `read`, which are then forgotten so that no graph outlives its step.

        Raises:
            RecipeError: a tapped module was not called.
        """
        self._seen |= {name: self._seen[of] for name, of in self._shared.items() if of in self._seen}
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
        self._sought = []

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
    taps.find(batch.inputs)
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

    def __init__(self, name: str, seen: dict[str, Tensor], stage: Stage | None = None) -> None:
        self._name = name
        self._seen = seen
        self._stage = stage

    def __call__(self, module: nn.Module, arguments: Any, output: Any) -> None:
        tensors = {"": output} if isinstance(output, Tensor) else _named_tensors(output)
        if tensors:
            found = next(iter(tensors.values()))
            self._seen[self._name] = found if self._stage is None else feature(found, self._stage)

    def __deepcopy__(self, memo: Any) -> "_Recorder":
        # A copy of the network (an average of it, say) must neither write here nor carry our activations along.
        return _Recorder(self._name, {}, self._stage)


def _named_tensors(answer: Any) -> dict[str, Tensor]:
    if isinstance(answer, Mapping):
        return {str(name): value for name, value in answer.items() if isinstance(value, Tensor)}
    if isinstance(answer, tuple | list):
        return {str(place): value for place, value in enumerate(answer) if isinstance(value, Tensor)}
    return {}
