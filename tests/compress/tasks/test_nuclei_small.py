"""Cell nuclei: sizes, what is hidden, and the metric."""

from pathlib import Path

import pytest
import torch

from compress.errors import TaskError
from compress.tally import metric
from compress.tasks.nuclei_small import MEAN, STD, TASK

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "nuclei_small"


def test_dice_by_hand() -> None:
    labels = torch.tensor([[[1, 1, 0, 0]]])
    logits = torch.zeros(1, 2, 1, 4)
    logits[0, 1, 0] = torch.tensor([1.0, -1, 1, -1])  # one found of two, one too many
    assert metric(TASK, logits, labels) == 0.5
    assert metric(TASK, -torch.ones(1, 2, 1, 4).cumsum(1), torch.zeros(1, 1, 4, dtype=torch.int64)) == 1.0


def test_dice_is_of_all_pixels_together() -> None:
    labels = torch.zeros(2, 1, 4, dtype=torch.int64)
    labels[0, 0, :3] = 1
    labels[1, 0, 0] = 1
    logits = torch.zeros(2, 2, 1, 4)
    logits[:, 1] = torch.where(labels == 1, 1.0, -1.0)
    logits[1, 1, 0, 0] = -1.0  # the only nucleus of the second picture is not found
    assert metric(TASK, logits, labels) == pytest.approx(2 * 3 / (3 + 4))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the pictures of nuclei_small")
def test_a_tenth_is_labelled_and_the_rest_shows_no_labels() -> None:
    splits = TASK.load(DATA)
    assert {name: len(examples) for name, examples in splits.named().items()} == {
        "train": 24,
        "val": 50,
        "test": 50,
        "unlabelled": 210,
    }
    hidden = dict(splits.extras)["unlabelled"].batch(torch.arange(3))
    assert hidden.labels is None
    seen = splits.train.batch(torch.arange(24))
    assert seen.labels is not None
    assert 0.02 < seen.labels.float().mean() < 0.2
    pixels = torch.cat([seen.inputs[0], dict(splits.extras)["unlabelled"].batch(torch.arange(210)).inputs[0]])
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx((MEAN, STD), abs=1e-4)


def test_no_folder_is_asked_for() -> None:
    with pytest.raises(TaskError, match="nuclei_small"):
        TASK.load(None)
