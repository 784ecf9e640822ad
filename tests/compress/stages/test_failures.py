"""Which failures reject one student, and which end the search."""

from types import SimpleNamespace
from typing import Any

import pytest

from compress.contracts.selector import Trial
from compress.contracts.workers import Failure
from compress.errors import RunError
from compress.stages.failures import Failures


def trial(name: str) -> Trial:
    candidate: Any = SimpleNamespace(identity=name, space="toy")
    return Trial(candidate, 0.25)


def failure(what: str = "ValueError: two", **fields: Any) -> Failure:
    return Failure("key", what, 1, traceback="Traceback: line 7", **fields)


def test_three_that_fail_alike_before_any_succeeds_end_the_search() -> None:
    failures = Failures()
    failures.fail(trial("a"), failure())
    failures.fail(trial("b"), failure())
    with pytest.raises(
        RunError, match=r"the first 3 trials failed alike, the last one of student c of the space toy for 0\.25"
    ) as found:
        failures.fail(trial("c"), failure())
    assert "line 7" in found.value.what


def test_two_that_fail_alike_end_it_where_no_more_were_asked_for_and_one_alone_does_not() -> None:
    failures = Failures()
    failures.fail(trial("a"), failure())
    failures.end()
    failures.fail(trial("b"), failure())
    with pytest.raises(RunError, match="the first 2 trials"):
        failures.end()


@pytest.mark.parametrize("succeeds", [True, False])
def test_others_that_succeed_or_fail_otherwise_let_it_go_on(succeeds: bool) -> None:
    failures = Failures()
    failures.succeed() if succeeds else failures.fail(trial("z"), failure("MemoryError"))
    for name in "abcde":
        failures.fail(trial(name), failure())
    failures.end()
    assert failures.rejected["e"] == "its training failed: ValueError: two"


def test_a_worker_that_a_student_ends_is_the_students_own_failure() -> None:
    failures = Failures()
    failures.fail(trial("a"), failure("its worker was ended by signal 9, 3 times", fix="smaller batches", lost=True))
    assert failures.rejected == {"a": "its training failed: its worker was ended by signal 9, 3 times"}
    for name in "bc":
        failures.succeed()
        failures.fail(trial(name), failure("its worker was ended by signal 9, 3 times", lost=True))


def test_what_a_user_can_mend_is_said_at_once_without_a_traceback() -> None:
    with pytest.raises(RunError) as found:
        Failures().fail(trial("a"), failure("the data are gone", fix="put them back"))
    assert (
        found.value.what
        == "the data are gone; it ended the trial of student a of the space toy for 0.25 of the training"
    )
    assert found.value.fix == "put them back"
