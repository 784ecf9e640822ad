"""Examples that are held out: which, of what, and that caches still answer for the others."""

import pytest
import torch

from compress.contracts.examples import Splits, TensorExamples
from compress.errors import RecipeError
from compress.strategies.held_out import STREAM, HeldOut


def examples(count: int, first: int = 0) -> TensorExamples:
    values = torch.arange(first, first + count)
    return TensorExamples(values.float()[:, None], values % 3, f"from-{first}")


SPLITS = Splits(examples(40), examples(8, 100), examples(5, 200), (("clean", examples(6, 300)),))


def seen(splits: Splits, stream: str) -> list[float]:
    part = splits.named()[stream]
    inputs = part.batch(torch.arange(len(part))).inputs[0]
    return sorted(inputs.flatten().tolist())


def test_a_share_of_the_training_examples_is_held_out_and_nothing_else_changes() -> None:
    cut = HeldOut(share=0.1).splits(SPLITS)
    assert len(cut.named()[STREAM]) == 4
    assert sorted(seen(cut, "train") + seen(cut, STREAM)) == seen(SPLITS, "train")
    assert cut.val is SPLITS.val
    assert cut.test is SPLITS.test
    assert cut.named()["clean"] is SPLITS.named()["clean"]


def test_positions_are_those_of_the_whole_split() -> None:
    cut = HeldOut(share=0.25).splits(SPLITS)
    batch = cut.train.batch(torch.tensor([0, 7, 20]))
    assert batch.inputs[0].flatten().tolist() == batch.index.tolist()  # the inputs count the whole split
    assert batch.labels is not None
    assert batch.labels.tolist() == (batch.index % 3).tolist()


def test_the_choice_is_that_of_the_seed_and_shows_in_the_fingerprint() -> None:
    first, again, other = (HeldOut(seed=seed).splits(SPLITS) for seed in (0, 0, 1))
    assert seen(first, STREAM) == seen(again, STREAM) != seen(other, STREAM)
    assert first.train.fingerprint() == again.train.fingerprint() != other.train.fingerprint()
    assert SPLITS.train.fingerprint() != first.train.fingerprint() != first.named()[STREAM].fingerprint()


def test_another_stream_can_be_held_out_whole() -> None:
    cut = HeldOut(share=1.0, source="clean").splits(SPLITS)
    assert seen(cut, STREAM) == seen(SPLITS, "clean")
    assert cut.train is SPLITS.train


@pytest.mark.parametrize(
    "numbers",
    [
        {"share": 0.0},
        {"share": 1.0},
        {"share": 1.5, "source": "val"},
        {"batch": 0.0},
        {"batch": float("inf")},
        {"share": float("nan")},
    ],
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(RecipeError):
        HeldOut(**numbers)  # type: ignore[arg-type]


def test_a_stream_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match="there are train, val, test, clean"):
        HeldOut(share=1.0, source="clear").splits(SPLITS)
    with pytest.raises(RecipeError, match="none can be held out"):
        HeldOut(share=0.6).splits(Splits(examples(1), examples(1), examples(1)))
