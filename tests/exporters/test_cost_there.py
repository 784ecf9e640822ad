"""Which artifact is built where before it is measured on another machine; building and measuring are stand-ins."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import profiles
from exporters import builder, cost_there
from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles import remote
from profiles.cost import Cost
from profiles.remote import Remote
from profiles.target import Target

MACHINE = Remote("me@orin", "/usr/bin/python3.10")


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was asked to be measured."""
    asked: list[dict[str, Any]] = []

    def measure_many(artifacts: Sequence[Any], target: Target, machine: Remote, *, models: Sequence[Any]) -> list[Cost]:
        [(path, inputs)], [graph] = artifacts, models
        asked.append({"path": path, "inputs": inputs, "machine": machine, "there": path.is_file()})
        return [replace(profiles.profile(graph, target), origin="measured")]

    monkeypatch.setattr(remote, "measure_many", measure_many)
    return asked


def building(monkeypatch: pytest.MonkeyPatch, reason: str | None) -> list[BuildOptions]:
    made: list[BuildOptions] = []

    def convert(model: Path, target: Target, out: Path, *, options: BuildOptions) -> Artifact:
        made.append(options)
        (out / "model.engine").write_bytes(b"engine")
        return Artifact(out / "model.engine", "engine", "ship", "a stand-in", {})

    stand_in = SimpleNamespace(can_run=lambda target, remote: reason, convert=convert)
    monkeypatch.setattr(builder, "load", lambda name: stand_in)
    return made


def test_a_processors_runtimes_take_the_file_itself(int8_model: Any, visits: list[dict[str, Any]]) -> None:
    cost = cost_there.cost_there(int8_model.path, profiles.target("x86"), MACHINE, batch=4)
    assert cost.origin == "measured"
    assert visits[0]["path"] == int8_model.path
    assert all(array.shape[0] == 4 and np.any(array) for array in visits[0]["inputs"].values())


def test_an_engine_is_built_there_and_measured_there(
    int8_model: Any, visits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = building(monkeypatch, None)
    cost = cost_there.cost_there(int8_model.path, profiles.target("jetson"), MACHINE, batch=2)
    assert cost.origin == "measured"
    assert (made[0].remote, made[0].batches, dict(made[0].golden_inputs)) == ("me@orin", (2, 2, 2), {})
    assert visits[0]["path"].name == "model.engine"
    assert visits[0]["there"]
    assert visits[0]["machine"] == MACHINE


def test_a_machine_that_cannot_build_says_why(
    int8_model: Any, visits: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    building(monkeypatch, "TensorRT is not installed there")
    with pytest.raises(ExportError, match=r"for jetson on me@orin: .*TensorRT is not installed there"):
        cost_there.cost_there(int8_model.path, profiles.target("jetson"), MACHINE)
    assert visits == []
