"""Inputs that a teacher has and its student has not.

Sources: Vapnik, Vashist, "A New Learning Paradigm: Learning Using Privileged Information", Neural Networks 22, 2009;
Lopez-Paz, Bottou, Schoelkopf, Vapnik, "Unifying Distillation and Privileged Information" (generalised distillation),
ICLR 2016, arXiv:1511.03643. A task names them in `Task.privileged`; they travel beside the inputs in its batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Examples, Splits
from compress.errors import TaskError
from compress.network import features_of


def told(batch: Batch, names: Sequence[str]) -> Batch:
    """The batch with the named entries of its `extras` and `common` behind its inputs.

    Raises:
        TaskError: the batch has none of that name.
    """
    if not names:
        return batch
    there = {**batch.extras, **batch.common}
    absent = [name for name in names if name not in there]
    if absent:
        raise TaskError(
            f"the teacher takes {absent[0]!r}, which the student does not see, and a batch of the stream "
            f"{batch.stream or '?'!r} has {', '.join(map(repr, there)) or 'nothing'} beside its inputs",
            fix=f"let the stream's batch() put {absent[0]!r} into extras (one row per example) or common (one for all)",
        )
    return replace(batch, inputs=(*batch.inputs, *(there[name] for name in names)))


@final
@dataclass(frozen=True)
class Told:
    """Examples as the teacher sees them: its training needs no other loop than a student's."""

    examples: Examples
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, index: Tensor) -> Batch:
        """The same examples, with privileged inputs behind the others."""
        return told(self.examples.batch(index), self.names)

    def fingerprint(self) -> str:
        """The same."""
        return self.examples.fingerprint()


def told_splits(splits: Splits, names: tuple[str, ...]) -> Splits:
    """What a teacher that takes privileged inputs is trained with."""
    if not names:
        return splits
    train, val, test = (Told(examples, names) for examples in (splits.train, splits.val, splits.test))
    return Splits(train, val, test, tuple((name, Told(examples, names)) for name, examples in splits.extras))


@final
class PrivilegedModel(nn.Module):
    """Raw and privileged inputs -> outputs: the front-end is for the raw ones alone.

    Attributes:
        frontend: the task's preprocessing.
        network: takes what the front-end gives, and behind that the privileged inputs.

    Args:
        raw: how many of the inputs are raw.
    """

    def __init__(self, frontend: nn.Module, network: nn.Module, raw: int) -> None:
        super().__init__()
        self.frontend = frontend
        self.network = network
        self._raw = raw

    def forward(self, *inputs: Tensor) -> Tensor:
        """Raw inputs, (B, ...) each, then privileged ones -> (B, ...)."""
        output: Tensor = self.network(*features_of(self.frontend, inputs[: self._raw]), *inputs[self._raw :])
        return output


@final
class Knowing(nn.Module):
    """A model that answers raw inputs by privileged ones that stay the same, for whoever only wants to know its cost.

    Args:
        model: takes raw inputs, then privileged ones.
        known: the privileged ones; they are no buffers, and stay where they are.
    """

    def __init__(self, model: nn.Module, known: Sequence[Tensor]) -> None:
        super().__init__()
        self.model = model
        self._known = tuple(known)

    def forward(self, *raw: Tensor) -> Tensor:
        """Raw inputs, (B, ...) each -> (B, ...)."""
        output: Tensor = self.model(*raw, *self._known)
        return output
