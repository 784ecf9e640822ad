"""Boxes, components and mixes, by hand."""

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.errors import RecipeError, TaskError
from compress.strategies.copy_paste import INWARD, OUTWARD, CopyPaste, box_mask, largest_components, mixed
from compress.teachers.ema import EMATeacher

SELFTRAIN = Clock("selftrain", 0, 1, 0, 1)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_box_of_two_thirds() -> None:
    mask = box_mask((6, 6), 2 / 3, source())
    assert (int(mask.sum()), int((1 - mask).sum())) == (20, 16)


def test_the_box_is_anywhere_but_at_the_last_place() -> None:
    corners = {tuple((box_mask((6, 9), 2 / 3, source(seed)) == 0).nonzero()[0].tolist()) for seed in range(200)}
    assert corners == {(row, column) for row in range(2) for column in range(3)}


def test_zero_fractions_of_the_published_sizes() -> None:
    assert 1 - box_mask((256, 256), 2 / 3, source()).mean() == pytest.approx(0.441, abs=5e-4)
    assert 1 - box_mask((112, 112, 80), 2 / 3, source()).mean() == pytest.approx(0.289, abs=5e-4)


def test_a_mix_takes_the_box_from_the_other() -> None:
    a = torch.arange(36.0).reshape(1, 1, 6, 6)
    mask = torch.ones(6, 6)
    mask[1:5, 1:5] = 0
    found = mixed(a, -a, mask)
    assert (found[0, 0, 0, 0].item(), found[0, 0, 2, 2].item()) == (0.0, -14.0)


def test_the_largest_part_of_each_class_stays() -> None:
    rows = ["11001", "10001", "00001", "02201", "20000"]
    labels = torch.tensor([[[int(digit) for digit in row] for row in rows]])
    kept = largest_components(labels, 3)
    assert kept[0, :4, 4].tolist() == [1, 1, 1, 1]
    assert (kept == 1).sum() == 4
    assert (kept == 2).sum() == 3, "the diagonal neighbour counts"
    assert largest_components(torch.zeros_like(labels), 3).sum() == 0


