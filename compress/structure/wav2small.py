"""The network of Wav2Small behind its front-end.

Source: Kounadis-Bastian et al. 2024, arXiv:2408.13920. The paper's body was not at hand: the topology is that of the
released student (13 channels, 10,806 trainable parameters). The configuration of 72 thousand parameters was not found;
33 channels of the same topology, which make 66,366 trainable ones, are proposed.

    3 x [3 x 3 convolution, batch norm, ReLU], max-pool 3 x 3 with stride 2, 4 x [the same], pooling over time, linear

Here time is the last axis, as in all front-ends; the release has frequency there. The two are one network with the
convolutions' kernels transposed.
"""

from torch import Tensor, nn

from compress.structure.attentive_pool import AttentivePool
from compress.structure.layers import activated

BEFORE, AFTER = 3, 4
"""Convolutions before and after the max-pool, of the released student."""


class MeanPool(nn.Module):
    """The mean over time and a linear layer of every channel and band: proposed, for cores without float kernels."""

    def __init__(self, channels: int, bands: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels * bands, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, bands, T) -> (B, outputs)."""
        output: Tensor = self.head(x.mean(dim=3).flatten(1))
        return output


class Wav2SmallNetwork(nn.Module):
    """`before.0`, ..., `after.0`, ... and `pool` are its taps. Any number of frames goes in.

    Args:
        channels: of every convolution.
        bands: of the front-end, mel bands for instance.
        outputs: numbers per clip; they are linear, nothing squashes them.
        inputs: channels of the front-end.
        blocks: convolutions before and after the max-pool, >= 1 each.
        every: frames from one that is looked at to the next. 2 halves time, memory and work, as twice the hop would.
        attention: whether time is pooled by attention, as published, or by its mean.
    """

    def __init__(
        self,
        channels: int,
        bands: int,
        outputs: int,
        *,
        inputs: int = 1,
        blocks: tuple[int, int] = (BEFORE, AFTER),
        every: int = 1,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.every = every
        first, second = blocks
        self.before = nn.Sequential(*(activated(channels if i else inputs, channels, (3, 3)) for i in range(first)))
        self.halve = nn.MaxPool2d(3, stride=2, padding=1)
        self.after = nn.Sequential(*(activated(channels, channels, (3, 3)) for _ in range(second)))
        self.pool = (AttentivePool if attention else MeanPool)(channels, -(-bands // 2), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, bands, T) -> (B, outputs)."""
        if self.every > 1:
            x = x[..., :: self.every]
        output: Tensor = self.pool(self.after(self.halve(self.before(x))))
        return output


def trainable_parameters(channels: int, bands: int = 26, outputs: int = 3) -> int:
    """Of the published topology, in closed form: 10,806 for 13 channels."""
    c, half = channels, -(-bands // 2)
    convolutions, norms = 9 * c + 6 * 9 * c * c, 14 * c
    return convolutions + norms + 2 * (c * c + c) + outputs * (half * c + c * c) + outputs
