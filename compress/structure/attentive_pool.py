"""Pooling over time by attention, with the Gram matrix of what was pooled: the end of Wav2Small.

Source: Kounadis-Bastian et al. 2024, arXiv:2408.13920; the released student's code.
"""

from torch import Tensor, nn

WITHOUT_FLOAT = ("ethos-u", "riscv-cluster")
"""Families that run nothing but int8 between two int8 layers, and so no softmax over time."""


class AttentivePool(nn.Module):
    """Sums over time weighted by a softmax, beside their Gram matrix, and a linear layer of both."""

    def __init__(self, channels: int, bands: int, outputs: int) -> None:
        super().__init__()
        self.value = nn.Conv2d(channels, channels, 1)
        self.weight = nn.Conv2d(channels, channels, 1)
        # One linear layer of [z, z z'], as two: the squares span another range, so they get a scale of their own.
        self.head = nn.Linear(channels * bands, outputs)
        self.gram_head = nn.Linear(channels * channels, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, bands, T) -> (B, outputs)."""
        pooled = (self.value(x) * self.weight(x).softmax(-1)).sum(-1)
        # Products and a sum, where a matrix product of two activations would need a kernel that C has not.
        gram = (pooled.unsqueeze(2) * pooled.unsqueeze(1)).sum(-1)
        output: Tensor = self.head(pooled.flatten(1)) + self.gram_head(gram.flatten(1))
        return output
