"""Eight kinds of synthetic sound in noise, and the height, loudness and roughness of tones."""

import math

import torch
from torch import Tensor

from tools.networks.data import generator

RATE_HZ = 8000
KINDS = 8


def sounds(samples: int, seed: int, part: str, length: int) -> tuple[Tensor, Tensor]:
    """((N, 1, length) float32, (N,) int64).

    A label says the direction of the pitch (up, down), the wave (sine, saw) and whether the amplitude beats.
    """
    random = generator(seed, part, "sounds")
    labels = torch.randint(KINDS, (samples,), generator=random)
    time = torch.arange(length) / RATE_HZ
    start = 200.0 + 400.0 * torch.rand(samples, 1, generator=random)
    slope = (1.0 - 2.0 * (labels & 1)[:, None]) * (0.15 + 0.5 * torch.rand(samples, 1, generator=random))
    phase = 2 * math.pi * (start * (time + slope * time.square() * RATE_HZ / (2 * length)))
    phase = phase + 2 * math.pi * torch.rand(samples, 1, generator=random)
    sine, saw = torch.sin(phase), torch.remainder(phase / math.pi, 2.0) - 1.0
    wave = torch.where((labels & 2)[:, None] > 0, saw, sine)
    beat = 1.0 + 0.8 * torch.sin(2 * math.pi * 40.0 * time + 6.0 * torch.rand(samples, 1, generator=random))
    wave = wave * torch.where((labels & 4)[:, None] > 0, beat, torch.ones_like(beat))
    level = 0.2 + 0.6 * torch.rand(samples, 1, generator=random)
    noise = 0.35 * torch.randn(samples, length, generator=random)
    return (level * wave + noise).unsqueeze(1), labels


def tones(samples: int, seed: int, part: str, length: int) -> tuple[Tensor, Tensor]:
    """((N, length) float32 in about [-1, 1], (N, 3) float32 in [0, 1]): pitch in octaves, loudness, roughness."""
    random = generator(seed, part, "tones")
    labels = torch.rand(samples, 3, generator=random)
    time = torch.arange(length) / RATE_HZ
    pitch = 120.0 * torch.exp2(2.5 * labels[:, :1])
    phase = 2 * math.pi * (pitch * time + torch.rand(samples, 1, generator=random))
    wave = sum(torch.sin(k * phase) / k for k in range(1, 5))
    assert isinstance(wave, Tensor)
    rough = 1.0 + labels[:, 2:] * torch.sin(2 * math.pi * 30.0 * time + 6.0 * torch.rand(samples, 1, generator=random))
    level = 0.03 * torch.exp2(3.0 * labels[:, 1:2])
    return level * wave * rough + 0.02 * torch.randn(samples, length, generator=random), labels
