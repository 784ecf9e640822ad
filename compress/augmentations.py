"""Random changes of training images that several tasks share. Randomness comes from the caller's generator alone."""

import torch
from torch import Tensor
from torch.nn import functional


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
