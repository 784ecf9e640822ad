"""How a spoken digit sounds: three numbers that its waveform determines, from labels that people disagree on.

Source of the recordings: `compress/digit_recordings.py`. The attributes and their scales are proposed: they stand for
arousal, dominance and valence, whose recordings are not free, and share with them that labels are noisy: every training
label is the true attribute plus Gaussian noise of 0.28, drawn once. Validation and test labels are the true attributes,
as the mean of very many raters would be.

The metric is the mean of the three concordance coefficients over the whole split (Lin 1989); it is a number in [-1, 1]
and no share of anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from compress.coefficients import concordance, concordance_of, concordance_sums
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task, TrainingNumbers
from compress.data_checks import check_splits
from compress.digit_recordings import RATE_HZ, content_digest, parts_of, read_recordings, read_wav
from compress.frontends.decibel_mel import DecibelMel
from compress.structure.wav2small import Wav2SmallNetwork

SAMPLES = 3072
HOP, MELS = 64, 20
FLOOR_DB = -50.0  # proposed: digital silence lies at -100 dB and would take half of an 8-bit map's range
SPLIT_HZ = 1000.0
ENVELOPE = 64  # samples
NOISE = 0.28  # standard deviation of a rating
NOISE_SEED = 0
# The 5th and the 95th percentile of all 3,000 recordings, which become 0 and 1: log2 of hertz, log10 of a ratio of
# powers, log2 of a ratio of levels.
CENTROID, RATIO, PEAK = (8.47, 10.13), (0.17, 2.08), (0.72, 2.41)
CHANNELS, MEMBERS = 16, 2  # of the reference teacher


@dataclass(frozen=True)
class TrueSplits:
    """Clips with their true attributes."""

    train: TensorExamples
    val: TensorExamples
    test: TensorExamples


class SpokenAttributes(Task):
    """2,400 / 300 / 300 clips of 0.38 s; every speaker is in every split."""

    name = "spoken_attributes"
    kind = "regression"
    labels = ("brightness", "warmth", "peakiness")
    input_shape = (SAMPLES,)
    output_names = ("attributes",)
    metric = "concordance"
    metric_unit = ""
    decision_period_ms = 250.0
    preprocessing = (
        f"the first {SAMPLES} mono 8 kHz samples in [-1, 1) as recorded, zeros behind a shorter clip; each clip to mean"
        f" 0 and variance 1; 64-sample Hann frames every {HOP} samples without padding, power, {MELS} Slaney mel bands"
        f" from 0 to 4000 Hz, 10 log10, at least {FLOOR_DB:g} dB"
    )
    teacher_numbers: ClassVar[TrainingNumbers] = TrainingNumbers(epochs=12, batch_size=32, learning_rate=3e-3)

    def load(self, data: Path | None) -> Splits:
        true = self.load_unrated(data)
        splits = Splits(rated(true.train, NOISE_SEED), true.val, true.test)
        check_splits(self, splits)
        return splits

    def load_unrated(self, data: Path | None) -> TrueSplits:
        """The clips of `load` with the true attributes as the labels of every split.

        Raises:
            TaskError: the files are absent or changed.
        """
        parts = {part: read_clips(members) for part, members in parts_of(read_recordings(self.name, data)).items()}
        examples = {
            part: TensorExamples(clips, attributes(clips), f"{digest}:{part}", scale=1 / 32768)
            for part, (clips, digest) in parts.items()
        }
        return TrueSplits(**examples)

    def frontend(self) -> nn.Module:
        return DecibelMel(rate_hz=RATE_HZ, hop=HOP, mels=MELS, floor_db=FLOOR_DB)

    def teacher(self) -> nn.Module:
        """Two networks that answer with their mean, trained as one."""
        return Mean(MEMBERS)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """1 - the mean concordance of the batch, the same for each of its examples, (B,)."""
        return (1.0 - concordance(output, labels).mean()).expand(len(output))

    def score(self, output: Tensor, labels: Tensor) -> Tensor:
        """(B, 15): five sums of each attribute."""
        return concordance_sums(output, labels)

    def total(self, sums: Tensor, count: int) -> float:
        """The mean of the attributes' concordance coefficients."""
        return float(concordance_of(sums, count).mean())


class Mean(nn.Module):
    """Networks of 16 channels whose answers are averaged."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(Wav2SmallNetwork(CHANNELS, MELS, len(TASK.labels)) for _ in range(members))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, bands, frames) -> (B, 3)."""
        return torch.stack([member(x) for member in self.members]).mean(dim=0)


def read_clips(recordings: Mapping[str, bytes]) -> tuple[Tensor, str]:
    """(clips (N, 3072) int16, digest of the recordings) in the order of names."""
    clips = torch.zeros(len(recordings), SAMPLES, dtype=torch.int16)
    for place, (name, content) in enumerate(recordings.items()):
        samples = read_wav(name, content)[:SAMPLES]
        clips[place, : len(samples)] = torch.from_numpy(np.ascontiguousarray(samples))
    return clips, content_digest(recordings)


def attributes(clips: Tensor) -> Tensor:
    """What a clip's samples determine, in numbers of about 0 to 1; loudness changes none of them.

    Brightness is the power spectrum's centroid in octaves; warmth the common logarithm of the power below 1 kHz over
    that above; peakiness the binary logarithm of the largest over the mean level among stretches of 8 ms.

    Args:
        clips: (N, 3072), integers or real numbers.

    Returns:
        (N, 3) float32.
    """
    signal = clips.double()
    signal = signal - signal.mean(dim=1, keepdim=True)
    power = torch.fft.rfft(signal).abs().square() + 1e-12
    hertz = torch.fft.rfftfreq(signal.shape[1], 1 / RATE_HZ, dtype=torch.float64)
    centroid = torch.log2((power * hertz).sum(dim=1) / power.sum(dim=1))
    ratio = torch.log10(power[:, hertz < SPLIT_HZ].sum(dim=1) / power[:, hertz >= SPLIT_HZ].sum(dim=1))
    levels = signal.reshape(len(signal), -1, ENVELOPE).square().mean(dim=2).sqrt() + 1e-12
    peak = torch.log2(levels.amax(dim=1) / levels.mean(dim=1))
    scaled = [(v - low) / (high - low) for v, (low, high) in ((centroid, CENTROID), (ratio, RATIO), (peak, PEAK))]
    return torch.stack(scaled, dim=1).float()


def rated(examples: TensorExamples, seed: int) -> TensorExamples:
    """The same clips with labels as people give them: true attributes plus noise, drawn from the seed."""
    noise = torch.randn(examples.labels.shape, generator=torch.Generator().manual_seed(seed))
    return TensorExamples(
        examples.inputs, examples.labels + NOISE * noise, f"{examples.digest}:rated:{seed}", examples.scale
    )


TASK = SpokenAttributes()
