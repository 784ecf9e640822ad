"""The whole method on small pictures: what teaches, what is averaged, what weight zero means."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.signals import Signals
from compress.contracts.task import TrainingNumbers
from compress.experiments.bidirectional_copy_paste import Hearts, SmallUNet, pictures
from compress.methods.bidirectional_copy_paste import DECAY, METHOD, on_both_mixes
from compress.objectives.regions import Regions, region_loss
from compress.strategies.copy_paste import INWARD, OUTWARD, UNLABELLED, CopyPaste
from compress.teachers.ema import EMATeacher
from compress.training.fit import fit

SELFTRAIN = Clock("selftrain", 0, 1, 0, 1)


def splits(garbage: bool = False) -> Splits:
    source = torch.Generator().manual_seed(0)
    known, hidden, test = (pictures(count, source) for count in (8, 8, 8))
    labels = 3 - hidden.labels if garbage else hidden.labels
    return Splits(
        known.examples("known"),
        test.examples("val"),
        test.examples("test"),
        ((UNLABELLED, TensorExamples(hidden.images, labels, "hidden")),),
    )


def train(student: nn.Module, garbage: bool = False, **changes: Any) -> EMATeacher:
    teachers = METHOD.teachers(None, {"student": student})  # type: ignore[arg-type]
    fit(
        method=METHOD,
        students={"student": student},
        teachers=teachers,
        objectives={"regions": Regions()},
        weights={},
        splits=splits(garbage),
        task=Hearts(),
        numbers=TrainingNumbers(epochs=4, batch_size=4, learning_rate=5e-3),
        seed=0,
        precision="fp32",
        **changes,
    )
    teacher = teachers["teacher"]
    assert isinstance(teacher, EMATeacher)
    return teacher


def network() -> nn.Module:
    torch.manual_seed(0)
    return SmallUNet(4)


def test_labels_of_the_unlabelled_change_nothing() -> None:
    honest, garbled = network(), network()
    train(honest)
    train(garbled, garbage=True)
    assert all(torch.equal(value, garbled.state_dict()[name]) for name, value in honest.state_dict().items())


def test_teacher_and_student_start_self_training_alike_and_the_teacher_gets_no_gradient() -> None:
    student, seen = network(), []
    teachers = METHOD.teachers(None, {"student": student})  # type: ignore[arg-type]
    average = teachers["teacher"].modules()["average"]

    def look(clock: Clock) -> None:
        if clock.phase == "selftrain" and clock.step == 0 and not seen:
            seen.append(all(torch.equal(v, average.state_dict()[k]) for k, v in student.state_dict().items()))

    fit(
        method=METHOD,
        students={"student": student},
        teachers=teachers,
        objectives={"regions": Regions()},
        weights={},
        splits=splits(),
        task=Hearts(),
        numbers=TrainingNumbers(epochs=4, batch_size=4, learning_rate=5e-3),
        seed=0,
        precision="fp32",
        before_step=look,
    )
    assert seen == [True]
    assert all(parameter.grad is None for parameter in average.parameters())
    moved = [not torch.equal(v, average.state_dict()[k]) for k, v in student.named_parameters()]
    assert all(moved), "it follows behind"


def test_the_teacher_is_an_average_with_decay_099() -> None:
    student = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(student.weight)
    teacher = METHOD.teachers(None, {"student": student})["teacher"]  # type: ignore[arg-type]
    nn.init.ones_(student.weight)
    values = {}
    for step in range(1, 101):
        teacher.after_step({"student": student})
        values[step] = float(teacher.modules()["average"].weight.detach())  # type: ignore[arg-type]
    expected = {1: 0.01, 2: 0.0199, 10: 0.095617925, 100: 0.633967659}
    assert {step: values[step] for step in expected} == pytest.approx(expected, rel=2e-5)  # float32, 100 additions
    assert DECAY == 0.99


class Fixed(nn.Module):
    """Answers that have a gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.logits = nn.Parameter(torch.randn(2, 4, 6, 6, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


def test_weight_zero_lets_no_gradient_through_pseudo_labels() -> None:
    images, labels = torch.rand(4, 1, 6, 6), torch.randint(0, 4, (4, 6, 6))
    known = Batch((images,), labels, torch.arange(4))
    teacher = EMATeacher(nn.Conv2d(1, 4, 1), 0.99)
    found = CopyPaste(alpha=0.0, flips=False).transform(
        {"train": known, UNLABELLED: known}, {"teacher": teacher}, SELFTRAIN, torch.Generator().manual_seed(0)
    )
    for name, inside in ((INWARD, 0.0), (OUTWARD, 1.0)):  # where the unlabelled part is
        network = Fixed()
        signals = Signals(network(images))
        Regions()(signals, signals, found[name], SELFTRAIN).sum().backward()
        assert network.logits.grad is not None
        unlabelled = found[name].common["mask"] == inside
        assert network.logits.grad[:, :, unlabelled].abs().sum() == 0
        assert network.logits.grad[:, :, ~unlabelled].abs().sum() > 0


def test_a_step_is_the_sum_of_the_four_region_losses() -> None:
    """L = l(z_in, y_j; M) + a l(z_in, P(u_p); 1 - M) + a l(z_out, P(u_q); M) + l(z_out, y_i; 1 - M), a = 0.5."""
    torch.manual_seed(3)
    images, labels = torch.rand(4, 1, 6, 6), torch.randint(0, 4, (4, 6, 6))
    teacher = EMATeacher(nn.Conv2d(1, 4, 1), 0.99)
    streams = {"train": Batch((images,), labels, torch.arange(4)), UNLABELLED: Batch((-images,), None, torch.arange(4))}
    strategy = CopyPaste(component=False, flips=False)
    found = strategy.transform(streams, {"teacher": teacher}, SELFTRAIN, torch.Generator().manual_seed(0))
    answers = {name: torch.randn(2, 4, 6, 6) for name in found}
    world: Any = SimpleNamespace(
        observe=lambda name, batch: Signals(next(answers[k] for k, v in found.items() if v is batch)),
        objectives={"regions": Regions()},
        weights=lambda name: 3.0,
    )
    (update,) = on_both_mixes(world, found, SELFTRAIN)
    mask, pseudo = found[INWARD].common["mask"], teacher.observe(streams[UNLABELLED]).output.argmax(1)
    inside = region_loss(answers[INWARD], labels[2:], mask) + 0.5 * region_loss(answers[INWARD], pseudo[:2], 1 - mask)
    outside = 0.5 * region_loss(answers[OUTWARD], pseudo[2:], mask) + region_loss(
        answers[OUTWARD], labels[:2], 1 - mask
    )
    torch.testing.assert_close(update.loss, 3.0 * (inside.mean() + outside.mean()))
    assert set(update.logs) == {INWARD, OUTWARD}


def test_a_quarter_of_the_steps_pre_train_and_the_teacher_answers_as_the_sources_does() -> None:
    assert [(phase.name, phase.share) for phase in METHOD.phases] == [("pretrain", 0.25), ("selftrain", 0.75)]
    assert METHOD.tasks == ("segmentation",)
    assert (CopyPaste()._beta, CopyPaste()._alpha) == (2 / 3, 0.5)
    student = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    teacher = METHOD.teachers(None, {"student": student})["teacher"]  # type: ignore[arg-type]
    answer = teacher.observe(Batch((5 + torch.randn(4, 1, 6, 6),), None, torch.arange(4))).output
    assert float(answer.mean().abs()) < 1e-5  # by the batch's own statistics


def test_a_mask_of_ones_leaves_a_labelled_loss_and_a_weighted_pseudo_loss() -> None:
    torch.manual_seed(2)
    z, y, pseudo = torch.randn(2, 4, 6, 6), torch.randint(0, 4, (2, 6, 6)), torch.randint(0, 4, (2, 6, 6))
    ones = torch.ones(6, 6)

    def mix(labels: Tensor, box: Tensor, weight: float, box_weight: float) -> Batch:
        extras = {
            "box_labels": box,
            "image_weight": torch.full((2,), weight),
            "box_weight": torch.full((2,), box_weight),
        }
        return Batch((z,), labels, torch.arange(2), extras, {"mask": ones})

    objective, said = Regions("sample_lin"), Signals(z)
    total = objective(said, said, mix(y, pseudo, 1.0, 0.5), SELFTRAIN) + objective(
        said, said, mix(pseudo, y, 0.5, 1.0), SELFTRAIN
    )
    # An empty region has Dice 1e-5 / 1e-5 = 1, that is no loss.
    expected = region_loss(z, y, ones, "sample_lin") + 0.5 * region_loss(z, pseudo, ones, "sample_lin")
    torch.testing.assert_close(total, expected)


def test_a_killed_training_goes_on_bit_by_bit(tmp_path: Path) -> None:
    class StopHereError(Exception):
        pass

    def stop(clock: Clock) -> None:
        if clock.phase == "selftrain" and clock.epoch == 2:
            raise StopHereError

    whole, resumed = network(), network()
    train(whole)
    with pytest.raises(StopHereError):
        train(network(), checkpoint=tmp_path / "c.pt", checkpoint_every_s=0.0, before_epoch=stop)
    train(resumed, checkpoint=tmp_path / "c.pt")
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
