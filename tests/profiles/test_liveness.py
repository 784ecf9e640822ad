from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from time import thread_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.liveness import Program, best_order, peak_bytes

Names = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    reads: Names
    writes: Names
    in_place: bool = False


@dataclass(frozen=True)
class Case:
    """A program with everything that its peak depends on."""

    steps: tuple[Step, ...]
    sizes: dict[str, int]
    inputs: Names
    outputs: Names
    held: Names

    def peak(self, steps: Sequence[Step]) -> int:
        """For every step ask of every tensor whether it exists yet and whether anybody needs it still."""

        def touched(name: str) -> list[int]:
            return [i for i, step in enumerate(steps) if name in (*step.reads, *step.writes)]

        def born(name: str) -> int:
            return -1 if name in self.inputs else min(i for i, step in enumerate(steps) if name in step.writes)

        def dies(name: str) -> int:
            return len(steps) if name in self.outputs else max(touched(name), default=-1)

        peak = sum(self.sizes[name] for name in self.inputs)
        for i, step in enumerate(steps):
            needed = sum(size for name, size in self.sizes.items() if born(name) <= i <= dies(name))
            if step.in_place and len(step.writes) == 1 and born(step.writes[0]) == i:
                new = self.sizes[step.writes[0]]
                ending = [name for name in step.reads if dies(name) == i and name not in self.held]
                if any(self.sizes[name] >= new for name in ending):
                    needed -= new
            peak = max(peak, needed)
        return peak

    def orders(self) -> Iterator[list[Step]]:
        """Every topological order."""
        makers = {name: {step for step in self.steps if name in step.writes} for name in self.sizes}
        needs = {step: set().union(*(makers[name] for name in step.reads)) for step in self.steps}

        def extended(order: list[Step]) -> Iterator[list[Step]]:
            if len(order) == len(self.steps):
                yield order
            for step in self.steps:
                if step not in order and needs[step] <= set(order):
                    yield from extended([*order, step])

        return extended([])


@st.composite
def cases(draw: st.DrawFn, most: int) -> Case:
    """Several inputs and outputs, several results per step, unused tensors, chains in place, equal sizes."""
    inputs = tuple(f"i{index}" for index in range(draw(st.integers(1, 3))))
    known = list(inputs)
    steps = []
    for index in range(draw(st.integers(1, most))):
        reads = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        writes = [f"s{index}_{part}" for part in range(draw(st.integers(1, 2)))]
        steps.append(Step(tuple(reads), tuple(writes), draw(st.booleans())))
        known += writes
    sizes = {name: draw(st.integers(1, 9) | st.sampled_from([20, 50, 100])) for name in known}
    outputs = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
    held = inputs if draw(st.booleans()) else ()
    return Case(tuple(steps), sizes, inputs, tuple(outputs), held)


def test_a_chain_needs_two_neighbours() -> None:
    chain = [Step(("a",), ("b",)), Step(("b",), ("c",)), Step(("c",), ("d",))]
    assert peak_bytes(chain, {"a": 1, "b": 10, "c": 20, "d": 2}, ["a"], ["d"]) == 30


def test_a_skip_branch_stays_alive() -> None:
    steps = [Step(("x",), ("y",)), Step(("y",), ("z",)), Step(("x", "z"), ("out",))]
    assert peak_bytes(steps, {"x": 5, "y": 7, "z": 11, "out": 1}, ["x"], ["out"]) == 23  # x + y + z in the second step


def test_in_place_work_needs_no_second_tensor() -> None:
    sizes = {"x": 8, "y": 8}
    assert peak_bytes([Step(("x",), ("y",), in_place=True)], sizes, ["x"], ["y"]) == 8
    assert peak_bytes([Step(("x",), ("y",), in_place=False)], sizes, ["x"], ["y"]) == 16


def test_in_place_work_leaves_a_tensor_that_is_read_later() -> None:
    steps = [Step(("x",), ("y",), in_place=True), Step(("x", "y"), ("z",))]
    assert peak_bytes(steps, {"x": 8, "y": 8, "z": 1}, ["x"], ["z"]) == 17


def test_nothing_is_written_over_what_the_caller_holds_or_gets() -> None:
    step = [Step(("x",), ("y",), in_place=True)]
    assert peak_bytes(step, {"x": 8, "y": 8}, ["x"], ["y"], held=["x"]) == 16
    assert peak_bytes(step, {"x": 8, "y": 8}, ["x"], ["x", "y"]) == 16


def test_a_larger_result_does_not_fit_over_its_input() -> None:
    assert peak_bytes([Step(("x",), ("y",), in_place=True)], {"x": 7, "y": 8}, ["x"], ["y"]) == 15


