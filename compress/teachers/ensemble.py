"""Several teachers that answer as one.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 1: the
arithmetic or geometric mean of an ensemble's predictions as the target of a single model.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.contracts.stages import Stage
from compress.contracts.teacher import Teacher
from compress.errors import TeacherError


class EnsembleTeacher(Teacher):
    """The mean of its members' answers; taps are in `Signals.taps` as `<member>.<tap>`.

    Args:
        members: at least one, by name.
        weights: of the members, >= 0 with a positive sum; equal where absent. They are scaled to sum to 1.
        average: how logits become one: `mean_of_logits` (the geometric mean of probabilities) or
            `mean_of_probabilities`.

    Raises:
        ValueError: no member, or weights that are negative, all zero or too few.
    """

    def __init__(
        self,
        members: Mapping[str, Teacher],
        weights: Sequence[float] | None = None,
        average: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        shares = tuple(weights) if weights is not None else (1.0,) * len(members)
        if not members or len(shares) != len(members) or min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"{len(members)} members, weights {shares}")
        self._members = dict(members)
        self._shares = tuple(share / sum(shares) for share in shares)
        self._average = average or mean_of_logits

    @property
    def cacheable(self) -> bool:
        return all(member.cacheable for member in self._members.values())

    @property
    def fingerprint(self) -> str:
        inner = [(name, member.fingerprint) for name, member in self._members.items()]
        return hashlib.sha256(repr((inner, self._shares, self._average.__qualname__)).encode()).hexdigest()

    def observe(self, batch: Batch) -> Signals:
        """Averaged outputs; further outputs are averaged as they are.

        Raises:
            TeacherError: members answer with different shapes or different further outputs.
        """
        answers = {name: member.observe(batch) for name, member in self._members.items()}
        first = next(iter(answers.values()))
        for name, answer in answers.items():
            if answer.output.shape != first.output.shape or answer.others.keys() != first.others.keys():
                raise TeacherError(
                    f"member {name!r} answers with shape {tuple(answer.output.shape)}, another with "
                    f"{tuple(first.output.shape)}",
                    fix="use members that were trained for the same task",
                )
        shares = torch.tensor(self._shares, dtype=first.output.dtype, device=first.output.device)
        stacked = torch.stack([answer.output for answer in answers.values()])
        return Signals(
            self._average(stacked, shares),
            {
                key: mean_of_logits(torch.stack([answer.others[key] for answer in answers.values()]), shares)
                for key in first.others
            },
            {f"{name}.{tap}": value for name, answer in answers.items() for tap, value in answer.taps.items()},
        )

    @property
    def stages(self) -> Mapping[str, Stage]:
        return {f"{name}.{tap}": end for name, member in self._members.items() for tap, end in member.stages.items()}

    def modules(self) -> Mapping[str, nn.Module]:
        return {
            f"{name}.{part}": module
            for name, member in self._members.items()
            for part, module in member.modules().items()
        }

    def after_step(self, students: Mapping[str, nn.Module]) -> None:
        for member in self._members.values():
            member.after_step(students)


def mean_of_logits(logits: Tensor, shares: Tensor) -> Tensor:
    """(M, B, ...) logits and (M,) shares that sum to 1 -> (B, ...) logits of the normalised geometric mean."""
    return torch.einsum("m,m...->...", shares, logits)


def mean_of_probabilities(logits: Tensor, shares: Tensor) -> Tensor:
    """(M, B, C) logits and (M,) shares that sum to 1 -> (B, C) logits whose softmax is the mean of the softmaxes."""
    log_shares = shares.log().reshape(-1, *([1] * (logits.ndim - 1)))
    return torch.logsumexp(torch.log_softmax(logits, dim=2) + log_shares, dim=0)
