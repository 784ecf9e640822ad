"""The default selector against its controls, on three tables of students that were all trained fully."""

import statistics
from pathlib import Path

import pytest

from tools.bench_selectors import BUDGETS, LESS, Result, search
from tools.student_table.problem import Table, TableProblem, load

FOLDER = Path(__file__).resolve().parents[1] / "data"
TASKS = ("digits", "fashion_mnist", "spoken_digits")
TARGETS = ("jetson", "hearing_aid")


@pytest.fixture(scope="module", params=TASKS)
def table(request: pytest.FixtureRequest) -> Table:
    return load(FOLDER / f"students_{request.param}.json")


def results(table: Table, name: str) -> list[Result]:
    training = len(table.rows) / LESS
    return [
        search(table, target, admitted, name, {}, seed, training)
        for target in TARGETS
        for admitted in BUDGETS
        for seed in range(5)
    ]


def regret(found: list[Result]) -> float:
    return statistics.fmean(one.regret for one in found)


def test_every_student_was_trained_fully_with_two_seeds(table: Table) -> None:
    assert len(table.rows) >= 60
    assert all(set(row.scores[1.0]) == {0, 1} for row in table.rows)
    assert all(0.0 <= one["test"] <= 1.0 for row in table.rows for one in row.scores[1.0].values())


def test_the_default_beats_both_controls_at_the_same_training(table: Table) -> None:
    own = results(table, "halving")
    assert all(one.trainings <= len(table.rows) / LESS for one in own)
    assert regret(own) < regret(results(table, "random_choice"))
    assert regret(own) < regret(results(table, "largest_that_fits"))


def test_regret_of_the_default_is_what_the_documentation_says(table: Table) -> None:
    said = {"digits": 0.20, "fashion_mnist": 0.19, "spoken_digits": 0.74}
    assert regret(results(table, "halving")) == pytest.approx(said[table.task], abs=0.005)


def test_a_problem_refuses_more_than_may_be_spent_and_who_is_over_the_budget(table: Table) -> None:
    from compress.contracts.selector import Trial

    limit = statistics.median(row.costs["jetson"].latency_ms for row in table.rows)
    problem = TableProblem(table, "jetson", limit, training=0.1, seed=0)
    fits = next(c for c in problem.pool if c.rejected is None)
    over = next(c for c in problem.pool if c.rejected is not None)
    with pytest.raises(ValueError, match="are over"):
        problem.train([Trial(fits, 0.25)])
    with pytest.raises(ValueError, match="over the budget"):
        problem.train([Trial(over, 1 / 16)])
    best = max(problem.rows[c.identity].accuracy for c in problem.pool if c.rejected is None)
    assert problem.regret(fits) == pytest.approx(100 * (best - problem.rows[fits.identity].accuracy))
