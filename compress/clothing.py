"""Grey 28x28 pictures of ten kinds of clothing, as several tasks give them.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747; the four gz files of github.com/zalandoresearch/fashion-mnist (MIT licence).
"""

import gzip
import hashlib
import struct
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from compress.augmentations import mirrored, shifted
from compress.contracts.batch import Batch
from compress.contracts.task import Task, TrainingNumbers
from compress.data_checks import verified_files
from compress.errors import TaskError
from compress.frontends.normalise import Normalise
from compress.residual_network import ResidualNetwork

SOURCE = "they are in data/fashion of github.com/zalandoresearch/fashion-mnist"
DIGESTS = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
VALIDATION = 5_000  # the last of the 60,000 published training pictures
MEAN, STD = 0.2860, 0.3530  # of the training pixels / 255


class Clothing(Task):
    """What all of them share; each gives the pictures and labels of `read` as splits of its own."""

    labels = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    input_shape = (1, 28, 28)
    preprocessing = f"grey pixels 0..255 divided by 255, then (x - {MEAN}) / {STD}"
    augments = True
    teacher_numbers: ClassVar[TrainingNumbers] = TrainingNumbers(
        epochs=10, batch_size=128, learning_rate=3e-3, weight_decay=0.02
    )

    def frontend(self) -> nn.Module:
        return Normalise([MEAN], [STD])

    def teacher(self) -> nn.Module:
        return ResidualNetwork(1, widths=(64, 128), depths=(1, 2), outputs=10, stem_stride=2)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Mirror images and shifts by up to one pixel; a schedule this short has no use for stronger changes."""
        return batch.with_inputs(shifted(mirrored(batch.inputs[0], generator), 1, generator))

    def read(self, data: Path | None, part: str) -> tuple[Tensor, Tensor, str]:
        """The published part "train" (60,000) or "t10k" (10,000).

        Returns:
            (pixels (N, 1, 28, 28) uint8, class indices (N,), SHA-256 of both files).

        Raises:
            TaskError: files are absent, or not those that were published.
        """
        paths = verified_files(self.name, data, DIGESTS, SOURCE)
        pictures, labels = paths[f"{part}-images-idx3-ubyte.gz"], paths[f"{part}-labels-idx1-ubyte.gz"]
        digest = hashlib.sha256((DIGESTS[pictures.name] + DIGESTS[labels.name]).encode()).hexdigest()
        pixels = torch.from_numpy(read_idx(pictures)).unsqueeze(1)
        return pixels, torch.from_numpy(read_idx(labels)).to(torch.int64), digest


def read_idx(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A gzipped IDX file of unsigned bytes -> an array of the shape that its header names.

    Format: two zero bytes, type 8 (unsigned byte), number of dimensions, each as big-endian uint32, then the bytes.

    Raises:
        TaskError: not gzip, cut off, another type, or fewer or more bytes than the header says.
    """
    try:
        with gzip.open(path, "rb") as handle:
            content = handle.read()
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(f"{path} is not a whole gzip file: {error}", fix="fetch the file again") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise TaskError(f"{path} is not an IDX file of unsigned bytes", fix="fetch the file again")
    dimensions = content[3]
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise TaskError(
            f"{path} announces {' x '.join(map(str, shape))} bytes and holds {values.size:,}",
            fix="fetch the file again",
        )
    return values.reshape(shape).copy()
