"""The linear layers at a network's end: hidden ones that can be left out, and a flattened map that can be averaged.

Two linear layers with something elementwise between them become one whose weights are their product, each hidden unit
scaled by the slope of what is between: of the least-squares line through the origin of its outputs on real features.
Where nothing is between, the product is exact. The slope is proposed.

A linear layer that reads every position of a flattened map reads instead one average per channel, with the weights of a
channel's positions summed (Lin, Chen, Yan, "Network In Network", ICLR 2014, arXiv:1312.4400, section 3.2, average the
maps in place of fully connected layers). The sum gives the same answers wherever a map is constant.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.structure.blocks import Passage, passages
from compress.structure.channels import ChannelGroup, Slice

Pools = {3: nn.AdaptiveAvgPool1d, 4: nn.AdaptiveAvgPool2d, 5: nn.AdaptiveAvgPool3d}


@dataclass(frozen=True)
class Hidden:
    """A linear layer of the head that can be left out.

    Attributes:
        layer: its name.
        reader: the linear layer that reads it.
        between: modules that run between the two and go with it: norms, activations, dropout.
        slope: of what is between, for each unit, (units,).
    """

    layer: str
    reader: str
    between: tuple[str, ...]
    slope: Tensor


@dataclass(frozen=True)
class Pooling:
    """A flattened map that can be averaged.

    Attributes:
        reader: the linear layer that reads the map.
        channels: of the map.
        flatten: the module that flattens it, or None where the network's own code does.
        rank: of the map, (B, C, ...), where a module flattens it.
    """

    reader: str
    channels: int
    flatten: str | None
    rank: int


def readers_of(group: ChannelGroup) -> list[str]:
    """Layers that read the group's channels."""
    return [piece.layer for piece in group.slices if piece.consumes]


def find_hidden(network: nn.Module, groups: Sequence[ChannelGroup], features: Tensor) -> tuple[Hidden, ...]:
    """Hidden linear layers of the head, first to last: each is read by the next, the last by the last layer of all.

    Args:
        network: in eval mode. It is run, and is the same afterwards.
        groups: of its channels, coupled as tracing found them.
        features: (B, ...), what it takes.
    """
    ran = passages(network, features)
    order = execution(network, features)
    ran_last = [name for name in order if isinstance(network.get_submodule(name), nn.Linear) and flat(ran.get(name))]
    by_reader = {readers_of(group)[0]: group for group in groups if len(readers_of(group)) == 1}
    found: list[Hidden] = []
    reader = ran_last[-1] if ran_last else ""
    while reader in by_reader:
        group = by_reader[reader]
        layer = group.name
        writers = [piece.layer for piece in group.slices if not piece.consumes]
        linear = [name for name in writers if isinstance(network.get_submodule(name), nn.Linear)]
        if linear != [layer] or not flat(ran.get(layer)) or group.channels != ran[reader].into.shape[1]:
            break
        start, end = order.index(layer), order.index(reader)
        between = tuple(
            name
            for name in order[start + 1 : end]
            if not any(True for _ in network.get_submodule(name).children())
            and name in ran
            and ran[name].into.shape == ran[layer].out.shape == ran[name].out.shape
        )
        found.insert(0, Hidden(layer, reader, between, slope(ran[layer].out, ran[reader].into)))
        reader = layer
    return tuple(found)


def flat(passage: Passage | None) -> bool:
    """Whether one vector per example went in and came out."""
    return passage is not None and passage.into.dim() == 2 and passage.out.dim() == 2


def execution(network: nn.Module, features: Tensor) -> list[str]:
    """Names of the modules in the order in which they end, each at its first call."""
    ended: dict[str, None] = {}
    hooks = []
    for name, module in network.named_modules():

        def note(_module: nn.Module, _inputs: Any, _output: Any, name: str = name) -> None:
            ended.setdefault(name)

        hooks.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            network(features)
    finally:
        for hook in hooks:
            hook.remove()
    return list(ended)


def slope(before: Tensor, after: Tensor) -> Tensor:
    """The factor that takes `before` nearest to `after`, unit by unit: sum(before after) / sum(before^2); 1 where
    `before` is zero.

    Args:
        before, after: (B, units).

    Returns:
        (units,)
    """
    power = before.square().sum(dim=0)
    return torch.where(power > 0, (before * after).sum(dim=0) / power.clamp_min(1e-30), torch.ones_like(power))


def find_pooling(network: nn.Module, groups: Sequence[ChannelGroup], features: Tensor) -> Pooling | None:
    """The flattened map that a linear layer reads position by position, or None. Nothing is proven yet."""
    ran = passages(network, features)
    for group in groups:
        for piece in group.slices:
            positions = piece.positions
            if not piece.consumes or positions.shape[1] == 1 or not flat(ran.get(piece.layer)):
                continue
            if not torch.equal(positions.flatten(), torch.arange(positions.numel())):
                continue
            if ran[piece.layer].into.shape[1] != positions.numel() or len(readers_of(group)) != 1:
                continue
            flattens = [
                name
                for name, module in network.named_modules()
                if isinstance(module, nn.Flatten)
                and name in ran
                and ran[name].into.dim() in Pools
                and torch.equal(ran[name].out, ran[piece.layer].into)
            ]
            if len(flattens) == 1:
                return Pooling(piece.layer, group.channels, flattens[0], ran[flattens[0]].into.dim())
            return Pooling(piece.layer, group.channels, None, 0)
    return None


