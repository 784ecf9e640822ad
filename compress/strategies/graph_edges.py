"""All nodes of a graph with the edges between them; of a large graph, a draw of its edges for each step.

Source: full batches as in LirongWu/FF-G2M; that large graphs are trained on drawn edges is proposed.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.errors import RecipeError
from compress.graphs import EDGES, FEATURES, INSIDE, KNOWN, LOOPS, STREAM, UNKNOWN


class GraphEdges(DataStrategy):
    """One stream, "graph", in the order of its nodes: a batch is as large as the graph, so that no edge is cut.

    A batch with more edges than `edges` is cut down to as many, drawn anew for every step, with the nodes at their ends
    and those whose label is known. Of the loops the same share is kept, so that means over edges and loops weigh both
    as the whole graph does.

    Args:
        edges: that a step sees at most, both directions counted.

    Raises:
        RecipeError: fewer than one.
    """

    def __init__(self, edges: int = 100_000) -> None:
        if edges < 1:
            raise RecipeError(f"a step of {edges} edges", fix="give distill.strategy.edges a positive number")
        self._edges = edges

    @property
    def streams(self) -> Mapping[str, float]:
        return {STREAM: 1.0}

    @property
    def deterministic(self) -> bool:
        return True  # nodes are left out, and never changed: a teacher's answers may be cached

    def order(self, stream: str, length: int, clock: Clock, generator: torch.Generator) -> Tensor:
        """As they are: a shuffled full batch is the same batch."""
        return torch.arange(length)

    def transform(
        self,
        batches: Mapping[str, Batch],
        teachers: Mapping[str, Teacher],
        clock: Clock,
        generator: torch.Generator,
    ) -> Mapping[str, Batch]:
        """
        Raises:
            RecipeError: the batch is smaller than the graph, whose edges it would cut.
        """
        return {name: self._cut(batch, generator) for name, batch in batches.items()}

    def _cut(self, batch: Batch, generator: torch.Generator) -> Batch:
        edges = batch.common[INSIDE]
        count = edges.shape[1]
        if FEATURES in batch.common and len(batch) < (nodes := len(batch.common[FEATURES])):
            raise RecipeError(
                f"a batch holds {len(batch)} of the graph's {nodes} nodes, and {count} of its "
                f"{batch.common[EDGES].shape[1]} edges",
                fix=f"give distill.batch_size {nodes} or more; where that is too much, let distill.strategy.edges draw",
            )
        if count <= self._edges:
            return batch
        drawn = edges[:, torch.randint(count, (self._edges,), generator=generator).to(edges.device)]
        return drawn_part(batch, drawn, self._edges / count, generator)


def drawn_part(batch: Batch, edges: Tensor, share: float, generator: torch.Generator) -> Batch:
    """The part of a batch that some of its edges need.

    Args:
        edges: (2, e) places in the batch.
        share: of the batch's edges, in (0, 1]: so many of its loops are drawn.

    Returns:
        the nodes at the edges' ends, the drawn loops and all nodes with known labels, with edges and loops by place.
    """
    loops = torch.randperm(len(batch), generator=generator)[: max(1, round(share * len(batch)))].to(edges.device)
    wanted = torch.zeros(len(batch), dtype=torch.bool, device=edges.device)
    wanted[edges.flatten()] = True
    wanted[loops] = True
    if KNOWN in batch.extras:
        wanted |= batch.extras[KNOWN] != UNKNOWN
    kept = wanted.nonzero().flatten()
    place = torch.full((len(batch),), -1, device=edges.device)
    place[kept] = torch.arange(len(kept), device=edges.device)
    return replace(
        batch,
        inputs=tuple(tensor[kept] for tensor in batch.inputs),
        labels=None if batch.labels is None else batch.labels[kept],
        index=batch.index[kept.to(batch.index.device)],
        extras={name: tensor[kept] for name, tensor in batch.extras.items()},
        common={**batch.common, INSIDE: place[edges], LOOPS: place[loops]},
    )