def test_the_best_order_finishes_one_branch_before_it_starts_the_next() -> None:
    # Two branches, x -> wide -> narrow, and their sum. Side by side both wide tensors are alive: 1 + 100 + 100.
    steps = [
        Step(("x",), ("wide1",)),
        Step(("x",), ("wide2",)),
        Step(("wide1",), ("narrow1",)),
        Step(("wide2",), ("narrow2",)),
        Step(("narrow1", "narrow2"), ("y",)),
    ]
    sizes = {"x": 1, "wide1": 100, "wide2": 100, "narrow1": 2, "narrow2": 2, "y": 2}
    found = best_order(steps, sizes, ["x"], ["y"])
    assert found.given_bytes == 202  # wide1, wide2 and narrow1; x has been read
    assert found.peak_bytes == 104  # x, wide and narrow of the first, then narrow1, wide2, narrow2
    assert found.order in ((0, 2, 1, 3, 4), (1, 3, 0, 2, 4))
    assert (found.exact, found.says) == (True, "best order")
    assert set(found.live) in ({"narrow1", "wide2", "narrow2"}, {"narrow2", "wide1", "narrow1"})


def test_a_branch_that_ends_small_goes_first() -> None:
    # Liu 1987: subtrees in the order of (peak - what is left), largest first.
    steps = [
        Step(("x",), ("a",)),  # left alive: 10
        Step(("x",), ("big",)),
        Step(("big",), ("b",)),  # peak 51, left alive: 1
        Step(("a", "b"), ("y",)),
    ]
    found = best_order(steps, {"x": 1, "a": 10, "big": 50, "b": 1, "y": 1}, ["x"], ["y"])
    assert (found.given_bytes, found.peak_bytes) == (61, 52)
    assert found.order == (1, 2, 0, 3)


def test_writers_of_parts_may_change_places_and_readers_wait_for_all() -> None:
    steps = [Step(("x",), ("whole",)), Step(("x",), ("w",)), Step(("w",), ("whole",)), Step(("whole",), ("y",))]
    found = best_order(steps, {"x": 10, "w": 30, "whole": 20, "y": 5}, ["x"], ["y"])
    assert found.order[-1] == 3
    assert found.order.index(1) < found.order.index(2)
    assert found.given_bytes == 60  # x, whole, w
    # x is read before w is overwritten by nobody: in every order x, w and either x or whole are there together.
    assert found.peak_bytes == min(60, 10 + 30 + 20)


@pytest.mark.parametrize("count", [0, 1])
def test_no_steps_and_unused_inputs(count: int) -> None:
    steps = [Step(("x",), ("y",))][:count]
    found = best_order(steps, {"x": 3, "unused": 100, "y": 4}, ["x", "unused"], ["y"])
    assert (found.peak_bytes, found.at, set(found.live)) == (103, -1, {"x", "unused"})


@given(cases(most=14))
@settings(max_examples=200, deadline=None)
def test_the_given_order_equals_brute_force(case: Case) -> None:
    assert peak_bytes(case.steps, case.sizes, case.inputs, case.outputs, case.held) == case.peak(case.steps)


@given(cases(most=6))
@settings(max_examples=150, deadline=None)
def test_the_best_order_equals_brute_force_over_all_orders(case: Case) -> None:
    found = best_order(case.steps, case.sizes, case.inputs, case.outputs, case.held)
    order = [case.steps[index] for index in found.order]
    assert order in list(case.orders())
    assert found.exact
    assert found.peak_bytes == min(case.peak(steps) for steps in case.orders()) == case.peak(order)
    assert sum(case.sizes[name] for name in found.live) == found.peak_bytes
    assert found.given_bytes == case.peak(case.steps)


@given(cases(most=8))
@settings(max_examples=150, deadline=None)
def test_without_a_budget_the_bound_holds_all_the_same(case: Case) -> None:
    best = best_order(case.steps, case.sizes, case.inputs, case.outputs, case.held)
    hasty = best_order(case.steps, case.sizes, case.inputs, case.outputs, case.held, budget=0)
    assert hasty.lower_bound <= best.peak_bytes <= hasty.peak_bytes <= hasty.given_bytes
    assert hasty.peak_bytes == case.peak([case.steps[index] for index in hasty.order])


