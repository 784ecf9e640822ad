"""What the loop gives to strategies, objectives and modules of a method."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method, Phase
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.step import Step, Update
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.errors import TeacherError
from compress.methods.vanilla_kd import METHOD as VANILLA
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets
from compress.strategies.held_out import HeldOut
from compress.strategies.plain import Plain
from compress.teachers.cached import CachedTeacher
from compress.training.fit import fit


def train(toy: ModuleType, method: Method, **changes: Any) -> Any:
    call: dict[str, Any] = {
        "method": method, "students": {"student": toy.network()}, "teachers": {"teacher": toy.teacher()},
        "objectives": {"labels": Labels()}, "weights": {}, "splits": toy.splits(), "task": toy.NoisyTask(),
        "numbers": replace(toy.NUMBERS, epochs=1), "seed": 0, "precision": "fp32",
    }  # fmt: skip
    return fit(**{**call, **changes})


@pytest.mark.parametrize("augment", [False, True])
def test_a_cached_teacher_answers_what_the_student_saw(toy: ModuleType, tmp_path: Path, augment: bool) -> None:
    """Whatever the cache holds: an augmented example is answered by the teacher itself."""
    splits = toy.splits()
    cached = CachedTeacher(toy.teacher(), splits.train, "train", tmp_path)
    weights: list[dict[str, Tensor]] = []
    for teacher in (toy.teacher(), cached):
        student = toy.network()
        train(
            toy, VANILLA, students={"student": student}, teachers={"teacher": teacher}, splits=splits,
            objectives={"soft_targets": SoftTargets()}, strategy=HeldOut(augment=augment),
        )  # fmt: skip
        weights.append(toy.weights_of(student))
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-5, atol=1e-6)  # answered in chunks of another size


class TwoViews(DataStrategy):
    """A weak view for the teacher, another one for the student; the order follows the phase."""

    streams = {"train": 1.0}  # type: ignore[assignment]  # noqa: RUF012
    deterministic = True  # type: ignore[assignment]
    augments = True

    def __init__(self) -> None:
        self.clocks: list[Clock] = []
        self.views: list[tuple[Tensor, Tensor]] = []

    def order(self, stream: str, length: int, clock: Clock, generator: torch.Generator) -> Tensor:
        self.clocks.append(clock)
        return torch.arange(length)

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        weak, strong = (self.augmented(batches["train"], generator) for _ in range(2))
        self.views.append((weak.inputs[0], strong.inputs[0]))
        self.streams_said = weak.stream, strong.stream
        return {"train": strong, "weak": weak}


def test_two_views_of_one_example(toy: ModuleType) -> None:
    strategy = TwoViews()
    train(toy, VANILLA, objectives={"soft_targets": SoftTargets()}, strategy=strategy)
    plain = toy.splits().train.batch(torch.arange(32)).inputs[0]
    assert strategy.streams_said == ("", "")
    for weak, strong in strategy.views[:1]:
        assert not torch.equal(weak, strong)
        for view in (weak, strong):  # noise of 0.1
            assert 0.05 < float((view - plain).std()) < 0.15
    strategy = TwoViews()
    train(toy, VANILLA, objectives={"soft_targets": SoftTargets()}, strategy=strategy, task=toy.ToyTask())
    assert torch.equal(strategy.views[0][0], plain)
    assert strategy.streams_said == ("train", "train")


def test_the_order_knows_its_phase_and_how_far_the_training_is(toy: ModuleType) -> None:
    strategy, phases = TwoViews(), (Phase("first", 0.5), Phase("second", 0.5))
    train(
        toy, replace(VANILLA, phases=phases), strategy=strategy, objectives={"soft_targets": SoftTargets()},
        numbers=replace(toy.NUMBERS, epochs=4),
    )  # fmt: skip
    assert [(clock.phase, clock.epoch, clock.step, clock.steps) for clock in strategy.clocks] == [
        ("first", 0, 0, 6), ("first", 1, 3, 6), ("second", 0, 0, 6), ("second", 1, 3, 6),
    ]  # fmt: skip


class Middle(Objective):
    """Taps the student at its pooling, and the method's own teacher, which has other modules, at its map."""

    student_taps = ("pool",)
    network_taps = {"coach": ("body",)}  # type: ignore[assignment]  # noqa: RUF012

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        return (student.taps["pool"].mean(1) - teacher.taps["body"].mean((1, 2, 3)).detach()).square()


