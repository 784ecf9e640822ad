"""Which runner's figures are taken, and what a cost says of how it was obtained: runners are stand-ins."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import profiles
from profiles import measured
from profiles.cost import Cost
from profiles.errors import ProfileError
from profiles.measure import Measurement, UnsteadyError
from profiles.measured import NothingMeasuredError
from profiles.runners import WrongDeviceError
from profiles.target import Target

FOUND = Measurement(
    1.0, 0.9, 1.2, 1.3, 1.5, 0.1, 100, 20, True, 1, 1, "a clockwork", "one 1.0", "made up", (), (0.98, 1.02)
)
FASTER = replace(FOUND, median_ms=0.5, interval_ms=(0.49, 0.51), runtime="two 2.0")
ALIKE = replace(FOUND, median_ms=0.97, interval_ms=(0.95, 0.99), runtime="two 2.0")


@pytest.fixture
def target() -> Target:
    return replace(profiles.target("x86"), runners=("on_one", "on_two"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [value("x", TensorProto.FLOAT, ["n", 3])],
        [value("y", TensorProto.FLOAT, ["n", 3])],
    )
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


Answer = Measurement | Cost | Exception | str
Runners = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def runners(monkeypatch: pytest.MonkeyPatch) -> Runners:
    """Sets what each runner answers (a text: why it is not available); gives what each was asked."""

    def set_up(**answers: Answer) -> dict[str, dict[str, Any]]:
        asked: dict[str, dict[str, Any]] = {}

        def stand_in(name: str) -> Any:
            answer = answers[name]

            def measure(path: Path, target: Target, inputs: Any = None, **options: Any) -> Any:
                asked[name] = options
                if isinstance(answer, Exception):
                    raise answer
                return answer

            return SimpleNamespace(available=lambda: answer if isinstance(answer, str) else None, measure=measure)

        monkeypatch.setattr(measured, "runner", stand_in)
        return asked

    return set_up


def test_the_fastest_runner_is_taken_and_the_others_are_said(model: Path, target: Target, runners: Runners) -> None:
    asked = runners(on_one=FOUND, on_two=FASTER)
    found = measured.run(model, target, batch=4, threads=2, seconds=0.5)
    assert isinstance(found, Measurement)
    assert found.runtime == "two 2.0"
    assert found.notes == ("the fastest runner, on_two: on_one took 1 ms",)
    assert asked["on_one"] == asked["on_two"] == {"batch": 4, "threads": 2, "seconds": 0.5}


def test_a_tie_goes_to_the_one_named_first(model: Path, target: Target, runners: Runners) -> None:
    runners(on_one=FOUND, on_two=ALIKE)
    found = measured.run(model, target)
    assert isinstance(found, Measurement)
    assert found.runtime == "one 1.0"


@pytest.mark.parametrize(
    "error",
    [
        UnsteadyError("too busy", fix=""),
        WrongDeviceError("too old", fix=""),
        ProfileError("not an operator of mine", fix=""),
    ],
)
def test_one_that_fails_leaves_the_other(model: Path, target: Target, runners: Runners, error: ProfileError) -> None:
    runners(on_one=error, on_two=FASTER)
    found = measured.run(model, target)
    assert isinstance(found, Measurement)
    assert found.runtime == "two 2.0"
    assert found.notes == (f"not on_one: {error.what}",)


def test_an_artifact_that_nobody_takes_is_an_error(model: Path, target: Target, runners: Runners) -> None:
    runners(on_one=ProfileError("not a model", fix="mend it"), on_two="not installed: install it")
    with pytest.raises(ProfileError, match="not a model") as caught:
        measured.run(model, target)
    assert not isinstance(caught.value, NothingMeasuredError)


def test_what_nobody_could_measure_is_predicted_with_every_reason(
    model: Path, target: Target, runners: Runners
) -> None:
    runners(on_one="not installed: install it", on_two=UnsteadyError("too busy", fix=""))
    with pytest.raises(NothingMeasuredError, match="on_one: not installed: install it; on_two: too busy"):
        measured.run(model, target)
    cost = measured.measure_cost(model, target, batch=2)
    assert cost.origin == "predicted"
    assert cost.batch == 2
    assert "on_two: too busy" in cost.notes[0]


def test_a_measured_cost_says_how(model: Path, target: Target, runners: Runners) -> None:
    found = replace(
        FOUND, batch=8, with_transfer_ms=1.5, back_to_back_ms=0.8, energy_mj=3.0, energy_of="a meter", notes=("hot",)
    )
    runners(on_one=found, on_two="absent: x")
    cost = measured.measure_cost(model, target, inputs={"x": np.zeros((8, 3), np.float32)})
    assert (cost.origin, cost.latency_ms, cost.interval_ms) == ("measured", 1.0, (0.98, 1.02))
    assert cost.layers_origin == "predicted"
    assert (cost.energy_mj, cost.energy_interval_mj) == (3.0, None)
    said = "; ".join(cost.notes)
    assert "throughput 1e+04 samples a second, the next batch started before one ended" in said
    assert "with copies from and to host memory 1.5 ms" in said
    assert "energy is measured: a meter" in said
    assert "hot" in said
    assert "had it been predicted: " in said


def test_a_predicted_energy_of_a_measured_cost_is_called_so(model: Path, target: Target) -> None:
    guess = replace(measured.predicted(model, target), energy_mj=2.0, energy_interval_mj=(1.0, 3.0))
    cost = measured.with_measurement(guess, FOUND)
    assert (cost.energy_mj, cost.energy_interval_mj) == (2.0, (1.0, 3.0))
    assert "energy is predicted, not measured" in cost.notes


def test_an_emulators_cost_is_taken_whole(model: Path, target: Target, runners: Runners) -> None:
    whole = replace(measured.predicted(model, target), origin="emulated")
    asked = runners(on_one=whole, on_two=FASTER)
    assert measured.run(model, replace(target, family="cortex-m"), batch=4) is whole
    assert asked == {"on_one": {}}  # how long it measures is nothing that an emulator could be told


def test_a_sweep_measures_each_batch(model: Path, target: Target, runners: Runners) -> None:
    asked = runners(on_one=FOUND, on_two="absent: x")
    costs = measured.measure_batches(model, target, (1, 8))
    assert len(costs) == 2
    assert asked["on_one"]["batch"] == 8


def test_an_engine_needs_its_model_to_be_counted(tmp_path: Path, target: Target) -> None:
    with pytest.raises(ProfileError, match="cannot be counted"):
        measured.predicted(tmp_path / "a.engine", target)
