"""Citation graphs: their files, their splits, and what is hidden where."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from compress import citation_graphs
from compress.citation_graphs import CitationGraph, inductive, read, transductive
from compress.contracts.examples import Splits
from compress.data_checks import check_splits
from compress.errors import TaskError
from compress.frontends.row_scale import RowScale
from compress.graphs import Graph, WholeGraph
from compress.privileged import PrivilegedModel
from compress.tasks.citeseer import TASK as CITESEER
from compress.tasks.cora import TASK as CORA
from compress.teachers.frozen import FrozenTeacher

DATA = Path(__file__).parents[4] / "shared" / "data" / "citation_graphs"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the citation graphs are not here")


def stored(path: Path) -> None:
    """Six papers in a row, of which the fourth has no words and no label."""
    np.savez(
        path,
        x_data=np.ones(7, np.float32),
        x_indices=np.array([0, 1, 1, 2, 3, 0, 3], np.int32),
        x_indptr=np.array([0, 2, 3, 5, 5, 6, 7], np.int32),
        x_shape=np.array([6, 4]),
        labels=np.array([0, 1, 0, -1, 1, 0], np.int8),
        edges=np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]], np.int32),
        train_idx=np.array([0, 1], np.int32),
        val_idx=np.array([2], np.int32),
        test_idx=np.array([4, 5], np.int32),
    )


def small(tmp_path: Path) -> tuple[Graph, dict[str, torch.Tensor]]:
    stored(tmp_path / "g.npz")
    return read(tmp_path / "g.npz", "digest")


def whole(splits: Splits) -> WholeGraph:
    stream = splits.named()["graph"]
    assert isinstance(stream, WholeGraph)
    return stream


def test_a_file_is_read_with_both_directions_of_every_citation(tmp_path: Path) -> None:
    graph, parts = small(tmp_path)
    rows = [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert graph.features.to_dense().tolist() == rows
    torch.testing.assert_close(graph.scaled.to_dense(), RowScale()(graph.features.to_dense()))
    assert graph.scaled.to_dense().sum(dim=1).tolist() == [1, 1, 1, 0, 1, 1]
    assert graph.edges.shape == (2, 10)
    assert {(int(a), int(b)) for a, b in graph.edges.T} >= {(0, 1), (1, 0), (4, 5), (5, 4)}
    assert parts["test"].tolist() == [4, 5]


def test_before_the_test_an_inductive_setting_has_no_test_papers(tmp_path: Path) -> None:
    graph, parts = small(tmp_path)
    seen, everything = inductive(graph, parts), transductive(graph, parts)
    assert len(whole(seen)) == 4
    assert len(whole(everything)) == 6
    for examples in (seen.train, seen.val, whole(seen)):
        batch = examples.batch(torch.arange(len(examples)))
        assert len(batch.common["graph_features"]) == 4
        assert int(batch.common["graph_edges"].max()) == 3
    test = seen.test.batch(torch.arange(2))
    assert test.extras["node"].tolist() == [4, 5]
    assert len(test.common["graph_features"]) == 6
    for mine, theirs in ((seen.train, everything.train), (seen.val, everything.val), (seen.test, everything.test)):
        one, two = (part.batch(torch.arange(len(part))) for part in (mine, theirs))
        assert torch.equal(one.inputs[0], two.inputs[0])
        assert one.labels is not None
        assert two.labels is not None
        assert torch.equal(one.labels, two.labels)


def test_papers_behind_hidden_ones_keep_their_words_and_labels(tmp_path: Path) -> None:
    graph, _ = small(tmp_path)
    parts = {"train": torch.tensor([4]), "val": torch.tensor([5]), "test": torch.tensor([0, 1])}
    seen, everything = inductive(graph, parts), transductive(graph, parts)
    for mine, theirs in ((seen.train, everything.train), (seen.val, everything.val)):
        one, two = mine.batch(torch.arange(1)), theirs.batch(torch.arange(1))
        assert torch.equal(one.inputs[0], two.inputs[0])
        assert one.labels is not None
        assert two.labels is not None
        assert torch.equal(one.labels, two.labels)
    assert whole(seen).batch(torch.arange(4)).extras["known_label"].tolist() == [-1, -1, 1, -1]


def test_labels_outside_the_training_split_are_not_in_the_stream(tmp_path: Path) -> None:
    graph, parts = small(tmp_path)
    batch = whole(transductive(graph, parts)).batch(torch.arange(6))
    assert batch.extras["known_label"].tolist() == [0, 1, -1, -1, -1, -1]


def test_an_own_task_says_inductive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path / "g.npz")
    digest = hashlib.sha256((tmp_path / "g.npz").read_bytes()).hexdigest()
    monkeypatch.setitem(citation_graphs.DIGESTS, "g.npz", digest)

    class Unseen(CitationGraph):
        name, file, labels, input_shape, inductive = "unseen", "g.npz", ("a", "b"), (4,), True

    assert len(whole(Unseen().load(tmp_path))) == 4


def test_the_teacher_answers_a_node_the_same_in_every_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored(tmp_path / "g.npz")
    digest = hashlib.sha256((tmp_path / "g.npz").read_bytes()).hexdigest()
    monkeypatch.setitem(citation_graphs.DIGESTS, "g.npz", digest)

    class Small(CitationGraph):
        name, file, labels, input_shape = "small", "g.npz", ("a", "b"), (4,)

    task = Small()
    splits = task.load(tmp_path)
    torch.manual_seed(0)
    model = PrivilegedModel(task.frontend(), task.teacher(), len(task.inputs))
    teacher = FrozenTeacher(model, fingerprint="t", privileged=task.privileged)
    everything = teacher.observe(whole(splits).batch(torch.arange(6))).output
    assert everything.shape == (6, 2)
    for examples, nodes in ((splits.test, [4, 5]), (splits.val, [2]), (whole(splits), [0, 1, 2, 3, 4, 5])):
        for place, node in enumerate(nodes):
            answer = teacher.observe(examples.batch(torch.tensor([place]))).output
            torch.testing.assert_close(answer[0], everything[node])


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cora.npz").write_bytes(b"PK")
    with pytest.raises(TaskError, match="not the file of task 'cora'"):
        CORA.load(tmp_path)
    np.savez(tmp_path / "other.npz", a=np.ones(1))
    with pytest.raises(TaskError, match="does not hold a graph"):
        read(tmp_path / "other.npz", "")
    with pytest.raises(TaskError, match="does not hold a graph"):
        read(tmp_path / "cora.npz", "")


@real
@pytest.mark.parametrize(
    ("task", "nodes", "edges", "test_sizes"),
    [
        (CORA, 2708, 5278, [130, 91, 144, 319, 149, 103, 64]),
        (CITESEER, 3327, 4552, [77, 182, 181, 231, 169, 160]),
    ],
)
def test_real_graphs(task: CitationGraph, nodes: int, edges: int, test_sizes: list[int]) -> None:
    splits = task.load(DATA)
    check_splits(task, splits)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (20 * len(task.labels), 500, 1000)
    assert len(whole(splits)) == nodes
    assert whole(splits).graph.edges.shape == (2, 2 * edges)
    labels = splits.test.batch(torch.arange(1000)).labels
    assert labels is not None
    assert labels.bincount().tolist() == test_sizes
    known = whole(splits).batch(torch.arange(nodes)).extras["known_label"]
    assert int((known >= 0).sum()) == 20 * len(task.labels)
