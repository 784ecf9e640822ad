"""Some labelled examples are kept from the student, for what a method learns beside it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Examples, Splits
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.errors import RecipeError

STREAM = "held_out"


@dataclass(frozen=True)
class Part:
    """Some examples of a split. A batch says where they are in the whole split, so that its cache can answer for it.

    Attributes:
        whole: the split.
        positions: in it, (n,) int64.
    """

    whole: Examples
    positions: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index` of the part, (B,) int64."""
        return self.whole.batch(self.positions[index])

    def fingerprint(self) -> str:
        """Of the whole and of the choice."""
        return f"{self.whole.fingerprint()}:{sha256(self.positions.numpy().tobytes()).hexdigest()[:16]}"


class HeldOut(DataStrategy):
    """Two streams: "train", and "held_out" of examples that the student never trains on.

    The validation split could serve as well, but choosing a student, its precision and its gates look at that: a ratio
    that was learned on it would let each of them see what training has seen. So the default holds back a tenth of the
    training examples, as the paper does. `source` names another stream where one is known to be better: a small clean
    one beside noisy training labels.

    Args:
        share: of the source, in (0, 1]; less than 1 where the source is the train split.
        source: stream that is held out from.
        batch: size of a held-out batch as a factor of the recipe's, > 0.
        augment: whether the student sees training examples with the task's augmentation, without which a teacher's
            answers may come from a cache; held-out ones stay as they are.
        seed: of the choice. It is not the training's, so that every training of a run holds out the same examples.

    Raises:
        RecipeError: a number out of its range.
    """

    def __init__(
        self, share: float = 0.1, source: str = "train", batch: float = 1.0, seed: int = 0, augment: bool = True
    ) -> None:
        if not 0.0 < share <= 1.0 or (source == "train" and share == 1.0):
            raise RecipeError(
                f"the share {share} of {source!r} cannot be held out",
                fix="write a share above 0 and below 1, such as 0.1; 1 where the source is another stream",
            )
        if not 0.0 < batch < float("inf"):
            raise RecipeError(f"held-out batches of {batch} times the batch size", fix="write batch = 1.0")
        self._share, self._source, self._batch, self._seed = share, source, batch, seed
        self.augments = augment

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0, STREAM: self._batch}

    @property
    def deterministic(self) -> bool:
        return True

    def splits(self, splits: Splits) -> Splits:
        """The same without the held-out examples in the train split, and these as a stream of their own.

        Raises:
            RecipeError: there is no such stream, or too few examples for a part of it.
        """
        there = splits.named()
        if self._source not in there:
            raise RecipeError(
                f"there is no stream {self._source!r} to hold examples out from; there are {', '.join(there)}",
                fix="name one of these as distill.strategy.source",
            )
        whole = there[self._source]
        order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(self._seed))
        count = max(1, round(self._share * len(whole)))
        if self._source == "train" and count >= len(whole):
            raise RecipeError(f"of {len(whole)} training examples none can be held out", fix="bring more examples")
        held = Part(whole, order[:count].sort().values)
        extras = (*splits.extras, (STREAM, held))
        if self._source != "train":
            return replace(splits, extras=extras)
        return replace(splits, train=Part(whole, order[count:].sort().values), extras=extras)

    def transform(
        self,
        batches: Mapping[str, Batch],
        teachers: Mapping[str, Teacher],
        clock: Clock,
        generator: torch.Generator,
    ) -> Mapping[str, Batch]:
        return {**batches, "train": self.augmented(batches["train"], generator)}
