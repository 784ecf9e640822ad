"""Bags of words to shares of words."""

from torch import Tensor, nn


class RowScale(nn.Module):
    """Divide every example by the sum of its features, which then sum to 1; an example without any stays 0.

    It belongs to the model, so that a device gives it the words of a document as they are.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) float32, >= 0 -> the same shape."""
        return features / features.sum(dim=1, keepdim=True).clamp(min=1.0)
