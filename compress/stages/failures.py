"""Trials that failed: one of them rejects its student, and the search goes on; what fails all of them ends it."""

from compress.contracts.selector import Trial
from compress.contracts.workers import Failure
from compress.errors import RunError

SAME = 3  # trials that fail alike before any has succeeded: it is not the students that are at fault


class Failures:
    """What failed in a search so far.

    Attributes:
        rejected: identity of a student -> why its training failed.
    """

    def __init__(self) -> None:
        self.rejected: dict[str, str] = {}
        self._succeeded = 0
        self._alike: list[str] = []
        self._last: tuple[Trial, Failure] | None = None

    def succeed(self) -> None:
        """A trial ended as it should, also where it diverged."""
        self._succeeded += 1

    def fail(self, trial: Trial, failure: Failure) -> None:
        """Reject the student where the failure is its own: an exception in its training, or workers that it ended.

        Raises:
            RunError: the failure is one of the machine or of the user's files; or the first `SAME` trials failed alike.
        """
        if failure.fix is not None and not failure.lost:
            raise RunError(f"{failure.what}; it ended the trial {_named(trial)}", fix=failure.fix)
        self.rejected[trial.candidate.identity] = f"its training failed: {failure.what}"
        self._alike.append(failure.what)
        self._last = (trial, failure)
        if len(self._alike) >= SAME:
            self._end_if_alike()

    def end(self) -> None:
        """All trials that were asked for have ended.

        Raises:
            RunError: several failed, all alike, and none has succeeded so far.
        """
        if len(self._alike) > 1:
            self._end_if_alike()

    def _end_if_alike(self) -> None:
        if self._succeeded or len(set(self._alike)) > 1:
            return
        raise self.error(f"the first {len(self._alike)} trials failed alike, the last one")

    def error(self, what: str) -> RunError:
        """Of the last one that failed, with its traceback where only that tells what to mend."""
        if self._last is None:
            raise ValueError("nothing failed")
        trial, failure = self._last
        trace = f"\n{failure.traceback}" if failure.traceback and failure.fix is None else ""
        return RunError(
            f"{what} {_named(trial)}: {failure.what}{trace}",
            fix=failure.fix or "mend what it says and give the same command again: finished trials are kept",
        )


def _named(trial: Trial) -> str:
    candidate = trial.candidate
    return f"of student {candidate.identity} of the space {candidate.space} for {trial.share:.3g} of the training"
