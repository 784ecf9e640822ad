"""Data files: WAV, archives of them, IDX, and the arrays of .npz files."""

import gzip
import io
import struct
import wave
import zipfile
from pathlib import Path
from typing import Any

from tools.fuzzing import mutations
from tools.fuzzing.kind import Kind, Rng


def _prepare(folder: Path) -> Any:
    import numpy as np

    stream = io.BytesIO()
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(np.arange(200, dtype="<i2").tobytes())
    recording = stream.getvalue()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("recordings/0_a_0.wav", recording)
        archive.writestr("recordings/1_b_7.wav", recording)
    pictures = struct.pack(">4B3I", 0, 0, 8, 3, 2, 5, 5) + bytes(range(50))
    arrays = io.BytesIO()
    np.savez(arrays, allow_pickle=False, **{"input:x": np.ones((2, 3), np.float32), "output:y": np.zeros(2, np.int8)})
    return recording, stream.getvalue(), pictures, arrays.getvalue()


def _examine(samples: Any, rng: Rng, folder: Path) -> None:
    from compress.clothing import read_idx
    from compress.digit_recordings import read_archive, read_wav
    from exporters import golden

    recording, archive, pictures, arrays = samples
    kind = rng.randrange(4)
    if kind == 0:
        read_wav("case.wav", mutations.of_bytes(recording, rng))
    elif kind == 1:
        (folder / "case.zip").write_bytes(mutations.of_bytes(archive, rng))
        for name, content in read_archive(folder / "case.zip").items():
            read_wav(name, content)
    elif kind == 2:
        packed = gzip.compress(mutations.of_bytes(pictures, rng), mtime=0)
        (folder / "case.gz").write_bytes(packed if rng.random() < 0.7 else mutations.of_bytes(packed, rng))
        read_idx(folder / "case.gz")
    else:
        (folder / "case.npz").write_bytes(mutations.of_bytes(arrays, rng))
        golden.read(folder / "case.npz")


KIND = Kind("recordings", _prepare, _examine)
