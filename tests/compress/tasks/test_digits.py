"""The task that brings its own data."""

import pytest
import torch

from compress.contracts.examples import Splits
from compress.tasks.digits import TASK, split

FIRST_TEST_LABELS = [0, 3, 5, 7, 0, 3, 6, 8]


@pytest.fixture(scope="module")
def splits() -> Splits:
    return TASK.load(None)


def test_sizes_and_scale(splits: Splits) -> None:
    assert [len(splits.train), len(splits.val), len(splits.test)] == [1078, 269, 450]
    inputs = splits.train.batch(torch.arange(1078)).inputs[0]
    assert inputs.shape == (1078, 1, 8, 8)
    assert inputs.min() == 0.0
    assert inputs.max() == 1.0  # 16 of 16


def test_no_example_is_in_two_splits_and_none_is_lost() -> None:
    labels = torch.arange(1000) % 10
    places = torch.cat(list(split(labels).values()))
    assert sorted(places.tolist()) == list(range(1000))


def test_every_class_has_its_share() -> None:
    labels = torch.cat([torch.zeros(100), torch.ones(20)]).long()
    counts = {name: labels[places].bincount().tolist() for name, places in split(labels).items()}
    assert counts == {"train": [60, 12], "val": [15, 3], "test": [25, 5]}


def test_the_same_split_every_time(splits: Splits) -> None:
    again = TASK.load(None)
    assert again.train.fingerprint() == splits.train.fingerprint()
    assert torch.equal(again.test.batch(torch.arange(450)).inputs[0], splits.test.batch(torch.arange(450)).inputs[0])
    # Fixed forever: figures are compared across machines. The first test labels, in the order of positions.
    assert splits.test.batch(torch.arange(8)).labels.tolist() == FIRST_TEST_LABELS


def test_the_front_end_centres_the_pixels(splits: Splits) -> None:
    features = TASK.frontend()(splits.train.batch(torch.arange(1078)).inputs[0])
    assert abs(features.mean().item()) < 0.02  # the constants are of all 1,797 images
    assert abs(features.std().item() - 1.0) < 0.02
