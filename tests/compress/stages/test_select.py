"""The search of one run: what straddles a budget, what is trained and how often, who goes on, what is said of it."""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import profiles
from compress import catalog
from compress import recipe as recipes
from compress.contracts.selector import Candidate, Trial
from compress.contracts.space import SpaceContext
from compress.errors import BudgetError, RecipeError, RunError, TrainingError
from compress.evaluations import open_evaluations
from compress.job import Job
from compress.progress import Bar, Quiet
from compress.stages import select as stage
from compress.stages import straddlers, students, trials
from compress.stages.distill import STUDENT, distill
from compress.stages.learned import Choice, Evidence, Learned
from compress.stages.prepare import prepare
from compress.stages.select import select
from compress.store import open_store
from exporters import builder
from exporters.artifact import Artifact
from profiles import remote
from profiles.abilities import ability
from profiles.cost import Cost
from profiles.errors import ProfileError

Search = Callable[..., AbstractContextManager["Found"]]
SMALL = {"macs": 1_000_000}  # trains in a second or less
LIMIT_MS = 0.3  # on jetson: some of the students are within it for sure, some straddle it, some are over it


@dataclass
class Heard:
    """What a person would read; `on_say` may answer."""

    lines: list[str] = field(default_factory=list)
    on_say: Callable[[str], None] = lambda text: None

    def say(self, text: str) -> None:
        self.lines.append(text)
        self.on_say(text)

    def bar(self, title: str, total: float) -> AbstractContextManager[Bar]:
        return Quiet().bar(title, total)


@dataclass(frozen=True)
class Found:
    """A prepared run with its search."""

    job: Job
    heard: Heard

    def choose(self, *learned: Learned) -> Any:
        return select(self.job, learned)

    def told(self, what: str = "candidates") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.job.store.path("select") / f"{what}.json").read_text())
        return found

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.told()["candidates"]
        return rows

    @property
    def evaluations(self) -> Path:
        return self.job.evaluations or self.job.store.folder / stage.EVALUATIONS


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of the teacher, and a file of evaluations for all searches that do not count them."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("select")
        patch.setenv("COMPRESS_CACHE", str(folder))
        yield folder


@pytest.fixture
def search(prepared: Path, tmp_path: Path) -> Search:
    """search(name, select, budget, target, ...) -> a prepared run in the folder of that name."""

    @contextmanager
    def begin(
        name: str = "run",
        select: Mapping[str, Any] | None = None,
        budget: Mapping[str, Any] | None = None,
        target: str = "jetson",
        evaluations: Path | None = prepared / "all.sqlite",
        workers: str = "serial",
    ) -> Iterator[Found]:
        part = {"spaces": ["int8_conv"], "candidates": 12, "training": 1.0, "settings": {"share": 0.5}}
        given = recipes.load(
            overrides={
                "target": target,
                "teacher": {"epochs": 1},
                "budget": {"weight_reduction": 1.0, "macs_reduction": 1.0, **(SMALL if budget is None else budget)},
                "select": {**part, **(select or {})},
                "distill": {"epochs": 2, "learning_rate": 8e-3, "batch_size": 256, "strategy": {"augment": False}},
            }
        )
        heard = Heard()
        with open_store(tmp_path / name) as store:
            job = prepare(given, store, heard, None)
            yield Found(replace(job, evaluations=evaluations, workers=workers), heard)

    return begin


def identities(rows: list[dict[str, Any]]) -> set[str]:
    return {row["identity"] for row in rows if row["rejected"] is None}


def straddling(rows: list[dict[str, Any]], limit: float = LIMIT_MS) -> list[dict[str, Any]]:
    return [row for row in rows if row["interval_ms"][0] <= limit < row["interval_ms"][1]]


# Straddlers


