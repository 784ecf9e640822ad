"""Graphs whose nodes are the examples: what a student sees of them, and what only its teacher does.

A student gets a node's own features. Behind them its teacher gets, by the names in `PRIVILEGED`, the node's number and
the graph that it is in. Batches of the stream "graph" also say which of their nodes are connected.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.contracts.batch import Batch

NODE, FEATURES, EDGES = "node", "graph_features", "graph_edges"
PRIVILEGED = (NODE, FEATURES, EDGES)
"""What a teacher takes behind a node's features: its number (B,), the graph's features (N, F) and edges (2, E)."""
STREAM = "graph"
"""Of all nodes, labelled or not."""
INSIDE, LOOPS, KNOWN = "edges", "loops", "known_label"
"""In batches of that stream: edges between places in the batch (2, e), the places (n,), labels (B,), -1 if unknown."""
UNKNOWN = -1


@dataclass(frozen=True)
class Graph:
    """Nodes with features and labels, connected in both directions.

    Attributes:
        features: (N, F) float32, sparse COO and coalesced, as the student's front-end takes them.
        scaled: the same as a graph network takes them.
        labels: (N,) int64, -1 where nobody knows.
        edges: (2, E) int64, (source, target); every edge in both directions, no loops.
        digest: SHA-256 of the content.
    """

    features: Tensor
    scaled: Tensor
    labels: Tensor
    edges: Tensor
    digest: str

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, nodes: Tensor, *, sparse: bool = False) -> Tensor:
        """Features of some nodes, (B, F)."""
        chosen = self.features if _all(nodes, len(self)) else self.features.index_select(0, nodes)
        return chosen if sparse else chosen.to_dense()


def induced(graph: Graph, kept: Tensor) -> Graph:
    """The graph of some nodes alone, renumbered in the order given: all others are gone, and so are their edges.

    What an inductive setting trains on: neither teacher nor student learns that the other nodes exist.

    Args:
        kept: (n,) int64, each node once.
    """
    place = torch.full((len(graph),), -1)
    place[kept] = torch.arange(len(kept))
    digest = hashlib.sha256(f"{graph.digest}:{kept.tolist()}".encode()).hexdigest()
    features, scaled = (whole.index_select(0, kept).coalesce() for whole in (graph.features, graph.scaled))
    return Graph(features, scaled, graph.labels[kept], _inside(place[graph.edges]), digest)


@dataclass(frozen=True)
class Nodes:
    """Some labelled nodes of a graph, one by one.

    Attributes:
        nodes: (n,) int64, their numbers.
        name: of the split.
        sparse: whether inputs are sparse COO tensors, which a first layer that is linear multiplies several times
            faster. Quantised and exported networks take dense ones.
    """

    graph: Graph
    nodes: Tensor
    name: str
    sparse: bool = False

    def __len__(self) -> int:
        return len(self.nodes)

    def batch(self, index: Tensor) -> Batch:
        """Features and labels, and beside them what the teacher alone takes."""
        nodes = self.nodes[index]
        common = {FEATURES: self.graph.scaled, EDGES: self.graph.edges}
        rows = self.graph.rows(nodes, sparse=self.sparse)
        return Batch((rows,), self.graph.labels[nodes], index, {NODE: nodes}, common)

    def fingerprint(self) -> str:
        """Of the graph and the choice of nodes."""
        chosen = hashlib.sha256(repr(self.nodes.tolist()).encode()).hexdigest()[:16]
        return f"{self.graph.digest}:{self.name}:{chosen}"


@dataclass(frozen=True)
class WholeGraph:
    """All nodes of a graph, connected as far as a batch holds both ends.

    Attributes:
        known: (n,) int64, the nodes whose labels may be learned from: nobody looks at any other label.
        sparse: as in `Nodes`.
    """

    graph: Graph
    known: Tensor
    sparse: bool = False

    def __len__(self) -> int:
        return len(self.graph)

    def batch(self, index: Tensor) -> Batch:
        """Features, known labels, and the edges inside the batch by places in it."""
        labels = torch.full((len(self),), UNKNOWN)
        labels[self.known] = self.graph.labels[self.known]
        if _all(index, len(self)):
            inside = self.graph.edges
        else:
            place = torch.full((len(self),), -1)
            place[index] = torch.arange(len(index))
            inside = _inside(place[self.graph.edges])
        common = {
            FEATURES: self.graph.scaled,
            EDGES: self.graph.edges,
            INSIDE: inside,
            LOOPS: torch.arange(len(index)),
        }
        rows = self.graph.rows(index, sparse=self.sparse)
        return Batch((rows,), None, index, {NODE: index, KNOWN: labels[index]}, common)

    def fingerprint(self) -> str:
        """Of the graph and the known labels."""
        chosen = hashlib.sha256(repr(self.known.tolist()).encode()).hexdigest()[:16]
        return f"{self.graph.digest}:graph:{chosen}"


def _all(nodes: Tensor, count: int) -> bool:
    """Whether these are all nodes in their order: then nothing needs to be gathered."""
    return len(nodes) == count and bool((nodes == torch.arange(count)).all())


def _inside(edges: Tensor) -> Tensor:
    """Those of which both ends have a place: a place of -1 is none."""
    return edges[:, (edges >= 0).all(dim=0)]
