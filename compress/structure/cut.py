"""A smaller copy of a network: chosen channels, blocks and kernel rims are left out, what stays keeps its weights."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.structure.channels import (
    BatchNorm,
    ChannelGroup,
    Convolution,
    InstanceNorm,
    Transposed,
    stored,
)
from compress.structure.kernels import cropped, declare_kernel


def cut(
    network: nn.Module,
    groups: Sequence[ChannelGroup],
    widths: Mapping[str, int],
    dropped: Sequence[str],
    trainable: bool,
    kernels: Mapping[str, int] | None = None,
) -> nn.Module:
    """The network with fewer channels and blocks and smaller kernels, in training mode; `network` is not changed.

    Args:
        network: where the weights come from.
        groups: whose channels may go.
        widths: channels that stay, by group name; all of a group that is not named.
        dropped: modules that become the identity.
        trainable: every floating-point parameter of the copy gets a gradient; otherwise each is as in `network`.
        kernels: extent of the window that stays, by convolution; the whole window of one that is not named.
    """
    gone: dict[tuple[str, str, int], list[Tensor]] = {}
    for group in groups:
        width = widths.get(group.name, group.channels)
        if width == group.channels:
            continue
        removed = torch.ones(group.channels, dtype=torch.bool)
        removed[group.kept(width)] = False
        for piece in group.slices:
            for tensor, dim in piece.tensors:
                gone.setdefault((piece.layer, tensor, dim), []).append(piece.positions[removed].flatten())

    # What deepcopy finds in its memo it takes instead of copying: sliced tensors, identities for dropped blocks.
    memo: dict[int, Any] = {id(network.get_submodule(name)): nn.Identity() for name in dropped}
    sliced: dict[tuple[str, str], Tensor] = {}
    for (layer, tensor, dim), positions in gone.items():
        at = (layer, tensor)
        earlier = sliced.get(at)  # along its other dimension
        values = stored(network.get_submodule(layer), tensor).detach() if earlier is None else earlier
        stays = torch.ones(values.shape[dim], dtype=torch.bool)
        stays[torch.cat(positions)] = False
        sliced[at] = values.index_select(dim, stays.nonzero().flatten())
    for layer, size in (kernels or {}).items():
        at = (layer, "weight")
        values = sliced.get(at, stored(network.get_submodule(layer), "weight").detach())
        sliced[at] = cropped(values, size)
    for (layer, name), part in sliced.items():
        whole = stored(network.get_submodule(layer), name)
        memo[id(whole)] = nn.Parameter(part, whole.requires_grad) if isinstance(whole, nn.Parameter) else part

    smaller = copy.deepcopy(network, memo)
    for layer in {layer for layer, _ in sliced}:
        if not any(layer == block or layer.startswith(block + ".") for block in dropped):
            declare_sizes(smaller.get_submodule(layer))
            if layer in (kernels or {}):
                declare_kernel(smaller.get_submodule(layer))
    if trainable:
        for parameter in smaller.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    return smaller.train()


def declare_sizes(module: nn.Module) -> None:
    """Make a layer's attributes say what its tensors are."""
    if isinstance(module, Convolution):
        module.out_channels = module.weight.shape[0]
        if module.groups > 1:  # depthwise: the only grouped one that is cut
            module.groups = module.in_channels = module.out_channels
        else:
            module.in_channels = module.weight.shape[1]
    elif isinstance(module, Transposed):
        module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1]
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, (*BatchNorm, *InstanceNorm)):
        module.num_features = next(t for t in (module.weight, module.running_mean) if t is not None).shape[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (module.weight.shape[0],)
    elif isinstance(module, nn.GroupNorm):
        if module.num_groups == module.num_channels:
            module.num_groups = module.weight.shape[0]
        module.num_channels = module.weight.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]