def test_students_that_straddle_the_budget_are_dropped_where_nothing_can_be_measured(search: Search) -> None:
    part = {"selector": "largest_that_fits", "settings": {}, "finalists": 1}
    with search(budget={"latency_ms": LIMIT_MS}, select=part) as run:
        if ability(run.job.target).level != "predict":
            pytest.skip("this machine can run what it builds for jetson")
        run.choose()
        unsure = [row for row in straddling(run.rows) if row["macs"] <= run.told()["budget"]["macs"]]
        unsure = [row for row in unsure if row["weight_bytes"] <= run.told()["budget"]["weight_bytes"]]
        assert unsure
        assert all("only a measurement would tell" in row["rejected"] for row in unsure if row["latency_ms"] < LIMIT_MS)
        assert all(row["interval_ms"][1] <= LIMIT_MS for row in run.rows if row["rejected"] is None)
        (said,) = (line for line in run.heard.lines if "straddle" in line)
        assert f"{len(unsure)} students straddle the budget and are dropped: " in said
        assert "no NVIDIA GPU" in said


def test_without_caution_the_median_decides(search: Search) -> None:
    with search(
        budget={"latency_ms": LIMIT_MS},
        select={"caution": 0.0, "selector": "largest_that_fits", "settings": {}, "finalists": 1},
    ) as run:
        run.choose()
        assert straddling(run.rows)
        assert all((row["latency_ms"] <= LIMIT_MS) == ("latency" not in str(row["rejected"])) for row in run.rows)
        assert not [line for line in run.heard.lines if "straddle" in line]


@pytest.mark.parametrize(("factor", "stays"), [(0.9, True), (1.1, False)])
def test_what_a_straddling_student_really_costs_decides(
    search: Search, monkeypatch: pytest.MonkeyPatch, factor: float, stays: bool
) -> None:
    built: list[int] = []

    def measured(job: Job, model: torch.nn.Module) -> Cost:
        cost = profiles.profile(model, target=job.target, precision="int8", example=job.one_example, layers=False)
        built.append(cost.macs)
        latency = factor * LIMIT_MS
        return replace(cost, latency_ms=latency, interval_ms=(latency, latency), origin="measured")

    monkeypatch.setattr(straddlers, "can_tell", lambda job: None)
    monkeypatch.setattr(straddlers, "artifact_cost", measured)
    settings = {"measured": 2, "selector": "largest_that_fits", "settings": {}, "finalists": 1}
    with search(budget={"latency_ms": LIMIT_MS}, select=settings) as run:
        choice = run.choose()
        rows = [row for row in run.rows if row["origin"] == "measured"]
        assert len(rows) == len(built) == 2
        assert all((row["rejected"] is None) == stays for row in rows)
        assert all(f"({'0.27' if stays else '0.33'}" in str([row["latency_ms"]]).replace("[", "(") for row in rows)
        said = [line for line in run.heard.lines if "straddled" in line]
        assert len(said) == 2
        assert all(line.endswith("(measured) and " + ("stays" if stays else "leaves")) for line in said)
        # Only those are built that are larger than everything within the budget, the largest first.
        sure = [row for row in run.rows if row["interval_ms"][1] <= LIMIT_MS and row["origin"] == "predicted"]
        largest = max(sure, key=lambda row: math.log(row["macs"]) + math.log(row["params"]))
        assert all(
            math.log(row["macs"] * row["params"]) > math.log(largest["macs"] * largest["params"]) for row in rows
        )
        assert (choice.plan == max(rows, key=lambda row: row["macs"] * row["params"])["plan"]) == stays


