"""Every kind of workers does the same with the same tasks; what is special to processes."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from compress.contracts.workers import Call, Done, Failure, Resources, Task, Workers
from compress.errors import RecipeError
from compress.workers.machine import cores
from compress.workers.parse import parse
from compress.workers.processes import Processes
from compress.workers.serial import Serial
from profiles.errors import UserError
from tests.compress.workers.jobs import setup, task

ROOT = Path(__file__).resolve().parents[3]
GIB = 2**30


def hear_interrupts() -> None:
    """In a child, where tests that run in the background would hand down that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def values(workers: Workers, tasks: list[Task]) -> dict[str, object]:
    return {result.key: result.value if isinstance(result, Done) else result for result in workers.stream(tasks)}


@pytest.fixture(params=["serial", "processes:2"])
def make(request: pytest.FixtureRequest) -> Callable[[Call | None], Workers]:
    return parse(request.param)


class TestEveryKind:
    def test_gives_each_value_once_under_its_key(self, make: Callable[[Call | None], Workers]) -> None:
        with make(None) as workers:
            found = list(workers.stream(task("square", f"k{number}", number=number) for number in range(20)))
            assert workers.in_flight == 0
        assert sorted((result.key, result.value) for result in found if isinstance(result, Done)) == sorted(
            (f"k{number}", number * number) for number in range(20)
        )

    def test_sets_up_once_per_worker_and_keeps_the_state_between_streams(
        self, make: Callable[[Call | None], Workers], tmp_path: Path
    ) -> None:
        with make(setup("load", folder=str(tmp_path), offset=100)) as workers:
            found = [
                result.value
                for _ in range(2)
                for result in workers.stream([task("add", f"k{n}", number=n) for n in range(8)])
                if isinstance(result, Done)
            ]
        assert sorted(total for total, _, _ in found) == sorted(2 * list(range(100, 108)))
        assert all(loaded_by == done_by for _, loaded_by, done_by in found)
        assert len(list(tmp_path.iterdir())) <= 2

    def test_an_exception_is_a_failure_with_its_traceback_and_the_rest_goes_on(
        self, make: Callable[[Call | None], Workers]
    ) -> None:
        with make(None) as workers:
            found = values(workers, [task("divide", f"k{number}", number=number) for number in (0, 1, 2)])
        failure = found.pop("k0")
        assert isinstance(failure, Failure)
        assert failure.what == "ZeroDivisionError: division by zero"
        assert "return 1 / number" in failure.traceback
        assert failure.attempts == 1
        assert found == {"k1": 1.0, "k2": 0.5}

    def test_what_a_user_can_mend_keeps_its_fix(self, make: Callable[[Call | None], Workers]) -> None:
        with make(None) as workers:
            failure = values(workers, [task("refuse", "k")])["k"]
        assert isinstance(failure, Failure)
        assert (failure.what, failure.fix) == ("there are no data", "bring some")

    def test_a_function_that_is_not_there_is_named(self, make: Callable[[Call | None], Workers]) -> None:
        with make(None) as workers:
            failure = values(workers, [task("absent", "k")])["k"]
        assert isinstance(failure, Failure)
        assert "cannot import tests.compress.workers.jobs:absent" in failure.what

    def test_a_setup_that_raises_ends_all(self, make: Callable[[Call | None], Workers]) -> None:
        with make(setup("refused_setup")) as workers, pytest.raises(UserError, match="there is no teacher"):
            list(workers.stream([task("add", "k", number=1)]))
        with make(setup("broken_setup")) as workers, pytest.raises(RuntimeError, match="KeyError: 'labels'"):
            list(workers.stream([task("add", "k", number=1)]))

    def test_tasks_are_asked_for_one_at_a_time(self, make: Callable[[Call | None], Workers]) -> None:
        asked = 0

        def tasks() -> Iterator[Task]:
            nonlocal asked
            for number in range(1000):
                asked += 1
                yield task("square", f"k{number}", number=number)

        with make(None) as workers:
            for given, _ in enumerate(workers.stream(tasks()), 1):
                assert asked - given <= 2
                if given == 10:
                    break

    def test_a_key_in_flight_is_not_taken_twice(self, make: Callable[[Call | None], Workers]) -> None:
        with make(None) as workers:
            workers.submit(task("square", "k", number=1))
            with pytest.raises(ValueError, match="in flight"):
                workers.submit(task("square", "k", number=1))

    def test_waiting_for_nothing_gives_nothing(self, make: Callable[[Call | None], Workers]) -> None:
        with make(None) as workers:
            assert workers.room
            assert workers.wait() == []


