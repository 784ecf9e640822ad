"""Random changes of images."""

import torch

from compress.augmentations import mirrored, shifted, warped


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shifted_moves_every_image_by_a_whole_step_and_fills_with_zeros() -> None:
    images = torch.zeros(200, 1, 5, 5)
    images[:, :, 2, 2] = 1.0
    moved = shifted(images, 1, generator())
    assert moved.shape == images.shape
    assert torch.equal(moved.sum(dim=(1, 2, 3)), torch.ones(200))  # the point is still there, once
    places = {tuple(place) for place in moved.nonzero()[:, 2:].tolist()}
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}


def test_shifted_keeps_channels_apart() -> None:
    images = torch.arange(3.0).view(1, 3, 1, 1).expand(4, 3, 6, 6).contiguous() + 1
    moved = shifted(images, 2, generator())
    for channel in range(3):
        assert set(moved[:, channel].unique().tolist()) <= {0.0, channel + 1.0}


def test_mirrored_swaps_left_and_right_of_about_half() -> None:
    images = torch.arange(4.0).view(1, 1, 1, 4).expand(400, 1, 1, 4)
    swapped = (mirrored(images, generator())[:, 0, 0, 0] == 3.0).sum().item()
    assert 150 < swapped < 250  # 200 +- 5 standard deviations of 10
    assert torch.equal(mirrored(images, generator()).sort(dim=-1).values, images)


def test_warped_by_nothing_is_the_image_and_a_turn_leaves_the_centre() -> None:
    images = torch.rand(3, 2, 6, 6)
    torch.testing.assert_close(warped(images, 0.0, 0.0, 0.0, generator()), images, atol=1e-5, rtol=0)
    point = torch.zeros(500, 1, 9, 9)
    point[:, :, 4, 4] = 1.0
    still = warped(point, 180.0, 0.0, 0.0, generator())  # a turn leaves the centre where it is
    torch.testing.assert_close(still[:, 0, 4, 4], torch.ones(500), atol=1e-5, rtol=0)


def test_warped_moves_by_less_than_a_pixel_if_asked() -> None:
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(500, 1, 8, 8).contiguous()
    change = (warped(ramp, 0.0, 0.0, 0.2, generator()) - ramp)[:, 0, 4, 3]
    assert change.abs().max() <= 0.8 + 1e-4  # 0.2 of half of 8 pixels
    assert change.abs().max() > 0.7
    assert (change > 0).any()
    assert (change < 0).any()


def test_the_generator_decides_alone() -> None:
    images = torch.rand(8, 1, 6, 6)
    assert torch.equal(shifted(images, 2, generator(1)), shifted(images, 2, generator(1)))
    assert not torch.equal(shifted(images, 2, generator(1)), shifted(images, 2, generator(2)))
    assert torch.equal(mirrored(images, generator(1)), mirrored(images, generator(1)))
    amounts = (10.0, 0.1, 0.1)
    assert torch.equal(warped(images, *amounts, generator(1)), warped(images, *amounts, generator(1)))
    assert not torch.equal(warped(images, *amounts, generator(1)), warped(images, *amounts, generator(2)))
