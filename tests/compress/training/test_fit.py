"""The loop: what it minimises, what it repeats, what it refuses."""

from collections.abc import Callable, Iterator, Mapping
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
from compress.contracts.signals import Signals
from compress.contracts.step import Update
from compress.contracts.world import World
from compress.errors import RecipeError, TrainingError
from compress.methods.vanilla_kd import METHOD
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets
from compress.training.curve import CurvePoint, Outcome
from compress.training.fit import fit
from compress.training.updates import one_cycle


def distil(toy: ModuleType, student: nn.Module, **changes: Any) -> Outcome:
    """Vanilla distillation of the toy task, in full precision."""
    call: dict[str, Any] = {
        "method": METHOD,
        "students": {"student": student},
        "teachers": changes.get("teachers") or {"teacher": toy.teacher()},
        "objectives": {"soft_targets": SoftTargets(2.0), "labels": Labels()},
        "weights": {},
        "splits": toy.splits(),
        "task": toy.ToyTask(),
        "numbers": toy.NUMBERS,
        "seed": 3,
        "precision": "fp32",
    }
    return fit(**{**call, **changes})


def test_learns_the_task(toy: ModuleType) -> None:
    student = toy.network()
    numbers = replace(toy.NUMBERS, epochs=30)
    outcome = distil(toy, student, numbers=numbers, weights={"soft_targets": 0.0, "labels": 1.0})
    assert outcome.validation is not None
    assert outcome.validation > 0.8  # a third is chance
    assert [point.epoch for point in outcome.curve] == list(range(30))
    assert outcome.steps == 30 * 3
    assert outcome.curve[0].loss > outcome.curve[-1].loss
    assert not student.training


def test_loss_is_the_weighted_sum_of_the_terms(toy: ModuleType) -> None:
    weights = {"soft_targets": 0.25, "labels": {"schedule": "linear", "start": 2.0, "end": 2.0}}
    for point in distil(toy, toy.network(), weights=weights).curve:
        expected = 0.25 * point.terms["soft_targets"] + 2.0 * point.terms["labels"]
        assert point.loss == pytest.approx(expected, rel=1e-6)  # float32 sum of two terms


def test_one_step_equals_a_hand_written_one(toy: ModuleType) -> None:
    student, teacher = toy.network(norm=False), toy.teacher()
    twin = toy.network(norm=False)
    splits = toy.splits(train=32)
    numbers = replace(toy.NUMBERS, epochs=1)
    distil(toy, student, teachers={"teacher": teacher}, splits=splits, numbers=numbers, weights={"labels": 0.0})
    matrices = [p for p in twin.parameters() if p.ndim > 1]
    vectors = [p for p in twin.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}], lr=1e-2
    )
    batch = splits.train.batch(torch.arange(32))
    log_p = (teacher.observe(batch).output / 2).log_softmax(1)
    log_q = (twin(batch.inputs[0]) / 2).log_softmax(1)
    (0.9 * 4 * (log_p.exp() * (log_p - log_q)).sum(1).mean()).backward()
    optimizer.step()
    for ours, by_hand in zip(student.parameters(), twin.parameters(), strict=True):
        # The batch's order differs, so float32 sums are rounded differently; Adam's first step is rate * sign.
        torch.testing.assert_close(ours, by_hand, rtol=0, atol=2e-5)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(toy: ModuleType) -> None:
    nets = [toy.network(dropout=0.3) for _ in range(3)]
    for net, seed in zip(nets, (3, 3, 4), strict=True):
        torch.randn(seed)  # whatever the caller draws beforehand does not matter
        distil(toy, net, seed=seed, task=toy.NoisyTask())
    first, second, other = (toy.weights_of(net) for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_the_callers_random_state_is_left_alone(toy: ModuleType) -> None:
    student, teachers = toy.network(dropout=0.3), {"teacher": toy.teacher()}
    torch.manual_seed(11)
    expected = torch.randn(3)
    torch.manual_seed(11)
    distil(toy, student, teachers=teachers)
    assert torch.equal(torch.randn(3), expected)


def test_the_teacher_gets_no_gradient_and_does_not_move(toy: ModuleType) -> None:
    teacher = toy.teacher()
    network = teacher.modules()["network"]
    before = toy.weights_of(network)
    distil(toy, toy.network(), teachers={"teacher": teacher})
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


class InterruptionError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_training_ends_with_the_same_bits(toy: ModuleType, tmp_path: Path, after: int) -> None:
    whole, broken = toy.network(dropout=0.3), toy.network(dropout=0.3)
    numbers = replace(toy.NUMBERS, epochs=4)
    expected = distil(toy, whole, numbers=numbers, task=toy.NoisyTask())
    path = tmp_path / "checkpoint.pt"

    def stop(clock: Clock) -> None:
        if clock.epoch == after:
            raise InterruptionError

    common = {"numbers": numbers, "task": toy.NoisyTask(), "checkpoint": path, "checkpoint_every_s": 0.0}
    with pytest.raises(InterruptionError):
        distil(toy, broken, before_epoch=stop, **common)
    fresh = toy.network(dropout=0.3, seed=99)  # its own start is overwritten by the checkpoint
    seen: list[CurvePoint] = []
    outcome = distil(toy, fresh, on_point=seen.append, **common)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in whole.state_dict().items())
    assert [point.loss for point in outcome.curve] == [point.loss for point in expected.curve]
    assert outcome.steps == expected.steps
    assert len(seen) == 4 - after  # nothing is trained twice


