"""Which digit was said: one second of 8 kHz speech.

Source: Jackson et al., "Free Spoken Digit Dataset", doi 10.5281/zenodo.1342401; the 3,000 WAV files of
github.com/Jakobovski/free-spoken-digit-dataset/recordings (CC BY-SA 4.0): six speakers, 50 recordings of each digit.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task, TrainingNumbers
from compress.data_checks import check_splits
from compress.digit_recordings import RATE_HZ, Waveform, content_digest, parse_name, parts_of, read_recordings, read_wav
from compress.frontends.log_mel import LogMel
from compress.residual_network import ResidualNetwork

SAMPLES = 8000
LARGEST_SHIFT = 1600  # samples; 0.2 s either way
GAIN_DB = 12.0  # either way
NOISE_DB = (-90.0, -40.0)  # full-scale level of the added white noise


class SpokenDigits(Task):
    """2,400 / 300 / 300 clips; every speaker is in every split, the test clips are the published ones.

    Samples keep the level at which they were recorded: peaks span 40 dB, and what a device hears is not normalised
    either. Independence of level is learned from the random gain.
    """

    name = "spoken_digits"
    labels = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    input_shape = (SAMPLES,)
    # 95 % of the words last at most 0.66 s, so in windows of 1 s they lie whole in at least one as long as windows
    # start no more than 0.34 s apart.
    decision_period_ms = 250.0
    preprocessing = (
        "mono 8 kHz samples in [-1, 1) as recorded, 1 s; STFT of 256-sample Hann frames every 128 samples without "
        "padding, power, 32 Slaney mel bands from 60 to 4000 Hz, ln(max(band, 1e-7)), (x + 11.5) / 4"
    )
    augments = True
    teacher_numbers: ClassVar[TrainingNumbers] = TrainingNumbers(
        epochs=20, batch_size=64, learning_rate=3e-3, weight_decay=0.02
    )

    def load(self, data: Path | None) -> Splits:
        recordings = parts_of(read_recordings(self.name, data))
        examples = {part: _examples(part, members) for part, members in recordings.items()}
        splits = Splits(examples["train"], examples["val"], examples["test"])
        check_splits(self, splits)
        return splits

    def frontend(self) -> nn.Module:
        return LogMel(
            rate_hz=RATE_HZ, frame=256, hop=128, mels=32, low_hz=60.0, high_hz=4000.0, floor=1e-7, mean=-11.5, std=4.0
        )

    def teacher(self) -> nn.Module:
        return ResidualNetwork(1, widths=(32, 64, 128), depths=(1, 1, 1), outputs=10, dropout=0.1, stem_stride=2)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Time shift, gain and white noise, each clip its own."""
        return batch.with_inputs(disturbed(batch.inputs[0], generator))


def one_second(samples: Waveform) -> Waveform:
    """Pad with zeros on both sides, or cut to the second that holds the most energy -> (8000,)."""
    if len(samples) <= SAMPLES:
        before = (SAMPLES - len(samples)) // 2
        return np.pad(samples, (before, SAMPLES - len(samples) - before))
    energy = np.concatenate([[0], np.cumsum(samples.astype(np.int64) ** 2)])
    start = int(np.argmax(energy[SAMPLES:] - energy[:-SAMPLES]))
    return samples[start : start + SAMPLES]


def disturbed(waveform: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to 0.2 s (zeros move in), scale by up to 12 dB either way, add white noise of -90 to -40 dBFS, clip.

    Args:
        waveform: (B, samples) float32 in [-1, 1].
        generator: the only source of randomness.
    """
    batch, samples = waveform.shape
    device = waveform.device

    def uniform(low: float, high: float) -> Tensor:
        draw = torch.rand(batch, 1, generator=generator, device=generator.device)
        return (low + (high - low) * draw).to(device)

    source = torch.arange(samples, device=device) - uniform(-LARGEST_SHIFT, LARGEST_SHIFT).round().long()
    inside = (source >= 0) & (source < samples)
    moved = waveform.gather(1, source.clamp(0, samples - 1)) * inside
    gain = 10.0 ** (uniform(-GAIN_DB, GAIN_DB) / 20.0)
    level = 10.0 ** (uniform(*NOISE_DB) / 20.0)
    noise = torch.randn(batch, samples, generator=generator, device=generator.device).to(device)
    return (moved * gain + noise * level).clamp(-1.0, 1.0)


def _examples(part: str, recordings: Mapping[str, bytes]) -> TensorExamples:
    clips = [one_second(read_wav(name, content)) for name, content in recordings.items()]
    classes: Iterable[int] = (parse_name(name)[0] for name in recordings)
    return TensorExamples(
        torch.from_numpy(np.stack(clips)),
        torch.tensor(list(classes), dtype=torch.int64),
        f"{content_digest(recordings)}:{part}",
        scale=1 / 32768,
    )


TASK = SpokenDigits()