def test_a_student_that_was_built_and_missed_is_not_measured_into_the_budget_again(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(job: Job, model: torch.nn.Module) -> Cost:
        cost = profiles.profile(model, target=job.target, precision="int8", example=job.one_example, layers=False)
        return replace(cost, latency_ms=0.1, interval_ms=(0.1, 0.1), origin="measured")

    monkeypatch.setattr(straddlers, "can_tell", lambda job: None)
    monkeypatch.setattr(straddlers, "artifact_cost", measured)
    settings = {"measured": 20, "selector": "largest_that_fits", "settings": {}, "finalists": 1}
    with search(budget={"latency_ms": LIMIT_MS}, select=settings) as run:
        first = run.choose()
        assert next(row for row in run.rows if row["chosen"])["origin"] == "measured"
        second = run.choose(Learned(first, 1.0, "latency 5 ms is over the budget of 0.3 ms"))
        assert second.plan != first.plan
        missed = next(row for row in run.rows if row["plan"] == first.plan)
        assert missed["rejected"].startswith("was built and missed: latency 5 ms")


@pytest.mark.parametrize(("factor", "stays"), [(0.9, True), (1.1, False)])
def test_the_remote_machine_measures_what_straddles(
    search: Search, monkeypatch: pytest.MonkeyPatch, factor: float, stays: bool
) -> None:
    """The engine is built there and measured there; building and the visit are stand-ins."""
    visits: list[str] = []

    def convert(model: Path, target: Any, out: Path, *, options: Any) -> Artifact:
        assert options.remote == "me@orin"
        (out / "model.engine").write_bytes(model.read_bytes()[:1])
        return Artifact(out / "model.engine", "engine", "artifact", "a stand-in", {})

    def measure_many(artifacts: Any, target: Any, machine: remote.Remote, *, models: Any) -> list[Cost]:
        [(path, inputs)] = artifacts
        assert path.is_file()
        assert inputs
        visits.append(machine.host)
        if len(visits) == 1:
            raise ProfileError("the line is dead", fix="mend it")
        found = profiles.profile(models[0], target)
        latency = factor * LIMIT_MS
        return [replace(found, latency_ms=latency, interval_ms=(latency, latency), origin="measured")]

    monkeypatch.setattr(remote, "measure_many", measure_many)
    answers: list[str | None] = [None]
    able = SimpleNamespace(can_run=lambda target, remote: answers[0], convert=convert)
    monkeypatch.setattr(builder, "load", lambda name: able)
    part = {"measured": 3, "selector": "largest_that_fits", "settings": {}, "finalists": 1}
    with search(budget={"latency_ms": LIMIT_MS}, select=part) as run:
        run = replace(run, job=replace(run.job, remote="me@orin"))
        run.choose()
        assert visits == ["me@orin"] * 3, run.heard.lines
        rows = [row for row in run.rows if row["origin"] == "measured"]
        assert [row["rejected"] is None for row in rows] == [stays] * 2
        assert next(row for row in run.rows if row["chosen"])["origin"] == ("measured" if stays else "predicted")
        said = [line for line in run.heard.lines if "straddle" in line]
        assert said[0].endswith("the largest 3 are built and costed on me@orin")
        assert said[1] == "select: a student that straddles the budget could not be costed: the line is dead"
    answers[0] = "me@orin lacks TensorRT"
    with search("lacking", budget={"latency_ms": LIMIT_MS}, select=part) as run:
        run = replace(run, job=replace(run.job, remote="me@orin"))
        run.choose()
        assert len(visits) == 3
        (line,) = (line for line in run.heard.lines if "straddle" in line)
        assert "are dropped: me@orin lacks TensorRT" in line


def test_an_emulated_student_is_built_and_costed_and_stays_or_leaves_by_that(search: Search) -> None:
    """On a microcontroller, with its real compiler and emulator."""
    target = profiles.target("hearing_aid")
    if ability(target).level != "emulate":
        pytest.skip("; ".join(ability(target).missing.values()))
    settings = {"measured": 1, "selector": "largest_that_fits", "settings": {}, "finalists": 1, "candidates": 8}
    with search(target="hearing_aid", select={**settings, "caution": 0.0}, budget={"latency_ms": 1000.0}) as run:
        run.choose()
        whole = sorted(run.rows, key=lambda row: row["macs"] * row["params"])
    limit = whole[3]["latency_ms"]  # its interval lies around it
    with search("cautious", target="hearing_aid", select=settings, budget={"latency_ms": limit}) as run:
        run.choose()
        (row,) = (row for row in run.rows if row["origin"] == "emulated")
        assert row["interval_ms"][0] < row["interval_ms"][1]
        assert (row["rejected"] is None) == (row["interval_ms"][1] <= limit)
        (said,) = (line for line in run.heard.lines if "straddled" in line)
        assert "ms (emulated) and " + ("stays" if row["rejected"] is None else "leaves") in said


# Finals


def test_the_best_finalist_goes_on_with_its_weights_and_nothing_is_trained_twice(
    search: Search, tmp_path: Path
) -> None:
    shared = tmp_path / "shared.sqlite"
    with search("a", select={"finalists": 3}, evaluations=shared) as run:
        choice = run.choose()
        full = [row for row in run.rows if row["fidelity"] == 1.0]
        assert len(full) == 3
        chosen = next(row for row in run.rows if row["chosen"])
        assert (chosen["plan"], chosen["fidelity"]) == (choice.plan, 1.0)
        tie = 1 / len(run.job.splits.val)
        assert chosen["score"] >= max(row["score"] for row in full) - tie
        told = run.told("search")
        assert told["chosen"] == chosen["identity"]
        assert told["seed"] == 0
        assert told["selector"] == "halving"
        assert {"rounds", "students", "events", "cost", "foretold", "front", "why"} <= told.keys()
        assert sum(event["kind"] == "trained" for event in told["events"]) == len(open_rows(shared))

        distilled = distill(run.job, choice)
        assert distilled.validation == pytest.approx(chosen["score"])
        trained = run.job.store.folder / str(choice.trained)
        own = run.job.store.path("distill") / STUDENT
        assert own.read_bytes() == trained.read_bytes()
        curve = json.loads((run.job.store.path("distill") / "curve.json").read_text())
        assert [point["epoch"] for point in curve] == sorted({point["epoch"] for point in curve})
        candidates = (run.job.store.path("select") / "candidates.json").read_bytes()
    before = open_rows(shared)

    with search("b", select={"finalists": 3}, evaluations=shared) as other:  # another run's folder, the same file
        assert other.choose() == choice
        assert open_rows(shared) == before
        assert (other.job.store.path("select") / "candidates.json").read_bytes() == candidates
        events = other.told("search")["events"]
        assert all(event["remembered"] for event in events if event["kind"] == "trained")
        assert not [line for line in other.heard.lines if "reaches" in line]
        assert distill(other.job, choice).validation == distilled.validation

    with search("c", select={"finalists": 1}, evaluations=shared) as alone:  # one finalist is trained by distill
        single = alone.choose()
        assert single.trained is None
        assert open_rows(shared) == before
        assert not [row for row in alone.rows if row["fidelity"] == 1.0]
        distill(alone.job, Choice(choice.space, choice.plan, ""))
        weights = load_file(alone.job.store.path("distill") / STUDENT)
        for name, tensor in load_file(own).items():  # a final is the training that distill would have done
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=0)


