"""What the run's remote machine measures of the shipped artifact; the visit is a stand-in."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import profiles
from compress.stages import artifact_cost, verify
from compress.stages.learned import PREDICTED, SHIPPED
from exporters.artifact import Artifact
from profiles import remote
from profiles.cost import Cost
from profiles.errors import ProfileError


@pytest.fixture
def counted() -> Cost:
    return profiles.profile(nn.Linear(4, 2), target="jetson", example=(torch.zeros(1, 4),))


def artifact(name: str, kind: str = "engine") -> Artifact:
    return Artifact(Path(name), kind, "artifact", "", {})


@pytest.fixture
def job() -> Any:
    class Examples:
        def batch(self, index: torch.Tensor) -> Any:
            return SimpleNamespace(inputs=(torch.zeros(len(index), 4),))

    said: list[str] = []
    return SimpleNamespace(
        target=profiles.target("jetson"),
        remote="me@orin",
        progress=SimpleNamespace(say=said.append, said=said),
        splits=SimpleNamespace(val=Examples()),
        task=SimpleNamespace(input_names=("x",)),
        example=(torch.zeros(2, 4),),
        one_example=(torch.zeros(1, 4),),
    )


def test_the_first_artifact_that_can_be_measured_there_gives_the_cost(
    job: Any, counted: Cost, monkeypatch: pytest.MonkeyPatch
) -> None:
    visits: list[tuple[str, str]] = []

    def measure(path: Path, target: Any, host: str, **rest: Any) -> Cost:
        visits.append((path.name, host))
        if path.name == "first.engine":
            raise ProfileError("it was built for another GPU", fix="build it there")
        return replace(counted, latency_ms=7.0, interval_ms=(6.0, 8.0), origin="measured")

    monkeypatch.setattr(remote, "measure_cost", measure)
    monkeypatch.setattr(profiles, "profile", lambda *_, **__: counted)
    exported: Any = SimpleNamespace(model=Path("model.onnx"))
    shipped = [artifact("deploy", "bundle"), artifact("first.engine"), artifact("second.engine")]
    found = verify._measured_there(job, shipped, exported, "me@orin")
    assert found is not None
    assert (found[SHIPPED].latency_ms, found[SHIPPED].origin, found[PREDICTED]) == (7.0, "measured", counted)
    assert visits == [("first.engine", "me@orin"), ("second.engine", "me@orin")]
    assert job.progress.said == ["verify: first.engine was not measured on me@orin: it was built for another GPU"]
    assert verify._measured_there(job, shipped[:2], exported, "me@orin") is None


def test_a_microcontroller_is_emulated_here_whatever_the_remote(job: Any) -> None:
    assert artifact_cost.measured_there(job) == "me@orin"
    job.target = profiles.target("hearing_aid")
    assert artifact_cost.measured_there(job) is None
    job.target, job.remote = profiles.target("jetson"), None
    assert artifact_cost.measured_there(job) is None
