"""Networks of equal cells: a stem, stages of cells with a halving convolution between them, an average, a linear layer.

A cell is a small graph. Node 0 is its input; each later node is the ReLU of a sum of operations on earlier nodes; the
cell's output is the sum of all later nodes. So nothing in a cell is ever unused, "skip" is a wire, an edge that is not
kept is not there, and what remains are convolutions whose batch norm folds, pools, and sums.

Sources: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv:1806.09055, section 2.1
(nodes and edges, two kept edges per node); Dong and Yang, "NAS-Bench-201", ICLR 2020, arXiv:2001.00326, section 2.1
(one input per cell, fixed reductions between stages). Departures, for int8 kernels (proposed): the ReLU stands behind
the sum, where runtimes fuse it into the last convolution; nodes are added, not concatenated, which would need one
scale for all; a separable convolution is applied once; pools have no batch norm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from compress.structure.convnets import reduced
from compress.structure.layers import SMALLEST_MAP

NONE, SKIP = "none", "skip"
WEIGHTLESS = (NONE, SKIP, "max_3x3", "average_3x3")
CONVOLUTIONS = (
    "conv_1x1",
    "conv_3x3",
    "dilated_3x3",
    "separable_3x3",
    "separable_5x5",
    "dilated_separable_3x3",
)
OPERATIONS = (*WEIGHTLESS, *CONVOLUTIONS)

Nodes = tuple[tuple[tuple[int, str], ...], ...]
"""For each later node its kept edges as (earlier node, operation), sorted by node. Every node has at least one."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Skeleton:
    """Everything of a network but its cells' inside.

    Attributes:
        stem_stride: reduction by the first convolution, a power of two; along a short axis it is less.
        channels: of the first stage; every further stage has twice as many and half the positions.
        cells: of each stage.
    """

    stem_stride: int
    channels: int
    cells: tuple[int, ...]


