"""Where evaluations run: in this process, in processes beside it, on other machines."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Resources:
    """What a task takes while it runs.

    Attributes:
        cpus: cores. torch and OpenMP get as many threads as whole cores, at least one, wherever the task runs: sums in
            floating point depend on the number of threads.
        gpus: a fraction shares one.
        memory_bytes: peak of the worker's process; 0 where unknown.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Call:
    """A function and its arguments, as they can be sent to another machine.

    Attributes:
        function: "package.module:function", importable where the workers run.
        arguments: by name; plain values (numbers, texts, lists, mappings).
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """One evaluation.

    Attributes:
        key: of the result; no two tasks in flight have the same.
        call: what to do. Where the workers have a setup, its state is the function's first argument. What the function
            returns is plain as well, and small: it passes through one driver.
    """

    key: str
    call: Call
    needs: Resources = Resources()


@dataclass(frozen=True)
class Done:
    """A task that returned.

    Attributes:
        attempts: 1, or more where a worker was lost on the way.
        worker: the machine and process that did it.
    """

    key: str
    value: Any
    attempts: int
    worker: str


@dataclass(frozen=True)
class Failure:
    """A task that raised, that cannot be placed, or whose worker was lost more often than it is retried.

    Attributes:
        what: one line: the exception, or the signal that ended the worker.
        traceback: text; "" where the worker could not write one.
        fix: what its user can do, where the task raised a `UserError` or the workers know.
        lost: its worker ended, each time.
    """

    key: str
    what: str
    attempts: int
    traceback: str = ""
    fix: str | None = None
    lost: bool = False


class Workers(ABC):
    """Run tasks, a bounded number at a time, and give each result as soon as it is there.

    Made with a setup (or None), which each worker calls once, before its first task, and whose result it keeps: data
    and teacher are loaded per worker, not per task. A worker that is lost (killed, out of memory, its machine gone) is
    replaced, and its task is run again, `retries` times at most; results that were given are not touched by that. An
    exception of the task itself is no reason to run it again: it becomes a `Failure`. An exception of the setup ends
    all: it is raised.

    Use it as a context manager: leaving it, also by Ctrl-C, stops every worker.
    """

    @property
    @abstractmethod
    def room(self) -> bool:
        """Whether a worker is free for one more task."""

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """Tasks that were submitted and have not been given back by `wait`."""

    @abstractmethod
    def submit(self, task: Task) -> None:
        """Hand over a task, to begin as soon as a worker and its memory are free.

        Raises:
            ValueError: a task with this key is in flight.
        """

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> list[Done | Failure]:
        """Results since the last call, at least one; none after `timeout_s`, or where nothing is in flight."""

    @abstractmethod
    def cancel(self) -> None:
        """Stop what is in flight and forget it."""

    @abstractmethod
    def close(self) -> None:
        """Stop the workers. A second time does nothing."""

    def stream(self, tasks: Iterable[Task]) -> Iterator[Done | Failure]:
        """Run all of `tasks`, which are asked for one at a time, when there is room; results in order of arrival.

        Leaving the iteration early cancels what is in flight.
        """
        try:
            for task in tasks:
                self.submit(task)
                while not self.room:
                    yield from self.wait()
            while self.in_flight:
                yield from self.wait()
        finally:
            self.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
