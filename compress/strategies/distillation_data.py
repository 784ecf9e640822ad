"""Which examples a student copies its teacher on: the teacher's own, others, both, or blends of them.

Source: Stanton et al., "Does Knowledge Distillation Really Work?", NeurIPS 2021, arXiv:2106.05945, section 4: the same
data as the teacher's, data that it has not seen, both together (best of both), mixup (best fidelity of the policies);
synthetic pictures in the proportion of 1 to 4. No label is read, so blends and unlabelled streams are as good as any.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from compress.augmentations import mixed_up
from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.errors import RecipeError


class DistillationData(DataStrategy):
    """One batch of several streams.

    Args:
        streams: names joined by "+": "train", "unlabelled", "train+unlabelled". The first one's length makes an epoch.
        others: examples of each further stream for one of the first; 4 for synthetic pictures in the paper.
        mixed: share of the examples that are blended with another, 0 to 1.
        augment: whether the task's augmentation comes first, on every stream: a choice of data as well.

    Raises:
        RecipeError: no stream, one named twice, or numbers out of their range.
    """

    def __init__(self, streams: str = "train", others: float = 1.0, mixed: float = 0.0, augment: bool = False) -> None:
        names = [name.strip() for name in streams.split("+")]
        if not all(names) or len(set(names)) < len(names):
            raise RecipeError(
                f"the streams are '{streams}'", fix='write names joined by "+", such as "train+unlabelled"'
            )
        if not 0.0 < others < float("inf") or not 0.0 <= mixed <= 1.0:
            raise RecipeError(
                f"the data strategy has others = {others} and mixed = {mixed}",
                fix="write others above 0, and mixed as a share from 0 to 1",
            )
        self._streams = {name: others if place else 1.0 for place, name in enumerate(names)}
        self._mixed = mixed
        self.augments = augment

    @property
    def streams(self) -> Mapping[str, float]:
        return self._streams

    @property
    def deterministic(self) -> bool:
        return len(self._streams) == 1 and self._mixed == 0.0

    def transform(
        self,
        batches: Mapping[str, Batch],
        teachers: Mapping[str, Teacher],
        clock: Clock,
        generator: torch.Generator,
    ) -> Mapping[str, Batch]:
        shown = {name: self.augmented(batches[name], generator) for name in self._streams}
        if self.deterministic:
            return shown
        batch = _joined(list(shown.values()))
        return {"examples": mixed_up(batch, self._mixed, generator) if self._mixed else batch}


def _joined(parts: list[Batch]) -> Batch:
    """One batch; labels only where all parts have them, extras and positions of one part alone."""
    if len(parts) == 1:
        return replace(parts[0], stream="")
    labels = [part.labels for part in parts if part.labels is not None]
    return Batch(
        tuple(torch.cat(tensors) for tensors in zip(*(part.inputs for part in parts), strict=True)),
        torch.cat(labels) if len(labels) == len(parts) else None,
        torch.cat([part.index for part in parts]),
    )
