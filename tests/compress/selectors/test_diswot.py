"""DisWOT on small real networks: what it scores and spends, and when it may override the largest that fits."""

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.selector import Candidate, identity_of
from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError
from compress.residual_network import ResidualNetwork
from compress.selectors.diswot import SELECTOR, nominated
from profiles.cost import Cost
from tests.compress.selectors.problems import Number, Numbered, candidate

WIDTHS = tuple(range(2, 26))
DATA = TensorExamples(torch.randn(96, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(96) % 3, "toy")
QUICK: dict[str, Any] = {"batch": 32, "seeds": 2, "evaluations": 12, "population": 6, "sample": 3}


class Widths(Space[Number]):
    """A residual network whose first stage is as wide as the number; the second has the teacher's width."""

    def __init__(self, context: SpaceContext | None = None, last: int | None = 8) -> None:
        self.last = last

    def sample(self, rng: random.Random) -> Number:
        return Number(rng.choice(WIDTHS))

    def corners(self) -> Sequence[Number]:
        return (Number(WIDTHS[0]), Number(WIDTHS[-1]))

    def mutate(self, plan: Number, rng: random.Random) -> Number:
        return Number(min(WIDTHS[-1], max(WIDTHS[0], plan.value + rng.choice((-2, -1, 1, 2)))))

    def crossover(self, plan: Number, other: Number, rng: random.Random) -> Number:
        return rng.choice((plan, other))

    def from_json(self, data: Mapping[str, Any]) -> Number:
        return Number(data["number"], data["kind"])

    def build(self, plan: Number) -> nn.Module:
        return ResidualNetwork(1, (plan.value, self.last or plan.value), (1, 1), 3)


class Odd(Widths):
    """Networks of one layer, which have no features."""

    def build(self, plan: Number) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def problem(
    numbers: Sequence[int] = WIDTHS[::3],
    score: Callable[[int, float, int], float] = lambda number, share, seed: number / 100,
    *,
    space: Space[Any] | None = None,
    most: int = WIDTHS[-1],
    evolves: bool = True,
    **changes: Any,
) -> Numbered:
    def reject(number: int) -> str | None:
        return f"wider than {most}" if number > most else None

    made = Numbered(
        [candidate(number, rejected=reject(number)) for number in numbers],
        score,
        spaces={"a": space or Widths()} if evolves else {},
        reject=reject,
        **changes,
    )
    torch.manual_seed(1)
    made.teacher = ResidualNetwork(1, (8, 8), (2, 2), 3)
    made.splits = Splits(DATA, DATA, DATA)
    if not evolves:
        built = space or Widths()
        made.student = lambda candidate, seed=0: built.build(candidate.plan)  # type: ignore[method-assign]
    return made


def values(ranked: Sequence[Candidate]) -> list[int]:
    return [one.plan.value for one in ranked]


def test_scores_the_pool_and_what_evolution_adds_within_the_budget() -> None:
    made = problem(most=20, training=0.0)
    selection = SELECTOR(**QUICK)(made)
    scored = [one for one in selection.ranked if "diswot" in one.proxies]
    assert selection.notes["scored"] == len(scored) == 12
    assert {one.identity for one in made.pool} <= {one.identity for one in selection.ranked}
    assert len({one.identity for one in selection.ranked}) == len(selection.ranked)
    assert len(scored) > sum(one.rejected is None for one in made.pool)  # evolution found others
    assert all(one.rejected is None and one.plan.value <= 20 for one in scored)
    first_rejected = next(place for place, one in enumerate(selection.ranked) if one.rejected is not None)
    assert all(one.rejected is not None for one in selection.ranked[first_rejected:])
    assert all({"diswot_relation", "diswot_semantic"} <= set(one.proxies) for one in scored)
    assert made.asked == []


def test_candidates_are_ordered_by_score_behind_the_control() -> None:
    selection = SELECTOR(**QUICK, trials=0)(problem())
    control, *rest = [one for one in selection.ranked if "diswot" in one.proxies]
    totals = [one.proxies["diswot"] for one in rest]
    assert totals == sorted(totals, reverse=True)
    assert control.identity == selection.notes["control"]
    assert not selection.notes["overrides_the_control"]
    assert (
        selection.notes["top"][0] == max(selection.ranked[: len(rest) + 1], key=lambda c: c.proxies["diswot"]).identity
    )


def test_where_nothing_is_trained_the_largest_stands_unless_asked_otherwise() -> None:
    untested, unproven = (SELECTOR(**QUICK, unproven=unproven)(problem(training=0.0)) for unproven in (False, True))
    pool = [one for one in untested.ranked if one.rejected is None]
    assert untested.ranked[0].plan.value == max(values(pool))
    assert not untested.notes["proven"]
    best = max((one for one in unproven.ranked if "diswot" in one.proxies), key=lambda one: one.proxies["diswot"])
    assert unproven.ranked[0].identity == best.identity


@pytest.mark.parametrize("peak", [25, 11])
def test_trials_decide_between_the_nominated_and_the_largest(peak: int) -> None:
    made = problem(score=lambda number, share, seed: -abs(number - peak), training=1.2)
    selection = SELECTOR(**QUICK)(made)
    tried = {number for number, _, _ in made.asked}
    largest = max(values([one for one in selection.ranked if one.rejected is None]))
    assert largest in tried
    assert selection.ranked[0].plan.value == min(tried, key=lambda number: abs(number - peak))
    assert selection.notes["overrides_the_control"] == (selection.ranked[0].plan.value != largest)
    assert selection.notes["proven"]
    assert made.spent <= 1.2
    assert all(one.score is not None for one in selection.ranked[: len(tried)])


def test_it_shows_what_the_score_was_worth_beside_size() -> None:
    notes = SELECTOR(**QUICK)(problem(training=1.2)).notes
    worth = notes["scored_against_size"]
    assert worth["students"] >= 5
    assert worth["of_parameters"] == pytest.approx(1.0)  # the toy's accuracy is its width
    assert -1 <= worth["spearman"] <= 1
    assert worth["given_parameters"] is None  # nothing is left to explain
    assert notes["seed_sd"]["relation"] > 0
    json.dumps(notes, allow_nan=False)


def test_the_same_problem_gives_the_same_answer_in_whatever_order_results_come() -> None:
    def answers(**changes: Any) -> list[tuple[int, float | None, Mapping[str, float]]]:
        ranked = SELECTOR(**QUICK)(problem(training=1.2, **changes)).ranked
        return [(one.plan.value, one.score, one.proxies) for one in ranked]

    torch.manual_seed(5)
    first = answers()
    torch.manual_seed(6)
    assert answers(backwards=True) == first
    assert answers(seed=1) != first


def test_without_spaces_the_whole_pool_is_scored() -> None:
    made = problem(WIDTHS[:10], evolves=False, training=0.0)
    selection = SELECTOR(**(QUICK | {"evaluations": 12}))(made)
    assert selection.notes["scored"] == 10
    few = SELECTOR(**(QUICK | {"evaluations": 4}))(problem(WIDTHS[:10], evolves=False, training=0.0))
    assert few.notes["scored"] == 4
    assert "diswot" in few.ranked[0].proxies  # the largest is always among them


def test_classifiers_of_other_widths_are_ranked_by_relations_and_the_notes_say_so() -> None:
    selection = SELECTOR(**QUICK)(problem((4, 8, 12, 16), space=Widths(last=None), evolves=False, training=0.0))
    assert selection.notes["with_semantics"] == 1
    assert any("channels and the teacher's 8" in why for why in selection.notes["why_without_semantics"])
    by_width = {one.plan.value: one.proxies for one in selection.ranked}
    assert "diswot_semantic" in by_width[8]
    assert "diswot_semantic" not in by_width[12]
    assert all("diswot" in proxies for proxies in by_width.values())


def test_what_cannot_be_scored_is_kept_with_the_reason() -> None:
    selection = SELECTOR(**QUICK)(problem((4, 8), space=Odd(), evolves=False, training=0.0))
    assert selection.notes["scored"] == 0
    assert set(selection.notes["not_scored"]) == {identity_of("a", Number(n)) for n in (4, 8)}
    assert "no features" in next(iter(selection.notes["not_scored"].values()))
    assert values(selection.ranked) == [8, 4]


def test_nothing_affordable_is_trained_or_scored() -> None:
    made = problem((24, 25), most=1)
    selection = SELECTOR(**QUICK)(made)
    assert selection.notes["scored"] == 0
    assert made.asked == []
    assert all(one.rejected is not None for one in selection.ranked)


def test_a_black_box_is_refused() -> None:
    made = problem()
    made.teacher = None
    with pytest.raises(RecipeError, match="black box"):
        SELECTOR()(made)


def test_the_trained_teacher_is_left_alone() -> None:
    made = problem(training=0.0)
    assert made.teacher is not None
    before = {name: value.clone() for name, value in made.teacher.state_dict().items()}
    SELECTOR(**QUICK)(made)
    assert all(torch.equal(value, before[name]) for name, value in made.teacher.state_dict().items())


def test_bands_nominate_in_turn_the_dearest_first() -> None:
    def one(number: int, times: float) -> Candidate:
        cost = Cost("t", "r", 1, "int8", int(1e6 * times), 1, int(1e5 * times), 1, times, (0.0, 1.0), "predicted")
        return Candidate("a", Number(number), cost)

    # Bands of a factor sqrt(2), from 1 down to 1/4; ranked by number.
    ranked = [one(0, 0.1), one(1, 0.98), one(2, 0.6), one(3, 1.0), one(4, 0.3), one(5, 0.62), one(6, 0.05)]
    assert values(nominated(ranked, 4)) == [1, 2, 4, 3, 5, 0, 6]
    assert values(nominated(ranked, 1)) == [1, 2, 3, 4, 5, 0, 6]
    assert nominated([], 4) == []


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"batch": 16}, "batch = 16"),
        ({"init": "xavier"}, "gauss"),
        ({"combine": "product"}, "zscore"),
        ({"seeds": 0}, "seeds = 0"),
        ({"sample": 0}, "sample = 0"),
        ({"trials": -1}, "trials = -1"),
        ({"share": 0.0}, "share = 0.0"),
    ],
)
def test_wrong_numbers_are_refused(numbers: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as error:
        SELECTOR(**numbers)
    assert says in f"{error.value.what} {error.value.fix}"


def test_scores_are_finite_or_absent() -> None:
    for init in ("gauss", "kaiming", "default"):
        for combine in ("rank", "zscore", "sum"):
            settings = QUICK | {"init": init, "combine": combine, "noise": combine == "sum", "evaluations": 4}
            ranked = SELECTOR(**settings)(problem(WIDTHS[:4], evolves=False, training=0.0)).ranked
            assert all(math.isfinite(value) for one in ranked for value in one.proxies.values())
            assert all(len(one.proxies) == 3 for one in ranked)
