"""Papers that cite each other: a bag of words each, a subject to be found, Planetoid's public split.

Source: Sen et al., "Collective Classification in Network Data", AI Magazine 29(3), 2008; split: Yang, Cohen,
Salakhutdinov, "Revisiting Semi-Supervised Learning with Graph Embeddings", ICML 2016, arXiv:1603.08861: 20 labelled
papers of each class, 500 for validation, 1,000 for testing. Converted from github.com/kimiyoung/planetoid.
"""

import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from compress import graphs
from compress.contracts.examples import Splits
from compress.contracts.task import Task, TrainingNumbers
from compress.data_checks import check_splits, verified_files
from compress.errors import TaskError
from compress.frontends.row_scale import RowScale
from compress.graph_network import NodeClassifier, gcn
from compress.graphs import Graph, Nodes, WholeGraph, induced

SOURCE = "made from data/ind.* of github.com/kimiyoung/planetoid, as the data's README says"
DIGESTS = {
    "cora.npz": "0f6863dadc40036f0dfae861d6aeef1ff4e46643eb463de55fe87080a97ec32e",
    "citeseer.npz": "caf71f47afcb6255970eb3ecdea5db0018144b25df41e64236aae72455781634",
}
WIDTH = 128  # of the teacher's hidden layers
DROPOUT = 0.5


class CitationGraph(Task):
    """Which subject a paper has, by its words alone; the reference teacher also sees who cites whom.

    The teacher is a graph convolutional network, trained on the labelled papers. Students get one row of 0 and 1 per
    paper. The stream "graph" has all papers, of which only the training split's labels are known.

    Attributes:
        file: of the data's folder.
        depth: layers of the teacher.
        inductive: whether the test papers and their citations are hidden until the test: the teacher is trained without
            them, and the stream "graph" does not have them. At the test the teacher sees the whole graph. A task of
            one's own sets it: a file with a class like that of `compress/tasks/cora.py`.
    """

    file: ClassVar[str]
    depth: ClassVar[int] = 2
    inductive: ClassVar[bool] = False
    privileged = graphs.PRIVILEGED
    preprocessing = "1 where a paper has the word, else 0; divided by the number of its words"
    teacher_numbers: ClassVar[TrainingNumbers] = TrainingNumbers(
        epochs=200, batch_size=512, learning_rate=1e-2, weight_decay=5.0, keep_best=True
    )

    def load(self, data: Path | None) -> Splits:
        path = verified_files(self.name, data, {self.file: DIGESTS[self.file]}, SOURCE)[self.file]
        graph, parts = read(path, DIGESTS[self.file])
        splits = inductive(graph, parts) if self.inductive else transductive(graph, parts)
        check_splits(self, splits)
        return splits

    def frontend(self) -> nn.Module:
        return RowScale()

    def teacher(self) -> nn.Module:
        sizes = (*self.input_shape, *[WIDTH] * (self.depth - 1), len(self.labels))
        return NodeClassifier(gcn(sizes, DROPOUT))


def transductive(graph: Graph, parts: dict[str, Tensor]) -> Splits:
    """All nodes are there from the start, and all labels but those of the training split are hidden.

    Args:
        parts: numbers of the nodes by split: train, val, test.
    """
    named = {name: Nodes(graph, nodes, name) for name, nodes in parts.items()}
    whole = WholeGraph(graph, parts["train"])
    return Splits(named["train"], named["val"], named["test"], ((graphs.STREAM, whole),))


def inductive(graph: Graph, parts: dict[str, Tensor]) -> Splits:
    """The same, but for the test split's nodes: until the test they and their edges do not exist."""
    hidden = torch.zeros(len(graph), dtype=torch.bool)
    hidden[parts["test"]] = True
    kept = (~hidden).nonzero().flatten()
    place = torch.full((len(graph),), -1)
    place[kept] = torch.arange(len(kept))
    seen = induced(graph, kept)
    before = transductive(seen, {name: place[parts[name]] for name in ("train", "val")} | {"test": parts["test"][:0]})
    return Splits(before.train, before.val, Nodes(graph, parts["test"], "test"), before.extras)


def read(path: Path, digest: str) -> tuple[Graph, dict[str, Tensor]]:
    """The graph of a file and its splits.

    Raises:
        TaskError: an array is absent or cut off.
    """
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as stored:
            arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
        rows, columns = (int(size) for size in arrays["x_shape"])
        counts = arrays["x_indptr"].to(torch.int64).diff()
        places = torch.stack([torch.repeat_interleave(torch.arange(rows), counts), arrays["x_indices"].to(torch.int64)])
        once = arrays["edges"].to(torch.int64).T
        labels = arrays["labels"].to(torch.int64)
        parts = {name: arrays[f"{name}_idx"].to(torch.int64) for name in ("train", "val", "test")}
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TaskError(f"{path} does not hold a graph: {error}", fix="fetch the file again") from error
    size = (rows, columns)
    features = torch.sparse_coo_tensor(places, arrays["x_data"], size, check_invariants=True).coalesce()
    # As RowScale does it with dense ones.
    shares = features.values() / counts.clamp(min=1)[features.indices()[0]]
    scaled = torch.sparse_coo_tensor(features.indices(), shares, size, check_invariants=True, is_coalesced=True)
    return Graph(features, scaled, labels, torch.cat([once, once.flip(0)], dim=1), digest), parts
