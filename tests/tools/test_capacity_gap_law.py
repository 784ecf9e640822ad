"""The criterion of the experiment, worked by hand, and the generated text."""

import pytest
import torch

from tools.effects.capacity_gap_law import Row, judge, markov


def rows(table: dict[int, list[float]], spread: float = 0.1) -> list[Row]:
    """Qualities by student, of teachers 8, 16, 32; two seeds that far from the mean."""
    return [
        Row(student, teacher, seed, quality + (spread if seed else -spread) / 2**0.5, 0.0)
        for student, qualities in table.items()
        for teacher, quality in zip((8, 16, 32), qualities, strict=True)
        for seed in (0, 1)
    ]


def test_a_gap_that_moves_with_the_student_is_reproduced() -> None:
    found = judge(rows({4: [80, 79, 77], 6: [80, 81, 79], 9: [81, 82, 83]}), better=1)
    assert found.spread == pytest.approx(0.1)
    assert found.best == {4: 8, 6: 16, 9: 32}
    assert found.costs == pytest.approx({4: 3.0, 6: 2.0, 9: 0.0})
    assert found.verdict == "reproduced (weak sense)"


def test_losses_are_better_where_smaller() -> None:
    found = judge(rows({4: [1.0, 1.5, 2.0], 6: [1.5, 1.0, 2.0], 9: [1.5, 1.4, 1.0]}), better=-1)
    assert found.best == {4: 8, 6: 16, 9: 32}
    assert found.verdict == "reproduced (weak sense)"


def test_an_optimum_that_falls_or_one_student_alone_is_inconclusive() -> None:
    assert judge(rows({4: [79, 80, 77], 6: [80, 79, 77], 9: [81, 82, 83]}), better=1).verdict == "inconclusive"
    assert judge(rows({4: [80, 79, 77], 6: [78, 79, 80], 9: [81, 82, 83]}), better=1).verdict == "inconclusive"


def test_within_the_spread_nothing_is_reproduced() -> None:
    found = judge(rows({4: [80, 79, 77], 6: [80, 81, 79], 9: [81, 82, 83]}, spread=5.0), better=1)
    assert found.verdict == "not reproduced at this scale"
    assert judge(rows({4: [77, 78, 79], 6: [77, 78, 79]}), better=1).verdict == "not reproduced at this scale"


def test_the_text_is_the_same_each_time_and_depends_on_what_came_before() -> None:
    text = markov(40_000)
    assert torch.equal(text, markov(40_000))
    assert set(text.tolist()) == set(range(32))

    def entropy(values: torch.Tensor) -> float:
        p = values.unique(return_counts=True)[1].double() / len(values)
        return float(-(p * p.log()).sum())

    alone, pairs = entropy(text), entropy(32 * text[:-1] + text[1:])
    assert alone - (pairs - alone) > 0.1  # nats that one character of context tells; chance would give 0.01