class TestProcesses:
    def test_a_killed_worker_loses_no_finished_task_and_its_running_one_is_done_again(self, tmp_path: Path) -> None:
        undisturbed = {f"k{number}": f"k{number}" for number in range(8)}
        names = [task("sleep", key, seconds=0.05, folder=str(tmp_path), name=key) for key in undisturbed]
        names[2] = task("hang", "k2", seconds=0.05, folder=str(tmp_path), name="k2", file="undisturbed yet")
        (tmp_path / "undisturbed yet").touch()
        found: list[Done] = []
        with Processes(count=2) as workers:
            for result in workers.stream(names):
                assert isinstance(result, Done)
                found.append(result)
                if len(found) == 4:
                    killed = next(pid for pid, key in workers.pids.items() if key == "k2")
                    (tmp_path / "undisturbed yet").unlink()
                    os.kill(killed, signal.SIGKILL)
        assert {result.key: result.value for result in found} == undisturbed
        assert {result.key for result in found if result.attempts == 2} == {"k2"}
        ended = (tmp_path / "ended").read_text().split()
        assert sorted(ended) == sorted(undisturbed), "each ended once"

    def test_a_task_that_kills_its_worker_is_retried_and_then_fails_with_the_signal(self, tmp_path: Path) -> None:
        with Processes(count=2, retries=2) as workers:
            once = values(workers, [task("die", "k", folder=str(tmp_path), times=2)])
            assert once == {"k": "alive"}
            found = values(
                workers, [task("die", "bad", folder=str(tmp_path), times=9), task("square", "good", number=3)]
            )
        assert found["good"] == 9
        failure = found["bad"]
        assert isinstance(failure, Failure)
        assert failure.what == "its worker was killed by SIGKILL, 3 times"
        assert failure.attempts == 3
        assert failure.fix is not None
        assert "memory" in failure.fix

    def test_a_worker_that_ends_by_itself_is_named_with_its_status(self) -> None:
        with Processes(count=1, retries=0) as workers:
            failure = values(workers, [task("leave", "k", status=7)])["k"]
        assert isinstance(failure, Failure)
        assert failure.what == "its worker ended with status 7, 1 times"

    def test_an_idle_worker_that_is_killed_is_replaced(self) -> None:
        with Processes(count=1) as workers:
            values(workers, [task("square", "a", number=1)])
            (pid,) = workers.pids
            os.kill(pid, signal.SIGKILL)
            assert values(workers, [task("square", "b", number=2)]) == {"b": 4}

    def test_workers_that_die_while_they_set_up_end_all(self) -> None:
        with (
            Processes(setup("dying_setup"), count=1, retries=1) as workers,
            pytest.raises(UserError, match="was killed by SIGKILL while it set up, 2 times in a row"),
        ):
            list(workers.stream([task("square", "k", number=1)]))

    def test_memory_decides_how_many_run_at_a_time(self, tmp_path: Path) -> None:
        needs = Resources(memory_bytes=3 * GIB)
        tasks = [task("sleep", f"k{n}", needs, seconds=0.05, folder=str(tmp_path), name=f"k{n}") for n in range(4)]
        tasks.append(task("square", "large", Resources(memory_bytes=9 * GIB), number=1))
        with Processes(count=3, memory_bytes=7 * GIB) as workers:
            most = 0
            results = []
            for one in tasks:
                workers.submit(one)
            while workers.in_flight:
                most = max(most, sum(key is not None for key in workers.pids.values()))
                results += workers.wait(0.01)
        assert most == 2
        refused = [result for result in results if isinstance(result, Failure)]
        assert [result.key for result in refused] == ["large"]
        assert refused[0].what == "needs 9216 MiB of memory, and 7168 MiB are free"
        assert len(results) == 5

    def test_gpus_are_shared_out_and_a_task_without_one_is_refused(self) -> None:
        with Processes(count=2, gpus=("4", "7")) as workers:
            half = Resources(gpus=1.0)
            for key in "ab":
                workers.submit(task("sleep", key, half, seconds=0.2, folder="/dev/shm", name=key))
            assert sorted(worker.gpu or "" for worker in workers._workers) == ["4", "7"]
            workers.cancel()
            found = values(workers, [task("threads", key, half) for key in "ab"])
            assert {pair[1] for pair in found.values()} <= {"4", "7"}  # type: ignore[index]
        with Processes(count=1, gpus=()) as workers:
            failure = values(workers, [task("threads", "k", half)])["k"]
        assert isinstance(failure, Failure)
        assert failure.what == "needs 1 GPUs, and each worker here has 0"

    def test_a_worker_gets_its_share_of_the_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        with Processes(count=1) as workers:
            found = values(workers, [task("threads", "k")])
        assert found["k"][0] == str(cores())  # type: ignore[index]

    def test_a_result_that_cannot_be_sent_is_a_failure(self) -> None:
        with Processes(count=1) as workers:
            found = values(workers, [task("unsendable", "k"), task("square", "b", number=2)])
        failure = found["k"]
        assert isinstance(failure, Failure)
        assert "cannot be sent" in failure.what
        assert found["b"] == 4

    def test_what_a_task_prints_stays_out_of_stdout(self, capfd: pytest.CaptureFixture[str]) -> None:
        with Processes(count=1) as workers:
            assert values(workers, [task("chatter", "k")]) == {"k": "said"}, "workers load no torch by themselves"
        out, err = capfd.readouterr()
        assert (out, err) == ("", "to stdout\n")

    def test_leaving_a_stream_stops_what_runs(self, tmp_path: Path) -> None:
        with Processes(count=2) as workers:
            tasks = [task("square", "a", number=1), task("sleep", "b", seconds=60, folder=str(tmp_path), name="b")]
            for result in workers.stream(tasks):
                assert result.key == "a"
                (busy,) = [pid for pid, key in workers.pids.items() if key == "b"]
                break
            assert workers.in_flight == 0
            assert not psutil.pid_exists(busy)

    @pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
    def test_no_worker_outlives_its_driver(self, end: signal.Signals, tmp_path: Path) -> None:
        code = f"""
import sys
from compress.workers.processes import Processes
from tests.compress.workers.jobs import task
with Processes(count=2) as workers:
    names = [task("sleep", str(n), seconds=60, folder={str(tmp_path)!r}, name=str(n)) for n in range(2)]
    for result in workers.stream(names):
        pass
"""
        driver = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_interrupts,
        )
        begun = tmp_path / "begun"
        deadline = time.monotonic() + 30
        while not (begun.exists() and begun.read_text().count("\n") == 2) and time.monotonic() < deadline:
            time.sleep(0.02)
        pids = [int(line.split()[1]) for line in begun.read_text().splitlines()]
        assert len(pids) == 2
        os.killpg(driver.pid, end) if end == signal.SIGINT else driver.send_signal(end)  # as a terminal does
        _, messages = driver.communicate(timeout=10)
        deadline = time.monotonic() + 5
        while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert messages.count("Traceback") == (1 if end == signal.SIGINT else 0), "workers say nothing"

    def test_twenty_thousand_tasks_in_flat_memory(self) -> None:
        count = 20_000
        tasks = (task("square", f"k{number}", number=number) for number in range(count))
        total, sizes = 0, []
        own = psutil.Process()
        with Processes(count=2) as workers:
            for number, result in enumerate(workers.stream(tasks)):
                assert isinstance(result, Done)
                total += result.value
                if number in (count // 10, count - 1):
                    sizes.append(own.memory_info().rss)
        assert total == sum(number * number for number in range(count))
        assert sizes[1] - sizes[0] < 2**20


def test_a_task_has_as_many_threads_as_cores_and_leaves_the_others_what_they_had() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        tasks = [task("torch_threads", f"k{n}", Resources(cpus=n)) for n in (1, 2)]
        with Serial() as workers:
            assert values(workers, tasks) == {"k1": 1, "k2": 2}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_results_do_not_depend_on_the_kind_or_the_number_of_workers() -> None:
    tasks = [task("divide", f"k{number}", number=number) for number in range(-3, 4)]
    found = []
    for make in (Serial, parse("processes:1"), parse("processes:3")):
        with make(None) as workers:
            found.append(
                {
                    key: math.nan if isinstance(value, Failure) else value
                    for key, value in values(workers, tasks).items()
                }
            )
    assert str(sorted(found[0].items())) == str(sorted(found[1].items())) == str(sorted(found[2].items()))


@pytest.mark.parametrize(
    "text",
    ["", "threads", "serial:2", "processes:", "processes:0", "processes:two", "ray", "ray:", "ray://", "ray://host"],
)
def test_unknown_workers_are_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(RecipeError, match=r"there are serial, processes, processes:N, ray:local") as refusal:
        parse(text)
    assert "--workers" in refusal.value.fix
