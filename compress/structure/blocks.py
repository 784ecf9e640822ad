"""Blocks that can be left out of a network: input and output have the same shape and something carries on without them.

Which blocks those are is found by running the network, not by reading class names: a block is residual when its answer
still follows its input after every weight in it (norms aside) has been set to zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.structure.channels import BatchNorm, InstanceNorm, Mixing, calls_of

MOST_SHARE = 0.75  # of all weights: what holds more is the network, not a block of it

Norms = (*BatchNorm, *InstanceNorm, *Mixing)


@dataclass(frozen=True)
class Passage:
    """What went into a module and came out of it, where both are one tensor."""

    into: Tensor
    out: Tensor


def passages(network: nn.Module, features: Tensor) -> Mapping[str, Passage]:
    """Every module that ran with one tensor in and one out, in the order of definition."""
    seen: dict[str, Passage] = {}
    hooks = []
    for name, module in network.named_modules():

        def record(_module: nn.Module, inputs: Any, named: Any, output: Any, name: str = name) -> None:
            if len(inputs) == 1 and not named and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                seen[name] = Passage(inputs[0].detach().clone(), output.detach())

        hooks.append(module.register_forward_hook(record, with_kwargs=True))
    try:
        with torch.no_grad():
            network(features)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: seen[name] for name, _ in network.named_modules() if name in seen}


def residual(block: nn.Module, into: Tensor) -> bool:
    """Whether the block's answer follows its input when its own weights are zero. The block is left as it was."""
    outside_norms = [
        parameter
        for module in block.modules()
        if not isinstance(module, Norms)
        for parameter in module.parameters(recurse=False)
    ]
    before = [parameter.detach().clone() for parameter in outside_norms]
    with torch.no_grad():
        try:
            for parameter in outside_norms:
                parameter.zero_()
            # The other input has other values everywhere, some of them positive whatever comes before.
            answers = (block(into), block(into.abs().flip(dims=(-1,)) + 1.0))
        finally:
            for parameter, values in zip(outside_norms, before, strict=True):
                parameter.copy_(values)
    return not torch.equal(*answers)


def find_blocks(network: nn.Module, features: Tensor) -> tuple[str, ...]:
    """Names of the modules that can be replaced by the identity, in the order of definition; none lies in another.

    They are residual modules (a stage that consists of several gives these, a block with a gate inside counts as one),
    and such repeated modules of an `nn.Sequential` as follow one of the same class and keep the shape (the equal blocks
    of a MobileNet).

    Args:
        network: in eval mode. It is run, and is the same afterwards.
        features: (B, ...), what it takes.
    """
    calls = calls_of(network, features)
    ran = passages(network, features)
    candidates = {
        name: module
        for name, module in network.named_modules()
        if name
        and name in ran
        and calls[name] == 1
        and any(True for _ in module.children())
        and any(True for _ in module.parameters())
        and ran[name].into.shape == ran[name].out.shape
        and weights(module) <= MOST_SHARE * weights(network)
    }
    skipping = [name for name, module in candidates.items() if residual(module, ran[name].into)]
    blocks = outermost([name for name in skipping if len(outermost(inside(name, skipping))) <= 1])
    for name in candidates:
        parent, _, own = name.rpartition(".")
        line = network.get_submodule(parent)
        if not isinstance(line, nn.Sequential) or any(related(name, block) for block in blocks):
            continue
        children = dict(line.named_children())
        keys = list(children)
        place = keys.index(own)
        if place > 0 and type(children[keys[place - 1]]) is type(children[own]):
            blocks.append(name)
    order = {name: place for place, (name, _) in enumerate(network.named_modules())}
    return tuple(sorted(blocks, key=order.__getitem__))


def weights(module: nn.Module) -> int:
    """Parameters, each counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def inside(name: str, others: Sequence[str]) -> list[str]:
    """Those of `others` that lie in the module `name`."""
    return [other for other in others if other.startswith(name + ".")]


def outermost(names: Sequence[str]) -> list[str]:
    """Those that lie in none of the others."""
    return [name for name in names if not any(name.startswith(other + ".") for other in names)]


def related(one: str, other: str) -> bool:
    """Whether a module is the other or lies in it."""
    return one == other or one.startswith(other + ".") or other.startswith(one + ".")
