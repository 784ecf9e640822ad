"""Workers and the file of evaluations together: what was found is never run again."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from compress.contracts.workers import Done, Failure, Task
from compress.evaluations import Evaluation, Evaluations, open_evaluations
from compress.workers.never_twice import Found, evaluate
from compress.workers.processes import Processes
from compress.workers.serial import Serial
from tests.compress.workers.jobs import task

ROOT = Path(__file__).resolve().parents[3]


def read(done: Done) -> Evaluation:
    return Evaluation(float(done.value), 1.0, 0, 0.0, "a", "b", done.worker)


def squares(count: int) -> Iterator[Task]:
    return (task("square", f"k{number}", number=number) for number in range(count))


@pytest.fixture
def evaluations(tmp_path: Path) -> Iterator[Evaluations]:
    with open_evaluations(tmp_path / "evaluations.db") as opened:
        yield opened


def test_a_second_search_runs_nothing(evaluations: Evaluations) -> None:
    with Processes(count=2) as workers:
        first = list(evaluate(workers, evaluations, squares(6), read))
        second = list(evaluate(workers, evaluations, squares(8), read))
    assert sorted((f.key, f.evaluation.score) for f in first if isinstance(f, Found)) == [
        (f"k{n}", float(n * n)) for n in range(6)
    ]
    assert [f.key for f in second if isinstance(f, Found) and f.remembered] == [f"k{n}" for n in range(6)]
    assert sorted(f.key for f in second if isinstance(f, Found) and not f.remembered) == ["k6", "k7"]
    assert evaluations.counts().claimed == 8


def test_a_failure_is_not_remembered_and_its_claim_is_given_back(evaluations: Evaluations) -> None:
    with Serial() as workers:
        (found,) = evaluate(workers, evaluations, [task("divide", "k", number=0)], read)
    assert isinstance(found, Failure)
    assert evaluations.get("k") is None
    assert evaluations.counts().running == 0


def test_a_key_that_comes_twice_is_run_once(evaluations: Evaluations) -> None:
    tasks = [task("square", "k", number=3), task("square", "k", number=3), task("square", "j", number=4)]
    with Processes(count=2) as workers:
        found = list(evaluate(workers, evaluations, tasks, read))
    assert sorted(f.key for f in found) == ["j", "k", "k"]
    assert evaluations.counts().claimed == 2


def test_leaving_early_gives_the_claims_back_and_keeps_what_ended(evaluations: Evaluations, tmp_path: Path) -> None:
    tasks = [task("square", "a", number=2), task("sleep", "b", seconds=60, folder=str(tmp_path), name="b")]
    with Processes(count=2) as workers:
        for found in evaluate(workers, evaluations, tasks, read):
            assert found.key == "a"
            break
        assert evaluations.counts().running == 0
        assert evaluations.counts().finished == 1


def test_two_searches_at_the_same_time_share_the_work(tmp_path: Path) -> None:
    """Each gives all results, and each evaluation is run by one of them."""
    code = f"""
from pathlib import Path
from compress.evaluations import open_evaluations
from compress.workers.never_twice import evaluate
from compress.workers.processes import Processes
from tests.compress.workers.jobs import task
from tests.compress.workers.test_never_twice import read_name
folder = {str(tmp_path)!r}
names = [task("sleep", str(n), seconds=0.05, folder=folder, name=str(n)) for n in range(12)]
with open_evaluations(Path(folder) / "evaluations.db") as evaluations, Processes(count=2) as workers:
    found = list(evaluate(workers, evaluations, names, read_name))
print(len(found), sum(f.remembered for f in found), sum(f.evaluation.score for f in found))
"""
    pair = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    answers = [process.communicate(timeout=60)[0].split() for process in pair]
    assert [answer[0] for answer in answers] == ["12", "12"]
    assert sum(int(answer[1]) for answer in answers) == 12, "remembered by one where the other ran it"
    assert answers[0][2] == answers[1][2] == "66.0"
    assert sorted((tmp_path / "ended").read_text().split()) == sorted(str(n) for n in range(12))


def read_name(done: Done) -> Evaluation:
    return Evaluation(float(done.value), 1.0, 0, 0.0, "a", "b", done.worker)


def test_a_long_search_that_remembers_everything_stays_small(evaluations: Evaluations) -> None:
    count = 20_000
    evaluations.put_all({f"k{n}": Evaluation(n, 1.0, 0, 0.0, "a", "b", "here") for n in range(count)})
    own, sizes = psutil.Process(), []
    with Serial() as workers:
        for number, _ in enumerate(evaluate(workers, evaluations, squares(count), read)):
            if number in (count // 10, count - 1):
                sizes.append(own.memory_info().rss)
    assert sizes[1] - sizes[0] < 2**20
    assert len(list(itertools.islice(evaluations.rows(), 1))) == 1
