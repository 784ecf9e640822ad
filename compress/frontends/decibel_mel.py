"""Waveform to mel bands in decibels through convolutions with frozen weights: the front-end of Wav2Small.

Source: Kounadis-Bastian et al., "Wav2Small: Distilling Wav2Vec2 to 72K parameters for Low-Resource Speech Emotion
Recognition", 2024, arXiv:2408.13920, as the released student has it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.frontends.log_mel import mel_triangles

FLOOR = 1e-10
"""Of a band's power: -100 dB, which is no number of float16, whose smallest is 6e-8."""
SILENCE = 1e-7
"""Added to a clip's variance."""


class DecibelMel(nn.Module):
    """Every clip to mean 0 and variance 1, short Hann frames, power, Slaney's mel bands, 10 log10.

    The transform is two convolutions, one with cosines and one with sines, so that one file of ordinary operators goes
    from samples to answers on any runtime and for any length. Nothing here is quantised or trained, and all of it is
    float32 even in mixed precision: squaring doubles the range in decibels, and the floor is below what float16 has.

    The result does not change where a clip is scaled by a positive number or shifted by a constant.

    Args:
        rate_hz: samples per second.
        frame: samples per frame.
        hop: samples from one frame to the next, >= 1.
        mels: bands from 0 to rate_hz / 2. Among 26 bands of 64 samples at 16 kHz the lowest holds no frequency bin: it
            is the floor in every frame.
        floor_db: what lower levels are raised to, >= -100. The released student has -100; digital silence then takes
            most of the range of an 8-bit feature map, and -50 is proposed for students that will be quantised.

    Raises:
        ValueError: a number is out of its range.
    """

    cosines: Tensor
    sines: Tensor
    bank: Tensor

    def __init__(self, *, rate_hz: int, hop: int, mels: int, frame: int = 64, floor_db: float = -100.0) -> None:
        super().__init__()
        if frame < 2 or hop < 1 or mels < 1 or rate_hz < 2:
            raise ValueError(f"rate_hz {rate_hz}, frame {frame}, hop {hop}, mels {mels}")
        if floor_db < -100.0:
            raise ValueError(f"floor_db must be -100 at least, got {floor_db}")
        self.hop = hop
        self.floor = max(FLOOR, 10.0 ** (floor_db / 10.0))
        phases = torch.arange(frame // 2 + 1, dtype=torch.float64)[:, None] * torch.arange(frame, dtype=torch.float64)
        phases = phases * (2.0 * math.pi / frame)
        window = torch.hann_window(frame, periodic=True, dtype=torch.float64)
        bank = mel_triangles(rate_hz, frame, mels, 0.0, rate_hz / 2)
        constants = {
            "cosines": (phases.cos() * window)[:, None],
            "sines": (-phases.sin() * window)[:, None],
            "bank": bank,
        }
        for name, values in constants.items():  # of the task, not of a checkpoint: kept out of every state dict
            self.register_buffer(name, values.float(), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, samples) float32 -> (B, 1, mels, 1 + (samples - frame) // hop), in dB of the scaled clip's power."""
        with _exact(waveform):
            centred = waveform - waveform.mean(dim=1, keepdim=True)  # a new tensor: the caller's stays as it is
            scaled = centred / torch.sqrt(centred.square().mean(dim=1, keepdim=True) + SILENCE)
            bands = torch.matmul(self.bank, self.power(scaled))
            decibels = torch.log(torch.clamp(bands, min=self.floor)) * (10.0 / math.log(10.0))
            return decibels.unsqueeze(1)

    def power(self, waveform: Tensor) -> Tensor:
        """(B, samples) -> (B, frame // 2 + 1, frames): squared magnitudes of the windowed frames."""
        signal = waveform.unsqueeze(1)
        real, imaginary = (F.conv1d(signal, kernel, stride=self.hop) for kernel in (self.cosines, self.sines))
        return real.square() + imaginary.square()


@contextmanager
def _exact(waveform: Tensor) -> Iterator[None]:
    """No mixed precision inside. Where there is none outside nothing is switched, which leaves no trace in a graph."""
    kind = waveform.device.type
    if not torch.is_autocast_enabled(kind):
        yield
        return
    with torch.autocast(kind, enabled=False):
        yield