def coached(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    """A copy of the teacher learns the labels, and the student its features."""
    batch = batches["train"]
    assert batch.labels is not None
    coach = world.observe("coach", batch)
    assert set(coach.taps) == {"body"}
    yield Update(
        world.supervised(coach.output, batch.labels).mean(), groups=("coach",), logs={"coach": coach.output[0, 0]}
    )
    student = world.observe("student", batch)
    assert set(student.taps) == {"pool"}
    assert world.gather(student.output) is student.output
    yield Update(world.objectives["middle"](student, coach, batch, clock).mean(), groups=("student",))


def own_copy(preparation: Preparation) -> nn.Module:
    """The teacher's network, to be trained on."""
    assert set(preparation.companions()) == {"other"}
    return preparation.trainable_teacher()


def test_a_method_trains_its_own_copy_of_the_teacher(toy: ModuleType) -> None:
    class WithAnother(toy.ToyTask):  # type: ignore[misc,name-defined]
        def companions(self) -> Mapping[str, nn.Module]:
            return {"other": nn.Linear(1, 1)}

    method = Method("here", {"middle": Middle}, phases=(Phase("distill", step=coached),), modules={"coach": own_copy})
    given = toy.teacher()
    before = toy.weights_of(given.modules()["network"])
    outcome = train(
        toy, method, objectives={"middle": Middle()}, teachers={"teacher": given}, task=WithAnother(),
        numbers=replace(toy.NUMBERS, epochs=4),
    )  # fmt: skip
    assert outcome.curve[-1].terms["coach"] != outcome.curve[0].terms["coach"]
    assert all(torch.equal(value, before[name]) for name, value in given.modules()["network"].state_dict().items())


def test_a_black_box_cannot_be_trained_on(toy: ModuleType) -> None:
    class BlackBox(Teacher):
        cacheable = True  # type: ignore[assignment]
        fingerprint = "a black box"  # type: ignore[assignment]

        def observe(self, batch: Batch) -> Signals:
            return Signals(torch.zeros(len(batch), 3), taps={"body": torch.zeros(len(batch), 1, 1, 1)})

    method = Method("here", {}, modules={"coach": Preparation.trainable_teacher})
    with pytest.raises(TeacherError, match="goes on training its teacher, and this one, BlackBox, is a black box"):
        train(toy, method, objectives={}, teachers={"teacher": BlackBox()})


def feeding(rows: int) -> Step:
    def step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
        output = world.observe("student", batches["train"]).output
        yield Update(output.square().mean(), feedback={"loss": output[:rows, 0]})

    return step


def test_feedback_is_one_row_for_each_example(toy: ModuleType) -> None:
    def method(rows: int) -> Method:
        return Method("here", {}, phases=(Phase("distill", step=feeding(rows)),), strategy=Plain)

    train(toy, method(32), objectives={})
    with pytest.raises(ValueError, match="'loss' has 3 rows for a batch of 32"):
        train(toy, method(3), objectives={})


def still(world: World) -> None:
    """From here on nothing is dropped, and the first layer stays."""
    student = world.students["student"]
    student.get_submodule("dropout").eval()
    student.get_submodule("conv").requires_grad_(False)


def test_what_a_phase_froze_is_frozen_after_an_interruption_of_a_later_one(toy: ModuleType, tmp_path: Path) -> None:
    phases = (Phase("first", 0.34), Phase("second", 0.33, begin=still), Phase("third", 0.33))
    method, path = replace(VANILLA, phases=phases), tmp_path / "c.pt"

    class HereError(Exception):
        pass

    def stop(clock: Clock) -> None:
        if clock.phase == "third" and clock.epoch == 1:
            raise HereError

    def run(student: nn.Module, **changes: Any) -> None:
        train(
            toy, method, students={"student": student}, objectives={"soft_targets": SoftTargets()},
            numbers=replace(toy.NUMBERS, epochs=6), splits=toy.splits(train=32, val=8), **changes,
        )  # fmt: skip

    whole, resumed = toy.network(dropout=0.5), toy.network(dropout=0.5, seed=3)
    run(whole)
    with pytest.raises(HereError):
        run(toy.network(dropout=0.5), checkpoint=path, checkpoint_every_s=0.0, before_epoch=stop)
    run(resumed, checkpoint=path)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_an_epochs_first_step() -> None:
    starts = [step for step in range(6) if Clock("p", step, 6, step // 3, 2).starts_epoch]
    assert starts == [0, 3]
