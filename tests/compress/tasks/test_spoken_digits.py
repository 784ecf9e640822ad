"""Recordings in a zip file, and the published data where they are."""

import io
import math
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.digit_recordings import content_digest, parse_name, read_archive, read_folder, read_wav
from compress.errors import TaskError
from compress.tasks.spoken_digits import SAMPLES, TASK, disturbed, one_second


def wav(samples: np.ndarray, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as opened:
        opened.setframerate(rate)
        opened.setnchannels(channels)
        opened.setsampwidth(width)
        opened.writeframes(samples.astype("<i2").tobytes())
    return stream.getvalue()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def test_reads_samples_with_their_sign() -> None:
    assert read_wav("a.wav", wav(np.array([-32768, -1, 0, 32767]))).tolist() == [-32768, -1, 0, 32767]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"RIFF", "not a WAV file"),
        (b"not audio at all, but long enough for a header of one", "not a WAV file"),
        (wav(np.zeros(8), rate=16000), "16000 Hz"),
        (wav(np.zeros(8), channels=2), "2 channels"),
        (wav(np.zeros(8), width=1), "8 bits"),
        (wav(np.zeros(0)), "announces 0 samples"),
        (wav(np.zeros(100))[:-50], "announces 100 samples and holds 75"),
    ],
)
def test_a_recording_that_does_not_fit_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        read_wav("3_theo_1.wav", content)


def test_names_say_digit_speaker_and_number() -> None:
    assert parse_name("7_jackson_32.wav") == (7, "jackson", 32)
    for name in ("seven_jackson_32.wav", "7_jackson.wav", "7_jackson_x.wav"):
        with pytest.raises(TaskError, match="digit_speaker_number"):
            parse_name(name)


def test_a_short_clip_is_centred_in_silence() -> None:
    clip = one_second(np.full(3, 7, dtype=np.int16))
    assert clip.shape == (SAMPLES,)
    assert np.flatnonzero(clip).tolist() == [3998, 3999, 4000]  # (8000 - 3) // 2 = 3998 zeros before


def test_a_long_clip_keeps_its_loudest_second() -> None:
    clip = np.zeros(20_000, dtype=np.int16)
    clip[11_000:19_000] = -32768  # whose squares overflow 16 and 32 bits when summed
    assert (one_second(clip) == -32768).all()


def test_a_clip_of_a_second_is_itself() -> None:
    clip = np.arange(SAMPLES).astype(np.int16)
    assert (one_second(clip) == clip).all()


def test_the_digest_is_of_the_content_and_not_of_the_packing(tmp_path: Path) -> None:
    clips = {"1_a_0.wav": wav(np.ones(5)), "0_a_0.wav": wav(np.zeros(5))}
    plain = read_archive(archive(tmp_path / "plain.zip", clips))
    nested = {f"recordings/{name}": clips[name] for name in sorted(clips)}
    nested |= {"__MACOSX/recordings/._1_a_0.wav": b"x", "recordings/.DS_Store": b"x"}
    packed = read_archive(archive(tmp_path / "nested.zip", nested))
    assert content_digest(plain) == content_digest(packed)
    (tmp_path / "recordings").mkdir()
    for name, content in clips.items():
        (tmp_path / "recordings" / name).write_bytes(content)
    assert content_digest(plain) == content_digest(read_folder(tmp_path / "recordings"))
    packed["1_a_0.wav"] = wav(np.ones(6))
    assert content_digest(plain) != content_digest(packed)


def test_a_cut_off_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "recordings.zip", {"1_a_0.wav": wav(np.ones(500))})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TaskError, match="not a whole zip file"):
        TASK.load(tmp_path)


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-3000, 3000, 500)
    path = archive(tmp_path / "recordings.zip", {"1_a_0.wav": wav(noise)})
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(TaskError, match="not a whole zip file"):
        TASK.load(tmp_path)


def test_other_recordings_are_refused_with_both_digests(tmp_path: Path) -> None:
    archive(tmp_path / "recordings.zip", {"1_a_0.wav": wav(np.ones(500))})
    with pytest.raises(TaskError, match=r"1 files with sha256 [0-9a-f]{64}, expected 3,000 with dbd573d7"):
        TASK.load(tmp_path)


def test_no_data_names_the_file_and_its_source() -> None:
    with pytest.raises(TaskError, match="needs data") as refused:
        TASK.load(None)
    assert "recordings.zip" in refused.value.fix
    assert "free-spoken-digit-dataset" in refused.value.fix


def test_disturbance_is_a_shift_a_gain_and_little_noise() -> None:
    clip = torch.zeros(300, SAMPLES)
    clip[:, 4000] = 0.2
    changed = disturbed(clip, torch.Generator().manual_seed(0))
    peaks, places = changed.abs().max(dim=1)
    assert ((places - 4000).abs() <= 1600).all()
    assert places.float().std() > 500  # 1600 / sqrt(3) = 924 for a uniform shift
    low, high = 0.2 * 10 ** (-12 / 20), 0.2 * 10 ** (12 / 20)
    noise = 5 * 10 ** (-40 / 20)  # five standard deviations at the loudest level
    assert ((peaks > low - noise) & (peaks < high + noise)).all()
    rest = changed.scatter(1, places[:, None], 0.0)
    assert rest.std(dim=1).max() < 1.1 * 10 ** (-40 / 20)


def test_the_published_data(shared_data: Path) -> None:
    splits = TASK.load(shared_data / "fsdd")
    assert [len(splits.train), len(splits.val), len(splits.test)] == [2400, 300, 300]
    for examples in splits.named().values():
        labels = examples.batch(torch.arange(len(examples))).labels
        assert labels.bincount().tolist() == [len(examples) // 10] * 10
    batch = splits.train.batch(torch.arange(0, 2400, 8))
    assert batch.inputs[0].abs().max() <= 1.0
    features = TASK.frontend()(TASK.augment(batch, torch.Generator().manual_seed(0)).inputs[0])
    assert features.shape == (300, 1, 32, 61)
    assert features.min() >= (math.log(1e-7) + 11.5) / 4.0 - 1e-4
    assert abs(features.mean().item()) < 0.15  # the affine numbers were read off augmented training clips
    assert abs(features.std().item() - 1.0) < 0.15
