"""Region losses, by the specification's hand-worked values."""

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.objectives.regions import Regions, Variant, masked_cross_entropy, masked_dice, region_loss

LOGITS = torch.tensor([[[[2.0, 0, -1, 1]], [[0, 1, 1, -1]]]], dtype=torch.float64)
MASK = torch.tensor([[1.0, 1, 0, 0]], dtype=torch.float64)
IMAGE, BOX = torch.tensor([[[0, 1, 0, 0]]]), torch.tensor([[[1, 1, 1, 0]]])
HALF_A_DIGIT = 5e-10  # of the last one that the specification gives
CLOCK = Clock("selftrain", 0, 1, 0, 1)


def near(value: float) -> object:
    return pytest.approx(value, abs=HALF_A_DIGIT)


def batch(image_weight: float, box_weight: float) -> Batch:
    extras = {"box_labels": BOX, "image_weight": torch.tensor([image_weight]), "box_weight": torch.tensor([box_weight])}
    return Batch((LOGITS,), IMAGE, torch.arange(1), extras, {"mask": MASK})


def test_cross_entropy_of_each_region() -> None:
    assert masked_cross_entropy(LOGITS, IMAGE, MASK).item() == near(0.220094849)
    assert masked_cross_entropy(LOGITS, BOX, 1 - MASK).item() == near(0.126928011)


@pytest.mark.parametrize(
    ("variant", "image", "box"), [("batch_sq", 0.051352476, 0.015876240), ("sample_lin", 0.195165170, 0.119202326)]
)
def test_dice_of_each_region(variant: Variant, image: float, box: float) -> None:
    assert masked_dice(LOGITS, IMAGE, MASK, variant).item() == near(image)
    assert masked_dice(LOGITS, BOX, 1 - MASK, variant).item() == near(box)


def test_one_variant_has_one_value_for_the_whole_batch_and_the_other_one_for_each_sample() -> None:
    """Four positions of a half everywhere; the first sample is all background, the second all foreground.

    Whole batch, each class: 1 - 2 * 2 / (8 / 4 + 4) = 1/3. Each sample: its own class 1 - 4 / (2 + 4), the other one 1.
    """
    half, labels = torch.zeros(2, 2, 1, 4), torch.tensor([[[0, 0, 0, 0]], [[1, 1, 1, 1]]])
    torch.testing.assert_close(masked_dice(half, labels, torch.ones(1, 4)), torch.tensor([1 / 3, 1 / 3]))
    found = masked_dice(half, labels, torch.ones(1, 4), "sample_lin")
    torch.testing.assert_close(found, torch.tensor([2 / 3, 2 / 3]))
    labels[1, 0, :2] = 0  # the second: classes 1 - 2 * 1 / (2 + 2) both
    found = masked_dice(half, labels, torch.ones(1, 4), "sample_lin")
    torch.testing.assert_close(found, torch.tensor([2 / 3, 1 / 2]))


@pytest.mark.parametrize("variant", ["batch_sq", "sample_lin"])
def test_gradients_are_those_of_the_loss_and_of_an_empty_region_zero(variant: Variant) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    labels, mask = torch.randint(0, 3, (2, 2, 3)), torch.tensor([[1.0, 0, 1], [0, 1, 1]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: region_loss(z, labels, mask, variant), [logits])
    (slope,) = torch.autograd.grad(region_loss(logits, labels, torch.zeros_like(mask), variant).sum(), logits)
    assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize(
    ("variant", "weights", "loss"),
    [
        ("batch_sq", (1.0, 0.5), 0.171424726),
        ("sample_lin", (1.0, 0.5), 0.269162594),
        ("batch_sq", (0.5, 1.0), 0.139263957),
        ("sample_lin", (0.5, 1.0), 0.226880173),
    ],
)
def test_the_whole_loss(variant: str, weights: tuple[float, float], loss: float) -> None:
    signals = Signals(LOGITS)
    assert Regions(variant)(signals, signals, batch(*weights), CLOCK).item() == near(loss)


@pytest.mark.parametrize("variant", ["batch_sq", "sample_lin"])
def test_swapping_picture_and_box_with_their_weights_changes_nothing(variant: str) -> None:
    one = batch(1.0, 0.5)
    extras = {"box_labels": IMAGE, "image_weight": torch.tensor([0.5]), "box_weight": torch.tensor([1.0])}
    other = Batch((LOGITS,), BOX, torch.arange(1), extras, {"mask": 1 - MASK})
    signals, objective = Signals(LOGITS), Regions(variant)
    assert torch.equal(objective(signals, signals, one, CLOCK), objective(signals, signals, other, CLOCK))


@pytest.mark.parametrize("variant", ["batch_sq", "sample_lin"])
def test_what_is_outside_the_region_does_not_count(variant: Variant) -> None:
    disturbed = LOGITS + 7 * (1 - MASK) * torch.tensor([1.0, -2.0], dtype=torch.float64).view(1, 2, 1, 1)
    changed = torch.where(MASK.bool(), IMAGE, 1 - IMAGE)
    assert torch.equal(region_loss(LOGITS, IMAGE, MASK, variant), region_loss(disturbed, changed, MASK, variant))


def test_the_background_is_masked_like_every_class() -> None:
    # The fault of the first published code: background outside the region counted as a target.
    sure = torch.tensor([[[[30.0, -30, 30, 30]], [[-30.0, 30, -30, -30]]]], dtype=torch.float64)
    assert masked_dice(sure, IMAGE, MASK).item() == pytest.approx(0.0, abs=1e-9)
    everything = torch.ones_like(MASK)
    assert masked_dice(sure, IMAGE, everything).item() == pytest.approx(0.0, abs=1e-9)


def test_an_empty_region_costs_no_cross_entropy() -> None:
    assert masked_cross_entropy(LOGITS, IMAGE, torch.zeros_like(MASK)).item() == 0.0


def test_volumes_and_signals_have_regions_as_well() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 4, 4, 4))
    assert region_loss(logits, labels, torch.ones(4, 4, 4)).shape == (2,)
    flat = region_loss(logits.flatten(2), labels.flatten(1), torch.ones(64))
    torch.testing.assert_close(flat, region_loss(logits, labels, torch.ones(4, 4, 4)))


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_sq, sample_lin"):
        Regions("mean")
