"""What short scores foretell, by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from compress.contracts.selector import Candidate
from compress.selection.foresight import foretold, log_odds
from tools.student_table.problem import TableProblem, load

TABLES = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture
def candidate() -> Candidate:
    row = load(TABLES / "students_digits.json").at("jetson")[0]
    return replace(row, score=0.75, fidelity=0.25, cost=replace(row.cost, macs=1_000))


def test_log_odds_and_the_logarithm_of_the_work_that_is_still_to_show(candidate: Candidate) -> None:
    assert foretold(candidate, 0.2) == pytest.approx(math.log(3) + 0.2 * 0.75 * math.log(1_000))
    assert foretold(candidate, 0.0) == pytest.approx(math.log(3))
    assert foretold(replace(candidate, fidelity=1.0), 0.2) == pytest.approx(math.log(3))


def test_a_better_score_comes_first_whatever_its_range() -> None:
    """A concordance lies in [-1, 1]; just above 0 it must not rank below just under it."""
    scores = [-1.0, -0.3, -0.01, 0.0, 0.004, 0.02, 0.5, 0.97, 1.0, 1.01, 25.0]
    ranked = [log_odds(score) for score in scores]
    assert ranked == sorted(ranked)
    assert log_odds(-0.01) < log_odds(0.02)
    assert log_odds(0.5) == 0.0


def test_preprocessing_that_all_share_does_not_count(candidate: Candidate) -> None:
    assert foretold(candidate, 0.2, shared=900) == pytest.approx(math.log(3) + 0.2 * 0.75 * math.log(100))


@pytest.mark.parametrize("score", [None, math.nan])
def test_who_was_not_trained_or_diverged_comes_last(candidate: Candidate, score: float | None) -> None:
    assert foretold(replace(candidate, score=score), 0.2) == -math.inf


@pytest.mark.parametrize(("task", "macs"), [("digits", 0), ("spoken_digits", 407_968)])
def test_tables_know_what_their_students_share(task: str, macs: int) -> None:
    problem = TableProblem(load(TABLES / f"students_{task}.json"), "jetson", 1.0, training=1.0, seed=0)
    assert {problem.shared_macs(candidate.space) for candidate in problem.pool} == {macs}
