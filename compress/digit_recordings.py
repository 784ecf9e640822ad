"""The recordings of the Free Spoken Digit Dataset, read and checked.

Source: Jackson et al., "Free Spoken Digit Dataset", doi 10.5281/zenodo.1342401; the 3,000 WAV files of
github.com/Jakobovski/free-spoken-digit-dataset/recordings (CC BY-SA 4.0): six speakers, 50 recordings of each digit.
"""

import hashlib
import io
import wave
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compress.data_checks import data_folder
from compress.errors import TaskError

ARCHIVE = "recordings.zip"
FOLDER = "recordings"
SOURCE = "it is the folder recordings of github.com/Jakobovski/free-spoken-digit-dataset, zipped or as it is"
DIGEST = "dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f"
"""SHA-256 over every recording's name and SHA-256, in the order of names: however the files were zipped."""

RATE_HZ = 8000
TEST_NUMBERS = range(5)  # the source's rule: recordings 0 to 4 of each speaker and digit are test, 5 to 49 training
VAL_NUMBERS = range(5, 10)  # ours, from the training part

Waveform = np.ndarray[tuple[int, ...], np.dtype[np.int16]]


def read_recordings(task: str, data: Path | None) -> dict[str, bytes]:
    """All 3,000 WAV files by their name, in the order of names.

    Args:
        task: its name, for messages.
        data: the folder that `--data` names.

    Raises:
        TaskError: no folder was named, files are absent, cannot be read or are others.
    """
    unpacked = data is not None and (data / FOLDER).is_dir()
    place = data_folder(task, data, (FOLDER if unpacked else ARCHIVE,), SOURCE)
    source = place / (FOLDER if unpacked else ARCHIVE)
    recordings = read_folder(source) if unpacked else read_archive(source)
    found = content_digest(recordings)
    if found != DIGEST:
        raise TaskError(
            f"{source} does not hold the recordings of {task!r}: {len(recordings):,} files with "
            f"sha256 {found}, expected 3,000 with {DIGEST}",
            fix=f"fetch the recordings again: {SOURCE}",
        )
    return {name: recordings[name] for name in sorted(recordings)}


def parts_of(recordings: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """The published training and test parts, with some of the training part for validation: "train", "val", "test"."""
    parts: dict[str, dict[str, bytes]] = {"train": {}, "val": {}, "test": {}}
    for name, content in recordings.items():
        number = parse_name(name)[2]
        part = "test" if number in TEST_NUMBERS else "val" if number in VAL_NUMBERS else "train"
        parts[part][name] = content
    return parts


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
    except (wave.Error, EOFError, RuntimeError) as error:  # chunks that overlap: RuntimeError without a word
        raise TaskError(
            f"{name} is not a WAV file: {error or 'its chunks do not fit its length'}",
            fix="repair or remove that recording",
        ) from error
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


def _is_recording(path: str) -> bool:
    # Archives made on a Mac carry a second, hidden entry for every file.
    name = path.rpartition("/")[2]
    return name.endswith(".wav") and not name.startswith(".") and not path.startswith("__MACOSX/")
