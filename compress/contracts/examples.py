"""Data that can be read by position."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from compress.contracts.batch import Batch


class Examples(Protocol):
    """One split or stream. The same positions always give the same batch: randomness belongs to augmentation."""

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index`, (B,) int64."""
        ...

    def fingerprint(self) -> str:
        """Changes whenever the content does: caches and finished stages are keyed by it."""
        ...


@dataclass(frozen=True)
class Splits:
    """Train and validation are for choosing; test is read by the verify stage alone."""

    train: Examples
    val: Examples
    test: Examples
    extras: tuple[tuple[str, Examples], ...] = ()  # further streams by name, such as ("unlabelled", ...)

    def named(self) -> dict[str, Examples]:
        """Every stream by its name."""
        return {"train": self.train, "val": self.val, "test": self.test, **dict(self.extras)}


@dataclass(frozen=True)
class TensorExamples:
    """Examples that fit into memory.

    Attributes:
        inputs: (N, ...) float32, or any integer type that `scale` turns into float32 when read; a tuple where an
            example has several.
        labels: (N, ...).
        digest: the content's SHA-256, from whoever read the files.
        scale: factor applied to integer inputs: 1/255 for 8-bit pixels, 1/32768 for 16-bit audio; None leaves integers
            as they are, which token ids want.

    Raises:
        ValueError: inputs and labels are not of one length.
    """

    inputs: Tensor | tuple[Tensor, ...]
    labels: Tensor
    digest: str
    scale: float | None = 1.0

    def __post_init__(self) -> None:
        lengths = [len(tensor) for tensor in (*self._inputs, self.labels)]
        if len(set(lengths)) > 1:
            raise ValueError(f"inputs and labels have lengths {', '.join(map(str, lengths))}")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index`, inputs as float32 unless `scale` leaves integers as they are."""
        return Batch(tuple(self._read(tensor[index]) for tensor in self._inputs), self.labels[index], index)

    def fingerprint(self) -> str:
        """The digest with the length, so that two parts of one file differ."""
        return f"{self.digest}:{len(self)}"

    @property
    def _inputs(self) -> tuple[Tensor, ...]:
        return self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)

    def _read(self, values: Tensor) -> Tensor:
        if values.is_floating_point():
            return values.to(torch.float32)
        return values if self.scale is None else values.to(torch.float32) * self.scale
