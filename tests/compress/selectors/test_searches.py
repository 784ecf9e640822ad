"""What holds for every selector that searches by short trials: budget, order of arrival, repeats, rejected ones."""

import math
import warnings
from typing import Any

import optuna
import pytest

from compress.contracts.selector import Candidate
from compress.errors import RecipeError
from compress.selectors.capacity_gap_law import CapacityGapLaw
from compress.selectors.nsga2 import Nsga2
from compress.selectors.tpe import Tpe
from tests.compress.selectors.problems import Numbered, Numbers, candidate

MOST = 31
BEST = 21


def peak(value: int, share: float, seed: int) -> float:
    return 1.0 - abs(value - BEST) / 32 + 0.01 * share


def over(value: int) -> str | None:
    return "over the budget" if value > 25 else None


def pool(step: int = 1) -> list[Candidate]:
    return [candidate(v, latency_ms=0.01 * (v + 1), rejected=over(v)) for v in range(0, MOST + 1, step)]


def problem(spaces: bool = False, training: float = 2.0, **more: Any) -> Numbered:
    found: dict[str, Any] = {"reject": over, **more}
    if spaces:
        return Numbered(pool(6), peak, training=training, spaces={"a": Numbers(most=MOST)}, **found)
    return Numbered(pool(), peak, training=training, **found)


SEARCHES = {"nsga2": Nsga2(), "tpe": Tpe(), "capacity_gap_law": CapacityGapLaw(teacher_m=0.2)}
EACH = pytest.mark.parametrize("name", sorted(SEARCHES))
BOTH = pytest.mark.parametrize("spaces", [False, True])


def values(some: Any) -> list[int]:
    return [c.plan.value for c in some.ranked]


@EACH
@BOTH
@pytest.mark.parametrize("training", [0.0, 0.06, 0.0625, 0.2, 1.0, 2.0, 7.3])
def test_never_spends_more_than_there_is(name: str, spaces: bool, training: float) -> None:
    some = problem(spaces, training)
    SEARCHES[name](some)  # the problem refuses what is over
    assert some.spent <= training * (1 + 1e-9)
    assert len(some.asked) >= min(2, int(training / 0.0625))


@EACH
@BOTH
def test_the_same_problem_is_decided_the_same_whatever_arrives_first(name: str, spaces: bool) -> None:
    one, other = problem(spaces), problem(spaces, backwards=True)
    first, second = SEARCHES[name](one), SEARCHES[name](other)
    assert first == second
    assert one.asked == other.asked


@EACH
@BOTH
def test_nothing_is_trained_twice_at_one_share(name: str, spaces: bool) -> None:
    some = problem(spaces, training=8.0)
    SEARCHES[name](some)
    assert len(some.asked) == len(set(some.asked))


@EACH
def test_a_pool_that_may_be_tried_whole_is(name: str) -> None:
    some = problem(training=1e9)
    selection = SEARCHES[name](some)
    assert {value for value, share, _ in some.asked if share == 0.0625} == set(range(26))
    assert values(selection)[0] == BEST
    assert max(share for _, share, _ in some.asked) == 1.0


@EACH
@BOTH
def test_everybody_is_ranked_once_and_the_rejected_come_last(name: str, spaces: bool) -> None:
    some = problem(spaces)
    ranked = SEARCHES[name](some).ranked
    assert len({c.identity for c in ranked}) == len(ranked)
    assert {c.identity for c in some.pool} <= {c.identity for c in ranked}
    fate = [c.rejected is not None for c in ranked]
    assert fate == sorted(fate)
    tried = [c.score is not None for c in ranked]
    assert tried == sorted(tried, reverse=True)


@EACH
def test_what_diverges_is_ranked_behind_what_does_not(name: str) -> None:
    some = problem(training=4.0)
    some.score = lambda value, share, seed: math.nan if value % 3 else peak(value, share, seed)
    tried = [c for c in SEARCHES[name](some).ranked if c.score is not None]
    lost = [math.isnan(c.score or 0.0) for c in tried]
    assert lost == sorted(lost)
    assert tried[0].plan.value % 3 == 0


@EACH
def test_where_all_diverge_somebody_is_still_ranked(name: str) -> None:
    some = problem()
    some.score = lambda value, share, seed: math.nan
    assert len(SEARCHES[name](some).ranked) == 32


@EACH
def test_one_candidate_is_enough(name: str) -> None:
    some = Numbered([candidate(3)], peak, training=2.0)
    assert values(SEARCHES[name](some)) == [3]


@EACH
def test_where_the_budget_admits_nobody_nothing_is_trained(name: str) -> None:
    some = Numbered([candidate(3, rejected="no"), candidate(4, rejected="no")], peak, training=2.0)
    assert values(SEARCHES[name](some)) == [3, 4]
    assert some.asked == []


@EACH
def test_equal_candidates_and_equal_scores_are_no_trouble(name: str) -> None:
    some = Numbered([candidate(v, macs=1000) for v in range(12)], lambda value, share, seed: 0.5, training=2.0)
    assert len(SEARCHES[name](some).ranked) == 12


@EACH
@pytest.mark.parametrize(
    "settings", [{"share": 0.0}, {"share": 1.5}, {"trials": 0}, {"finalists": -1}, {"reserve": 1.0}]
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=name):
        type(SEARCHES[name])(**settings)


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_optuna_says_nothing_and_keeps_its_settings(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SEARCHES[name](problem())
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["nsga2", "tpe"])
def test_another_seed_searches_elsewhere(name: str) -> None:
    asked = []
    for seed in range(3):
        some = problem(spaces=True, seed=seed)
        SEARCHES[name](some)
        asked.append(tuple(some.asked))
    assert len(set(asked)) > 1
