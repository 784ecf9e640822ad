"""The stage on students of its own: one that int8 suits, and one with a layer made sensitive by construction."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress import recipe as recipes
from compress.job import Job
from compress.progress import Quiet
from compress.qat import prepare as qat
from compress.qat.learned_steps import LearnedActivation
from compress.qat.observers import HistogramObserver
from compress.records import Record
from compress.stages.distill import Distilled
from compress.stages.learned import Choice
from compress.stages.prepare import prepare
from compress.stages.quantize import Quantized, quantize
from compress.store import open_store
from compress.training.evaluate import evaluate
from tests.compress.precision.conftest import _trained, with_outlier

CHOICE = Choice("own", {}, "given")


@dataclass(frozen=True)
class Stage:
    """What the stage made of a student."""

    job: Job
    result: Quantized
    folder: Path
    again: Callable[[], Quantized]

    @property
    def decision(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "precision.json").read_text())
        return found


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the teacher of these tests is kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def stage(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    """stage(student, part, weights, rest) -> what became of it, fine-tuned so little that nothing heals."""
    torch.set_num_threads(1)
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))

    def run(student: nn.Module, part: dict[str, Any], weights: float = 10_000_000, rest: str = "fp32") -> Stage:
        given = recipes.load(
            overrides={
                "teacher": {"epochs": 1},
                "budget": {"weight_bytes": int(weights), "weight_reduction": 1e-3, "accuracy_drop": 0.02},
                "quantize": {"epochs": 1, "learning_rate": 1e-6, "calibration_batches": 4, **part},
            }
        )
        job = prepare(given, store, Quiet(), None)
        job = replace(job, target=replace(job.target, leftovers=rest))  # type: ignore[arg-type]
        score = evaluate(student, job.splits.val, job.task).score
        distilled = Distilled(student, score, Record("distill", "key", {}, {}, {}, 0.0))
        result = quantize(job, CHOICE, distilled)
        return Stage(job, result, store.path("quantize"), lambda: quantize(job, CHOICE, distilled))

    with open_store(tmp_path / "run") as store:
        yield run


LAYERS = ["body.0", "body.3", "body.6", "body.9", "head"]


def in_integers(model: qat.Prepared) -> list[str]:
    return [site.module for site in model.sites if site.quantized]


def test_a_student_that_int8_suits_ships_in_int8(stage: Callable[..., Stage]) -> None:
    found = stage(_trained(), {})
    assert found.result.precision == "int8"
    assert in_integers(found.result.model) == LAYERS
    decision = found.decision
    assert decision["shipped"] == "int8"
    assert decision["accuracy_budget"] == pytest.approx(0.01)
    assert [row["layer"] for row in decision["layers"]] == LAYERS
    assert {item["precision"] for item in decision["candidates"]} == {"int8", "fp16", "fp32"}
    assert "int8 ships" in " ".join(decision["why"])
    assert (found.folder / "sensitivity.json").is_file()


def test_exactly_the_sensitive_layer_ships_in_float(stage: Callable[..., Stage]) -> None:
    student = with_outlier(_trained())
    found = stage(student, {}, rest="fp16")
    assert found.result.precision == "mixed"
    assert in_integers(found.result.model) == ["body.0", "body.3", "body.9", "head"]
    decision = found.decision
    assert decision["float_layers"] == ["body.6"]
    assert decision["drop"]["mean"] <= decision["accuracy_budget"]
    by_name = {item["precision"]: item for item in decision["candidates"]}
    assert by_name["int8"]["drop"] > 0.1
    assert by_name["int8"]["weight_bytes"] < by_name["mixed"]["weight_bytes"] < by_name["fp16"]["weight_bytes"]
    assert by_name["mixed"]["latency_ms"] < by_name["fp32"]["latency_ms"]
    assert decision["layers"][2]["precision"] == "fp16"
    validation = evaluate(student, found.job.splits.val, found.job.task).score
    assert found.result.validation >= validation - decision["accuracy_budget"]
    # Asked again it is read back: the same assignment, weights and ranges.
    again = found.again()
    (x,) = found.job.example
    assert again.precision == "mixed"
    torch.testing.assert_close(again.model(x), found.result.model(x), rtol=0, atol=0)
    assert found.job.store.repeated.count("quantize") == 1


def test_a_float_precision_ships_where_layers_may_not_be_mixed(stage: Callable[..., Stage]) -> None:
    found = stage(with_outlier(_trained()), {"mixed": False})
    assert found.result.precision in ("fp16", "fp32")
    assert not any(site.quantized for site in found.result.model.sites)
    assert not list(found.result.model.activations())
    assert found.decision["drop"]["mean"] == 0.0
    why = " ".join(found.decision["why"])
    assert "int8 loses" in why
    assert f"{found.result.precision} ships" in why


def test_int8_that_the_recipe_asks_for_ships_whatever_it_loses(stage: Callable[..., Stage]) -> None:
    found = stage(with_outlier(_trained()), {"mixed": False, "format": "int8"})
    assert found.result.precision == "int8"
    assert [item["precision"] for item in found.decision["candidates"]] == ["int8"]
    assert found.decision["drop"]["mean"] > found.decision["accuracy_budget"]  # the verify stage will say so
    assert "int8 is what the recipe asks for: no float precision competes" in found.decision["notes"]


def test_float_layers_that_weigh_more_than_half_precision_do_not_pay(stage: Callable[..., Stage]) -> None:
    """Where float layers are written in fp32, the whole student in fp16 is smaller and as fast."""
    found = stage(with_outlier(_trained()), {})
    assert found.result.precision == "fp16"
    assert "mixed" in {item["precision"] for item in found.decision["candidates"]}
    assert found.decision["assignment"]["floats"] == ["body.6"]


def test_what_does_not_fit_never_ships(stage: Callable[..., Stage]) -> None:
    found = stage(with_outlier(_trained()), {"mixed": False}, weights=30_000)
    assert found.result.precision == "int8"
    why = " ".join(found.decision["why"])
    assert "fp32 is left out: its weights of" in why
    assert "Nothing that fits loses at most" in why


def test_the_analysis_can_be_left_out(stage: Callable[..., Stage]) -> None:
    found = stage(_trained(), {"sensitivity_samples": 0})
    assert found.decision["layers"] == []
    assert not (found.folder / "sensitivity.json").exists()


def test_modules_that_the_recipe_names_stay_in_float(stage: Callable[..., Stage]) -> None:
    found = stage(_trained(), {"float_modules": ["head"]})
    assert in_integers(found.result.model) == LAYERS[:-1]
    assert [row["layer"] for row in found.decision["layers"]] == LAYERS[:-1]


def test_the_recipe_says_how_ranges_are_found_and_steps_learned(stage: Callable[..., Stage]) -> None:
    student = _trained()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    how = {"ranges": "mse", "weight_ranges": "mse", "steps": "learned", "equalize": "activations"}
    found = stage(student, {**how, "sensitivity_samples": 0})
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    model = found.result.model
    assert all(isinstance(module, LearnedActivation) for module in model.activations())
    assert all(isinstance(module.observer, HistogramObserver) for module in model.activations())
    trained = dict(model.named_parameters())
    assert not torch.equal(trained["graph.body.0.weight"], before["body.0.weight"])  # equalised
    # The steps that were learned are stored, and read back with the rest.
    (x,) = found.job.example
    torch.testing.assert_close(found.again().model(x), model(x), rtol=0, atol=0)
    assert found.job.store.repeated.count("quantize") == 1
