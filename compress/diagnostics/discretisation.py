"""What a supernet loses when its mixtures are replaced by their strongest operations.

Source: Zela et al., "Understanding and Robustifying Differentiable Architecture Search", ICLR 2020, arXiv:1909.09656,
section 4.2: the drop of accuracy by discretisation, which they connect with sharpness.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from compress.structure.cell_network import Nodes
from compress.structure.supernet import Supernet, discretised


@dataclass(frozen=True)
class Discretisation:
    """Scores of both, on the same examples.

    Attributes:
        supernet: with its mixtures.
        discrete: with the chosen operations alone, the same weights and batch statistics, nothing trained anew.
    """

    supernet: float
    discrete: float

    @property
    def gap(self) -> float:
        """How much is lost."""
        return self.supernet - self.discrete


def discretisation(supernet: Supernet, nodes: Nodes, score: Callable[[nn.Module], float]) -> Discretisation:
    """Score the supernet and the network of `nodes` that is read off it.

    Args:
        score: of a network that takes features; higher is better.
    """
    return Discretisation(score(supernet), score(discretised(supernet, nodes)))
