"""A teacher that is the moving average of its student.

Source: Tarvainen, Valpola, "Mean teachers are better role models", arXiv:1703.01780, equation (1) of section 2.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.contracts.stages import Stage
from compress.contracts.teacher import Teacher
from compress.taps import Taps, detached, observe


class EMATeacher(Teacher):
    """theta' <- decay * theta' + (1 - decay) * theta after every step of the student.

    Args:
        student: the network to follow; copied as it is now.
        decay: in [0, 1]: 0 is the student itself, 1 never moves.
        buffers: whether floating-point buffers (BN statistics) are averaged like weights; if not, they are copied.
            Integer buffers are always copied.
        mode: "eval" answers with the averaged BN statistics, "train" with those of the batch and with dropout, as the
            source does; its running statistics do not move from answering, in either mode.
        taps: submodules whose outputs are in `Signals.taps`.
        of: which student to follow, by its name in the method.

    Raises:
        ValueError: decay out of range.
        RecipeError: a tap names no submodule.
    """

    def __init__(
        self,
        student: nn.Module,
        decay: float,
        buffers: bool = True,
        mode: Literal["train", "eval"] = "eval",
        *,
        taps: Sequence[str] = (),
        of: str = "student",
    ) -> None:
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"decay must be in [0, 1], got {decay}")
        self.decay = decay
        self._buffers = buffers
        self._mode = mode
        self._of = of
        self._average = copy.deepcopy(student).requires_grad_(False)
        self._average.train(mode == "train")
        self._taps = Taps(self._average, taps)
        self._steps = 0

    @property
    def cacheable(self) -> bool:
        return False

    @property
    def fingerprint(self) -> str:
        return f"ema:{self.decay}:{self._buffers}:{self._mode}:{self._of}:step {self._steps}"

    def observe(self, batch: Batch) -> Signals:
        """The average's answers, as float32."""
        self._average.train(self._mode == "train")
        with torch.no_grad():
            if self._mode == "eval":
                return detached(observe(self._average, batch, self._taps))
            # In train mode BN would count every batch it answers into its running statistics: put them back.
            kept = [(buffer, buffer.clone()) for buffer in self._average.buffers()]
            answer = detached(observe(self._average, batch, self._taps))
            for buffer, value in kept:
                buffer.copy_(value)
            return answer

    @property
    def stages(self) -> Mapping[str, Stage]:
        return self._taps.stages

    def modules(self) -> Mapping[str, nn.Module]:
        return {"average": self._average}

    def after_step(self, students: Mapping[str, nn.Module]) -> None:
        """Follow `students[of]`.

        Raises:
            KeyError: there is no such student.
            ValueError: the student's parameters are no longer those that were copied.
        """
        student = students[self._of]
        self._steps += 1
        with torch.no_grad():
            _blend(dict(self._average.named_parameters()), dict(student.named_parameters()), self.decay)
            ours, theirs = dict(self._average.named_buffers()), dict(student.named_buffers())
            averaged = {name for name, value in ours.items() if self._buffers and value.is_floating_point()}
            _blend({name: ours[name] for name in averaged}, {name: theirs[name] for name in averaged}, self.decay)
            for name in ours.keys() - averaged:
                ours[name].copy_(theirs[name])


def _blend(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], decay: float) -> None:
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())[0]
        raise ValueError(f"average and student differ in {odd!r}: hand in the student as it was when it was copied")
    for name, value in ours.items():
        value.lerp_(theirs[name].to(value.device, value.dtype), 1.0 - decay)
