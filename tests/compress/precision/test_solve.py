"""Worked by hand, against brute force, and never worse than greedy."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.precision.solve import Option, greedy, relaxed, solve


def layer(*options: tuple[int, int, float]) -> tuple[Option, ...]:
    return tuple(Option(*option) for option in options)


def test_equals_the_choice_worked_by_hand() -> None:
    # (int8, float): saved picoseconds against loss: 4 for 1, 3 for 2, 6 for 4. Budget 5.
    layers = [layer((6, 1, 1.0), (10, 4, 0.0)), layer((7, 1, 2.0), (10, 4, 0.0)), layer((4, 1, 4.0), (10, 4, 0.0))]
    found = solve(layers, 5.0)
    assert found is not None
    # int8 for the first and the third: 6 + 10 + 4 = 20, loss 5. First and second: 6 + 7 + 10 = 23, loss 3.
    assert found.picks == (0, 1, 0)
    assert (found.cost, found.size, found.loss, found.gap, found.exact) == (20, 6, 5.0, 0.0, True)
    # Relaxed: steps of 4/1, 3/2 and 6/4 per loss: 30 - 4 - 3 - (2/4) * 6 = 20.
    assert relaxed(layers, 5.0) == 20


def test_greedy_can_miss_what_the_exact_one_finds() -> None:
    layers = [layer((8, 1, 1.0), (10, 4, 0.0)), layer((1, 1, 5.0), (10, 4, 0.0))]
    first, best = greedy(layers, 5.0), solve(layers, 5.0)
    assert first is not None
    assert best is not None
    assert (first.cost, best.cost) == (18, 11)


def test_of_equal_costs_the_smaller_size_is_taken() -> None:
    layers = [layer((5, 1, 0.1), (5, 4, 0.0)), layer((5, 1, 0.1), (5, 4, 0.0))]
    found = solve(layers, 1.0)
    assert found is not None
    assert found.picks == (0, 0)
    tight = solve(layers, 0.1)
    assert tight is not None
    assert (tight.cost, tight.size) == (10, 5)


def test_a_free_layer_in_float_is_taken_where_it_is_faster() -> None:
    found = solve([layer((9, 1, 0.0), (3, 4, 0.0))], 0.0)
    assert found is not None
    assert found.picks == (1,)


def test_says_when_no_choice_keeps_the_budget() -> None:
    layers = [layer((1, 1, 2.0), (2, 1, 1.0))]
    assert solve(layers, 0.5) is None
    assert greedy(layers, 0.5) is None


def test_no_layers_cost_nothing() -> None:
    found = solve([], 0.0)
    assert found is not None
    assert (found.picks, found.cost, found.gap) == ((), 0, 0.0)


@pytest.mark.parametrize(
    "option", [(-1, 0, 0.0), (0, -1, 0.0), (0, 0, -1.0), (0, 0, float("inf")), (0, 0, float("nan"))]
)
def test_refuses_numbers_that_cannot_be_meant(option: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="layer 0"):
        solve([layer(option)], 1.0)


def test_refuses_a_layer_without_options() -> None:
    with pytest.raises(ValueError, match="layer 1 has no option"):
        solve([layer((1, 1, 0.0)), ()], 1.0)


# Losses in 64ths add up exactly, so that the brute force meets the budget where the solver does.
OPTION = st.builds(Option, st.integers(0, 50), st.integers(0, 9), st.integers(0, 640).map(lambda n: n / 64))
LAYERS = st.lists(st.lists(OPTION, min_size=1, max_size=3).map(tuple), min_size=1, max_size=7)


def brute_force(layers: list[tuple[Option, ...]], budget: float) -> tuple[int, int] | None:
    costs = [
        (sum(option.cost for option in chosen), sum(option.size for option in chosen))
        for chosen in itertools.product(*layers)
        if sum(option.loss for option in chosen) <= budget
    ]
    return min(costs) if costs else None


@settings(max_examples=150, deadline=None)
@given(LAYERS, st.integers(0, 2000).map(lambda n: n / 64))
def test_equals_brute_force(layers: list[tuple[Option, ...]], budget: float) -> None:
    found, best = solve(layers, budget), brute_force(layers, budget)
    assert (None if found is None else (found.cost, found.size)) == best
    if found is not None:
        chosen = [options[pick] for options, pick in zip(layers, found.picks, strict=True)]
        assert sum(option.loss for option in chosen) == found.loss <= budget
        assert (sum(option.cost for option in chosen), found.exact, found.gap) == (found.cost, True, 0.0)
        assert relaxed(layers, budget) <= found.cost


@settings(max_examples=150, deadline=None)
@given(LAYERS, st.integers(0, 2000).map(lambda n: n / 64), st.integers(1, 4))
def test_thinned_states_stay_within_budget_and_bound(
    layers: list[tuple[Option, ...]], budget: float, most: int
) -> None:
    best = brute_force(layers, budget)
    found = solve(layers, budget, most)
    assert (found is None) == (best is None)
    if found is not None and best is not None:
        assert found.loss <= budget
        assert found.bound <= best[0] <= found.cost
        assert 0.0 <= found.gap <= 1.0


@settings(max_examples=150, deadline=None)
@given(LAYERS, st.integers(0, 2000).map(lambda n: n / 64))
def test_is_never_worse_than_greedy(layers: list[tuple[Option, ...]], budget: float) -> None:
    first, best = greedy(layers, budget), solve(layers, budget)
    assert (first is None) == (best is None)
    if first is not None and best is not None:
        assert first.loss <= budget
        assert best.cost <= first.cost


def test_a_hundred_layers_are_solved_exactly() -> None:
    layers = [layer((37 * n % 101, 1, (53 * n % 97) / 64), (37 * n % 101 + 41 * n % 59, 4, 0.0)) for n in range(1, 101)]
    found, first = solve(layers, 20.0), greedy(layers, 20.0)
    assert found is not None
    assert first is not None
    assert found.exact
    assert relaxed(layers, 20.0) <= found.cost <= first.cost
