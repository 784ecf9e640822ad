"""A Ray cluster: the trials are its tasks, placed by cores, GPUs and memory on the nodes that have them.

The driver keeps no result: a reference is dropped as soon as its value was given on. Ray's own retries are off, so that
an attempt is counted here, as it is for processes. Every node needs the same version of this package and the data.
"""

import logging
import os
import socket
import time
from dataclasses import dataclass
from typing import Any

from compress.contracts.workers import Call, Done, Failure, Resources, Task, Workers
from compress.workers.perform import Raised, answer, limit_threads, own_name, perform, set_up
from profiles.errors import UserError

QUEUED = 0.25  # share of the cluster's places that may be submitted beyond them, so that no node waits for the driver
LOOK_S = 5.0  # between two looks at what nodes there are; nodes come and go
NODE_WAIT_S = 60.0  # for a node with what a task needs, which an autoscaler may bring
KNOCK_S = 10.0  # for an answer at the address of a cluster
MOST_SAID = 300  # characters of what Ray says
STORE_BYTES = 100 * 2**20  # of a cluster started here: results are small
# Read when Ray is imported or a node is started: no statistics leave the machine; a task without GPUs sees those that
# it would see anyway (what later versions do unasked); a busy machine may take its time to start a node.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_raylet_start_wait_time_s": "180",
}

_states: dict[str, tuple[Any, ...]] = {}  # in a worker: of the driver that it works for


@dataclass
class _Job:
    """A task in flight.

    Attributes:
        attempts: the running one included.
        fitted: when a node that has what it needs was last seen, or it was submitted; seconds of the monotonic clock.
    """

    task: Task
    attempts: int
    fitted: float


class OnRay(Workers):
    """Tasks of a cluster.

    Args:
        address: "local" starts one on this machine, "auto" finds the one that this machine belongs to, "HOST:PORT" is
            its head, "ray://HOST:PORT" its client server.
        retries: further attempts of a task whose worker or node was lost.

    Raises:
        UserError: Ray is not installed, or nothing answers there.
    """

    def __init__(self, setup: Call | None = None, *, address: str = "local", retries: int = 2) -> None:
        self._setup = setup
        self._retries = retries
        self._ray = _imported()
        self._own = not self._ray.is_initialized()
        if self._own:
            _connect(self._ray, address)
        self._work = self._ray.remote(_work)
        self._token = os.urandom(8).hex()
        self._jobs: dict[Any, _Job] = {}  # reference -> what it will be
        self._keys: set[str] = set()
        self._nodes: list[dict[str, float]] = []
        self._looked = -LOOK_S
        self._bound = 1

    @property
    def room(self) -> bool:
        """Whether the cluster has a place for one more, or soon will."""
        return len(self._jobs) < self._bound

    @property
    def in_flight(self) -> int:
        """Tasks submitted and not given back."""
        return len(self._jobs)

    def submit(self, task: Task) -> None:
        """Hand it to Ray, which places it."""
        if task.key in self._keys:
            raise ValueError(f"{task.key} is in flight")
        self._start(task, 1)
        self._keys.add(task.key)
        places = sum(_places(node, task.needs) for node in self._look())
        self._bound = max(1, int(places * (1 + QUEUED)) + 1)

    def wait(self, timeout_s: float | None = None) -> list[Done | Failure]:
        """Results, as the contract says.

        Raises:
            UserError, RuntimeError: the setup raised.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        found: list[Done | Failure] = []
        while not found and self._jobs:
            left = LOOK_S if end is None else max(0.0, end - time.monotonic())
            references = list(self._jobs)
            ready, _ = self._ray.wait(references, num_returns=1, timeout=min(LOOK_S, left))
            if ready:
                ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
            for reference in ready:
                result = self._take(reference)
                if result is not None:
                    found.append(result)
            if not ready:
                found += self._unplaceable()
            if end is not None and time.monotonic() >= end:
                break
        self._keys -= {result.key for result in found}
        return found

    def cancel(self) -> None:
        """Stop what is in flight."""
        for reference in self._jobs:
            self._ray.cancel(reference, force=True)
        self._jobs.clear()
        self._keys.clear()

    def close(self) -> None:
        """Stop what is in flight and leave the cluster; one that was started here ends."""
        if self._ray.is_initialized():
            self.cancel()
            if self._own:
                self._ray.shutdown()

    def _start(self, task: Task, attempts: int) -> None:
        needs = task.needs
        options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "max_retries": 0}
        if needs.memory_bytes:
            options["memory"] = needs.memory_bytes
        reference = self._work.options(**options).remote(self._token, self._setup, task.call, needs)
        self._jobs[reference] = _Job(task, attempts, time.monotonic())

    def _take(self, reference: Any) -> Done | Failure | None:
        """A result, or None where the task was begun again."""
        job = self._jobs.pop(reference)
        errors = self._ray.exceptions
        try:
            ready, value, worker = self._ray.get(reference)
        except errors.RayTaskError as error:  # what it returned could not be sent, or this package is not there
            what = f"a node could not run it or send what it returned: {_said(error.cause)}"
            fix = "return plain values from the task, and install the same version of the code on every node"
            return Failure(job.task.key, what, job.attempts, traceback=str(error), fix=fix)
        except errors.RayError as error:  # the worker or its node is gone
            if job.attempts <= self._retries:
                self._start(job.task, job.attempts + 1)
                return None
            what = f"its worker was lost, {job.attempts} times: {type(error).__name__}"
            fix = "see the memory and the logs of the cluster's nodes"
            return Failure(job.task.key, what, job.attempts, traceback=str(error), fix=fix, lost=True)
        if not ready:
            self.close()
            raise value.error
        return answer(job.task, value, job.attempts, worker)

    def _look(self) -> list[dict[str, float]]:
        """Resources of the nodes that are alive."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._looked = time.monotonic()
        return self._nodes

    def _unplaceable(self) -> list[Done | Failure]:
        """Tasks that no node has had room for in a while, however long they were queued or ran before."""
        found: list[Done | Failure] = []
        nodes, now = self._look(), time.monotonic()
        for reference, job in list(self._jobs.items()):
            if any(_places(node, job.task.needs) for node in nodes):
                job.fitted = now
            if now - job.fitted < NODE_WAIT_S:
                continue
            self._ray.cancel(reference, force=True)
            del self._jobs[reference]
            what = f"no node of the cluster has {_words(job.task.needs)}; {len(nodes)} are alive"
            found.append(Failure(job.task.key, what, job.attempts, fix="add such a node, or ask for less"))
        return found


