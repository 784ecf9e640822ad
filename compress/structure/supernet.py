"""A network whose edges are mixtures of operations, and how a discrete one is read off it.

Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv:1806.09055: the mixture is
equation 2, discretisation section 2.4, and the batch norm without factor and offset appendix A.1.1.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compress.structure.cell_network import (
    NONE,
    SKIP,
    CellNetwork,
    Nodes,
    Size,
    Skeleton,
    added,
    edges_of,
    operation,
    parts,
)

PER_NODE = 12  # ways to wire one node that are combined with those of the others
ALPHA_SPREAD = 1e-3  # of the first architecture parameters, as in DARTS' own code


class MixedCell(nn.Module):
    """Every operation on every edge. `edges.<earlier>_<node>.<operation>` are its modules."""

    def __init__(self, operations: Sequence[str], nodes: int, channels: int, size: Size) -> None:
        super().__init__()
        self.operations = tuple(operations)
        self.nodes = nodes
        self.edges = nn.ModuleDict(
            {
                f"{source}_{node}": nn.ModuleDict(
                    {
                        name: operation(name, channels, size, affine=False)
                        for name in operations
                        if name not in (NONE, SKIP)
                    }
                )
                for source, node in edges_of(nodes)
            }
        )

    def forward(self, x: Tensor, mixing: Tensor) -> Tensor:
        """x: (B, channels, H, W); mixing: (E, O) weights of the operations on each edge -> the shape of x."""
        values = [x]
        rows = iter(mixing)
        for node in range(1, self.nodes + 1):
            terms = [self.mixed(f"{source}_{node}", values[source], next(rows)) for source in range(node)]
            values.append(torch.relu(added(terms)))
        return added(values[1:])

    def mixed(self, edge: str, x: Tensor, weights: Tensor) -> Tensor:
        """One edge: sum over operations of weight times operation; "none" gives zero."""
        modules = self.edges[edge]
        assert isinstance(modules, nn.ModuleDict)
        terms = [
            weight * (x if name == SKIP else modules[name](x))
            for name, weight in zip(self.operations, weights, strict=True)
            if name != NONE
        ]
        return added(terms)


class Supernet(nn.Module):
    """All cells of one skeleton mixed by one table of architecture parameters; no batch norm has factor or offset.

    Attributes:
        alpha: (E, O), row e for edge `edges_of(nodes)[e]`; all cells share it. The mixture is softmax(alpha, dim=1).
    """

    def __init__(
        self,
        skeleton: Skeleton,
        shape: Sequence[int],
        outputs: int,
        operations: Sequence[str],
        nodes: int = 3,
        cell: Callable[[Sequence[str], int, int, Size], nn.Module] = MixedCell,
    ) -> None:
        """Weights and `alpha` (normal, deviation 1e-3) come from torch's current seed.

        Args:
            nodes: later ones of each cell.
            cell: another form of cell than the one that is deployed, for experiments: made from (operations, nodes,
                channels, size), it takes (x, mixing). `discretised` knows `MixedCell` alone.

        Raises:
            ValueError: fewer than two operations, or none that a discrete network can have.
        """
        super().__init__()
        if len(set(operations)) < 2 or set(operations) <= {NONE}:
            raise ValueError(f"a mixture of {list(operations)} leaves nothing to choose")
        self.skeleton, self.shape, self.outputs = skeleton, tuple(shape), outputs
        self.operations, self.nodes = tuple(operations), nodes
        self.signal = len(self.shape) == 2
        made = parts(skeleton, shape, outputs, lambda c, size: cell(operations, nodes, c, size), affine=False)
        self.stem, self.stages, self.head = made.stem, made.stages, made.head
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.alpha = nn.Parameter(ALPHA_SPREAD * torch.randn(len(edges_of(nodes)), len(self.operations)))

    def weights(self) -> list[nn.Parameter]:
        """All parameters but `alpha`."""
        return [parameter for parameter in self.parameters() if parameter is not self.alpha]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, L) -> (B, outputs)."""
        if self.signal:
            x = x.unsqueeze(2)
        mixing = torch.softmax(self.alpha, dim=1)
        x = self.stem(x)
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            for layer in stage:
                x = layer(x) if isinstance(layer, nn.Sequential) else layer(x, mixing)  # a reduction, or a cell
        output: Tensor = self.head(self.flatten(self.pool(x)))
        return output


