"""Convolutions whose kernels can be smaller: the outermost weights of the window go, the centre stays.

A convolution whose outer ring of weights is zero reads as many fewer positions as the ring is wide: cutting the ring
off, with as much of the padding, gives the same answers. Only such cuts are offered.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.structure.blocks import passages
from compress.structure.channels import Convolution, Transposed

Kernels = (*Convolution, *Transposed)
SMALLEST_OF_ITS_KIND = 3  # a depthwise kernel of one position is a scale, and a first layer of one sees no neighbours


def reach(module: nn.Module) -> int:
    """The extent of the window along its longest axis, in weights."""
    sizes: tuple[int, ...] = module.kernel_size  # type: ignore[assignment]
    return max(sizes)


def kernel_sizes(module: nn.Module, smallest: int) -> tuple[int, ...]:
    """What a convolution's window can be cut to, ascending; the last is its own.

    An axis that is shorter than the new size stays. Cuts are symmetric, leave no input position unread (the window is
    no smaller than the stride), and there is padding to give back.

    Args:
        module: of `Kernels`.
        smallest: none below this is offered.
    """
    own = reach(module)
    found = [own]
    for size in range(own - 2, smallest - 1, -2):
        if all(shortens(module, axis, size) for axis in range(len(module.kernel_size))):  # type: ignore[arg-type]
            found.insert(0, size)
    return tuple(found)


def shortens(module: Any, axis: int, size: int) -> bool:
    """Whether one axis of the window can be cut to `size`, or is no longer than that anyway."""
    length = module.kernel_size[axis]
    if length <= size:
        return True
    if (length - size) % 2 or module.stride[axis] > size:
        return False
    return isinstance(module.padding, str) or module.padding[axis] >= module.dilation[axis] * (length - size) // 2


def cropped(weight: Tensor, size: int) -> Tensor:
    """The centre of a kernel, (O, I, *window): each axis of the window has at most `size` weights."""
    for dim in range(2, weight.ndim):
        length = weight.shape[dim]
        if length > size:
            weight = weight.narrow(dim, (length - size) // 2, size)
    return weight.clone(memory_format=torch.contiguous_format)


def declare_kernel(module: Any) -> None:
    """Make a convolution's attributes say what its weight is; its padding shrinks with the window."""
    before, after = module.kernel_size, tuple(module.weight.shape[2:])
    lost = [steps * (old - new) for old, new, steps in zip(before, after, module.dilation, strict=True)]
    module.kernel_size = after
    if isinstance(module.padding, str):
        total = [
            steps * (new - 1) if module.padding == "same" else 0
            for new, steps in zip(after, module.dilation, strict=True)
        ]
        sides = [(whole // 2, whole - whole // 2) for whole in total]
    else:
        module.padding = tuple(pad - less // 2 for pad, less in zip(module.padding, lost, strict=True))
        sides = [(pad, pad) for pad in module.padding]
    # What torch derives from the padding once, for the modes that pad before they convolve; the last axis comes first.
    module._reversed_padding_repeated_twice = [side for pair in reversed(sides) for side in pair]


def rimless(network: nn.Module, sizes: Mapping[str, int], features: Tensor) -> Tensor:
    """What `network` answers when the weights that cuts to `sizes` remove are zero. It is left as it was."""
    before: list[tuple[nn.Parameter, Tensor]] = []
    with torch.no_grad():
        try:
            for name, size in sizes.items():
                weight = network.get_submodule(name).get_parameter("weight")
                before.append((weight, weight.detach().clone()))
                centre = torch.zeros_like(weight)
                window = tuple(
                    slice((length - size) // 2, (length - size) // 2 + size) if length > size else slice(None)
                    for length in weight.shape[2:]
                )
                centre[(..., *window)] = 1.0
                weight.mul_(centre)
            answer: Tensor = network(features)
        finally:
            for weight, values in before:
                weight.copy_(values)
    return answer


def candidates(network: nn.Module, features: Tensor) -> dict[str, tuple[int, ...]]:
    """Convolutions with more than one kernel size, by name in the order of definition; nothing is proven yet.

    Args:
        network: in eval mode. It is run, and is the same afterwards.
        features: (B, ...), what it takes.
    """
    ran = passages(network, features)
    owners: dict[int, int] = {}  # a weight that several modules share cannot be cut in one of them
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[str, tuple[int, ...]] = {}
    for name, module in network.named_modules():
        if not isinstance(module, Kernels) or name not in ran:
            continue
        weight = module._parameters.get("weight")
        if weight is None or owners[id(weight)] > 1 or nn.utils.parametrize.is_parametrized(module):
            continue
        first = ran[name].into.shape == features.shape and torch.equal(ran[name].into, features)
        sizes = kernel_sizes(module, SMALLEST_OF_ITS_KIND if first or module.groups > 1 else 1)
        if len(sizes) > 1:
            found[name] = sizes
    return found
