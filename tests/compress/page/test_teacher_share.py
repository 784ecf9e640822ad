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
