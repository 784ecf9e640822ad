"""A real cluster of three nodes on this machine; one is killed while it works."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.contracts.workers import Done, Failure, Resources
from compress.workers import on_ray
from compress.workers.on_ray import OnRay
from profiles.errors import UserError
from tests.compress.workers.jobs import setup, task

ray = pytest.importorskip("ray", reason="Ray is not installed (compress[ray])")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes with one core each; the last has a resource of its own, memory for two tasks, and is killed."""
    for name, value in on_ray.ENVIRONMENT.items():
        os.environ[name] = value
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.more = [made.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
    yield made
    made.shutdown()


@pytest.fixture
def address(cluster: Any) -> str:
    return str(cluster.address)


def test_values_failures_and_states(address: str, tmp_path: Path) -> None:
    tasks = [task("add", f"k{number}", number=number) for number in range(12)] + [task("add", "bad", number="one")]
    with OnRay(setup("load", folder=str(tmp_path), offset=100), address=address) as workers:
        found = {result.key: result for _ in range(2) for result in workers.stream(tasks)}
        assert workers.in_flight == 0
    failure = found.pop("bad")
    assert isinstance(failure, Failure)
    assert failure.what.startswith("TypeError")
    assert "state" in failure.traceback
    assert {key: result.value[0] for key, result in found.items() if isinstance(result, Done)} == {
        f"k{number}": 100 + number for number in range(12)
    }
    assert len(list(tmp_path.iterdir())) <= 4, "once per process, not once per task"
    assert not ray.is_initialized(), "the cluster was left"


def test_a_setup_that_raises_ends_all(address: str) -> None:
    with OnRay(setup("refused_setup"), address=address) as workers, pytest.raises(UserError, match="no teacher"):
        list(workers.stream([task("add", "k", number=1)]))


def test_a_killed_worker_is_retried_and_a_task_that_kills_every_worker_fails(address: str, tmp_path: Path) -> None:
    tasks = [task("die", "once", folder=str(tmp_path), times=1), task("leave", "always", status=7)]
    with OnRay(address=address, retries=1) as workers:
        found = {result.key: result for result in workers.stream(tasks)}
    once, always = found["once"], found["always"]
    assert isinstance(once, Done)
    assert (once.value, once.attempts) == ("alive", 2)
    assert isinstance(always, Failure)
    assert always.what == "its worker was lost, 2 times: WorkerCrashedError"


def test_what_no_node_has_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "NODE_WAIT_S", 0.1)
    monkeypatch.setattr(on_ray, "LOOK_S", 0.2)
    with OnRay(address=address) as workers:
        (failure,) = workers.stream([task("square", "k", Resources(gpus=2), number=1)])
    assert isinstance(failure, Failure)
    assert failure.what == "no node of the cluster has 1 cores, 2 GPUs; 3 are alive"


def test_a_bounded_number_is_in_flight(address: str) -> None:
    with OnRay(address=address) as workers:
        most = 0
        for number in range(300):
            workers.submit(task("square", f"k{number}", number=number))
            most = max(most, workers.in_flight)
            while not workers.room:
                workers.wait()
    assert most <= 4, "three places, and one task on its way"


def test_a_killed_node_loses_no_finished_task_and_its_running_one_is_done_again(
    cluster: Any, address: str, tmp_path: Path
) -> None:
    names = [f"k{number}" for number in range(9)]
    tasks = [task("sleep", name, seconds=0.3, folder=str(tmp_path), name=name) for name in names]
    with OnRay(address=address) as workers:
        found = []
        for result in workers.stream(tasks):
            assert isinstance(result, Done)
            found.append(result)
            if len(found) == 2:
                cluster.remove_node(cluster.more.pop(), allow_graceful=False)
    assert sorted(result.value for result in found) == names
    assert sum(result.attempts for result in found) in (len(names), len(names) + 1), "what ran there ran again"
    assert sorted((tmp_path / "ended").read_text().split()) == names, "each ended once"


def test_nothing_listens() -> None:
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:1: ") as refusal:
        OnRay(address="127.0.0.1:1")
    assert "ray start" in refusal.value.fix


class StandIn:
    """Ray as far as the driver looks at it, with nodes that come and go by hand."""

    def __init__(self, nodes: list[dict[str, Any]], says: str = "") -> None:
        self.alive, self.says, self.cancelled = nodes, says, 0

    def is_initialized(self) -> bool:
        return True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Resources": node, "Alive": True} for node in self.alive]

    def remote(self, function: Any) -> "StandIn":
        return self

    def options(self, **_needs: Any) -> Any:
        return SimpleNamespace(remote=lambda *_arguments: object())

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return [], references

    def cancel(self, reference: Any, force: bool) -> None:
        self.cancelled += 1

    def init(self, **_settings: Any) -> None:
        raise RuntimeError(self.says)


def test_a_task_that_was_queued_for_long_waits_for_another_node_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    there, clock = StandIn([{"CPU": 1.0}]), [1000.0]
    monkeypatch.setattr(on_ray, "_imported", lambda: there)
    monkeypatch.setattr("compress.workers.on_ray.time.monotonic", lambda: clock[0])
    workers = OnRay(address="auto")
    workers.submit(task("square", "k", number=1))
    clock[0] += 10 * on_ray.NODE_WAIT_S  # behind others
    assert workers.wait(0.0) == []
    there.alive = []  # its node is lost, and its result not yet given up
    clock[0] += on_ray.LOOK_S
    assert workers.wait(0.0) == [], "a node that was there a moment ago may be replaced"
    clock[0] += on_ray.NODE_WAIT_S
    (failure,) = workers.wait(0.0)
    assert isinstance(failure, Failure)
    assert failure.what == "no node of the cluster has 1 cores, 0 GPUs; 0 are alive"
    assert (there.cancelled, workers.in_flight) == (1, 0)


@pytest.mark.parametrize(
    ("address", "says", "what"),
    [
        ("local", "", r"Ray did not start on this machine: RuntimeError\n"),
        (
            "auto",
            "Version mismatch:\n  Ray: 2.9\n  Python: 3.10",
            r"at auto: RuntimeError: Version mismatch: Ray: 2\.9",
        ),
    ],
)
def test_a_cluster_that_refuses_is_told_in_a_sentence(address: str, says: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as refusal:
        on_ray._connect(StandIn([], says), address)
    assert ("processes" if address == "local" else "ray start") in refusal.value.fix


def test_a_port_that_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"no Ray cluster answers at 127\.0\.0\.1:99999: "):
        on_ray._knock("127.0.0.1:99999")


def test_ray_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray, which is not installed"):
        OnRay()


def test_a_cluster_of_its_own_is_silent_and_ends_with_it() -> None:
    code = """
from compress.workers.parse import parse
from tests.compress.workers.jobs import task
with parse("ray:local")(None) as workers:
    print([result.value for result in workers.stream([task("square", "k", number=7)])])
"""
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=200
    )
    assert (found.stdout, found.stderr) == ("[49]\n", "")
