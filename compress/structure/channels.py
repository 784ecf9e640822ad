"""Channels that can only be removed together, found by tracing.

Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023, arXiv:2301.12900, sections 3.2 (which layers
depend on each other) and 3.3 (importance of a coupled channel is the sum over its layers). The tracing is
Torch-Pruning's; what it finds is kept here as plain positions, so that a thousand students need one trace.
"""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
BatchNorm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
InstanceNorm = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
Mixing = (nn.LayerNorm, nn.GroupNorm)
"""Layers whose statistics run over channels: removing one changes the others' values."""


@dataclass(frozen=True)
class Slice:
    """Where a group's channels lie in one dimension of one layer's tensors.

    Attributes:
        layer: module name.
        tensors: its parameters and buffers that have the dimension, with the dimension's number.
        positions: (channels, positions per channel): a flattened map gives several to one channel.
        consumes: the layer reads the channels (its input side) rather than writing or passing them.
    """

    layer: str
    tensors: tuple[tuple[str, int], ...]
    positions: Tensor
    consumes: bool


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that stay or go together across layers.

    Attributes:
        name: of its first layer.
        channels: how many there are.
        sections: equal, consecutive parts of which the same number must stay (GroupNorm's groups).
        slices: all places.
        order: the channels, the most important first, (channels,) int64.
        mixes: the statistics of some layer (LayerNorm, GroupNorm) run over them.
    """

    name: str
    channels: int
    sections: int
    slices: tuple[Slice, ...]
    order: Tensor
    mixes: bool

    def kept(self, width: int) -> Tensor:
        """Positions of the `width` channels that stay, ascending; the same number from each section."""
        each = self.channels // self.sections
        part = torch.div(self.order, each, rounding_mode="floor")
        stay = [self.order[part == section][: width // self.sections] for section in range(self.sections)]
        return torch.cat(stay).sort().values


@dataclass(frozen=True)
class Coupling:
    """Groups whose width can be chosen, and why the others' cannot."""

    groups: tuple[ChannelGroup, ...]
    whole: Mapping[str, str]  # first layer -> reason


def calls_of(network: nn.Module, features: Tensor) -> Counter[str]:
    """How often each module runs in one forward pass; a module under two names counts under its first."""
    calls: Counter[str] = Counter()
    hooks = []
    for name, module in network.named_modules():

        def count(_module: nn.Module, _inputs: Any, _output: Any, name: str = name) -> None:
            calls[name] += 1

        hooks.append(module.register_forward_hook(count))
    try:
        with torch.no_grad():
            network(features)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def find_groups(network: nn.Module, features: Tensor) -> Coupling:
    """Trace `network` and sort its channels into groups.

    Args:
        network: in eval mode, every parameter with requires_grad (tracing follows gradients). It is not changed.
        features: (B, ...), what it takes.

    Raises:
        Exception: whatever tracing raises on a network it cannot follow; the caller knows what to advise.
    """
    import torch_pruning as tp  # two seconds of import that only this space needs

    names = {module: name for name, module in network.named_modules()}
    place = {name: number for number, name in enumerate(names.values())}
    calls = calls_of(network, features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its guesses about unknown operators are checked by running what we cut
        empty: Any = tp.DependencyGraph  # untyped
        graph = empty().build_dependency(network, example_inputs=features, verbose=False)
    groups: list[ChannelGroup] = []
    whole: dict[str, str] = {}
    done: set[nn.Module] = set()
    roots = [m for m in graph.module2node if isinstance(m, (nn.Linear, *Convolution, *Transposed)) and m in names]
    for module in sorted(roots, key=lambda module: place[names[module]]):
        if module in done:
            continue
        root = names[module]
        pruner = graph.get_pruner_of_module(module)
        channels = pruner.get_out_channels(module)
        try:
            found = graph.get_pruning_group(module, pruner.prune_out_channels, list(range(channels)))
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:  # seen: recurrent layers
            whole[root] = f"where they go could not be followed ({type(error).__name__})"
            continue
        done.update(item.dep.target.module for item in found if graph.is_out_channel_pruning_fn(item.dep.handler))
        reason = None
        slices: list[Slice] = []
        for item in found:
            target = item.dep.target
            if target.type == tp.ops.OPTYPE.OUTPUT:
                reason = "the network's outputs depend on their number"
                break
            if isinstance(target.module, nn.Parameter):
                reason = "a parameter outside any layer has them (position embedding, class token, layer scale)"
                break
            if target.module not in names:  # an operator without weights: addition, reshape, concatenation
                continue
            reason = unsuitable(target.module) or (
                f"{names[target.module]} runs {calls[names[target.module]]} times in one pass"
                if calls[names[target.module]] != 1
                else None
            )
            if reason:
                break
            consumes = not graph.is_out_channel_pruning_fn(item.dep.handler)
            positions = positions_by_channel(item.idxs, item.root_idxs, channels)
            if positions is None:
                reason = f"their places in {names[target.module]} do not follow a regular pattern"
                break
            tensors = tensors_of(target.module, consumes)
            if any(positions.max() >= stored(target.module, name).shape[dim] for name, dim in tensors):
                reason = f"their places in {names[target.module]} do not follow a regular pattern"
                break
            slices.append(Slice(names[target.module], tensors, positions, consumes))
        if reason is None and not any(piece.consumes for piece in slices):
            reason = "nothing reads them: they are the network's outputs"
        if reason is not None:
            whole[root] = reason
            continue
        layers = [network.get_submodule(piece.layer) for piece in slices]
        order = order_of(network, slices, channels)
        mixes = any(isinstance(layer, Mixing) for layer in layers)
        name = min((piece.layer for piece in slices if not piece.consumes), key=place.__getitem__)
        groups.append(ChannelGroup(name, channels, sections_of(layers, channels), tuple(slices), order, mixes))
    return Coupling(tuple(sorted(groups, key=lambda group: place[group.name])), whole)


def unsuitable(module: nn.Module) -> str | None:
    """Why a layer's channels are left alone, or None."""
    kind = type(module).__name__
    if isinstance(module, (*Convolution, *Transposed)):
        if module.groups > 1 and not depthwise(module):
            return f"a grouped convolution ({kind} with {module.groups} groups) has them"
    elif isinstance(module, nn.LayerNorm):
        if len(module.normalized_shape) != 1:
            return "a LayerNorm over several dimensions has them"
    elif isinstance(module, nn.MultiheadAttention):
        return "attention heads share them"
    elif not isinstance(module, (nn.Linear, *BatchNorm, *InstanceNorm, nn.GroupNorm, nn.PReLU)):
        return f"how to cut a {kind} is not known"
    if nn.utils.parametrize.is_parametrized(module) or ("weight" not in module._parameters):
        return f"the weights of a {kind} are computed (parametrised), not stored"
    return None


def depthwise(module: nn.Module) -> bool:
    """One filter per channel."""
    if not isinstance(module, Convolution):
        return False
    return module.groups == module.in_channels == module.out_channels and module.groups > 1


def positions_by_channel(places: Sequence[int], channels_of: Sequence[int | None], channels: int) -> Tensor | None:
    """(channels, places per channel), or None where channels have different numbers of places."""
    if len(places) % channels or any(channel is None for channel in channels_of):
        return None
    rows: list[list[int]] = [[] for _ in range(channels)]
    for place, channel in zip(places, channels_of, strict=True):
        assert channel is not None
        rows[channel].append(place)
    if any(len(row) != len(places) // channels for row in rows):
        return None
    return torch.tensor([sorted(row) for row in rows], dtype=torch.int64)


def tensors_of(module: nn.Module, consumes: bool) -> tuple[tuple[str, int], ...]:
    """Parameters and buffers that have the channels, with the dimension."""
    if isinstance(module, (nn.Linear, *Convolution)) and consumes:
        return (("weight", 1),)
    if isinstance(module, Transposed):
        return (("weight", 0),) if consumes else present(module, (("weight", 1), ("bias", 0)))
    return present(module, (("weight", 0), ("bias", 0), ("running_mean", 0), ("running_var", 0)))


def present(module: nn.Module, tensors: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Those that the module has: a bias may be absent, a PReLU may have one slope for all channels."""
    own = {**module._parameters, **module._buffers}
    return tuple((name, dim) for name, dim in tensors if (t := own.get(name)) is not None and t.shape[dim] > 1)


def stored(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer of the module itself."""
    tensor = {**module._buffers, **module._parameters}[name]
    assert tensor is not None
    return tensor


def sections_of(layers: Sequence[nn.Module], channels: int) -> int:
    """Into how many equal parts the group norms divide the channels."""
    counts = [layer.num_groups for layer in layers if isinstance(layer, nn.GroupNorm) and layer.num_groups < channels]
    return math.lcm(1, *counts)


def order_of(network: nn.Module, slices: Sequence[Slice], channels: int) -> Tensor:
    """Channels by importance: the squared norm of their weights in each layer, relative to that layer's mean, summed
    over the layers. Equal channels keep their order."""
    total = torch.zeros(channels, dtype=torch.float64)
    for piece in slices:
        weight = network.get_submodule(piece.layer)._parameters.get("weight")
        named = dict(piece.tensors)
        if weight is None or "weight" not in named:
            continue
        other = [dim for dim in range(weight.ndim) if dim != named["weight"]]
        squares = weight.detach().to(torch.float64).square()
        norms = squares.sum(dim=other) if other else squares
        share = norms[piece.positions].sum(dim=1)
        total += share / share.mean().clamp_min(1e-12)
    return torch.argsort(total, descending=True, stable=True)
