"""What is to be learned: data, metric, preprocessing, and a reference teacher."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits
from compress.errors import TaskError


@dataclass(frozen=True)
class Input:
    """One of the tensors that an example has.

    Attributes:
        name: as the exported graph has it.
        shape: of one example, without the batch dimension.
        values: how many integers it may hold, from 0: the size of a vocabulary; 0 for real numbers.
    """

    name: str
    shape: tuple[int, ...]
    values: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """torch.int64, or torch.float32 for real numbers."""
        return torch.int64 if self.values else torch.float32


@dataclass(frozen=True)
class TrainingNumbers:
    """How a network is trained: SGD-like numbers that recipes may override.

    Attributes:
        keep_best: whether the weights are those of the last phase's epoch with the best validation score (of equal ones
            the latest) instead of those of its last epoch.
    """

    epochs: int  # 0 for a teacher that `Task.teacher` gives trained
    batch_size: int
    learning_rate: float  # peak, of AdamW
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    keep_best: bool = False


class Task(ABC):
    """One file of `compress/tasks`, or a user's own file, ends with `TASK = <a final subclass>()`.

    Attributes:
        name: as recipes say it.
        kind: classification, regression, segmentation, ...
        labels: the names of the outputs, in order.
        input_shape: one example without the batch dimension, where it is one tensor.
        input_shapes: the same of every input, where there are several; `input_shape` is not set then.
        input_values: of every input, how many integers it may hold, from 0: the size of the vocabulary for token ids, 2
            for their mask, 0 for real numbers; () where all are real. Integers are int64, real numbers float32.
        input_names, output_names: of the exported graph; outputs of `postprocess` come behind these.
        postprocessed_names: what `postprocess` gives, in order; () where there is none.
        metric: what `total` makes of the sums of `score`; higher is better, and 1 is perfect where it is a fraction.
        metric_unit: "%" where the metric is a fraction, which people read in percent; "" where it is a number of its
            own, such as a correlation.
        decision_period_ms: how often the device must answer; None where latency alone matters.
        preprocessing: what `frontend` does, in words and numbers, for the exported file's metadata.
        directions: of the output names, those whose rows are vectors of length 1 that are read through their inner
            products alone, such as embeddings. Artifacts may turn them, which is bounded; other outputs are compared
            value by value.
        privileged: what the teacher's network takes behind the inputs and no student ever sees, by its names in
            `Batch.extras` (one row per example) and `Batch.common`: a graph, a second sensor, what happened later.
    """

    name: ClassVar[str]
    kind: ClassVar[str] = "classification"
    labels: ClassVar[tuple[str, ...]]
    input_shape: ClassVar[tuple[int, ...]]
    input_shapes: ClassVar[tuple[tuple[int, ...], ...]] = ()
    input_values: ClassVar[tuple[int, ...]] = ()
    input_names: ClassVar[tuple[str, ...]] = ("input",)
    output_names: ClassVar[tuple[str, ...]] = ("logits",)
    postprocessed_names: ClassVar[tuple[str, ...]] = ()
    metric: ClassVar[str] = "accuracy"
    metric_unit: ClassVar[Literal["%", ""]] = "%"
    decision_period_ms: ClassVar[float | None] = None
    preprocessing: ClassVar[str] = ""
    directions: ClassVar[tuple[str, ...]] = ()
    privileged: ClassVar[tuple[str, ...]] = ()
    augments: ClassVar[bool] = False
    teacher_numbers: ClassVar[TrainingNumbers] = TrainingNumbers(epochs=10, batch_size=128, learning_rate=2e-3)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What an example is made of, in the order in which networks take it."""
        shapes = self.input_shapes or (self.input_shape,)
        return tuple(map(Input, self.input_names, shapes, self.input_values or (0,) * len(shapes)))

    @abstractmethod
    def load(self, data: Path | None) -> Splits:
        """Read and verify the data.

        Args:
            data: the folder that `--data` names; None for a task that brings its own.

        Raises:
            TaskError: files are absent, changed (sha256), empty, not finite, or labels are out of range.
        """

    @abstractmethod
    def frontend(self) -> nn.Module:
        """Preprocessing that belongs to the model and is exported with it: raw inputs -> what networks take.

        It takes every input in order, and gives one tensor or a tuple of them, batch first; the network takes them in
        that order.
        """

    @abstractmethod
    def teacher(self) -> nn.Module:
        """The reference teacher's network: takes what `frontend` gives. Used where the user brings none.

        It is trained by `teacher_numbers`, unless these have no epochs.
        """

    def postprocess(self) -> nn.Module:
        """What the exported file makes of the network's output, beside it: probabilities, decoded boxes.

        It takes the network's output and gives one tensor per name in `postprocessed_names`, batch first; a tuple where
        there are several. Not trained, never quantised; called only where there are names.
        """
        raise TaskError(
            f"task {self.name!r} has postprocessed_names but no postprocess()",
            fix="give it postprocess() -> nn.Module, or leave postprocessed_names empty",
        )

    def companions(self) -> Mapping[str, nn.Module]:
        """Further networks that methods may ask for by name, new ones at each call, with weights of their own or to be
        trained by the method: one for another sense (`privileged`), an encoder of the labels' names, a meta model."""
        return {}

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Random changes of training examples; called only where `augments` is true. Labels may be None."""
        return batch

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Supervised loss, (B,): cross-entropy of logits (B, C) and class indices (B,)."""
        return nn.functional.cross_entropy(output, labels, reduction="none")

    def score(self, output: Tensor, labels: Tensor) -> Tensor:
        """What the metric is made from, (B,) or (B, k), added up over examples: 1 where the arg-max is the label."""
        return (output.argmax(dim=1) == labels).to(torch.float32)

    def total(self, sums: Tensor, count: int) -> float:
        """The metric, from the sums of `score`, (k,) float64, over `count` >= 1 examples: their mean.

        A metric of a whole set is one of sums as well: concordance and Dice coefficients, correlations, F1.
        """
        return float(sums.sum()) / count
