"""Which digit was said: one second of 8 kHz speech.

Source: Jackson et al., "Free Spoken Digit Dataset", doi 10.5281/zenodo.1342401; the 3,000 WAV files of
github.com/Jakobovski/free-spoken-digit-dataset/recordings (CC BY-SA 4.0): six speakers, 50 recordings of each digit.
"""

import hashlib
import io
import wave
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task, TrainingNumbers
from compress.data_checks import check_splits, data_folder
from compress.errors import TaskError
from compress.frontends.log_mel import LogMel
from compress.residual_network import ResidualNetwork

ARCHIVE = "recordings.zip"
FOLDER = "recordings"
SOURCE = "it is the folder recordings of github.com/Jakobovski/free-spoken-digit-dataset, zipped or as it is"
DIGEST = "dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f"
"""SHA-256 over every recording's name and SHA-256, in the order of names: however the files were zipped."""

RATE_HZ = 8000
SAMPLES = 8000
TEST_NUMBERS = range(5)  # the source's rule: recordings 0 to 4 of each speaker and digit are test, 5 to 49 training
VAL_NUMBERS = range(5, 10)  # ours, from the training part

LARGEST_SHIFT = 1600  # samples; 0.2 s either way
GAIN_DB = 12.0  # either way
NOISE_DB = (-90.0, -40.0)  # full-scale level of the added white noise

Waveform = np.ndarray[tuple[int, ...], np.dtype[np.int16]]


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
        unpacked = data is not None and (data / FOLDER).is_dir()
        place = data_folder(self.name, data, (FOLDER if unpacked else ARCHIVE,), SOURCE)
        source = place / (FOLDER if unpacked else ARCHIVE)
        recordings = read_folder(source) if unpacked else read_archive(source)
        found = content_digest(recordings)
        if found != DIGEST:
            raise TaskError(
                f"{source} does not hold the recordings of {self.name!r}: {len(recordings):,} files with "
                f"sha256 {found}, expected 3,000 with {DIGEST}",
                fix=f"fetch the recordings again: {SOURCE}",
            )
        parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for name in sorted(recordings):
            number = parse_name(name)[2]
            parts["test" if number in TEST_NUMBERS else "val" if number in VAL_NUMBERS else "train"].append(name)
        examples = {part: _examples(part, {name: recordings[name] for name in names}) for part, names in parts.items()}
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


def read_folder(folder: Path) -> dict[str, bytes]:
    """The WAV files of a folder by their name.

    Raises:
        TaskError: a file cannot be read.
    """
    try:
        return {path.name: path.read_bytes() for path in folder.iterdir() if _is_recording(path.name)}
    except OSError as error:
        raise TaskError(f"{error.filename} cannot be read: {error.strerror}", fix="make the file readable") from error


def read_archive(archive: Path) -> dict[str, bytes]:
    """The WAV files of a zip by their name without folders. Nothing is unpacked to disk.

    Raises:
        TaskError: not a whole zip file, or its content does not fit its checksums.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if _is_recording(member.filename)]
            return {member.filename.rpartition("/")[2]: opened.read(member) for member in members}
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise TaskError(f"{archive} is not a whole zip file: {error}", fix=f"fetch it again: {SOURCE}") from error


def content_digest(recordings: Mapping[str, bytes]) -> str:
    """SHA-256 over each name and its content's SHA-256, in the order of names."""
    lines = (f"{name} {hashlib.sha256(recordings[name]).hexdigest()}\n" for name in sorted(recordings))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def parse_name(name: str) -> tuple[int, str, int]:
    """`7_jackson_32.wav` -> digit 7, speaker jackson, recording 32.

    Raises:
        TaskError: the name is not of this form.
    """
    parts = name.removesuffix(".wav").split("_")
    if len(parts) != 3 or not parts[0].isdecimal() or not parts[2].isdecimal():
        raise TaskError(f"{name!r} is not named digit_speaker_number.wav", fix=f"fetch the recordings again: {SOURCE}")
    return int(parts[0]), parts[1], int(parts[2])


def read_wav(name: str, content: bytes) -> Waveform:
    """Mono 16-bit PCM at 8 kHz -> (samples,) int16.

    Raises:
        TaskError: another format, no sample, or fewer samples than the header announces.
    """
    try:
        with wave.open(io.BytesIO(content)) as opened:
            form = (opened.getframerate(), opened.getnchannels(), opened.getsampwidth())
            announced = opened.getnframes()
            raw = opened.readframes(announced)
    except (wave.Error, EOFError) as error:
        raise TaskError(f"{name} is not a WAV file: {error}", fix="repair or remove that recording") from error
    if form != (RATE_HZ, 1, 2):
        raise TaskError(
            f"{name} has {form[0]} Hz, {form[1]} channels, {8 * form[2]} bits",
            fix=f"convert it to {RATE_HZ} Hz mono 16-bit",
        )
    if announced == 0 or len(raw) != 2 * announced:
        raise TaskError(
            f"{name} announces {announced} samples and holds {len(raw) // 2}", fix="repair or remove that recording"
        )
    return np.frombuffer(raw, dtype="<i2").astype(np.int16)


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


def _is_recording(path: str) -> bool:
    # Archives made on a Mac carry a second, hidden entry for every file.
    name = path.rpartition("/")[2]
    return name.endswith(".wav") and not name.startswith(".") and not path.startswith("__MACOSX/")


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
