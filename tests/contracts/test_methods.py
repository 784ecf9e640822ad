"""What every file of compress/methods must do. A new file is tested with no edit here."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress import catalog
from compress.contracts.clock import Clock
from compress.contracts.method import Method
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.strategies.plain import Plain
from compress.training.curve import Outcome
from compress.training.fit import fit

NAMES = catalog.names("compress.methods")
CLOCK = Clock("distill", 0, 10, 0, 1)


def method_of(name: str) -> Method:
    method: Method = catalog.load("compress.methods", name).METHOD
    if method.tasks and "classification" not in method.tasks:
        pytest.skip(f"{name} is for {', '.join(method.tasks)}; the toy task is classification")
    return method


def objectives_of(method: Method) -> dict[str, Objective]:
    torch.manual_seed(1)
    return {name: make.example() if isinstance(make, type) else make() for name, make in method.objectives.items()}


def train(
    toy: ModuleType, method: Method, student: nn.Module, teacher: Any = None, **changes: Any
) -> tuple[Outcome, dict[str, Objective]]:
    objectives = objectives_of(method)
    taps = tuple(dict.fromkeys(tap for objective in objectives.values() for tap in objective.teacher_taps))
    students = method.students(lambda: student)
    outcome = fit(
        method=method,
        students=students,
        teachers=method.teachers(teacher or toy.teacher(taps=taps), students),
        objectives=objectives,
        weights={},
        splits=toy.splits(extras=toy.streams()),
        task=toy.NoisyTask(),
        numbers=replace(toy.NUMBERS, epochs=2 * len(method.phases)),
        seed=5,
        precision="fp32",
        **changes,
    )
    return outcome, objectives


@pytest.mark.parametrize("name", NAMES)
def test_is_complete(name: str) -> None:
    module = catalog.load("compress.methods", name)
    method: Method = module.METHOD
    assert isinstance(method, Method)
    assert module.__doc__
    assert "Source" in module.__doc__
    assert method.source
    assert sum(phase.share for phase in method.phases) == pytest.approx(1.0)
    assert len({phase.name for phase in method.phases}) == len(method.phases)
    assert set(method.weights) <= set(method.objectives)
    assert set(method.diagnostics) <= set(catalog.names("compress.diagnostics"))


@pytest.mark.parametrize("name", NAMES)
def test_trains_the_student_and_nothing_of_the_teacher(toy: ModuleType, name: str) -> None:
    method, student = method_of(name), toy.network(dropout=0.2)
    taps = tuple(tap for objective in objectives_of(method).values() for tap in objective.teacher_taps)
    teacher = toy.teacher(taps=taps)
    before, frozen = toy.weights_of(student), toy.weights_of(teacher.modules()["network"])
    outcome, _ = train(toy, method, student, teacher)
    assert list(dict.fromkeys(point.phase for point in outcome.curve)) == [phase.name for phase in method.phases]
    after = student.state_dict()
    assert list(after) == list(before)  # nothing of the method stays in what is exported
    assert not torch.equal(after["head.weight"], before["head.weight"])
    assert all(torch.isfinite(value).all() for value in after.values())
    assert all(torch.equal(value, frozen[key]) for key, value in teacher.modules()["network"].state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_student(toy: ModuleType, name: str) -> None:
    students = [toy.network(dropout=0.2) for _ in range(2)]
    for student in students:
        train(toy, method_of(name), student)
    first, second = (toy.weights_of(student) for student in students)
    assert all(torch.equal(first[key], second[key]) for key in first)


class BrokenOffError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_from_any_epoch_with_the_same_bits(toy: ModuleType, name: str, tmp_path: Path) -> None:
    method, whole = method_of(name), toy.network(dropout=0.2)
    expected, _ = train(toy, method, whole)
    for number in range(1, len(expected.curve)):
        path, passed = tmp_path / f"{number}.pt", []

        def stop(clock: Clock, number: int = number, passed: list[int] = passed) -> None:
            passed.append(clock.epoch)
            if len(passed) > number:
                raise BrokenOffError

        with pytest.raises(BrokenOffError):
            train(toy, method, toy.network(dropout=0.2), before_epoch=stop, checkpoint=path, checkpoint_every_s=0.0)
        student = toy.network(dropout=0.2, seed=50)
        train(toy, method, student, checkpoint=path, checkpoint_every_s=0.0)
        assert all(torch.equal(value, whole.state_dict()[key]) for key, value in student.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_objectives_give_values_per_sample_and_no_gradient_to_the_teacher(toy: ModuleType, name: str) -> None:
    method = method_of(name)
    splits = toy.splits(extras=toy.streams())
    stream = "train" if method.strategy is None else next(iter(method.strategy().streams))
    batch = splits.named().get(stream, splits.train).batch(torch.arange(6))
    student, teacher = _signals(6, grad=True), _signals(6, grad=True)
    for objective in objectives_of(method).values():
        objective.prepare(preparation(toy, splits, student.detach(), teacher.detach()))
        values: Tensor = objective(student, teacher, batch, CLOCK)
        assert values.ndim == 1
        assert torch.isfinite(values).all()
        if values.requires_grad:
            values.mean().backward()
    assert all(tensor.grad is None for tensor in _leaves(teacher))
    assert any(tensor.grad is not None for tensor in _leaves(student))


@pytest.mark.parametrize("name", NAMES)
def test_a_mean_over_the_batch_is_one_over_its_parts_unless_the_objective_says_batch_wide(
    toy: ModuleType, name: str
) -> None:
    """Several processes have a part each: whatever else an objective computes, it must be given the whole."""
    method = method_of(name)
    splits = toy.splits(extras=toy.streams())
    stream = "train" if method.strategy is None else next(iter(method.strategy().streams))
    batch = splits.named().get(stream, splits.train).batch(torch.arange(9, 17))  # some labels known, some not
    student, teacher = _signals(8, grad=False), _signals(8, grad=False)
    for key, objective in objectives_of(method).items():
        objective.prepare(preparation(toy, splits, student, teacher))
        if objective.batch_wide:
            continue
        whole, parts = objective(student, teacher, batch, CLOCK).mean(), []
        for number in range(2):
            ours, theirs = (_part(signals, number, 2) for signals in (student, teacher))
            parts.append(objective(ours, theirs, batch.part(number, 2), CLOCK).mean())
        torch.testing.assert_close(torch.stack(parts).mean(), whole, msg=lambda said, key=key: f"{key}: {said}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("task", ["ToyTask", "NoisyTask"])
def test_a_batch_that_names_its_stream_has_that_streams_inputs(toy: ModuleType, name: str, task: str) -> None:
    """A cache answers by stream and position: a changed example that still named them would get another's answer."""
    strategy, given = (method_of(name).strategy or Plain)(), toy.splits(extras=toy.streams())
    splits, student, source = strategy.splits(given), _signals(6, grad=False), getattr(toy, task)()
    strategy.prepare(preparation(toy, splits, student, student, augment=source.augment))
    before = {
        stream: replace(splits.named()[stream].batch(torch.arange(6)), stream=stream) for stream in strategy.streams
    }
    drawn = [
        strategy.transform(before, {"teacher": toy.teacher()}, CLOCK, torch.Generator().manual_seed(4)) for _ in "ab"
    ]
    for key, batch in drawn[0].items():
        for first, again in zip(batch.inputs, drawn[1][key].inputs, strict=True):
            assert torch.equal(first, again)
        if strategy.unchanged(source):
            assert batch.stream
        if batch.stream in given.named():
            plain = given.named()[batch.stream].batch(batch.index)
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(batch.inputs, plain.inputs, strict=True))


def preparation(toy: ModuleType, splits: Any, student: Signals, teacher: Signals, **more: Any) -> Preparation:
    """What is given before the first step."""
    return Preparation(
        splits, lambda split: iter(()), student, teacher, toy.CLASSES, 0, _cross_entropy,
        students={"student": toy.network()}, teachers={"teacher": toy.teacher()}, **more,
    )  # fmt: skip


def _part(signals: Signals, number: int, parts: int) -> Signals:
    taps = {name: value.tensor_split(parts)[number] for name, value in signals.taps.items()}
    return Signals(signals.output.tensor_split(parts)[number], taps=taps)


def _cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, labels, reduction="none")


def _signals(count: int, *, grad: bool) -> Signals:
    taps: Mapping[str, Tensor] = {
        "body": torch.randn(count, 4, 5, 5, requires_grad=grad),
        "pool": torch.randn(count, 4, requires_grad=grad),
    }
    return Signals(torch.randn(count, 3, requires_grad=grad), taps=taps)


def _leaves(signals: Signals) -> list[Tensor]:
    return [signals.output, *signals.others.values(), *signals.taps.values()]
