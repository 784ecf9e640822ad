"""Networks in which neighbouring nodes of a graph share what they know: GCN, GraphSAGE, GAT, by PyTorch Geometric.

Sources: Kipf, Welling, "Semi-Supervised Classification with Graph Convolutional Networks", ICLR 2017, arXiv:1609.02907;
Hamilton, Ying, Leskovec, "Inductive Representation Learning on Large Graphs", NIPS 2017, arXiv:1706.02216 (mean
aggregator); Velickovic, Cucurull, Casanova, Romero, Lio, Bengio, "Graph Attention Networks", ICLR 2018,
arXiv:1710.10903.
"""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType
from typing import final

import torch
from torch import Tensor, nn

from compress.errors import TaskError


@final
class GraphNetwork(nn.Module):
    """Layers over one graph, ReLU and dropout between them.

    Args:
        layers: each takes node features (N, inputs) and edges (2, E) and gives (N, outputs).
        dropout: of what each layer but the last gives, in [0, 1).
        sparse: whether the first layer takes sparse features, which bags of words are.
    """

    def __init__(self, layers: Sequence[nn.Module], dropout: float, *, sparse: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(dropout)
        self.sparse = sparse

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """(N, F) float32, dense or sparse COO, and (2, E) int64 (source, target), without loops -> (N, outputs)."""
        x = features.to_dense() if features.is_sparse and not self.sparse else features
        for number, layer in enumerate(self.layers):
            x = layer(self.dropout(x.relu()) if number else x, edges)
        return x


def gcn(sizes: Sequence[int], dropout: float) -> GraphNetwork:
    """Graph convolutions: features averaged over the closed neighbourhood, weighted by 1 / sqrt(degree * degree).

    Args:
        sizes: features, widths between, outputs.

    Raises:
        TaskError: PyTorch Geometric is not installed.
    """
    geometric = _geometric()
    return GraphNetwork([geometric.GCNConv(a, b) for a, b in pairwise(sizes)], dropout, sparse=True)


def sage(sizes: Sequence[int], dropout: float) -> GraphNetwork:
    """GraphSAGE: a node's own features through one matrix, the mean of its neighbours' through another.

    Arguments and errors are those of `gcn`.
    """
    geometric = _geometric()
    # The neighbours' features are averaged before they are multiplied: their rows are gathered, which wants dense ones.
    return GraphNetwork([geometric.SAGEConv(a, b) for a, b in pairwise(sizes)], dropout, sparse=False)


def gat(sizes: Sequence[int], dropout: float, heads: int = 4) -> GraphNetwork:
    """Graph attention; `heads` share each width between, which they must divide, and the last layer has one.

    Raises:
        ValueError: a width between is no multiple of `heads`.
        TaskError: PyTorch Geometric is not installed.
    """
    if odd := [width for width in sizes[1:-1] if width % heads]:
        raise ValueError(f"a width of {odd[0]} cannot be shared by {heads} heads")
    geometric = _geometric()
    layers = [geometric.GATConv(a, b // heads, heads=heads, dropout=dropout) for a, b in pairwise(sizes[:-1])]
    layers.append(geometric.GATConv(sizes[-2], sizes[-1], heads=1, dropout=dropout))
    return GraphNetwork(layers, dropout, sparse=True)


@final
class NodeClassifier(nn.Module):
    """Answers single nodes: computes the whole graph and picks.

    Args:
        graph: features (N, F) and edges (2, E) -> (N, C).
    """

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, features: Tensor, node: Tensor, graph_features: Tensor, graph_edges: Tensor) -> Tensor:
        """
        Args:
            features: of the nodes that are asked for, (B, F); the graph has its own.
            node: (B,) int64, their numbers in the graph.
            graph_features: (N, F), dense or sparse COO.
            graph_edges: (2, E) int64.

        Returns:
            (B, C) logits, float32.
        """
        # Sparse products know no bf16, and a graph of some thousand nodes is no work.
        with torch.autocast(features.device.type, enabled=False):
            answers: Tensor = self.graph(graph_features, graph_edges)
        return answers[node]


def _geometric() -> ModuleType:
    """torch_geometric.nn.conv."""
    try:
        with warnings.catch_warnings():
            # It compiles some of its classes by torch.jit.script when it is imported.
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch_geometric.nn import conv
    except ImportError as error:
        raise TaskError(
            "graph networks need PyTorch Geometric, which is not installed", fix="pip install 'compress[graph]'"
        ) from error
    return conv
