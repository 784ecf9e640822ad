"""The loop around the stages: who is built after a student missed, when it ends, what is left. Nothing is trained."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress import pipeline
from compress import recipe as recipes
from compress.contracts.metric import Metric
from compress.errors import BudgetError, GateError
from compress.job import Job
from compress.progress import Quiet
from compress.stages.ending import ending, nearest
from compress.stages.learned import Choice, Evidence, Learned, Memory, memorize, recall
from compress.stages.select import Exhausted
from compress.stages.verify import Checks
from compress.store import Store
from profiles.atomic import write_text

TEACHER, ALLOWED = 0.95, 0.02


def missed(name: str, shipped: float, dear: bool = False) -> Learned:
    needed = TEACHER - ALLOWED
    evidence = Evidence(1.0, (0.9, 1.1), "measured", 1.0, shipped + 0.01, shipped, shipped, needed)
    why = f"quantize: drop of accuracy is {TEACHER - shipped:.3g}"
    return Learned(Choice("toy", {"name": name}, ""), 1.0, why, too_dear=dear, inaccurate=True, evidence=evidence)


@dataclass
class Stages:
    """Stages whose students have a name and a score, kept in a real run folder.

    Attributes:
        shipped: (name, score of its artifact, whether it is too dear), in the order in which they are chosen.
        work: what was really done.
    """

    shipped: list[tuple[str, float, bool]]
    work: list[str] = field(default_factory=list)
    reported: list[Any] = field(default_factory=list)

    def once(self, job: Job, stage: str, name: str) -> Any:
        def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
            self.work.append(f"{stage} {name}")
            write_text(folder / "name", name)
            return {"its name": folder / "name"}, {"name": name}

        return job.store.once(stage, {"name": name}, work)

    def select(self, job: Job, learned: tuple[Learned, ...]) -> Choice | Exhausted:
        if len(learned) == len(self.shipped):
            return Exhausted("no other keeps the cost budgets")
        name = self.shipped[len(learned)][0]
        assert name not in {item.choice.plan["name"] for item in learned}
        self.once(job, "select", name)
        return Choice("toy", {"name": name}, "")

    def verify(self, job: Job, choice: Choice, *_: Any) -> Checks:
        name = choice.plan["name"]
        record = self.once(job, "verify", name)
        score, dear = next((score, dear) for own, score, dear in self.shipped if own == name)
        if score >= TEACHER - ALLOWED and not dear:
            return Checks({}, (), None, record)
        why = () if score >= TEACHER - ALLOWED else (f"accuracy of {name}",)
        return Checks({}, why, missed(name, score, dear), record)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def begin(stages: Stages, rounds: int = 3) -> Any:
        given = recipes.load(overrides={"task": {"name": "digits"}, "select": {"rounds": rounds}})

        def prepare(recipe: Any, store: Store, progress: Any, remote: Any) -> Job:
            part: Any = SimpleNamespace
            task = part(metric="accuracy", metric_unit="%")
            return Job(recipe, part(), task, part(), part(), part(), {"task": "digits"}, store, progress, remote)

        def of(stage: str) -> Any:
            return lambda job, choice, *_: stages.once(job, stage, choice.plan["name"])

        monkeypatch.setattr(pipeline, "prepare", prepare)
        monkeypatch.setattr(pipeline, "select", stages.select)
        monkeypatch.setattr(pipeline, "verify", stages.verify)
        for stage in ("distill", "quantize", "export"):
            monkeypatch.setattr(pipeline, stage, of(stage))
        monkeypatch.setattr(pipeline, "build", lambda *_: None)
        monkeypatch.setattr(pipeline, "report", lambda job, *rest: stages.reported.append(rest))
        return pipeline.run(given, tmp_path / "run", Quiet())

    return begin


def left(folder: Path) -> set[str]:
    return {(folder / f"run/{stage}/name").read_text() for stage in ("1_select", "2_distill", "4_export", "6_verify")}


def test_a_student_that_lost_too_much_sends_the_search_back_until_one_keeps_the_budget(
    run: Any, tmp_path: Path
) -> None:
    stages = Stages([("a", 0.90, False), ("b", 0.92, False), ("c", 0.94, False)])
    run(stages)
    assert [line for line in stages.work if line.startswith("distill")] == ["distill a", "distill b", "distill c"]
    assert left(tmp_path) == {"c"}
    ((_, _, memory, end),) = stages.reported
    assert [item.choice.plan["name"] for item in memory.learned] == ["a", "b"]
    assert end is None
    done = len(stages.work)
    run(stages)
    assert len(stages.work) == done


def test_out_of_reach_the_nearest_is_what_is_left_and_nothing_is_done_twice(run: Any, tmp_path: Path) -> None:
    stages = Stages([("a", 0.90, False), ("b", 0.92, False), ("c", 0.91, False), ("d", 0.99, False)])
    with pytest.raises(GateError) as caught:
        run(stages)
    assert left(tmp_path) == {"b"}
    assert sorted(stages.work) == sorted(
        f"{stage} {name}" for name in "abc" for stage in ("select", "distill", "quantize", "export", "verify")
    )
    said = caught.value.what
    assert said.startswith(
        "accuracy of b; the accuracy that the budget asks for was not reached with 3 students that were built: 1. toy"
    )
    assert "2. toy: 93.00 % distilled, 92.00 % quantised, 92.00 % shipped where 93.00 % is needed" in said
    assert "select.rounds = 3 allows no more; number 2 is the nearest" in said
    assert "allow a loss that is larger by 0.01" in caught.value.fix
    assert "report.html" in caught.value.fix
    with pytest.raises(GateError):
        run(stages)
    assert len(stages.work) == 15
    assert left(tmp_path) == {"b"}


def test_where_nobody_is_left_it_ends_before_its_rounds_do(run: Any, tmp_path: Path) -> None:
    stages = Stages([("a", 0.92, False), ("b", 0.91, False)])
    for _ in range(2):
        with pytest.raises(GateError, match="no other keeps the cost budgets; number 1 is the nearest"):
            run(stages, rounds=9)
        assert left(tmp_path) == {"a"}
    assert len(stages.work) == 10


def test_what_breaks_a_cost_budget_is_never_what_is_left(run: Any, tmp_path: Path) -> None:
    stages = Stages([("a", 0.90, False), ("b", 0.94, True), ("c", 0.95, True)])
    with pytest.raises(GateError, match=r"and its cost broke the budget.*number 1 is the nearest"):
        run(stages)
    assert left(tmp_path) == {"a"}


def test_where_every_cost_is_broken_it_is_a_budget_error(run: Any) -> None:
    with pytest.raises(BudgetError, match="3 students in a row"):
        run(Stages([(name, 0.90, True) for name in "abc"]))


@pytest.mark.parametrize("moment", [1, 2, 5, 6])
def test_stopped_between_two_rounds_it_goes_on_there(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Before and after what was learned is on the disk, in the first round and in the last."""
    shipped = [("a", 0.90, False), ("b", 0.92, False), ("c", 0.91, False)]
    stages = Stages(list(shipped))
    real, count = memorize, 0

    def stop() -> None:
        nonlocal count
        count += 1
        if count == moment:
            raise KeyboardInterrupt

    def around(job: Job, memory: Memory) -> None:
        stop()
        real(job, memory)
        stop()

    monkeypatch.setattr(pipeline, "memorize", around)
    with pytest.raises(KeyboardInterrupt):
        run(stages)
    with pytest.raises(GateError):
        run(stages)
    assert left(tmp_path) == {"b"}
    assert len(stages.work) == len(set(stages.work)) == 15