@given(cases(most=6), st.randoms(use_true_random=False), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_neither_names_nor_the_order_in_the_file_matter(case: Case, random: "object", factor: int) -> None:
    best = best_order(case.steps, case.sizes, case.inputs, case.outputs, case.held).peak_bytes
    for steps in list(case.orders())[::7]:
        assert best_order(steps, case.sizes, case.inputs, case.outputs, case.held).peak_bytes == best

    def new(names: Sequence[str]) -> Names:
        return tuple(f"tensor {name[::-1]}" for name in names)

    renamed = [Step(new(step.reads), new(step.writes), step.in_place) for step in case.steps]
    sizes = {f"tensor {name[::-1]}": size * factor for name, size in case.sizes.items()}
    again = best_order(renamed, sizes, new(case.inputs), new(case.outputs), new(case.held))
    assert again.peak_bytes == factor * best


@given(cases(most=6), st.data())
@settings(max_examples=60, deadline=None)
def test_one_program_serves_every_size(case: Case, data: st.DataObject) -> None:
    program = Program(case.steps, case.inputs, case.outputs, case.held)
    for _ in range(3):
        sizes = {name: data.draw(st.integers(1, 50)) for name in case.sizes}
        alone = best_order(case.steps, sizes, case.inputs, case.outputs, case.held)
        assert program.best(sizes).peak_bytes == alone.peak_bytes


def test_many_equal_branches_are_ordered_within_the_budget() -> None:
    # 12 branches of 4 steps have 48! / 4!^12 orders, about 10^44.
    steps, sizes = [], {"x": 1, "y": 1}
    for part in range(4):
        for branch in range(12):
            reads = "x" if part == 0 else f"b{branch}_{part - 1}"
            steps.append(Step((reads,), (f"b{branch}_{part}",)))
            sizes[f"b{branch}_{part}"] = (40, 60, 20, 3)[part]
    steps.append(Step(tuple(f"b{branch}_3" for branch in range(12)), ("y",)))
    found = best_order(steps, sizes, ["x"], ["y"])
    assert found.exact
    assert found.peak_bytes == 11 * 3 + 100  # the last branch, with what the others left
    assert found.given_bytes > 12 * 60


@given(st.lists(st.integers(1, 9), min_size=1, max_size=2), st.integers(2, 3), st.integers(1, 9), st.data())
@settings(max_examples=40, deadline=None)
def test_equal_branches_in_turn_are_as_good_as_any_order(
    sizes: list[int], branches: int, read: int, data: st.DataObject
) -> None:
    in_place = data.draw(st.booleans())
    steps, size = [], {"x": read, "z": data.draw(st.integers(1, 9)), "y": 1}
    steps.append(Step(("x",), ("z",)))  # one that has no twin
    for branch in range(branches):
        for part, item in enumerate(sizes):
            reads = "x" if part == 0 else f"b{branch}_{part - 1}"
            steps.append(Step((reads,), (f"b{branch}_{part}",), in_place))
            size[f"b{branch}_{part}"] = item
    steps.append(Step(("z", *(f"b{branch}_{len(sizes) - 1}" for branch in range(branches))), ("y",)))
    case = Case(tuple(steps), size, ("x",), ("y",), ())
    best = best_order(steps, size, ["x"], ["y"])
    assert best.exact
    assert best.peak_bytes == min(case.peak(order) for order in case.orders())


def test_forty_equal_branches_are_ordered_as_well() -> None:
    steps, sizes = [], {"x": 1, "y": 1}
    for part in range(4):
        for branch in range(40):
            steps.append(Step(("x" if part == 0 else f"b{branch}_{part - 1}",), (f"b{branch}_{part}",)))
            sizes[f"b{branch}_{part}"] = (40, 60, 20, 3)[part]
    steps.append(Step(tuple(f"b{branch}_3" for branch in range(40)), ("y",)))
    assert best_order(steps, sizes, ["x"], ["y"]).peak_bytes == 39 * 3 + 100


@given(cases(most=7))
@settings(max_examples=100, deadline=None)
def test_cuts_are_where_everything_before_precedes_everything_after(case: Case) -> None:
    program = Program(case.steps, case.inputs, case.outputs, case.held)
    ancestors: list[set[int]] = []
    for direct in program.before:
        ancestors.append({*direct, *(item for step in direct for item in ancestors[step])})
    count = len(ancestors)
    cuts = [p for p in range(count + 1) if all(set(range(p)) <= ancestors[step] for step in range(p, count))]
    assert list(program.cuts) == (cuts or [0])


def test_a_wide_graph_takes_bounded_work() -> None:
    """300 branches with sizes of their own: the search gives up in time, and says how far it may be off."""
    random = Random(1)
    steps, sizes = [], {"x": 1, "y": 1}
    for branch in range(300):
        steps.append(Step(("x",), (f"a{branch}",)))
        sizes[f"a{branch}"] = random.randint(1, 1000)
    for branch in range(300):
        steps.append(Step((f"a{branch}", f"a{(branch * 7 + 1) % 300}"), (f"b{branch}",)))
        sizes[f"b{branch}"] = random.randint(1, 1000)
    steps.append(Step(tuple(f"b{branch}" for branch in range(300)), ("y",)))
    start = thread_time()
    found = best_order(steps, sizes, ["x"], ["y"])
    assert thread_time() - start < 1.0  # seconds; a tenth of it on an idle machine
    assert found.lower_bound <= found.peak_bytes <= found.given_bytes
