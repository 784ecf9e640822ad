"""Run what is not known yet: workers and the file of evaluations together, also where others share the file."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from compress.contracts.workers import Done, Failure, Task, Workers
from compress.evaluations import Evaluation, Evaluations

POLL_S = 0.5  # how often it is asked whether another process has finished what this one waits for


@dataclass(frozen=True)
class Found:
    """An evaluation.

    Attributes:
        remembered: it was in the file, or another process has put it there; nothing ran here.
    """

    key: str
    evaluation: Evaluation
    remembered: bool


def evaluate(
    workers: Workers,
    evaluations: Evaluations,
    tasks: Iterable[Task],
    read: Callable[[Done], Evaluation],
    on_wait: Callable[[int], None] = lambda count: None,
) -> Iterator[Found | Failure]:
    """Every task's evaluation, in order of arrival: from the file, or by running it, or from another process.

    A result is on the disk before it is given. Failures are not remembered: their claims are given back. Tasks are
    asked for one at a time. Leaving the iteration early stops what runs.

    Args:
        tasks: their keys are those of the file. A key that comes twice is given twice, and run once.
        read: an evaluation from what the task returned.
        on_wait: told how many tasks other processes are at, when nothing else is left to do.

    Raises:
        RunError: the file cannot be read or written.
    """
    claimed: set[str] = set()
    elsewhere: deque[Task] = deque()

    def results(timeout_s: float | None = None) -> list[Found | Failure]:
        """What ended, on the disk before anything of it is given."""
        ended = workers.wait(timeout_s)
        found = {result.key: read(result) for result in ended if isinstance(result, Done)}
        evaluations.put_all(found)
        evaluations.release([result.key for result in ended if isinstance(result, Failure)])
        claimed.difference_update(result.key for result in ended)
        return [r if isinstance(r, Failure) else Found(r.key, found[r.key], remembered=False) for r in ended]

    def begun(task: Task) -> Found | None:
        """Begin it here where that is allowed; what is known of it, else put it aside."""
        known = evaluations.get(task.key)
        if known is None and evaluations.claim(task.key):
            claimed.add(task.key)
            workers.submit(task)
            return None
        known = known or evaluations.get(task.key)  # finished between the two questions
        if known is None:
            elsewhere.append(task)
            return None
        return Found(task.key, known, remembered=True)

    try:
        for task in tasks:
            while not workers.room:
                yield from results()
            found = begun(task)
            if found is not None:
                yield found
        while workers.in_flight or elsewhere:
            if elsewhere and not workers.in_flight:
                on_wait(len(elsewhere))
                time.sleep(POLL_S)
            yield from results(POLL_S if elsewhere else None)
            for _ in range(len(elsewhere)):
                if workers.room and (found := begun(elsewhere.popleft())) is not None:
                    yield found
    finally:
        workers.cancel()
        if claimed:
            evaluations.release(sorted(claimed))