KILLED = """
import os, signal, sys
from pathlib import Path
from compress.store import open_store
real, count = os.replace, 0
def replace(*given):
    global count
    count += os.path.isdir(given[0])
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    real(*given)
os.replace = replace
def work(name):
    def do(folder):
        (folder / "name").write_text(name)
        print("worked", name, flush=True)
        return {"its name": folder / "name"}, {}
    return do
with open_store(Path(sys.argv[1])) as store:
    for name in ("a", "b", "c", "b"):
        store.once("distill", {"name": name}, work(name))
"""


@pytest.mark.parametrize("moment", range(1, 5))
def test_killed_while_a_stage_is_taken_back_nothing_is_lost(tmp_path: Path, moment: int) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run")]
    killed = subprocess.run([*command, str(moment)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    again = subprocess.run([*command, "-1"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert sorted((killed.stdout + again.stdout).split()) == ["a", "b", "c", "worked", "worked", "worked"]
    assert (tmp_path / "run/2_distill/name").read_text() == "b"


# The rules


def test_the_nearest_is_the_one_that_loses_least_within_the_cost_budgets() -> None:
    assert nearest([missed("a", 0.90), missed("b", 0.92), missed("c", 0.92), missed("d", 0.99, dear=True)]) == 1
    assert nearest([missed("a", 0.90, dear=True)]) is None
    assert nearest([]) is None


def test_a_search_goes_on_while_there_are_rounds_and_students() -> None:
    two = (missed("a", 0.90), missed("b", 0.92))
    assert ending(Memory(two), 3, Metric()) is None
    assert ending(Memory((), "nobody"), 3, Metric()) is None
    found = ending(Memory(two), 2, Metric())
    assert found is not None
    assert found.place == 1
    assert ending(Memory(two, "nobody is left"), 3, Metric()) is not None
    assert [row["shipped"] for row in found.tried] == [0.90, 0.92]


def test_the_ending_speaks_of_the_task_s_metric_in_its_unit() -> None:
    told = ending(Memory((missed("a", 0.90),)), 1, Metric("concordance", ""))
    assert told is not None
    assert told.why.startswith("the concordance that the budget asks for was not reached with the one student")
    assert "toy: 0.910 distilled, 0.900 quantised, 0.900 shipped where 0.930 is needed" in told.why
    assert "%" not in told.why
    dice = ending(Memory((missed("a", 0.90),)), 1, Metric("Dice coefficient"))
    assert dice is not None
    assert "the Dice coefficient that the budget asks for" in dice.why
    assert "91.00 % distilled" in dice.why


def test_the_memory_comes_back_equal_and_only_to_the_same_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job: Any = SimpleNamespace(store=store, recipe=recipes.load(overrides={"task": {"name": "digits"}}), identities={})
    memory = Memory((missed("a", 0.9), Learned(Choice("toy", {}, ""), 2.0, "too slow")), "nobody is left")
    memorize(job, memory)
    assert recall(job) == memory
    other: Any = SimpleNamespace(store=store, recipe=job.recipe, identities={"data": "other"})
    assert recall(other) == Memory()
