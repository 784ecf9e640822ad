"""Graphs as data: batches, hidden nodes, and how a step draws edges."""

import pytest
import torch

from compress.contracts.clock import Clock
from compress.errors import RecipeError
from compress.graphs import Graph, Nodes, WholeGraph, induced
from compress.strategies.graph_edges import GraphEdges, drawn_part

EDGES = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])  # 0-1-2 and 3-4


def graph() -> Graph:
    features = torch.eye(5).to_sparse_coo().coalesce()
    return Graph(features, features, torch.tensor([0, 1, 0, 1, -1]), EDGES, "g")


def pairs(edges: torch.Tensor) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in edges.T}


def test_a_batch_has_the_edges_inside_it_by_its_own_places() -> None:
    batch = WholeGraph(graph(), torch.tensor([0])).batch(torch.tensor([2, 1, 4]))
    assert pairs(batch.common["edges"]) == {(0, 1), (1, 0)}  # nodes 2-1
    assert batch.common["loops"].tolist() == [0, 1, 2]
    assert batch.extras["known_label"].tolist() == [-1, -1, -1]
    assert batch.extras["node"].tolist() == [2, 1, 4]
    assert batch.labels is None
    assert torch.equal(batch.inputs[0], torch.eye(5)[[2, 1, 4]])
    assert torch.equal(batch.common["graph_edges"], EDGES)


def test_all_nodes_in_order_are_the_graph_as_it_is() -> None:
    batch = WholeGraph(graph(), torch.tensor([0, 3])).batch(torch.arange(5))
    assert torch.equal(batch.common["edges"], EDGES)
    assert batch.extras["known_label"].tolist() == [0, -1, -1, 1, -1]


def test_dense_and_sparse_rows_are_the_same() -> None:
    index = torch.tensor([1, 0])
    for make in (lambda s: Nodes(graph(), torch.tensor([3, 2]), "n", s), lambda s: WholeGraph(graph(), index, s)):
        dense, sparse = make(False).batch(index), make(True).batch(index)
        assert sparse.inputs[0].is_sparse
        assert torch.equal(dense.inputs[0], sparse.inputs[0].to_dense())


def test_hidden_nodes_take_their_edges_along() -> None:
    seen = induced(graph(), torch.tensor([4, 1, 2]))
    assert pairs(seen.edges) == {(1, 2), (2, 1)}
    assert seen.labels.tolist() == [-1, 1, 0]
    assert torch.equal(seen.features.to_dense(), torch.eye(5)[[4, 1, 2]])
    assert seen.digest != graph().digest


def test_fingerprints_tell_graphs_splits_and_known_labels_apart() -> None:
    some, others = torch.tensor([0]), torch.tensor([1])
    prints = {
        Nodes(graph(), some, "train").fingerprint(),
        Nodes(graph(), others, "train").fingerprint(),
        Nodes(induced(graph(), torch.arange(3)), some, "train").fingerprint(),
        WholeGraph(graph(), some).fingerprint(),
        WholeGraph(graph(), others).fingerprint(),
    }
    assert len(prints) == 5


def test_drawn_edges_bring_their_ends_and_the_labelled_nodes() -> None:
    batch = WholeGraph(graph(), torch.tensor([3])).batch(torch.arange(5))
    part = drawn_part(batch, EDGES[:, [2]], 0.2, torch.Generator().manual_seed(0))  # 1 -> 2
    kept = part.extras["node"].tolist()
    assert {1, 2, 3} <= set(kept)
    assert [(kept[a], kept[b]) for a, b in pairs(part.common["edges"])] == [(1, 2)]
    assert len(part.common["loops"]) == 1  # a fifth of five
    assert kept[int(part.common["loops"])] in range(5)
    assert torch.equal(part.inputs[0], torch.eye(5)[kept])
    assert torch.equal(part.index, torch.tensor(kept))


def test_batches_that_would_cut_edges_are_refused() -> None:
    batch = WholeGraph(graph(), torch.tensor([0])).batch(torch.tensor([0, 1, 3]))
    with pytest.raises(RecipeError, match="3 of the graph's 5 nodes, and 2 of its 6 edges") as refused:
        GraphEdges().transform({"graph": batch}, {}, None, torch.Generator())  # type: ignore[arg-type]
    assert "distill.batch_size 5" in refused.value.fix


def test_a_step_sees_a_hundred_thousand_edges_at_most_and_all_of_fewer() -> None:
    batch = {"graph": WholeGraph(graph(), torch.tensor([0])).batch(torch.arange(5))}
    whole = GraphEdges().transform(batch, {}, None, torch.Generator())  # type: ignore[arg-type]
    assert whole["graph"] is batch["graph"]
    assert GraphEdges()._edges == 100_000
    part = GraphEdges(edges=2).transform(batch, {}, None, torch.Generator())["graph"]  # type: ignore[arg-type]
    assert part.common["edges"].shape == (2, 2)
    assert part.common["loops"].shape == (2,)  # a third of the edges, and of five loops


def test_the_whole_graph_comes_in_its_own_order() -> None:
    order = GraphEdges().order("graph", 5, Clock("distill", 3, 9, 3, 9), torch.Generator().manual_seed(0))
    assert order.tolist() == [0, 1, 2, 3, 4]


def test_drawing_is_repeatable_and_unbiased() -> None:
    """Over many steps every edge is drawn equally often."""
    batch = {"graph": WholeGraph(graph(), torch.tensor([0])).batch(torch.arange(5))}
    strategy, counts = GraphEdges(edges=2), torch.zeros(5, 5)
    steps = 3000
    for step in range(steps):
        source = torch.Generator().manual_seed(step)
        part = strategy.transform(batch, {}, None, source)["graph"]  # type: ignore[arg-type]
        ends = part.extras["node"][part.common["edges"]]
        counts.index_put_((ends[0], ends[1]), torch.ones(2), accumulate=True)
    expected = steps * 2 / 6
    drawn = counts[EDGES[0], EDGES[1]]
    assert counts.sum() == drawn.sum() == 2 * steps
    assert (drawn - expected).abs().max() < 5 * expected**0.5  # five standard deviations
    again = strategy.transform(batch, {}, None, torch.Generator().manual_seed(1))["graph"]  # type: ignore[arg-type]
    once = strategy.transform(batch, {}, None, torch.Generator().manual_seed(1))["graph"]  # type: ignore[arg-type]
    assert torch.equal(again.common["edges"], once.common["edges"])


def test_few_edges_are_left_as_they_are() -> None:
    batch = {"graph": WholeGraph(graph(), torch.tensor([0])).batch(torch.arange(5))}
    assert GraphEdges(edges=6).transform(batch, {}, None, None)["graph"] is batch["graph"]  # type: ignore[arg-type]
