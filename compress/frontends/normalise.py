"""Images to zero mean and unit variance."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(x - mean) / std per channel, as one multiplication and one addition.

    Args:
        mean: per channel, in the units of the input.
        std: per channel, > 0.

    Raises:
        ValueError: lengths differ, or a std is not positive.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not mean or len(mean) != len(std):
            raise ValueError(f"{len(mean)} means, {len(std)} standard deviations")
        if any(value <= 0 for value in std):
            raise ValueError(f"standard deviations must be positive, got {tuple(std)}")
        scale = 1.0 / torch.tensor(std, dtype=torch.float64)
        shift = -torch.tensor(mean, dtype=torch.float64) * scale
        # Constants of the task, not of a checkpoint: kept out of every state dict.
        self.register_buffer("scale", scale.float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) float32, usually in [0, 1] -> the same shape."""
        return image * self.scale + self.shift