def _work(token: str, setup: Call | None, call: Call, needs: Resources) -> tuple[bool, Any, str]:
    """In a worker: (whether it could be set up, value or what was raised, name of the worker)."""
    limit_threads(needs)
    if token not in _states:
        first = set_up(setup)
        if isinstance(first, Raised):
            return False, first, own_name()
        _states.clear()
        _states[token] = first
    return True, perform(call, _states[token], needs), own_name()


def _imported() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "workers on a Ray cluster need Ray, which is not installed",
            fix="pip install 'compress[ray]', or --workers processes",
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    if ":" in address:
        _knock(address)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # says each time which mode it chose
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if address == "local":
        settings |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    elif address.startswith("ray://"):
        settings = {"logging_level": logging.ERROR}  # the client's connection takes no others
    try:
        ray.init(address=address, **settings)
    except ImportError as error:
        raise UserError(
            f"{address} needs Ray's client, which is not complete here: {error}", fix="pip install 'compress[ray]'"
        ) from error
    except Exception as error:  # Ray raises this very class where a node did not start in time
        if address == "local":
            raise UserError(
                f"Ray did not start on this machine: {_said(error)}",
                fix="see the logs below /tmp/ray/session_latest, or use --workers processes",
            ) from error
        raise UserError(
            f"no Ray cluster answers at {address}: {_said(error)}",
            fix="start one of this version of Ray (`ray start --head`), or use --workers ray:local",
        ) from error


def _knock(address: str) -> None:
    """Refuse at once where nothing listens: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
    except (OSError, OverflowError) as error:  # the latter for a port above 65535
        raise UserError(
            f"no Ray cluster answers at {address}: {error}",
            fix="start one (`ray start --head`), or use --workers ray:local",
        ) from error


def _said(error: BaseException | str) -> str:
    """What Ray says, on one line: its sentences go over several, and some say nothing but their class."""
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, str) else type(error).__name__
    return f"{kind}: {text}".strip(": ")[:MOST_SAID]


def _places(node: dict[str, float], needs: Resources) -> int:
    """How many such tasks the whole node holds at a time."""
    wanted = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": float(needs.memory_bytes)}
    return min((int(node.get(name, 0.0) / amount) for name, amount in wanted.items() if amount), default=1)


def _words(needs: Resources) -> str:
    memory = f", {needs.memory_bytes / 2**20:.0f} MiB" if needs.memory_bytes else ""
    return f"{needs.cpus:g} cores, {needs.gpus:g} GPUs{memory}"
