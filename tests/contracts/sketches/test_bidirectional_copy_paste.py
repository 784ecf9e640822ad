"""Semi-supervised segmentation: a mean teacher labels what is pasted between labelled and unlabelled images.

Source: Bai, Chen, Li, Shen, Wang, "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation", CVPR 2023,
arXiv:2305.00673. Shows: an EMA teacher, two streams, a strategy that asks the teacher, a phase that copies weights.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.method import Method, Phase
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.contracts.step import Update
from compress.contracts.strategy import DataStrategy
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.teachers.ema import EMATeacher
from compress.training.fit import fit

DECAY, SIZE = 0.9, 12


class MaskedDiceCE(Objective):
    """(Dice + cross-entropy) / 2 in the image's region and in the box's, each with its weight; one value per sample."""

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        mask = batch.common["mask"].to(student.output.dtype)
        inside, outside = batch.extras["box_weight"], batch.extras["image_weight"]
        assert batch.labels is not None
        image = region_loss(student.output, batch.labels, mask)
        box = region_loss(student.output, batch.extras["box_labels"], 1 - mask)
        return outside * image + inside * box


def region_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """(B, C, ...) logits, (B, ...) classes, (...) region -> (B,)."""
    p, target = logits.softmax(1), nn.functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    axes = tuple(range(2, logits.ndim))
    dice = 1 - (2 * (p * target * mask).sum(axes) + 1e-5) / (((p + target) * mask).sum(axes) + 1e-5)
    ce = nn.functional.cross_entropy(logits, labels, reduction="none")
    return (dice.mean(1) + (ce * mask).flatten(1).sum(1) / (mask.sum() + 1e-16)) / 2


class CopyPaste(DataStrategy):
    """Boxes of unlabelled images in labelled ones and the other way round; labelled ones alone while pre-training."""

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0, "unlabelled": 1.0}

    @property
    def deterministic(self) -> bool:
        return False

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        known, unknown = batches["train"], batches["unlabelled"]
        mask = box_mask(known.inputs[0].shape[-2:], 2 / 3, generator)
        (x_i, x_j), (y_i, y_j) = known.inputs[0].chunk(2), known.labels.chunk(2)  # type: ignore[union-attr]
        if clock.phase == "pretrain":
            x, y, z, ones = mix(x_j, x_i, mask), y_j, y_i, torch.ones(len(x_j))
            return {"mixed": self._batch(x, y, z, ones, ones, mask)}
        u_p, u_q = unknown.inputs[0].chunk(2)
        pseudo_p, pseudo_q = teachers["teacher"].observe(unknown).output.argmax(1).chunk(2)
        full, half = torch.ones(len(x_j)), torch.full((len(x_j),), 0.5)
        return {
            "mixed": self._batch(
                torch.cat([mix(x_j, u_p, mask), mix(u_q, x_i, mask)]),
                torch.cat([y_j, pseudo_q]),
                torch.cat([pseudo_p, y_i]),
                torch.cat([full, half]),
                torch.cat([half, full]),
                mask,
            )
        }

    @staticmethod
    def _batch(x: Tensor, image: Tensor, box: Tensor, image_weight: Tensor, box_weight: Tensor, mask: Tensor) -> Batch:
        extras = {"box_labels": box, "image_weight": image_weight, "box_weight": box_weight}
        return Batch((x,), image, torch.arange(len(x)), extras, {"mask": mask})


def box_mask(size: torch.Size, share: float, generator: torch.Generator) -> Tensor:
    """1 everywhere but in one box of zeros."""
    mask, sides = torch.ones(size), [int(share * length) for length in size]
    top, left = (int(torch.randint(0, n - s, (), generator=generator)) for n, s in zip(size, sides, strict=True))
    mask[top : top + sides[0], left : left + sides[1]] = 0
    return mask


def mix(image: Tensor, box: Tensor, mask: Tensor) -> Tensor:
    return image * mask + box * (1 - mask)


def copy_weights(world: World) -> None:
    """Self-training starts from the pre-trained weights on both sides."""
    world.teachers["teacher"].modules()["average"].load_state_dict(world.students["student"].state_dict())


def on_mixed(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    batch, student = batches["mixed"], world.observe("student", batches["mixed"])
    loss = world.objectives["regions"](student, student, batch, clock).mean()
    yield Update(loss, logs={"regions": loss})


METHOD = Method(
    source="arXiv:2305.00673",
    objectives={"regions": MaskedDiceCE},
    teachers=lambda _teacher, students: {"teacher": EMATeacher(students["student"], DECAY, mode="train")},
    strategy=CopyPaste,
    phases=(
        Phase("pretrain", share=0.4, step=on_mixed),
        Phase("selftrain", share=0.6, step=on_mixed, begin=copy_weights),
    ),
)


class Segmentation(Task):
    """Bright squares on a dark ground."""

    name = "segmentation"
    kind = "segmentation"
    labels = ("ground", "square")
    input_shape = (1, SIZE, SIZE)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return net()

    def score(self, output: Tensor, labels: Tensor) -> Tensor:
        return (output.argmax(1) == labels).float().flatten(1).mean(1)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 1))


def squares(count: int, seed: int, *, garbage: bool = False) -> TensorExamples:
    source = torch.Generator().manual_seed(seed)
    labels = torch.zeros(count, SIZE, SIZE, dtype=torch.int64)
    for label in labels:
        top, left = torch.randint(0, 8, (2,), generator=source).tolist()
        label[top : top + 4, left : left + 4] = 1
    pixels = labels[:, None] + 0.3 * torch.randn(count, 1, SIZE, SIZE, generator=source)
    return TensorExamples(pixels, 1 - labels if garbage else labels, f"squares-{seed}")


def train(student: nn.Module, *, garbage: bool = False, seed: int = 0, **changes: Any) -> Any:
    splits = Splits(squares(8, 1), squares(8, 2), squares(2, 3), (("unlabelled", squares(16, 4, garbage=garbage)),))
    return fit(
        method=METHOD,
        students={"student": student},
        teachers=METHOD.teachers(None, {"student": student}),  # type: ignore[arg-type]
        objectives={"regions": MaskedDiceCE()},
        weights={},
        splits=splits,
        task=Segmentation(),
        numbers=TrainingNumbers(epochs=20, batch_size=4, learning_rate=2e-2),
        seed=seed,
        precision="fp32",
        **changes,
    )


def test_learns_from_both_streams_and_never_sees_the_hidden_labels() -> None:
    honest, garbled = net(), net()
    outcome = train(honest)
    train(garbled, garbage=True)
    assert outcome.validation > 0.9  # eight ninths are ground
    assert all(torch.equal(value, garbled.state_dict()[name]) for name, value in honest.state_dict().items())


def test_reference_values_of_the_region_loss() -> None:
    logits = torch.tensor([[[[2.0, 0, -1, 1]], [[0, 1, 1, -1]]]], dtype=torch.float64)
    mask = torch.tensor([[1.0, 1, 0, 0]], dtype=torch.float64)
    image, box = torch.tensor([[[0, 1, 0, 0]]]), torch.tensor([[[1, 1, 1, 0]]])
    one, other = region_loss(logits, image, mask), region_loss(logits, box, 1 - mask)
    assert (one + 0.5 * other).item() == pytest.approx(0.269162594, abs=5e-10)  # half of the last digit given


def test_every_image_is_part_labelled_part_unlabelled() -> None:
    ones, zeros = torch.ones(4, 1, 6, 6), torch.zeros(4, 1, 6, 6)
    labels = torch.ones(4, 6, 6, dtype=torch.int64)
    known, unknown = Batch((ones,), labels, torch.arange(4)), Batch((zeros,), None, torch.arange(4))
    mean_teacher = EMATeacher(nn.Sequential(nn.Conv2d(1, 2, 1)), DECAY)
    clock = Clock("selftrain", 0, 1, 0, 1)
    mixed = CopyPaste().transform(
        {"train": known, "unlabelled": unknown}, {"teacher": mean_teacher}, clock, torch.Generator().manual_seed(0)
    )["mixed"]
    assert mixed.common["mask"].sum() == 20  # a 4x4 box of 36 pixels
    assert mixed.inputs[0][:2].sum(dim=(1, 2, 3)).tolist() == [20.0, 20.0]  # a hole in labelled images
    assert mixed.inputs[0][2:].sum(dim=(1, 2, 3)).tolist() == [16.0, 16.0]  # labelled boxes in the others


def test_the_teacher_is_the_moving_average_and_survives_a_checkpoint(tmp_path: Path) -> None:
    class StopHereError(Exception):
        pass

    def stop(clock: Clock) -> None:
        if clock.phase == "selftrain" and clock.epoch == 5:
            raise StopHereError

    whole, path = net(), tmp_path / "c.pt"
    train(whole)
    with pytest.raises(StopHereError):
        train(net(), checkpoint=path, checkpoint_every_s=0.0, before_epoch=stop)
    saved = torch.load(path, weights_only=True)["weights"]
    average, student = saved["teacher/teacher/average"], saved["student/student"]
    assert not torch.equal(average["0.weight"], student["0.weight"])
    torch.testing.assert_close(average["0.weight"], student["0.weight"], rtol=0, atol=0.2)  # it follows
    resumed = net()
    train(resumed, checkpoint=path)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