def open_rows(path: Path) -> dict[str, float]:
    with open_evaluations(path) as evaluations:
        assert evaluations.counts().again == 0
        return {key: row.score for key, row in evaluations.rows()}


def test_finalists_whose_weights_are_lost_are_trained_again_and_others_are_waited_for(
    search: Search, tmp_path: Path, prepared: Path
) -> None:
    own, elsewhere = tmp_path / "own.sqlite", tmp_path / "other/own.sqlite"
    with search("a", evaluations=own) as run:
        choice = run.choose()
    rows = open_rows(own)
    weights = trials.weights_beside(own)
    files = sorted(weights.glob("*.safetensors"))
    assert len(files) == 2
    files[0].unlink()
    with search("b", evaluations=own) as run:
        assert run.choose() == choice
        assert len([line for line in run.heard.lines if "reaches" in line]) == 1
    assert files[0].is_file()
    assert open_rows(own) == pytest.approx(rows)

    with search("c", evaluations=elsewhere) as run, open_evaluations(own) as done, open_evaluations(elsewhere) as them:
        keys = [path.stem for path in files]
        them.claim_all(keys)  # another process trains the finalists at this moment

        def finish(text: str) -> None:
            if "another process is at" in text and (known := done.get(keys[-1])) is not None:
                key = keys.pop()
                trials.weights_beside(elsewhere).mkdir(exist_ok=True)
                for ending in (".json", ".safetensors"):
                    shutil.copy(weights / f"{key}{ending}", trials.weights_beside(elsewhere))
                them.put(key, known)

        run.heard.on_say = finish
        assert run.choose() == choice
        assert not keys


