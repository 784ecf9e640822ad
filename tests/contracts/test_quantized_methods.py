"""Every method can go on while its student is quantised, when nothing in the student can be tapped."""

import pytest

from compress import catalog
from compress.contracts.method import Method
from compress.contracts.objective import Objective
from compress.contracts.step import only
from compress.errors import RecipeError
from compress.lesson import while_quantized
from compress.methods.hints import METHOD as HINTS
from compress.objectives.features import Features
from compress.objectives.labels import Labels


def objectives_of(method: Method) -> dict[str, Objective]:
    return {name: make.example() if isinstance(make, type) else make() for name, make in method.objectives.items()}


@pytest.mark.parametrize("name", catalog.names("compress.methods"))
def test_something_is_left_that_taps_nothing(name: str) -> None:
    method: Method = catalog.load("compress.methods", name).METHOD
    chosen, objectives = while_quantized(method, objectives_of(method), name)
    assert objectives
    assert not any(objective.student_taps for objective in objectives.values())
    assert sum(phase.share for phase in chosen.phases) == pytest.approx(1.0)


def test_hints_go_on_with_their_second_stage() -> None:
    chosen, objectives = while_quantized(HINTS, objectives_of(HINTS), "hints")
    assert set(objectives) == {"soft_targets", "labels"}
    assert [phase.name for phase in chosen.phases] == ["distill"]


def test_the_usual_step_goes_on_without_what_taps() -> None:
    method = Method("a test", {"features": Features, "labels": Labels})
    chosen, objectives = while_quantized(method, {"features": Features(), "labels": Labels()}, "own")
    assert chosen is method
    assert set(objectives) == {"labels"}


@pytest.mark.parametrize("names", [("features",), ("features", "labels")])
def test_a_step_of_its_own_that_would_miss_an_objective_is_refused(names: tuple[str, ...]) -> None:
    made: dict[str, Objective] = {"features": Features(), "labels": Labels()}
    phases = HINTS.phases[:1]
    method = Method("a test", {name: type(made[name]) for name in names}, phases=phases)
    assert phases[0].step is not only("features")
    with pytest.raises(RecipeError, match="features of method own tap the student") as refusal:
        while_quantized(method, {name: made[name] for name in names}, "own")
    assert "quantized=" in (refusal.value.fix or "")