def test_a_checkpoint_inside_an_epoch_resumes_at_its_step(toy: ModuleType, tmp_path: Path) -> None:
    path, calls = tmp_path / "checkpoint.pt", []

    def counted(fail_at: int | None) -> Method:
        def step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
            calls.append(clock.step)
            if clock.step == fail_at:
                raise InterruptionError
            student = world.observe("student", next(iter(batches.values())))
            yield Update(student.output.square().mean())

        return Method(source="toy", objectives={}, phases=(Phase("p", step=step),))

    common = {"checkpoint": path, "checkpoint_every_s": 0.0, "objectives": {}}
    whole, fresh = toy.network(dropout=0.3), toy.network(dropout=0.3)
    expected = distil(toy, whole, method=counted(None), objectives={})
    with pytest.raises(InterruptionError):
        distil(toy, toy.network(dropout=0.3), method=counted(4), **common)
    calls.clear()
    outcome = distil(toy, fresh, method=counted(None), **common)
    assert calls == [4, 5]
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in whole.state_dict().items())
    assert [point.loss for point in outcome.curve] == [point.loss for point in expected.curve]


def test_a_finished_training_is_not_repeated(toy: ModuleType, tmp_path: Path) -> None:
    path, first, second = tmp_path / "checkpoint.pt", toy.network(), toy.network()
    done = distil(toy, first, checkpoint=path)
    seen: list[CurvePoint] = []
    again = distil(toy, second, checkpoint=path, on_point=seen.append)
    assert seen == []
    assert again == done
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_another_trainings_checkpoint_is_refused(toy: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    distil(toy, toy.network(), checkpoint=path)
    with pytest.raises(TrainingError, match="another training"):
        distil(toy, toy.network(), checkpoint=path, seed=4)
    path.write_bytes(b"PK garbled")
    with pytest.raises(TrainingError, match="cannot be read"):
        distil(toy, toy.network(), checkpoint=path)


class Poisoned(Objective):
    """nan from one step on."""

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        return student.output.sum(dim=1) * (float("nan") if clock.step == 4 else 1.0)


def test_a_loss_that_is_not_finite_names_where_and_keeps_the_checkpoint(toy: ModuleType, tmp_path: Path) -> None:
    path, student = tmp_path / "checkpoint.pt", toy.network()
    with pytest.raises(TrainingError, match=r"phase 'distill', epoch 1, step 4 of 6 \(poison is nan") as caught:
        distil(toy, student, objectives={"poison": Poisoned()}, checkpoint=path, checkpoint_every_s=0.0)
    assert "on the examples" in caught.value.what
    assert all(torch.isfinite(parameter).all() for parameter in student.parameters())
    assert torch.load(path, weights_only=True)["step"] == 1  # of epoch 1: the last step that was good


def test_interruption_by_the_user_goes_through(toy: ModuleType, tmp_path: Path) -> None:
    def interrupt(clock: Clock) -> None:
        if clock.epoch == 1:
            raise KeyboardInterrupt

    student = toy.network()
    with pytest.raises(KeyboardInterrupt):
        distil(toy, student, before_epoch=interrupt, checkpoint=tmp_path / "c.pt", checkpoint_every_s=0.0)
    assert (tmp_path / "c.pt").exists()
    assert not any(module._forward_hooks for module in student.modules())


def test_stop_ends_it_early(toy: ModuleType) -> None:
    outcome = distil(toy, toy.network(), stop=lambda point: point.epoch == 0)
    assert outcome.stopped
    assert len(outcome.curve) == 1


def test_phases_share_the_epochs_and_begin_in_order(toy: ModuleType) -> None:
    seen: list[str] = []
    phases = tuple(
        Phase(name, share=share, begin=lambda world, name=name: seen.append(name))  # type: ignore[misc]
        for name, share in (("one", 0.2), ("two", 0.8))
    )
    outcome = distil(toy, toy.network(), method=replace(METHOD, phases=phases), numbers=replace(toy.NUMBERS, epochs=5))
    assert [point.phase for point in outcome.curve] == ["one"] + ["two"] * 4
    assert seen == ["one", "two"]
    assert outcome.curve[0].learning_rate == pytest.approx(1e-2 * one_cycle(2, 3))


def test_only_the_groups_of_an_update_move(toy: ModuleType) -> None:
    def step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
        batch = next(iter(batches.values()))
        yield Update(
            world.observe("student", batch).output.square().mean()
            + world.observe("other", batch).output.square().mean(),
            groups=("other",),
        )

    method = Method(source="toy", objectives={}, phases=(Phase("p", step=step),))
    student, other = toy.network(norm=False), toy.network(norm=False, seed=5)
    before, start = toy.weights_of(student), toy.weights_of(other)
    distil(toy, student, method=method, objectives={}, students={"student": student, "other": other})
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in before.items())
    assert not any(torch.equal(value, other.state_dict()[name]) for name, value in start.items())


