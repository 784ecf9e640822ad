"""Processes of this machine, each with its share of the cores; a task starts where its memory is free.

The processes are started with `python -m`, not forked (torch's threads do not survive that) and without running the
caller's main module again.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import compress
from compress.contracts.workers import Call, Done, Failure, Resources, Task, Workers
from compress.workers.machine import cores, free_memory_bytes, gpu_names
from compress.workers.perform import THREADS, Raised, answer
from profiles.errors import UserError

HOME = Path(compress.__file__).parents[1]  # where the child finds this package
PULSE_S = 1.0  # how often a worker is looked at whose death its socket did not tell
KILLED_FIX = "run fewer workers at a time, or smaller batches: mostly it is the memory that ran out"


@dataclass
class _Job:
    task: Task
    attempts: int = 0
    alone: bool = False  # nothing beside it: its last attempt, after its worker was killed


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: "Connection[Any, Any]"
    gpu: str | None
    ready: bool = False
    job: _Job | None = None


class Processes(Workers):
    """`count` workers, started when they are first needed.

    Args:
        count: processes; None for one per core.
        retries: further attempts of a task whose worker was lost.
        memory_bytes: what tasks may need together; None for what is free now.
        gpus: devices to share out, one per worker; None for those that this machine shows.
    """

    def __init__(
        self,
        setup: Call | None = None,
        *,
        count: int | None = None,
        retries: int = 2,
        memory_bytes: int | None = None,
        gpus: tuple[str, ...] | None = None,
    ) -> None:
        self._setup = setup
        self._count = cores() if count is None else count
        self._retries = retries
        self._cpus = max(cores(), self._count)  # who asks for more workers than cores gets them
        self._memory = free_memory_bytes() if memory_bytes is None else memory_bytes
        self._gpus = gpu_names() if gpus is None else gpus
        self._workers: list[_Worker] = []
        self._queue: deque[_Job] = deque()
        self._results: list[Done | Failure] = []
        self._keys: set[str] = set()
        self._lost_in_setup = 0

    @property
    def room(self) -> bool:
        """Whether a worker is free and nothing waits for memory."""
        return not self._queue and len(self._busy) < self._count and not self._results

    @property
    def in_flight(self) -> int:
        """Tasks submitted and not given back."""
        return len(self._keys)

    @property
    def pids(self) -> dict[int, str | None]:
        """Process number of every worker -> key of what it runs."""
        return {w.process.pid: None if w.job is None else w.job.task.key for w in self._workers}

    def submit(self, task: Task) -> None:
        """Start it, or keep it until a worker and its memory are free."""
        if task.key in self._keys:
            raise ValueError(f"{task.key} is in flight")
        self._keys.add(task.key)
        refusal = self._refusal(task)
        if refusal is None:
            self._queue.append(_Job(task))
            self._place()
        else:
            self._results.append(refusal)

    def wait(self, timeout_s: float | None = None) -> list[Done | Failure]:
        """Results, as the contract says.

        Raises:
            UserError: workers are lost while they set up, or the setup raised one.
            RuntimeError: the setup raised something else.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._results and self._busy:
            left = PULSE_S if end is None else end - time.monotonic()
            ready = wait([worker.connection for worker in self._workers], timeout=max(0.0, min(PULSE_S, left)))
            for worker in list(self._workers):
                if worker.connection in ready or (not ready and worker.process.poll() is not None):
                    self._hear(worker)
            self._place()
            if left <= 0:
                break
        found, self._results = self._results, []
        self._keys -= {result.key for result in found}
        return found

    def cancel(self) -> None:
        """Kill the workers that are busy, drop what waits."""
        for worker in [worker for worker in self._workers if worker.job is not None]:
            self._end(worker)
        self._queue.clear()
        self._results.clear()
        self._keys.clear()

    def close(self) -> None:
        """Kill all workers."""
        self.cancel()
        for worker in list(self._workers):
            self._end(worker)

    @property
    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.job is not None]

    def _refusal(self, task: Task) -> Failure | None:
        """Why this machine can never run it; None where it can."""
        needs, fewest = task.needs, "run it on a machine that has them: --workers ray://HOST:PORT"
        if needs.cpus > self._cpus:
            return Failure(task.key, f"needs {needs.cpus:g} cores, and there are {self._cpus}", 0, fix=fewest)
        if needs.memory_bytes > self._memory:
            what = f"needs {needs.memory_bytes / 2**20:.0f} MiB of memory, and {self._memory / 2**20:.0f} MiB are free"
            return Failure(task.key, what, 0, fix="smaller batches, or a larger machine: --workers ray://HOST:PORT")
        if needs.gpus > min(1, len(self._gpus)):
            what = f"needs {needs.gpus:g} GPUs, and each worker here has {min(1, len(self._gpus))}"
            return Failure(task.key, what, 0, fix=fewest)
        return None

    def _place(self) -> None:
        """Start what is queued, in its order, as far as workers, cores, memory and GPUs are free."""
        while self._queue:
            job, busy = self._queue[0], self._busy
            running = [worker.job.task.needs for worker in busy if worker.job is not None]
            needs = job.task.needs
            if len(busy) >= self._count or (busy and (job.alone or any(w.job and w.job.alone for w in busy))):
                return
            if sum(r.cpus for r in running) + needs.cpus > self._cpus:
                return
            if sum(r.memory_bytes for r in running) + needs.memory_bytes > self._memory:
                return
            worker = self._free_worker(needs)
            if worker is None:
                return
            self._queue.popleft()
            job.attempts += 1
            worker.job = job
            if worker.ready:
                self._send(worker)

    def _free_worker(self, needs: Resources) -> _Worker | None:
        """An idle worker whose GPU has room; a new one where there may be one more."""
        load = self._gpu_load()
        for worker in self._workers:
            if worker.job is None and load.get(worker.gpu, 0.0) + needs.gpus <= 1.0 + 1e-9:
                return worker
        if len(self._workers) >= self._count:
            return None
        served = [worker.gpu for worker in self._workers]
        gpu = min(self._gpus, key=lambda name: (served.count(name), load[name])) if self._gpus else None
        if load.get(gpu, 0.0) + needs.gpus > 1.0 + 1e-9:
            return None
        worker = self._start(gpu, needs)
        self._workers.append(worker)
        return worker

    def _gpu_load(self) -> dict[str | None, float]:
        load: dict[str | None, float] = dict.fromkeys(self._gpus, 0.0)
        for worker in self._workers:
            if worker.job is not None and worker.gpu is not None:
                load[worker.gpu] += worker.job.task.needs.gpus
        return load

    def _start(self, gpu: str | None, needs: Resources) -> _Worker:
        ours, theirs = socket.socketpair()
        threads = str(max(1, cores() // self._count, int(needs.cpus)))
        environment = {**dict.fromkeys(THREADS, threads), **os.environ}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH"))))
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        with ours, theirs, _no_interrupt():
            process = subprocess.Popen(
                [sys.executable, "-m", "compress.workers.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=2,  # stdout is for the driver's answer
            )
            connection: Connection[Any, Any] = Connection(ours.detach())
        with contextlib.suppress(OSError):  # it is gone already: `_hear` says why
            connection.send((sys.path, self._setup, needs))
        return _Worker(process, connection, gpu)

    def _send(self, worker: _Worker) -> None:
        assert worker.job is not None
        with contextlib.suppress(OSError):  # it is gone: `_hear` finds its end of the socket closed
            worker.connection.send((worker.job.task.call, worker.job.task.needs))

    def _hear(self, worker: _Worker) -> None:
        """Take a worker's message, or its death."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if not worker.ready:
            if isinstance(message, Raised):
                self.close()
                raise message.error
            worker.ready, self._lost_in_setup = True, 0
            if worker.job is not None:
                self._send(worker)
            return
        job, worker.job = worker.job, None
        if job is not None:
            self._results.append(answer(job.task, message, job.attempts, f"process {worker.process.pid}"))

    def _bury(self, worker: _Worker) -> None:
        """Replace a worker that is gone: its task is queued again, in front, or has failed."""
        job, ready = worker.job, worker.ready
        status = self._end(worker)
        ended = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        if not ready:
            self._lost_in_setup += 1
            if self._lost_in_setup > self._retries:
                self.close()
                raise UserError(
                    f"a worker {ended} while it set up, {self._lost_in_setup} times in a row",
                    fix=KILLED_FIX if status < 0 else "see its message above",
                )
            if job is not None:
                self._queue.appendleft(replace(job, attempts=job.attempts - 1))
            return
        if job is None:
            return
        if job.attempts > self._retries:
            what = f"its worker {ended}, {job.attempts} times"
            fix = KILLED_FIX if status < 0 else None
            self._results.append(Failure(job.task.key, what, job.attempts, fix=fix, lost=True))
        else:
            last = job.attempts == self._retries
            self._queue.appendleft(replace(job, alone=last and status == -signal.SIGKILL))

    def _end(self, worker: _Worker) -> int:
        """Make sure that a worker is gone; its exit status, negative for a signal."""
        if worker in self._workers:
            self._workers.remove(worker)
        worker.job = None
        # A worker that closed its socket is dying by itself; its own status tells more than our SIGKILL.
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=0.5 if _closed(worker.connection) else 0.0)
        worker.process.kill()
        worker.connection.close()
        return worker.process.wait()


def _closed(connection: "Connection[Any, Any]") -> bool:
    """Whether the other end is closed and everything it said has been read."""
    try:
        return connection.poll() and not connection.recv_bytes()
    except (EOFError, OSError):
        return True


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back meanwhile; a process started here holds it back too, until it says otherwise."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
