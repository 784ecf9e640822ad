"""Random changes of training images that several tasks share. Randomness comes from the caller's generator alone."""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from compress.contracts.batch import Batch


def shifted(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move each image by its own whole number of pixels.

    Args:
        images: (B, C, H, W).
        pixels: the largest shift in either direction, both vertically and horizontally; zeros move in.
        generator: where the shifts come from.
    """
    batch, _, height, width = images.shape
    offsets = torch.randint(0, 2 * pixels + 1, (2, batch, 1), generator=generator, device=generator.device)
    down, right = offsets.to(images.device)
    rows = torch.arange(height, device=images.device) + down
    columns = torch.arange(width, device=images.device) + right
    padded = functional.pad(images, (pixels, pixels, pixels, pixels))
    examples = torch.arange(batch, device=images.device)
    # Indices around a slice put the channels last: (B, H, W, C).
    moved = padded[examples[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Swap left and right in half of the images, (B, C, H, W)."""
    coins = torch.rand(len(images), generator=generator, device=generator.device).to(images.device) < 0.5
    return torch.where(coins[:, None, None, None], images.flip(-1), images)


def warped(images: Tensor, degrees: float, scale: float, shift: float, generator: torch.Generator) -> Tensor:
    """Turn, scale and move each image by its own amounts, with bilinear interpolation: finer than whole pixels.

    Args:
        images: (B, C, H, W) float.
        degrees: the largest turn, either way.
        scale: the largest change of size, as a share, either way.
        shift: the largest movement, as a share of half the image, in either direction; zeros move in.
        generator: where the amounts come from.
    """
    draws = 2.0 * torch.rand(4, len(images), generator=generator, device=generator.device).to(images.device) - 1.0
    angle = draws[0] * math.radians(degrees)
    size = 1.0 + draws[1] * scale
    across, along = angle.cos() * size, angle.sin() * size
    matrix = torch.stack(
        [torch.stack([across, -along, draws[2] * shift], dim=1), torch.stack([along, across, draws[3] * shift], dim=1)],
        dim=1,
    )
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def mirrored_together(batch: Batch, generator: torch.Generator) -> Batch:
    """Mirror pictures along each axis at random, and labels that say something of every position with them.

    Args:
        batch: inputs (B, C, *S), one tensor; labels (B, *S), or None.
        generator: one coin per picture and axis.
    """
    images, labels = batch.inputs[0], batch.labels
    for axis in range(2, images.ndim):
        coins = torch.rand(len(images), generator=generator, device=generator.device).to(images.device) < 0.5
        images = torch.where(coins.view(-1, *(1,) * (images.ndim - 1)), images.flip(axis), images)
        if labels is not None:
            labels = torch.where(coins.view(-1, *(1,) * (labels.ndim - 1)), labels.flip(axis - 1), labels)
    return replace(batch.with_inputs(images), labels=labels)
