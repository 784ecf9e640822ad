"""Pairs of taps: each end of a network once."""

from types import SimpleNamespace
from typing import Any

import pytest

from compress.contracts.stages import Stage, stages
from compress.errors import RecipeError
from compress.structure.tap_pairs import TapPairs, distinct, fewer, matched


def ends(*modules: str) -> dict[str, Stage]:
    """What a network says of as many stages as there are names."""
    return dict(zip(stages(len(modules)), (Stage(name, 1, (4, 4)) for name in modules), strict=True))


def preparation(student: dict[str, Stage], teacher: dict[str, Stage]) -> Any:
    return SimpleNamespace(student_stages=student, teacher_stages=teacher)


@pytest.mark.parametrize(
    ("student", "teacher", "kept"),
    [
        ("abcd", "ABCD", (0, 1, 2, 3)),
        ("aabb", "ABCD", (1, 3)),  # the end of the first of two stages is where the second of four ends
        ("abcd", "AABB", (1, 3)),
        ("aabb", "ABCC", (1, 3)),
        ("aaaa", "ABCD", (3,)),
        ("aabbb", "AABCC", (1, 4)),  # not (1, 2, 4): b stands for one end
        ("abbcc", "ABCDD", (0, 2, 4)),
    ],
)
def test_each_end_is_compared_once_and_as_many_as_there_are(student: str, teacher: str, kept: tuple[int, ...]) -> None:
    assert matched(student, teacher) == kept
    found = TapPairs(stages(len(student)), stages(len(teacher))).once(preparation(ends(*student), ends(*teacher)))
    assert found.student == found.teacher == tuple(stages(len(student))[place] for place in kept)


def test_modules_that_were_named_stay_whatever_they_are() -> None:
    pairs = TapPairs.read("hints", ("body", "body"), ("low", "high"))
    assert pairs.once(preparation({}, {})) == pairs
    assert list(TapPairs.read("hints", "body", "body")) == [("body", "body")]
    mixed = TapPairs(stages(2), ("low", "high"))
    assert list(mixed.once(preparation(ends("a", "a"), {}))) == [("stage 2 of 2", "high")]


def test_of_one_network() -> None:
    assert distinct(stages(4), ends("a", "a", "b", "b")) == ("stage 2 of 4", "stage 4 of 4")
    assert distinct(("body", "body"), {}) == ("body", "body")
    assert fewer(stages(4), ends("a", "a", "b", "b")) == (2, 4)
    assert fewer(stages(4), ends("a", "b", "c", "d")) is None
    assert fewer(("body", *stages(2)[:1]), ends("a", "a")) is None  # one of the two was asked for


@pytest.mark.parametrize(("student", "teacher"), [((), ()), (("a", "b"), ("c",)), ((), "a")])
def test_lists_that_do_not_fit_are_refused(student: Any, teacher: Any) -> None:
    with pytest.raises(RecipeError, match=r"hints pairs . student modules with . of the teacher"):
        TapPairs.read("hints", student, teacher)