def genotypes(alpha: Tensor, operations: Sequence[str], keep: int = 2, count: int = 1) -> list[Nodes]:
    """The most probable discrete cells, the first being the derived one.

    A discrete cell keeps, of every node, the `keep` edges (or all there are) whose strongest operation other than
    "none" has the largest share of the softmax; "none" counts in the softmax. It is scored by the product of its
    operations' shares; the following ones have the next best products (proposed; among the best `PER_NODE` ways to
    wire each node).

    Args:
        alpha: (E, O) as `Supernet.alpha`.
        keep: edges per node; as many as nodes leave all in.
        count: how many to give; fewer come where there are no more.
    """
    shares = torch.log_softmax(alpha.detach().double().cpu(), dim=1)
    real = [place for place, name in enumerate(operations) if name != NONE]
    nodes = round((math.sqrt(8 * len(alpha) + 1) - 1) / 2)
    rows = {edge: shares[place] for place, edge in enumerate(edges_of(nodes))}
    per_node: list[list[tuple[float, tuple[tuple[int, str], ...]]]] = []
    for node in range(1, nodes + 1):
        ways = []
        for sources in itertools.combinations(range(node), min(keep, node)):
            ranked = [sorted(((float(rows[s, node][o]), s, o) for o in real), key=_strongest) for s in sources]
            for chosen in itertools.product(*(edge[: count + 1] for edge in ranked)):
                kept = tuple((source, operations[place]) for _, source, place in chosen)
                ways.append((sum(share for share, _, _ in chosen), kept))
        ways.sort(key=lambda way: -way[0])
        per_node.append(ways[: min(PER_NODE, count + 1)])
    cells = [
        (sum(share for share, _ in ways), tuple(kept for _, kept in ways)) for ways in itertools.product(*per_node)
    ]
    cells.sort(key=lambda cell: -cell[0])
    return [cell for _, cell in cells[:count]]


def _strongest(operation_share: tuple[float, int, int]) -> tuple[float, int]:
    return (-operation_share[0], operation_share[2])


def discretised(supernet: Supernet, nodes: Nodes) -> CellNetwork:
    """The plain network of these cells with the supernet's weights and batch statistics, nothing trained anew.

    Its batch norms have no factor and offset either; it is in the supernet's mode.
    """
    state = supernet.state_dict()
    with torch.random.fork_rng(devices=[]):
        plain = CellNetwork(supernet.skeleton, nodes, supernet.shape, supernet.outputs, affine=False)
    chosen = {f"{source}_{node}": name for node, kept in enumerate(nodes, 1) for source, name in kept}
    taken: dict[str, Tensor] = {}
    for key in plain.state_dict():
        before, found, rest = key.partition(".edges.")
        if found:
            edge, _, inner = rest.partition(".")
            taken[key] = state[f"{before}.edges.{edge}.{chosen[edge]}.{inner}"]
        else:
            taken[key] = state[key]
    plain.load_state_dict(taken)
    return plain.to(supernet.alpha.device).train(supernet.training)


def entropy(alpha: Tensor) -> float:
    """Mean over edges of the mixture's entropy in nats: log O at first, 0 where every edge has decided."""
    log_p = torch.log_softmax(alpha.detach().double(), dim=1)
    return float(-(log_p.exp() * log_p).sum(dim=1).mean())


def skips(nodes: Nodes) -> int:
    """How many kept edges are wires."""
    return sum(name == SKIP for kept in nodes for _, name in kept)
