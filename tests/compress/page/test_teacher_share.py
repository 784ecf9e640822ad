"""A ratio that has settled at the labels is said to have."""

from typing import Any

import pytest

from compress.page import diagnostics


@pytest.mark.parametrize(("share", "warned"), [(0.02, True), (0.3, False)])
def test_a_teacher_that_was_not_followed_is_told(share: float, warned: bool) -> None:
    content: dict[str, Any] = {"verify": {"diagnostics": {"teacher_share": {"teacher_share": share}}}}
    shown = diagnostics.diagnostics(content)
    assert shown is not None
    assert ("settled at the labels" in str(shown)) is warned


def test_the_examples_that_a_figure_is_of_are_told() -> None:
    found = {"fidelity": {"ece": 0.1}, "teacher_share": {"teacher_share": 0.5}}
    looked = {
        "fidelity": {"stream": "test", "examples": 100, "of": 100},
        "teacher_share": {"stream": "train", "examples": 10_000, "of": 53_000},
    }
    shown = str(diagnostics.diagnostics({"verify": {"diagnostics": found, "diagnosed": looked}}))
    assert "fidelity: All examples of the stream" in shown
    assert "teacher share: The first 10,000 of 53,000 examples of the stream" in shown


def test_figures_are_said_in_words() -> None:
    figures = {"teacher_share_contradicting_farthest": 0.9, "teacher_2_student_1": 0.5, "some_thing": 1.0}
    shown = str(diagnostics.diagnostics({"verify": {"diagnostics": {"cka": figures}}}))
    assert "contradicts the label, farthest quarter" in shown
    assert "stage 2, student" in shown
    assert "some thing" in shown
