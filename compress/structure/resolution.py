"""Features at a lower resolution: neighbours are averaged before the network sees them.

Source: a network's cost falls with the square of the resolution of an image, and accuracy falls slowly (Howard et al.,
"MobileNets", 2017, arXiv:1704.04861, section 3.4, resolution multiplier). Averaging as the way down is proposed: it
needs no weights, every runtime has it in int8, and its outputs lie in the range of its inputs.
"""

from torch import Tensor, nn
from torch.nn import functional as F

SHRINKS = (2, 4)  # positions that become one along each axis
SMALLEST = 4  # an axis is not reduced below this many positions


def windows(shape: tuple[int, ...], shrink: int) -> tuple[int, ...]:
    """Positions averaged along each axis of one example's features, (C, H, W), (C, L) or (L,); 1 for short axes."""
    return tuple(shrink if size >= SMALLEST * shrink else 1 for size in (shape[1:] if len(shape) > 1 else shape))


def averaged(features: Tensor, window: tuple[int, ...]) -> Tensor:
    """(B, C, H, W), (B, C, L) or (B, L) -> the same with floor(size / window) positions along each axis."""
    if len(window) == 2:
        return F.avg_pool2d(features, window)
    if features.dim() == 2:
        return F.avg_pool1d(features.unsqueeze(1), window).squeeze(1)
    return F.avg_pool1d(features, window)


class Averaging:
    """Averages what a module is given. A hook: the module and all in it keep their names, which recipes tap."""

    def __init__(self, window: tuple[int, ...]) -> None:
        self.window = window

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The module's inputs, the first one averaged."""
        return (averaged(inputs[0], self.window), *inputs[1:])


def at_lower_resolution(network: nn.Module, shape: tuple[int, ...], shrink: int) -> nn.Module:
    """Let `network` see features of `shape` (one example's) averaged; it is changed and returned."""
    if shrink > 1:
        network.register_forward_pre_hook(Averaging(windows(shape, shrink)))
    return network
