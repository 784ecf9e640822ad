"""Search a collection whose documents all-MiniLM-L6-v2 has indexed, with queries that a student embeds.

The score is the asymmetric one: the student's vectors of queries against the teacher's vectors of documents. A student
whose space is turned against the teacher's scores by chance, however well it searches its own vectors.

`--data` is one of two folders: English XQuAD as passage retrieval (Artetxe et al. 2020, arXiv:1910.11856, CC BY-SA
4.0), of which articles are split, or Cranfield 1400 (Cleverdon et al. 1966), of which questions are split and all
documents may be read in training, as is usual. Labels are grades of all documents, so that nothing is trained on them.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task, TrainingNumbers
from compress.data_checks import verified_files
from compress.errors import TaskError
from compress.frontends.unchanged import Unchanged
from compress.retrieval import recall_at
from compress.teachers import minilm

LENGTH = 32  # word pieces that a student reads, enough for queries; the index has 256 of each document
WINDOW, STRIDE = 12, 6  # words of a piece of a document, which is as short as a query, and from one to the next
MOST_TEXTS = 4000  # to learn from
SHARES = (0.6, 0.15)  # of groups for training and validation; the rest is the test
SPACES = re.compile(r"\s+")
SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Collection:
    """Files of one data set.

    Attributes:
        files: corpus, queries and judgements -> SHA-256.
        source: where they come from, for messages.
        by_group: whether the questions about documents of one title stay in one split, and the documents that the
            validation and test questions ask for out of the training texts.
    """

    name: str
    files: Mapping[str, str]
    source: str
    by_group: bool


COLLECTIONS = (
    Collection(
        "xquad",
        {
            "corpus.en.jsonl": "73c98caf36702341f488fd606073a777b570a69aa0748f1a849e50e72d51fc0c",
            "queries.en.jsonl": "27da83075480f7fff6949747582e4c49d889d0aa4f588b63a4fa5fdfbc6072c2",
            "qrels.en.tsv": "4af78205eef22519904b9ea4b803df8a55e186a886850d09e2585e262baaafc6",
        },
        "xquad.en.json of github.com/google-deepmind/xquad as passages, questions and judgements",
        True,
    ),
    Collection(
        "cranfield",
        {
            "corpus.jsonl": "4f52814ad7ade946e6f5b5a37b13a306c0f928cbcc249504ae2b10d6fb9f2b99",
            "queries.jsonl": "612478c15ac62a3314544368865741e3a9636598c9cd87a3ca2c7546b77f298e",
            "qrels.tsv": "86f474045474006636e7e35a1665f7db91e4494008b8cf8c1be96e4a4aed104f",
        },
        "cran.all.1400, cran.qry and cranqrel as JSON lines",
        False,
    ),
)


@final
class TextRetrieval(Task):
    """Texts as word pieces and their mask -> a unit vector of 384.

    A label is a row of int8 over all documents: grades from 0, and -1 where the text is that very document. The test
    split has queries and, behind them, all documents, which count nothing and let a report search the student's own
    vectors too. `score` needs the teacher's index, which `load` makes.
    """

    name = "text_retrieval"
    kind = "embedding"
    labels = tuple(f"x{place}" for place in range(minilm.WIDTH))
    input_names = ("input_ids", "attention_mask")
    input_shapes = ((LENGTH,), (LENGTH,))
    input_values = (minilm.WORDS, 2)
    output_names = ("vector",)
    directions = ("vector",)
    metric = "recall@10"
    preprocessing = (
        f"WordPiece ids of bert-base-uncased, [CLS] in front and [SEP] behind, cut and padded with 0 to {LENGTH}; "
        "mask is 1 where a piece is"
    )
    teacher_numbers: ClassVar[TrainingNumbers] = TrainingNumbers(epochs=0, batch_size=32, learning_rate=1e-4)

    def __init__(self) -> None:
        self._index: Tensor | None = None

    def load(self, data: Path | None) -> Splits:
        collection = _collection(data)
        corpus, queries, judged = verified_files(self.name, data, collection.files, collection.source).values()
        documents = _lines(corpus)
        asked = _lines(queries)
        grades = _grades(judged, [one["_id"] for one in asked], [one["_id"] for one in documents])
        groups = _groups(collection, documents, asked, grades)
        parts = {name: [i for i, group in enumerate(groups) if group == name] for name in ("train", "val", "test")}
        texts = [SPACES.sub(" ", one["text"]).strip() for one in documents]
        self._index = minilm.vectors(texts, minilm.MOST)
        held = set() if not collection.by_group else _held(grades, parts["val"] + parts["test"])
        read = _short([text for place, text in enumerate(texts) if place not in held])
        read = [asked[place]["text"] for place in parts["train"]] + read
        digest = hashlib.sha256("".join(collection.files.values()).encode()).hexdigest()

        def split(name: str, given: Sequence[str], labels: Tensor) -> TensorExamples:
            return TensorExamples(minilm.tokens(given, LENGTH), labels, f"{digest}:{name}", scale=None)

        none = torch.zeros(len(read[:MOST_TEXTS]), len(texts), dtype=torch.int8)
        val, test = ([asked[place]["text"] for place in parts[name]] for name in ("val", "test"))
        own = -torch.eye(len(texts), dtype=torch.int8)
        return Splits(
            split("train", read[:MOST_TEXTS], none),
            split("val", val, grades[parts["val"]]),
            split("test", [*test, *texts], torch.cat([grades[parts["test"]], own])),
        )

    def frontend(self) -> nn.Module:
        return Unchanged()

    def teacher(self) -> nn.Module:
        return minilm.network()

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """There is none.

        Raises:
            TaskError: always; vectors are learned from the teacher alone.
        """
        raise TaskError(
            f"task {self.name!r} has no labels to learn from",
            fix="choose a method that learns from the teacher's answers alone, such as leaf",
        )

    def score(self, output: Tensor, labels: Tensor) -> Tensor:
        """Recall among the first 10 documents, and 1, of each query; 0 and 0 of documents: (B, 2)."""
        if self._index is None:
            raise TaskError(f"task {self.name!r} has no index yet", fix="load the data first")
        queries = labels.amax(dim=1) > 0
        found = recall_at(output.float() @ self._index.to(output.device).T, labels > 0)
        return torch.stack([found * queries, queries.to(found.dtype)], dim=1)

    def total(self, sums: Tensor, count: int) -> float:
        """Mean over queries; 0 where there is none."""
        found, queries = sums.tolist()
        return found / queries if queries else 0.0


def _collection(data: Path | None) -> Collection:
    """The one of which the folder has the most files; where it has none, the absence of the first is told."""
    return max(COLLECTIONS, key=lambda one: sum(data is not None and (data / name).is_file() for name in one.files))


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _grades(path: Path, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
    """(queries, documents) of int8."""
    rows, columns = ({name: place for place, name in enumerate(names)} for names in (queries, documents))
    found = torch.zeros(len(queries), len(documents), dtype=torch.int8)
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")[:3]
        found[rows[query], columns[document]] = int(grade)
    return found


def _groups(
    collection: Collection, documents: Sequence[Mapping[str, str]], queries: Sequence[object], grades: Tensor
) -> list[str]:
    """train, val or test of each query. Queries about documents of one title stay together where groups are split."""
    if collection.by_group:
        keys = [documents[int(row.argmax())]["title"] for row in grades]
    else:
        keys = [str(place) for place in range(len(queries))]
    known = sorted(set(keys), key=lambda key: hashlib.sha256(key.encode()).hexdigest())
    first, second = (round(share * len(known)) for share in (SHARES[0], sum(SHARES)))
    place = {key: number for number, key in enumerate(known)}
    return ["train" if place[key] < first else "val" if place[key] < second else "test" for key in keys]


def _held(grades: Tensor, queries: Sequence[int]) -> set[int]:
    """Documents that these queries ask for."""
    return set((grades[list(queries)] > 0).any(dim=0).nonzero().flatten().tolist())


def _short(texts: Sequence[str]) -> list[str]:
    """Sentences and windows of documents, shuffled by their content: the vectors of queries want short texts."""
    found: dict[str, None] = {}
    for text in texts:
        for sentence in SENTENCE.split(text):
            words = sentence.split()
            if len(words) >= 3:
                found[sentence] = None
            for start in range(0, max(0, len(words) - WINDOW), STRIDE):
                found[" ".join(words[start : start + WINDOW])] = None
    return sorted(found, key=lambda text: hashlib.sha256(text.encode()).hexdigest())


TASK = TextRetrieval()
