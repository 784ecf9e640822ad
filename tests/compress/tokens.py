"""A made-up task of two integer inputs: which family most words of a short text come from."""

import hashlib
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task, TrainingNumbers
from compress.frontends.unchanged import Unchanged
from compress.structure.embedding_head import masked_mean

WORDS, LENGTH = 40, 8  # id 0 is padding; ids 1 to 39 belong to family (id % 3)


class Bag(nn.Module):
    """Mean of the words' vectors, and a layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, 16)
        self.head = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, n) and (B, n) -> (B, 3) logits."""
        output: Tensor = self.head(masked_mean(self.table(ids), mask))
        return output


@final
class Families(Task):
    """Texts of 3 to 8 words, of which one or more than the others' belong to the label's family."""

    name = "families"
    labels = ("zeroth", "first", "second")
    input_names = ("input_ids", "attention_mask")
    input_shapes = ((LENGTH,), (LENGTH,))
    input_values = (WORDS, 2)
    preprocessing = "word ids, 0 where there is none"
    teacher_numbers = TrainingNumbers(epochs=12, batch_size=64, learning_rate=2e-2)

    def load(self, data: Path | None) -> Splits:
        """1,200 / 300 / 600 texts."""
        return Splits(texts(1200, 1), texts(300, 2), texts(600, 3))

    def frontend(self) -> nn.Module:
        """Ids and mask as they are."""
        return Unchanged()

    def teacher(self) -> nn.Module:
        """A bag of words."""
        return Bag()


def texts(count: int, seed: int) -> TensorExamples:
    """`count` texts; the same ones for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    lengths = torch.randint(3, LENGTH + 1, (count,), generator=generator)
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    families = torch.randint(3, (count, LENGTH), generator=generator)
    own = torch.rand(count, LENGTH, generator=generator) < 0.7
    families = torch.where(own, labels[:, None], families)
    ids = (3 * torch.randint(1, WORDS // 3, (count, LENGTH), generator=generator) + families) * mask
    digest = hashlib.sha256(ids.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    return TensorExamples((ids, mask), labels, digest, scale=None)


TASK = Families()
