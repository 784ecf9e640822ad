"""The retrieval task on the real collections, with an index that is made up: embedding one takes half a minute."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from compress.contracts.examples import Splits
from compress.data_checks import check_splits
from compress.errors import TaskError
from compress.retrieval import of_unit_length
from compress.tally import Tally
from compress.tasks import text_retrieval
from compress.tasks.text_retrieval import TextRetrieval
from compress.teachers import minilm

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
FOLDERS = {"xquad_retrieval": "corpus.en.jsonl", "cranfield": "corpus.jsonl"}


def index(texts: list[str], length: int) -> torch.Tensor:
    return of_unit_length(torch.randn(len(texts), minilm.WIDTH, generator=torch.Generator().manual_seed(length)))


@pytest.fixture(scope="module", params=sorted(FOLDERS))
def loaded(request: pytest.FixtureRequest) -> tuple[str, TextRetrieval, Splits, dict[str, list[str]]]:
    """(folder, task, splits, the texts behind each split)."""
    if not (DATA / request.param).is_dir():
        pytest.skip(f"needs {DATA / request.param}")
    if importlib.util.find_spec("tokenizers") is None or importlib.util.find_spec(minilm.PACKAGE) is None:
        pytest.skip("word pieces come with compress[text]")
    seen: dict[str, list[str]] = {}
    real = minilm.tokens

    def tokens(texts: list[str], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        seen[("train", "val", "test")[len(seen)]] = list(texts)
        return real(texts, length)

    task = TextRetrieval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minilm, "vectors", index)
        patch.setattr(minilm, "tokens", tokens)
        splits = task.load(DATA / request.param)
    return request.param, task, splits, seen


def test_splits_fit_the_task_and_do_not_mix(
    loaded: tuple[str, TextRetrieval, Splits, dict[str, list[str]]],
) -> None:
    folder, task, splits, seen = loaded
    check_splits(task, splits)
    documents = [json.loads(line)["text"] for line in (DATA / folder / FOLDERS[folder]).read_text().splitlines()]
    count = len(documents)
    train, test = set(seen["train"]), seen["test"]
    assert len(splits.train) == min(text_retrieval.MOST_TEXTS, len(seen["train"]))
    assert not set(seen["val"]) & set(test)
    assert not train & {*seen["val"], *test[:-count]}
    labels = splits.test.batch(torch.arange(len(splits.test))).labels
    assert labels is not None
    torch.testing.assert_close(labels[-count:], -torch.eye(count, dtype=torch.int8))
    assert bool((labels[:-count].amax(dim=1) > 0).all())
    if folder == "xquad_retrieval":  # by article: no text to learn from comes of a passage that a test query asks for
        asked = [documents[int(row.argmax())] for row in labels[:-count]]
        assert not [text for text in train for passage in set(asked) if text in passage]


def test_the_score_is_recall_against_the_index_and_documents_count_nothing(
    loaded: tuple[str, TextRetrieval, Splits, dict[str, list[str]]],
) -> None:
    _, task, splits, _ = loaded
    batch = splits.test.batch(torch.arange(len(splits.test)))
    assert batch.labels is not None
    given = index([""] * batch.labels.shape[1], minilm.MOST)
    right = given[batch.labels.argmax(dim=1)]
    tally = Tally(task)
    for part in torch.split(torch.arange(len(right)), 100):
        tally.add(right[part], batch.labels[part])
    several = (batch.labels > 0).sum(dim=1).float()
    best = 1.0 if several.max() == 1 else float((1 / several[several > 0]).mean())
    assert best - 1e-6 <= tally.value() <= 1.0
    turned = Tally(task)
    turned.add(right.flip(1), batch.labels)
    assert turned.value() < 0.2


def test_without_data_or_index_it_says_what_is_missing() -> None:
    with pytest.raises(TaskError, match="no folder was named") as refused:
        TextRetrieval().load(None)
    assert "corpus.en.jsonl" in refused.value.fix
    with pytest.raises(TaskError, match="no index yet"):
        TextRetrieval().score(torch.zeros(1, minilm.WIDTH), torch.zeros(1, 3, dtype=torch.int8))


def test_a_folder_with_a_part_of_cranfield_is_asked_for_the_rest_of_it(tmp_path: Path) -> None:
    for name in ("queries.jsonl", "qrels.tsv"):
        (tmp_path / name).touch()
    with pytest.raises(TaskError, match=r"corpus\.jsonl"):
        TextRetrieval().load(tmp_path)