def edges_of(nodes: int) -> tuple[tuple[int, int], ...]:
    """All edges (earlier node, node) of a cell with that many later nodes: by node, then by earlier node."""
    return tuple((source, node) for node in range(1, nodes + 1) for source in range(node))


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    size: Size,
    *,
    stride: Size = (1, 1),
    dilation: int = 1,
    groups: int = 1,
    affine: bool = True,
) -> nn.Sequential:
    """Convolution with batch norm; axes of one position get a kernel of one.

    Args:
        size: (height, width) of what comes in, which decides the kernel along each axis.
        affine: whether the batch norm has a factor and an offset.
    """
    wide = [kernel if positions > 1 else 1 for positions in size]
    reach = [dilation if positions > 1 else 1 for positions in size]
    padding = [d * (k // 2) for d, k in zip(reach, wide, strict=True)]
    layer = nn.Conv2d(
        inputs,
        outputs,
        (wide[0], wide[1]),
        stride,
        (padding[0], padding[1]),
        (reach[0], reach[1]),
        groups,
        bias=False,
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(outputs, affine=affine))


def operation(name: str, channels: int, size: Size, affine: bool = True) -> nn.Module:
    """One operation that keeps the shape (B, channels, *size).

    Raises:
        ValueError: "none" and "skip" are no modules; or there is no such operation.
    """
    window = tuple(3 if positions > 1 else 1 for positions in size)
    padding = tuple(k // 2 for k in window)
    if name == "max_3x3":
        return nn.MaxPool2d((window[0], window[1]), 1, (padding[0], padding[1]))
    if name == "average_3x3":
        return nn.AvgPool2d((window[0], window[1]), 1, (padding[0], padding[1]), count_include_pad=False)
    if name in ("conv_1x1", "conv_3x3", "dilated_3x3"):
        kernel = 1 if name == "conv_1x1" else 3
        return convolution(
            channels, channels, kernel, size, dilation=2 if name.startswith("dilated") else 1, affine=affine
        )
    if name in ("separable_3x3", "separable_5x5", "dilated_separable_3x3"):
        depthwise = convolution(
            channels,
            channels,
            5 if name == "separable_5x5" else 3,
            size,
            dilation=2 if name.startswith("dilated") else 1,
            groups=channels,
            affine=affine,
        )
        return nn.Sequential(depthwise, nn.ReLU(), convolution(channels, channels, 1, size, affine=affine))
    raise ValueError(f"no operation {name!r}; there are {', '.join(OPERATIONS)}")


class Cell(nn.Module):
    """The kept edges alone. `edges.<earlier>_<node>` are its operations."""

    def __init__(self, nodes: Nodes, channels: int, size: Size, affine: bool = True) -> None:
        super().__init__()
        self.nodes = nodes
        self.edges = nn.ModuleDict(
            {
                f"{source}_{node}": operation(name, channels, size, affine)
                for node, kept in enumerate(nodes, 1)
                for source, name in kept
                if name != SKIP
            }
        )
        # Stem, pools and sums of what is not negative are not negative: only convolutions need a ReLU behind them.
        self.relus = nn.ModuleDict(
            {
                str(node): nn.ReLU()
                for node, kept in enumerate(nodes, 1)
                if any(name in CONVOLUTIONS for _, name in kept)
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        values = [x]
        for node, kept in enumerate(self.nodes, 1):
            terms = [
                values[source] if name == SKIP else self.edges[f"{source}_{node}"](values[source])
                for source, name in kept
            ]
            total = added(terms)
            values.append(self.relus[str(node)](total) if str(node) in self.relus else total)
        return added(values[1:])


def added(terms: Sequence[Tensor]) -> Tensor:
    """Their sum, from left to right."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@dataclass(frozen=True)
class Parts:
    """Modules of a network of cells: stem, then all layers of all stages (a stage after the first begins with its
    reduction), then the head."""

    stem: nn.Sequential
    stages: nn.Sequential
    head: nn.Linear


def parts(
    skeleton: Skeleton,
    shape: Sequence[int],
    outputs: int,
    cell: Callable[[int, Size], nn.Module],
    affine: bool = True,
) -> Parts:
    """What networks of cells have in common, with `cell(channels, size)` for each cell.

    Args:
        shape: of one example's features, (C, H, W) or (C, L).
        outputs: of the linear layer.
    """
    height, width = (1, shape[1]) if len(shape) == 2 else (shape[1], shape[2])
    stride = (reduced(height, skeleton.stem_stride), reduced(width, skeleton.stem_stride))
    # Each position is seen by about four windows, whatever the stride.
    kernel = max(3, 2 * max(stride) - 1)
    stem = nn.Sequential(
        convolution(shape[0], skeleton.channels, kernel, (height, width), stride=stride, affine=affine), nn.ReLU()
    )
    height, width = -(-height // stride[0]), -(-width // stride[1])
    stages: list[nn.Module] = []
    channels = skeleton.channels
    for number, count in enumerate(skeleton.cells):
        layers: list[nn.Module] = []
        if number:
            stride = (2 if height >= SMALLEST_MAP else 1, 2 if width >= SMALLEST_MAP else 1)
            halve = convolution(channels, 2 * channels, 3, (height, width), stride=stride, affine=affine)
            layers.append(nn.Sequential(halve, nn.ReLU()))
            channels *= 2
            height, width = -(-height // stride[0]), -(-width // stride[1])
        layers += [cell(channels, (height, width)) for _ in range(count)]
        stages.append(nn.Sequential(*layers))
    return Parts(stem, nn.Sequential(*stages), nn.Linear(channels, outputs))


class CellNetwork(nn.Module):
    """One discrete student. `stem`, `stages.0`, `stages.1`, ... and `head` are its taps."""

    def __init__(
        self, skeleton: Skeleton, nodes: Nodes, shape: Sequence[int], outputs: int, affine: bool = True
    ) -> None:
        super().__init__()
        self.signal = len(shape) == 2
        made = parts(skeleton, shape, outputs, lambda channels, size: Cell(nodes, channels, size, affine), affine)
        self.stem, self.stages = made.stem, made.stages
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = made.head

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, L) -> (B, outputs)."""
        if self.signal:
            x = x.unsqueeze(2)
        output: Tensor = self.head(self.flatten(self.pool(self.stages(self.stem(x)))))
        return output
