"""Log-mel inside, then narrow convolutions and a pooled head that gives three numbers, as Wav2Small has it.

Source of the shape: Wagner et al. 2024, "Wav2Small", arXiv:2408.13920 (three dimensions of a voice from a waveform).
"""

import torch
from torch import Tensor, nn

from compress.frontends.log_mel import LogMel
from tools.networks import Network, Part, Split, Tensors
from tools.networks.data.sounds import RATE_HZ, tones

LENGTH = 2048
CLOSE = 0.05  # an answer this near counts


def _conv(cin: int, cout: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


class Voice(nn.Module):
    """Waveform to pitch, loudness and roughness."""

    def __init__(self) -> None:
        super().__init__()
        self.frontend = LogMel(
            rate_hz=RATE_HZ, frame=256, hop=64, mels=24, low_hz=0.0, high_hz=4000.0, floor=1e-6, mean=-5.0, std=3.0
        )
        self.network = nn.Sequential(
            *_conv(1, 16), *_conv(16, 16), nn.MaxPool2d(2), *_conv(16, 32), *_conv(32, 32, 2), *_conv(32, 32)
        )
        self.hidden = nn.Linear(32 * 6, 64)
        self.head = nn.Linear(64, 3)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, 2048) -> (B, 3), about [0, 1]."""
        x = self.network(self.frontend(waveform)).mean(3)
        return self.head(torch.relu(self.hidden(x.flatten(1))))  # type: ignore[no-any-return]


def loss(found: Tensors, labels: Tensor) -> Tensor:
    """Mean squared error."""
    return nn.functional.mse_loss(found[0], labels)


def correct(found: Tensors, labels: Tensor) -> Tensor:
    """(N,): share of the three answers that are within 0.05."""
    return ((found[0] - labels).abs() < CLOSE).double().mean(1)


def samples(count: int, seed: int, part: Part) -> Split:
    """Synthetic tones."""
    waves, labels = tones(count, seed, part, LENGTH)
    return Split((waves,), labels)


NETWORK = Network(
    "wav2small", "Wav2Small-like, log-mel inside", Voice, samples, loss, correct,
    input_names=("waveform",), output_names=("voice",), epochs=8,
)  # fmt: skip