def reads_averages(network: nn.Module, pooling: Pooling, features: Tensor) -> Tensor:
    """What `network` answers when each channel's positions have been replaced by their average in front of the head."""

    def average(_module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        maps = inputs[0].reshape(len(inputs[0]), pooling.channels, -1)
        return maps.mean(dim=2, keepdim=True).expand_as(maps).flatten(1)

    hook = network.get_submodule(pooling.reader).register_forward_pre_hook(average)
    try:
        with torch.no_grad():
            answer: Tensor = network(features)
    finally:
        hook.remove()
    return answer


def with_head(network: nn.Module, removed: Sequence[Hidden], pooling: Pooling | None) -> nn.Module:
    """The network without some hidden layers; where `pooling` is given, its head takes averages, which `pool` must
    then be told to make.

    All other layers share their tensors with `network`, which is not changed.

    Args:
        removed: layers that go, first to last.
        pooling: or None, to read all positions.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    changed = copy.deepcopy(network, memo)
    with torch.no_grad():
        for hidden in removed:
            first, last = (changed.get_submodule(name) for name in (hidden.layer, hidden.reader))
            assert isinstance(first, nn.Linear)
            assert isinstance(last, nn.Linear)
            scaled = last.weight * hidden.slope.to(last.weight)
            bias = None if first.bias is None else scaled @ first.bias
            if last.bias is not None:
                bias = last.bias.clone() if bias is None else bias + last.bias
            put(changed, hidden.reader, linear(scaled @ first.weight, bias, last.weight.requires_grad))
            for name in (hidden.layer, *hidden.between):
                put(changed, name, nn.Identity())
        if pooling is not None:
            name = reader_without(pooling.reader, removed)
            last = changed.get_submodule(name)
            assert isinstance(last, nn.Linear)
            summed = last.weight.reshape(last.out_features, pooling.channels, -1).sum(dim=2)
            bias = None if last.bias is None else last.bias.clone()
            put(changed, name, linear(summed, bias, last.weight.requires_grad))
    return changed


def linear(weight: Tensor, bias: Tensor | None, trainable: bool) -> nn.Linear:
    """A linear layer of these weights, (O, I) and (O,)."""
    layer = nn.Linear(1, 1, bias=False, device="meta")  # nothing is drawn that the weights replace
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight, trainable)
    if bias is not None:
        layer.bias = nn.Parameter(bias, trainable)
    return layer


def put(network: nn.Module, name: str, module: nn.Module) -> None:
    """Replace a submodule."""
    parent, _, own = name.rpartition(".")
    network.get_submodule(parent)._modules[own] = module


def reader_without(layer: str, removed: Sequence[Hidden]) -> str:
    """The layer that reads what `layer` read, once hidden layers are gone."""
    for hidden in removed:
        if hidden.layer == layer:
            layer = hidden.reader
    return layer


def pool(network: nn.Module, pooling: Pooling, removed: Sequence[Hidden]) -> None:
    """Put the average in front of a head that takes averages; `network` is changed.

    In place of a flattening module a global average keeps the map's axes, as kernels of all runtimes want it; elsewhere
    the head takes the vector apart again.
    """
    name = reader_without(pooling.reader, removed)
    if pooling.flatten is not None:
        put(network, pooling.flatten, nn.Sequential(Pools[pooling.rank](1), nn.Flatten()))
        return
    head = network.get_submodule(name)
    assert isinstance(head, nn.Linear)
    apart = nn.Unflatten(1, (head.in_features, -1, 1))
    put(network, name, nn.Sequential(apart, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head))


def rewired(
    groups: Sequence[ChannelGroup], removed: Sequence[Hidden], pooling: Pooling | None
) -> tuple[ChannelGroup, ...]:
    """The channel groups as they lie once hidden layers are gone and the head reads averages."""
    gone = {hidden.layer for hidden in removed}
    kept: list[ChannelGroup] = []
    for group in groups:
        if any(piece.layer in gone and not piece.consumes for piece in group.slices):
            continue
        slices: list[Slice] = []
        for piece in group.slices:
            positions = piece.positions
            if pooling is not None and piece.consumes and piece.layer == pooling.reader:
                positions = torch.arange(group.channels).unsqueeze(1)
            layer = reader_without(piece.layer, removed) if piece.consumes else piece.layer
            slices.append(replace(piece, layer=layer, positions=positions))
        kept.append(replace(group, slices=tuple(slices)))
    return tuple(kept)