def test_equal_finalists_are_told_apart_by_their_cost(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    real = trials.read

    def equal(value: Mapping[str, Any], candidate: str) -> Any:
        return replace(real(value, candidate), score=0.5)

    monkeypatch.setattr(trials, "read", equal)
    with search(select={"finalists": 3}, evaluations=None) as run:
        run.choose()
        full = [row for row in run.rows if row["fidelity"] == 1.0]
        cheapest = min(full, key=lambda row: row["latency_ms"] * row["macs"] * row["weight_bytes"])
        assert next(row for row in run.rows if row["chosen"]) == cheapest


def test_shares_that_come_to_the_same_epochs_are_one_training(search: Search) -> None:
    with search() as run:
        space = students.open_space(run.job, "int8_conv")
        plan = space.corners()[0]
        cost = profiles.profile(space.build(plan), target="x86", example=(torch.zeros(1, 1, 8, 8),))
        candidate = Candidate("int8_conv", plan, cost)
        half, more, full = (trials.key(run.job, Trial(candidate, share)) for share in (0.5, 0.6, 1.0))
        assert half == more != full
        assert trials.key(run.job, Trial(candidate, 0.5, seed=1)) != half
        assert trials.keeps(run.job, Trial(candidate, 0.8))


def test_what_stands_before_every_student_is_counted_once_for_all(search: Search) -> None:
    from compress.tasks.spoken_digits import SAMPLES, TASK

    with search() as run:
        assert students.frontend_macs(run.job, "int8_conv") == 0
        spoken = replace(run.job, task=TASK, example=(torch.zeros(2, SAMPLES),))
        assert students.frontend_macs(spoken, "int8_conv") == 407_968  # as in tests/data/students_spoken_digits.json


def test_processes_choose_as_one_process_does(search: Search, tmp_path: Path) -> None:
    with search("serial") as run:
        alone, expected = run.choose(), run.told()
    with search("processes", evaluations=tmp_path / "many.sqlite", workers="processes:2") as run:
        assert run.choose() == alone
        found = run.told()
        assert all(event["remembered"] is False for event in run.told("search")["events"] if event["kind"] == "trained")
    assert found["candidates"] == expected["candidates"]
    assert found["why"] == expected["why"]


# Trials that go wrong


def test_a_trial_that_diverges_is_an_answer(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    lesson, count = trials.lesson, []

    def sometimes(job: Job, model: torch.nn.Module, numbers: Any, **rest: Any) -> Any:
        count.append(numbers.epochs)
        if count.count(numbers.epochs) == 1:  # the first short trial and the first final
            raise TrainingError("the loss is not finite", fix="lower the rate")
        return lesson(job, model, numbers, **rest)

    monkeypatch.setattr(trials, "lesson", sometimes)
    with search(select={"training": 1.5, "finalists": 2}, evaluations=None) as run:
        choice = run.choose()
        trained = len(count)
        assert count.count(1) >= 2
        assert count.count(2) == 2
        diverged = [row for row in run.rows if row["diverged"]]
        assert diverged
        assert all(row["score"] is None and not row["pareto"] and not row["chosen"] for row in diverged)
        assert len([line for line in run.heard.lines if "diverges" in line]) == 2
        assert (run.job.store.folder / str(choice.trained)).is_file()
        told = run.told("search")
        assert sum(event["kind"] == "trained" and event["score"] is None for event in told["events"]) == 2
        assert any(row["fate"].startswith("diverged") for row in told["students"].values())
    with search(select={"training": 1.5, "finalists": 2}, evaluations=run.evaluations) as run:
        (run.job.store.path("select") / "stage.json").unlink()
        assert run.choose() == choice
        assert len(count) == trained  # also that it diverged is remembered


def test_where_all_finalists_diverge_it_says_so(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = trials.lesson

    def late(job: Job, model: torch.nn.Module, numbers: Any, **rest: Any) -> Any:
        if numbers.epochs > 1:
            raise TrainingError("the loss is not finite", fix="lower the rate")
        return lesson(job, model, numbers, **rest)

    monkeypatch.setattr(trials, "lesson", late)
    with search(evaluations=None) as run, pytest.raises(TrainingError, match=r"all 2 students .* diverged") as caught:
        run.choose()
    assert "distill.learning_rate" in caught.value.fix


def test_a_trial_that_fails_says_of_which_student(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("an objective of one's own")

    monkeypatch.setattr(trials, "lesson", broken)
    with search(evaluations=None) as run:
        with pytest.raises(
            RunError, match=r"of the space int8_conv for 0\.5 of the training: ZeroDivisionError"
        ) as found:
            run.choose()
        assert "finished trials are kept" in found.value.fix
        with open_evaluations(run.evaluations) as evaluations:
            assert evaluations.counts().running == 0


def test_one_student_that_fails_is_rejected_and_the_search_goes_on(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson, count = trials.lesson, []

    def sometimes(job: Job, model: torch.nn.Module, numbers: Any, **rest: Any) -> Any:
        count.append(numbers.epochs)
        if count.count(numbers.epochs) == 1:  # the first short trial, and the first final
            raise MemoryError(f"of {numbers.epochs} epochs")
        return lesson(job, model, numbers, **rest)

    monkeypatch.setattr(trials, "lesson", sometimes)
    with search(select={"training": 1.5, "finalists": 2}, evaluations=None) as run:
        choice = run.choose()
        failed = [row for row in run.rows if str(row["rejected"]).startswith("its training failed")]
        assert [row["rejected"] for row in failed] == [
            f"its training failed: MemoryError: of {row['fidelity'] * 2:.0f} epochs" for row in failed
        ]
        assert len(failed) == 2
        assert all(row["score"] is None and not row["pareto"] and not row["chosen"] for row in failed)
        chosen = next(row for row in run.rows if row["chosen"])
        assert (chosen["fidelity"], chosen["plan"]) == (1.0, choice.plan)
        said = [line for line in run.heard.lines if "is rejected" in line]
        assert said[0] == "select: a student of int8_conv is rejected: its training failed: MemoryError: of 1 epochs"
        fates = [row["fate"] for row in run.told("search")["students"].values()]
        assert sum(fate.startswith("rejected: its training failed") for fate in fates) == 2
        with open_evaluations(run.evaluations) as evaluations:
            assert evaluations.counts().running == 0


def test_where_all_finalists_fail_it_says_why_with_the_traceback(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesson = trials.lesson

    def late(job: Job, model: torch.nn.Module, numbers: Any, **rest: Any) -> Any:
        if numbers.epochs > 1:
            raise ZeroDivisionError("in the second epoch")
        return lesson(job, model, numbers, **rest)

    monkeypatch.setattr(trials, "lesson", late)
    with search(evaluations=None) as run, pytest.raises(RunError, match="none has a score") as caught:
        run.choose()
    assert "ZeroDivisionError: in the second epoch" in caught.value.what
    assert "Traceback" in caught.value.what


def test_a_disk_that_is_full_in_a_finalist_s_training_is_one_sentence_and_the_search_goes_on_afterwards(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch.save says it: that its stream failed, with the system's word behind it."""
    real, full = torch.save, [True]

    def save(content: Any, path: Path) -> None:
        if full:
            path.write_bytes(b"half")
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")  # noqa: B904
        real(content, path)

    monkeypatch.setattr(torch, "save", save)
    with search(evaluations=None) as run:
        with pytest.raises(
            RunError, match=r"^the disk is full \(writing .*checkpoint\.pt\); it ended the trial of"
        ) as caught:
            run.choose()
        assert "free some space" in caught.value.fix
        assert "Traceback" not in caught.value.what
        weights = trials.weights_beside(run.evaluations)
        assert list(weights.iterdir()) == []
        full.clear()
        assert (run.job.store.folder / str(run.choose().trained)).is_file()


# What artifacts teach


def test_what_a_built_student_taught_changes_the_next_round(search: Search) -> None:
    part = {"selector": "largest_that_fits", "settings": {}, "finalists": 1}
    with search(select=part, budget={"latency_ms": 100.0}) as run:
        first = run.choose()
        before = {row["identity"]: row for row in run.rows}
        told = run.told("search")
        missed = Learned(first, 2.0, "memory 9 KiB is over the budget of 8 KiB", 1.5)
        second = run.choose(missed)
        after = {row["identity"]: row for row in run.rows}
        assert second.plan != first.plan
        assert run.told()["learned"] == [
            {"plan": first.plan, "latency_ratio": 2.0, "memory_ratio": 1.5, "why": missed.why}
        ]
        common = before.keys() & after.keys()
        assert len(common) >= 6  # later draws depend on what fits
        for identity, row in ((identity, after[identity]) for identity in common):
            assert row["latency_ms"] == pytest.approx(2.0 * before[identity]["latency_ms"])
            assert row["interval_ms"] == pytest.approx([2.0 * end for end in before[identity]["interval_ms"]])
            assert row["peak_activation_bytes"] == round(1.5 * before[identity]["peak_activation_bytes"])
        events = run.told("search")["events"]
        learned = {event["what"]: event["factor"] for event in events if event["kind"] == "recalibrated"}
        assert learned == {"latency": 2.0, "peak activation memory": 1.5}
        assert events[: len(told["events"])] == told["events"]  # the story goes on where it was
        assert {event["round"] for event in events} == {1, 2}
        third = run.choose(missed, Learned(second, 3.0, "again", 1.0))
        assert third.plan not in (first.plan, second.plan)
        rows = {row["identity"]: row for row in run.rows}
        for identity in rows.keys() & before.keys():
            assert rows[identity]["latency_ms"] == pytest.approx(3.0 * before[identity]["latency_ms"])


def too_inaccurate(choice: Choice, quantized: float = 0.4) -> Learned:
    evidence = Evidence(1.0, (0.9, 1.1), "measured", 1.0, 0.8, quantized, 0.3, 0.7)
    return Learned(choice, 1.0, "drop of accuracy is 0.4", 1.0, too_dear=False, inaccurate=True, evidence=evidence)


def test_a_student_that_lost_too_much_is_followed_by_a_larger_one_and_no_training_is_repeated(
    search: Search, tmp_path: Path
) -> None:
    part = {"finalists": 2, "training": 1.5}
    with search(select=part, evaluations=tmp_path / "own.sqlite") as run:
        first = run.choose()
        trained = open_rows(run.evaluations)
        before = next(row for row in run.rows if row["chosen"])
        scores = {row["identity"]: row["score"] for row in run.rows if row["fidelity"] == 0.5}
        second = run.choose(too_inaccurate(first))
        assert second.plan != first.plan
        missed = next(row for row in run.rows if row["plan"] == first.plan)
        assert missed["rejected"] == "was built and missed: drop of accuracy is 0.4"
        assert any(
            row["macs"] * row["params"] > before["macs"] * before["params"]
            for row in run.rows
            if row["fidelity"] == 1.0
        )
        # What is told of a student is its own score, whatever quantisation is expected to leave of it.
        again = {row["identity"]: row["score"] for row in run.rows if row["fidelity"] == 0.5}
        assert scores.keys() & again.keys()
        assert all(again[identity] == pytest.approx(scores[identity]) for identity in scores.keys() & again.keys())
        now = open_rows(run.evaluations)
        assert now.items() >= trained.items()
        assert len(now) > len(trained)
        (learned,) = run.told()["learned"]
        assert (learned["distilled"], learned["quantized"], learned["shipped"], learned["needed"]) == (
            0.8,
            0.4,
            0.3,
            0.7,
        )
        told = run.told("search")
        (event,) = (event for event in told["events"] if event["kind"] == "built")
        assert (event["round"], event["met"], event["score"]) == (1, False, 0.4)
        assert told["rounds"][0]["built"] == [event]
        assert told["students"][event["identity"]]["fate"] == "built and missed: drop of accuracy is 0.4"
        factors = {event["what"]: event["factor"] for event in told["events"] if event["kind"] == "recalibrated"}
        assert factors == {"score of int8_conv after quantisation": 0.5}


def test_where_every_student_was_built_it_says_so(search: Search) -> None:
    part = {"selector": "largest_that_fits", "settings": {}, "finalists": 1, "candidates": 4}
    with search(select=part, budget={"macs": 10_000_000_000}) as run:
        learned: list[Learned] = []
        for _ in range(40):
            found = run.choose(*learned)
            if isinstance(found, stage.Exhausted):
                break
            assert found.plan not in [item.choice.plan for item in learned]
            learned.append(too_inaccurate(found))
        assert isinstance(found, stage.Exhausted)
        assert found.why.endswith("students that were drawn no other keeps the cost budgets for sure")
        count = len(run.job.store.repeated)
        assert run.choose(*learned) == found
        assert len(run.job.store.repeated) == count
        # Without one that keeps the cost budgets there is nothing to leave: that is another ending.
        with pytest.raises(BudgetError):
            run.choose(*(replace(item, too_dear=True) for item in learned))


# Refusals


def test_an_energy_budget_needs_a_target_whose_power_is_known(search: Search) -> None:
    with search(target="x86", budget={"energy_mj": 1.0}) as run, pytest.raises(BudgetError) as caught:
        run.choose()
    assert "what x86 draws is not known" in caught.value.what
    assert "latency_ms" in caught.value.fix
    with search(
        "known", budget={"energy_mj": 50.0}, select={"selector": "largest_that_fits", "settings": {}, "finalists": 1}
    ) as run:
        run.choose()
        assert all(row["energy_mj"] is not None for row in run.rows)


def test_an_unknown_setting_of_the_selector_names_those_that_there_are(search: Search) -> None:
    with (
        search(select={"settings": {"sharee": 0.1}}) as run,
        pytest.raises(RecipeError, match=r"unknown key 'select\.settings\.sharee'") as caught,
    ):
        run.choose()
    assert "select.settings.share, select.settings.slope" in caught.value.what
    assert "did you mean 'select.settings.share'?" in caught.value.fix


def test_spaces_are_told_what_one_answer_looks_like_and_left_out_with_a_reason(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SpaceContext] = []
    kind = catalog.load("compress.spaces", "int8_conv")

    class Watched(kind.SPACE):  # type: ignore[misc, name-defined]
        def __init__(self, context: SpaceContext) -> None:
            seen.append(context)
            super().__init__(context)

    monkeypatch.setattr(kind, "SPACE", Watched)
    with search(select={"spaces": ["int8_conv", "unet"]}) as run:
        spaces, absent = students.open_spaces(run.job)
        assert seen[0].answer == (10,)
        assert set(spaces) == {"int8_conv"}
        assert "answers every position" in absent["unet"]
        assert run.heard.lines[-1] == f"select: space unet is left out: {absent['unet']}"
    with search("none", select={"spaces": ["unet"]}) as run, pytest.raises(RecipeError, match="no student space fits"):
        run.choose()
