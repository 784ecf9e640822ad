"""What a node's neighbours say, and how they differ: losses over the edges of a graph.

Source: Wu, Lin, Huang, Fan, Li, "Extracting Low-/High-Frequency Knowledge from Graph Neural Networks and Injecting it
into MLPs: An Effective GNN-to-MLP Distillation Framework", AAAI 2023, arXiv:2305.10758, as its official code computes
them (LirongWu/FF-G2M): KL divergences over classes, averaged over edges, without the factor of temperature squared.
"""

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.graphs import INSIDE, LOOPS
from compress.terms import positive_temperature

FIX = "train on a stream of graphs: the data strategy 'graph_edges' of a task whose extras have a stream 'graph'"


def low_frequency(student: Tensor, teacher: Tensor, pairs: Tensor) -> Tensor:
    """KL(teacher at the target || student at the source) of each pair: a node learns what its neighbourhood says.

    Its minimum over all edges and loops is at the mean of the teacher's probabilities over the closed neighbourhood.

    Args:
        student: logits, (N, C).
        teacher: logits, (N, C). No gradient flows into them.
        pairs: (2, P) int64, (source, target): all edges, and every node with itself.

    Returns:
        (P,) nats, >= 0.
    """
    log_p = teacher.detach().log_softmax(dim=1)
    log_q = student.log_softmax(dim=1)
    # A row of the entropies and one product for each pair: three gathers of (P, C) less than pair by pair.
    p = log_p.exp()
    entropy = (p * log_p).sum(dim=1)
    sources, targets = pairs
    return entropy[targets] - (p[targets] * log_q[sources]).sum(dim=1)


def high_frequency(student: Tensor, teacher: Tensor, edges: Tensor, temperature: float) -> Tensor:
    """KL between the patterns of absolute differences along each edge, softened over classes.

    Signs and absolute classes do not enter, so this alone teaches hardly anything; a loop has no difference, and its
    divergence of 0 would only dilute the mean.

    Args:
        student: logits, (N, C), not probabilities: adding a number to all classes of one node changes the loss.
        teacher: logits, (N, C). No gradient flows into them.
        edges: (2, E) int64, without loops.
        temperature: > 0, dimensionless.

    Returns:
        (E,) nats, >= 0.
    """
    theirs = teacher.detach()
    log_p = ((theirs[edges[0]] - theirs[edges[1]]).abs() / temperature).log_softmax(dim=1)
    log_q = ((student[edges[0]] - student[edges[1]]).abs() / temperature).log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


class LowFrequency(Objective):
    """`low_frequency` of all edges inside a batch and of its nodes with themselves."""

    batch_wide = True

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(E + N,) nats.

        Raises:
            RecipeError: the batch has no edges.
        """
        edges, loops = _common(batch, INSIDE), _common(batch, LOOPS)
        return low_frequency(student.output, teacher.output, torch.cat([edges, loops.expand(2, -1)], dim=1))


class HighFrequency(Objective):
    """`high_frequency` of all edges inside a batch.

    Args:
        temperature: > 0; the paper's `tau`, 1.0 to 1.5 in its configurations.

    Raises:
        RecipeError: the temperature is not positive.
    """

    batch_wide = True

    def __init__(self, temperature: float = 1.5) -> None:
        super().__init__()
        self.temperature = positive_temperature("high_frequency", temperature, 1.5)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(E,) nats; one 0 where no two nodes of the batch are connected.

        Raises:
            RecipeError: the batch knows no edges.
        """
        edges = _common(batch, INSIDE)
        if edges.shape[1] == 0:
            return student.output.sum().reshape(1) * 0.0
        return high_frequency(student.output, teacher.output, edges, self.temperature)


def _common(batch: Batch, name: str) -> Tensor:
    if name not in batch.common:
        raise RecipeError(f"a loss over edges met a batch without {name!r}", fix=FIX)
    return batch.common[name]
