"""One task after another in this process."""

from typing import Any

from compress.contracts.workers import Call, Done, Failure, Task, Workers
from compress.workers.perform import Raised, answer, own_name, perform, set_up


class Serial(Workers):
    """No process is started; a task that kills its process kills this one."""

    def __init__(self, setup: Call | None = None) -> None:
        self._setup = setup
        self._first: tuple[Any, ...] | None = None
        self._task: Task | None = None

    @property
    def room(self) -> bool:
        """Whether nothing is in flight."""
        return self._task is None

    @property
    def in_flight(self) -> int:
        """0 or 1."""
        return 0 if self._task is None else 1

    def submit(self, task: Task) -> None:
        """Keep it for `wait`."""
        if self._task is not None:
            raise ValueError(f"{self._task.key} is in flight, and there is room for one task: call wait() first")
        self._task = task

    def wait(self, timeout_s: float | None = None) -> list[Done | Failure]:
        """Run the task that was submitted; the time is not limited."""
        if self._task is None:
            return []
        if self._first is None:
            first = set_up(self._setup)
            if isinstance(first, Raised):
                raise first.error
            self._first = first
        task = self._task
        value = perform(task.call, self._first, task.needs)
        self._task = None
        return [answer(task, value, 1, own_name())]

    def cancel(self) -> None:
        """Forget the task."""
        self._task = None

    def close(self) -> None:
        """Let the state go."""
        self._task = self._first = None
