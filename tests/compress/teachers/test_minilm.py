"""The real encoder, where its package is installed."""

import importlib.util
import time
from pathlib import Path

import pytest
import torch

from compress.errors import TeacherError
from compress.teachers import minilm

real = pytest.mark.skipif(
    importlib.util.find_spec(minilm.PACKAGE) is None or importlib.util.find_spec("tokenizers") is None,
    reason="the encoder comes with compress[text]",
)
TEXTS = ("That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day")


@real
def test_similarities_are_those_that_the_publishers_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the example on the model's page: 0.695, 0.943 and 0.257."""
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path))
    vectors = minilm.vectors(TEXTS, 32)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(vectors[1:] @ vectors[0], torch.tensor([0.695, 0.943, 0.257]), atol=6e-4, rtol=0)
    (kept,) = (tmp_path / "vectors").iterdir()
    written = kept.stat().st_mtime_ns
    time.sleep(0.01)
    torch.testing.assert_close(minilm.vectors(TEXTS, 32), vectors, rtol=0, atol=0)
    assert kept.stat().st_mtime_ns == written  # from the disk


@real
def test_padding_changes_nothing() -> None:
    network = minilm.network()
    ids, mask = minilm.tokens(TEXTS, 12)
    longer, there = minilm.tokens(TEXTS, 30)
    assert (there[:, 12:] == 0).all()
    with torch.no_grad():
        torch.testing.assert_close(network(longer, there), network(ids, mask), rtol=1e-4, atol=1e-5)


@real
def test_texts_are_cut_with_their_end_kept() -> None:
    ids, mask = minilm.tokens(["one two three four five six seven"], 5)
    assert ids.tolist()[0][0] == 101  # [CLS]
    assert ids.tolist()[0][-1] == 102  # [SEP]
    assert mask.tolist() == [[1] * 5]


@real
def test_a_text_without_words_has_a_vector_and_no_text_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path))
    ids, mask = minilm.tokens(["", "word"], 6)
    assert ids[0].tolist() == [101, 102, 0, 0, 0, 0]
    assert mask.sum(dim=1).tolist() == [2, 3]
    torch.testing.assert_close(minilm.vectors(["", "word"], 6).norm(dim=1), torch.ones(2))
    assert minilm.vectors([], 6).shape == (0, minilm.WIDTH)


@pytest.mark.parametrize("length", [1, 513])
def test_more_word_pieces_than_the_model_has_places_for_are_refused(length: int) -> None:
    with pytest.raises(TeacherError, match="places for 2 to 512"):
        minilm.tokens(["word"], length)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no_such_package_of_weights")
    minilm._verified.cache_clear()
    with pytest.raises(TeacherError, match="which is not installed") as refused:
        minilm.network()
    assert "compress[text]" in refused.value.fix
