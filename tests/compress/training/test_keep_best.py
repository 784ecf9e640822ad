"""The weights of the best epoch."""

from collections.abc import Mapping
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
from compress.contracts.step import only
from compress.objectives.labels import Labels
from compress.strategies.plain import Plain
from compress.training.curve import Outcome
from compress.training.evaluate import evaluate
from compress.training.fit import fit

METHOD = Method(source="a test", objectives={"labels": Labels})
TWICE = replace(METHOD, phases=(Phase("first", 0.5, step=only("labels")), Phase("second", 0.5)))


def backwards(toy: ModuleType) -> Any:
    """A task whose metric is the share of errors: the longer the training, the worse."""

    class Backwards(toy.ToyTask):  # type: ignore[misc, name-defined]
        def score(self, output: Tensor, labels: Tensor) -> Tensor:
            return (output.argmax(dim=1) != labels).float()

    return Backwards()


def train(toy: ModuleType, student: nn.Module, keep_best: bool, method: Method = METHOD, **changes: Any) -> Outcome:
    return fit(
        method=method,
        students={"student": student},
        teachers={"teacher": toy.teacher()},
        objectives={"labels": Labels()},
        weights={},
        splits=toy.splits(train=48, val=24),
        task=backwards(toy),
        numbers=replace(toy.NUMBERS, epochs=8, learning_rate=0.3, keep_best=keep_best),
        seed=3,
        precision="fp32",
        **changes,
    )


def test_the_kept_weights_score_what_the_best_epoch_scored(toy: ModuleType) -> None:
    last, best = toy.network(), toy.network()
    plain, kept = train(toy, last, False), train(toy, best, True)
    scores = [point.validation for point in kept.curve]
    assert scores == [point.validation for point in plain.curve]  # looking for the best changes nothing
    highest = max(score for score in scores if score is not None)
    assert highest > (scores[-1] or 0.0)  # else this shows nothing
    assert kept.kept == max(place for place, score in enumerate(scores) if score == highest)  # the latest of equals
    assert kept.validation == highest
    assert plain.validation == scores[-1]
    val = toy.splits(train=48, val=24).val
    assert evaluate(best, val, backwards(toy)).score == highest
    assert evaluate(last, val, backwards(toy)).score == scores[-1]


def test_only_the_last_phase_counts(toy: ModuleType) -> None:
    outcome = train(toy, toy.network(), True, TWICE)
    assert outcome.curve[outcome.kept].phase == "second"


class BrokenOffError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("number", [1, 4, 7])
def test_a_resumed_training_keeps_the_same_weights(toy: ModuleType, number: int, tmp_path: Path) -> None:
    whole, resumed = toy.network(), toy.network(seed=9)
    expected = train(toy, whole, True)

    def stop(clock: Clock) -> None:
        if clock.epoch == number:
            raise BrokenOffError

    saved = {"checkpoint": tmp_path / "c.pt", "checkpoint_every_s": 0.0}
    with pytest.raises(BrokenOffError):
        train(toy, toy.network(), True, before_epoch=stop, **saved)
    outcome = train(toy, resumed, True, **saved)
    assert outcome.kept == expected.kept
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in resumed.state_dict().items())
    again = toy.network(seed=11)
    assert train(toy, again, True, **saved).kept == expected.kept  # from the finished checkpoint
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in again.state_dict().items())


def test_without_validation_data_the_last_epoch_is_what_there_is(toy: ModuleType) -> None:
    student = toy.network()
    outcome = fit(
        method=METHOD,
        students={"student": student},
        teachers={"teacher": toy.teacher()},
        objectives={"labels": Labels()},
        weights={},
        splits=toy.splits(train=48, val=0),
        task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=2, keep_best=True),
        seed=3,
        precision="fp32",
    )
    assert outcome.kept == -1
    assert outcome.validation is None


def test_a_strategy_that_changes_no_example_draws_anew_at_every_step(toy: ModuleType) -> None:
    drawn: list[float] = []

    class Drawing(Plain):
        def transform(
            self, batches: Any, teachers: Any, clock: Clock, generator: torch.Generator
        ) -> Mapping[str, Batch]:
            drawn.append(float(torch.rand(1, generator=generator)))
            return super().transform(batches, teachers, clock, generator)

    for _ in range(2):
        train(toy, toy.network(), False, strategy=Drawing(augment=False))
    half = len(drawn) // 2
    assert drawn[:half] == drawn[half:]
    assert len(set(drawn[:half])) == half