def test_an_unknown_group_is_a_bug_that_is_named(toy: ModuleType) -> None:
    def step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
        yield Update(world.observe("student", next(iter(batches.values()))).output.mean(), groups=("gate",))

    with pytest.raises(ValueError, match="'gate'; there are the groups student, objectives"):
        distil(toy, toy.network(), method=Method("toy", {}, phases=(Phase("p", step=step),)), objectives={})


def test_clip_bounds_the_gradient(toy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    original: Callable[..., Any] = torch.optim.AdamW.step

    def watch(self: torch.optim.AdamW, *arguments: Any) -> Any:
        grads = [p.grad for part in self.param_groups for p in part["params"] if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        return original(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    distil(toy, toy.network(), clip=1e-3)
    assert max(norms) <= 1e-3 * (1 + 1e-4)  # float32 division by the norm


def test_label_smoothing_mixes_in_the_uniform_distribution(toy: ModuleType) -> None:
    numbers = replace(toy.NUMBERS, epochs=1, label_smoothing=0.3)
    one = {"splits": toy.splits(train=32), "weights": {"soft_targets": 0.0, "labels": 1.0}, "numbers": numbers}
    outcome = distil(toy, toy.network(norm=False), **one)
    batch = one["splits"].train.batch(torch.arange(32))
    expected = nn.functional.cross_entropy(toy.network(norm=False)(batch.inputs[0]), batch.labels, label_smoothing=0.3)
    assert outcome.curve[0].loss == pytest.approx(expected.item(), rel=1e-5)  # float32 sums


def test_a_tap_that_is_not_there_is_refused(toy: ModuleType) -> None:
    class Tapped(SoftTargets):
        student_taps = ("nowhere",)

    with pytest.raises(RecipeError, match="nowhere"):
        distil(toy, toy.network(), objectives={"soft_targets": Tapped()})


def test_bf16_stays_close_to_fp32(toy: ModuleType) -> None:
    full, half = toy.network(), toy.network()
    expected = distil(toy, full)
    outcome = distil(toy, half, precision="bf16")
    assert outcome.precision == "bf16"
    for ours, theirs in zip(outcome.curve, expected.curve, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=2**-6)  # bf16 has 8 bits; errors of few products add up
    assert all(parameter.dtype == torch.float32 for parameter in half.parameters())
