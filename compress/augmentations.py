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


def mixed_up(batch: Batch, share: float, generator: torch.Generator) -> Batch:
    """Blend examples with others of their batch; teachers answer the blend. Labels of a blend are not labels.

    Source: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup", ICLR 2018, arXiv:1710.09412, with weights uniform in (0, 1), on
    inputs alone, as in Stanton et al., arXiv:2106.05945.

    Args:
        batch: inputs (B, ...), floats.
        share: of the examples that are blended, 0 to 1.
        generator: who is blended with whom, and how far.

    Returns:
        The batch without labels; both labels of every example, where there were any, are `first_labels` and
        `second_labels` of the extras, and the weight of the first is `first_share`, (B,).
    """
    count, device = len(batch), batch.inputs[0].device
    partner = torch.randperm(count, generator=generator, device=generator.device).to(device)
    weight = torch.rand(count, generator=generator, device=generator.device)
    blended = torch.rand(count, generator=generator, device=generator.device) < share
    first = torch.where(blended, weight, 1.0).to(device)
    inputs = []
    for values in batch.inputs:
        each = first.to(values.dtype).view(-1, *(1,) * (values.ndim - 1))
        inputs.append(each * values + (1 - each) * values[partner])
    extras = dict(batch.extras)
    if batch.labels is not None:
        extras |= {"first_labels": batch.labels, "second_labels": batch.labels[partner], "first_share": first}
    return replace(batch.with_inputs(*inputs), labels=None, extras=extras)