class Says(nn.Module):
    """Class 1 where the picture is above a half; counts in training as a network would."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([0.5 - x, x - 0.5], 1)


def transformed(strategy: CopyPaste, clock: Clock = SELFTRAIN, hidden: Tensor | None = None) -> dict[str, Batch]:
    ones, zeros = torch.ones(4, 1, 6, 6), torch.zeros(4, 1, 6, 6)
    known = Batch((ones,), torch.ones(4, 6, 6, dtype=torch.int64), torch.arange(4))
    unknown = Batch((zeros,), hidden, torch.arange(4))
    teacher = EMATeacher(Says(), 0.99)
    return dict(strategy.transform({"train": known, "unlabelled": unknown}, {"teacher": teacher}, clock, source()))


def test_half_of_every_picture_is_labelled_both_ways() -> None:
    found = transformed(CopyPaste())
    assert set(found) == {INWARD, OUTWARD}
    inward, outward = found[INWARD], found[OUTWARD]
    assert inward.inputs[0].sum(dim=(1, 2, 3)).tolist() == [20.0, 20.0], "a hole in labelled pictures"
    assert outward.inputs[0].sum(dim=(1, 2, 3)).tolist() == [16.0, 16.0], "labelled boxes in the others"
    assert inward.labels is not None
    assert outward.labels is not None
    assert (inward.labels.min(), inward.extras["box_labels"].max()) == (1, 0)
    assert (outward.labels.max(), outward.extras["box_labels"].min()) == (0, 1)
    assert (inward.extras["image_weight"][0], inward.extras["box_weight"][0]) == (1.0, 0.5)
    assert (outward.extras["image_weight"][0], outward.extras["box_weight"][0]) == (0.5, 1.0)
    assert all(torch.equal(batch.common["mask"], inward.common["mask"]) for batch in found.values())


@pytest.mark.parametrize(("component", "pixels"), [(True, [6, 6]), (False, [10, 10])])
def test_of_the_teachers_labels_the_largest_part_stays_unless_things_come_in_numbers(
    component: bool, pixels: list[int]
) -> None:
    hidden = torch.zeros(4, 1, 6, 6)
    hidden[..., 0:2, 0:3] = hidden[..., 4:6, 4:6] = 1.0  # parts of 6 and of 4 pixels
    known = Batch((torch.ones(4, 1, 6, 6),), torch.ones(4, 6, 6, dtype=torch.int64), torch.arange(4))
    streams = {"train": known, "unlabelled": Batch((hidden,), None, torch.arange(4))}
    strategy = CopyPaste() if component else CopyPaste(component=False)
    found = strategy.transform(streams, {"teacher": EMATeacher(Says(), 0.99)}, SELFTRAIN, source())
    for labels in (found[INWARD].extras["box_labels"], found[OUTWARD].labels):
        assert labels is not None
        assert labels.flatten(1).sum(1).tolist() == pixels


def test_the_four_quarters_meet_crosswise() -> None:
    """x_j takes boxes of u_p, and u_q boxes of x_i: the first halves are pasted, the second ones (u: the first) not."""
    known = torch.arange(1.0, 5.0).view(4, 1, 1, 1).expand(4, 1, 6, 6)
    streams = {
        "train": Batch((known,), known[:, 0].long(), torch.arange(4)),
        "unlabelled": Batch((-known,), None, torch.arange(4)),
    }
    found = CopyPaste(flips=False).transform(streams, {"teacher": EMATeacher(Says(), 0.99)}, SELFTRAIN, source())
    values = {name: [one.unique().tolist() for one in batch.inputs[0]] for name, batch in found.items()}
    assert values == {INWARD: [[-1.0, 3.0], [-2.0, 4.0]], OUTWARD: [[-3.0, 1.0], [-4.0, 2.0]]}
    labels = found[INWARD].labels
    assert labels is not None
    assert labels[:, 0, 0].tolist() == [3, 4]
    assert found[OUTWARD].extras["box_labels"][:, 0, 0].tolist() == [1, 2]
    paired = CopyPaste(flips=False).transform(streams, {}, Clock("pretrain", 0, 1, 0, 1), source())[INWARD]
    assert [one.unique().tolist() for one in paired.inputs[0]] == [[1.0, 3.0], [2.0, 4.0]]
    assert paired.extras["box_labels"][:, 0, 0].tolist() == [1, 2]


def test_unlabelled_pictures_are_mirrored_too() -> None:
    corner = torch.zeros(4, 1, 6, 6)
    corner[..., 0, 0] = 1.0
    known = Batch((torch.zeros(4, 1, 6, 6),), torch.zeros(4, 6, 6, dtype=torch.int64), torch.arange(4))
    streams = {"train": known, "unlabelled": Batch((corner,), None, torch.arange(4))}
    seen = set()
    for seed in range(20):
        found = CopyPaste().transform(streams, {"teacher": EMATeacher(Says(), 0.99)}, SELFTRAIN, source(seed))
        assert found[OUTWARD].labels is not None
        seen |= {tuple(place) for place in found[OUTWARD].labels.nonzero()[:, 1:].tolist()}
    assert seen == {(0, 0), (0, 5), (5, 0), (5, 5)}


def test_fewer_unlabelled_pictures_are_used_again() -> None:
    known = Batch((torch.ones(6, 1, 6, 6),), torch.ones(6, 6, 6, dtype=torch.int64), torch.arange(6))
    hidden = -torch.arange(1.0, 5.0).view(4, 1, 1, 1).expand(4, 1, 6, 6)
    streams = {"train": known, "unlabelled": Batch((hidden,), None, torch.arange(4))}
    teacher = {"teacher": EMATeacher(Says(), 0.99)}
    found = CopyPaste(flips=False).transform(streams, teacher, SELFTRAIN, source())
    assert found[INWARD].inputs[0].amin(dim=(1, 2, 3)).tolist() == [-1.0, -2.0, -3.0]
    assert found[OUTWARD].inputs[0].amin(dim=(1, 2, 3)).tolist() == [-4.0, -1.0, -2.0]


def test_hidden_labels_are_never_looked_at() -> None:
    plain, garbage = transformed(CopyPaste()), transformed(CopyPaste(), hidden=torch.full((4, 6, 6), 77))
    for name, batch in plain.items():
        assert torch.equal(batch.inputs[0], garbage[name].inputs[0])
        assert torch.equal(batch.extras["box_labels"], garbage[name].extras["box_labels"])


def test_pre_training_pastes_labelled_pictures_alone() -> None:
    found = transformed(CopyPaste(), Clock("pretrain", 0, 1, 0, 1))
    assert set(found) == {INWARD}
    assert found[INWARD].extras["box_weight"].tolist() == [1.0, 1.0]
    assert found[INWARD].inputs[0].min() == 1.0


def test_one_direction_alone() -> None:
    assert set(transformed(CopyPaste(directions="outward"))) == {OUTWARD}


def test_flips_move_labels_with_their_pictures() -> None:
    pixels = torch.rand(8, 1, 6, 6)
    known = Batch((pixels,), (pixels[:, 0] > 0.5).long(), torch.arange(8))
    found = CopyPaste().transform(
        {"train": known, "unlabelled": known},
        {"teacher": EMATeacher(Says(), 0.9)},
        Clock("pretrain", 0, 1, 0, 1),
        source(),
    )[INWARD]
    assert found.labels is not None
    labels = torch.where(found.common["mask"].bool(), found.labels, found.extras["box_labels"])
    assert torch.equal(labels, (found.inputs[0][:, 0] > 0.5).long())
    assert not torch.equal(
        found.inputs[0],
        CopyPaste(flips=False)
        .transform(
            {"train": known, "unlabelled": known},
            {"teacher": EMATeacher(Says(), 0.9)},
            Clock("pretrain", 0, 1, 0, 1),
            source(),
        )[INWARD]
        .inputs[0],
    )


@pytest.mark.parametrize("numbers", [{"beta": 1.0}, {"beta": 0.0}, {"alpha": -1.0}, {"directions": "sideways"}])
def test_wrong_numbers_are_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="copy-paste has"):
        CopyPaste(**numbers)  # type: ignore[arg-type]


def test_one_picture_has_no_other_half() -> None:
    lone = Batch((torch.ones(1, 1, 6, 6),), torch.ones(1, 6, 6, dtype=torch.int64), torch.arange(1))
    with pytest.raises(TaskError, match="met 1 labelled"):
        CopyPaste().transform({"train": lone, "unlabelled": lone}, {}, SELFTRAIN, source())
