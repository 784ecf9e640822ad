"""Labels that are wrong by a known share, and a stream whose labels are right."""

from pathlib import Path

import torch

from compress.tasks.fashion_mnist_mislabelled import CHECKED, STREAM, TASK, TRAIN, WRONG, mislabelled


def test_the_share_is_exact_and_what_is_changed_is_another_class() -> None:
    labels = torch.arange(900) % 3
    changed = mislabelled(labels, 0.3, 3, seed=0)
    wrong = changed != labels
    assert wrong.sum() == 270
    assert set(changed.tolist()) == {0, 1, 2}
    steps = ((changed - labels) % 3)[wrong].bincount(minlength=3).tolist()
    assert steps[0] == 0
    assert abs(steps[1] - 135) < 4 * (270 * 0.25) ** 0.5  # each of the others equally often
    assert torch.equal(changed, mislabelled(labels, 0.3, 3, seed=0))
    assert not torch.equal(changed, mislabelled(labels, 0.3, 3, seed=1))
    assert torch.equal(labels, torch.arange(900) % 3)  # unchanged itself


def test_only_the_training_labels_are_wrong(shared_data: Path) -> None:
    folder = shared_data / "fashion_mnist"
    splits = TASK.load(folder)
    pixels, known, _ = TASK.read(folder, "train")
    places = {"train": (0, TRAIN), STREAM: (TRAIN, TRAIN + CHECKED), "val": (55_000, 60_000)}
    for name, (first, end) in places.items():
        part = splits.named()[name]
        assert len(part) == end - first
        last = part.batch(torch.tensor([len(part) - 1])).inputs[0][0]
        assert torch.equal(last, pixels[end - 1] * (1 / 255))
        labels = part.batch(torch.arange(len(part))).labels
        assert labels is not None
        assert (labels != known[first:end]).sum() == (round(WRONG * TRAIN) if name == "train" else 0)
