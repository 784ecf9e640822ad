from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.liveness import peak_bytes


@dataclass(frozen=True)
class Step:
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_place: bool = False


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


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[Step], dict[str, int], list[str], list[str]]:
    count = draw(st.integers(1, 9))
    inputs = [f"i{index}" for index in range(draw(st.integers(1, 3)))]
    known = list(inputs)
    steps = []
    for index in range(count):
        reads = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        writes = [f"s{index}_{part}" for part in range(draw(st.integers(1, 2)))]
        steps.append(Step(tuple(reads), tuple(writes), draw(st.booleans())))
        known += writes
    sizes = {name: draw(st.integers(1, 100)) for name in known}
    outputs = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
    return steps, sizes, inputs, outputs


def brute_force(steps: list[Step], sizes: dict[str, int], inputs: list[str], outputs: list[str]) -> int:
    """For every step ask of every tensor whether it exists yet and whether anybody needs it still."""

    def born(name: str) -> int:
        return -1 if name in inputs else next(i for i, step in enumerate(steps) if name in step.writes)

    def dies(name: str) -> int:
        if name in outputs:
            return len(steps)
        return max([i for i, step in enumerate(steps) if name in (*step.reads, *step.writes)], default=-1)

    peak = sum(sizes[name] for name in inputs)
    for i, step in enumerate(steps):
        needed = sum(size for name, size in sizes.items() if born(name) <= i <= dies(name))
        if step.in_place and len(step.writes) == 1:
            new = sizes[step.writes[0]]
            if any(dies(name) == i and sizes[name] >= new for name in step.reads):
                needed -= new
        peak = max(peak, needed)
    return peak


@given(programs())
@settings(max_examples=300, deadline=None)
def test_equals_brute_force_on_random_programs(
    program: tuple[list[Step], dict[str, int], list[str], list[str]],
) -> None:
    steps, sizes, inputs, outputs = program
    assert peak_bytes(steps, sizes, inputs, outputs) == brute_force(steps, sizes, inputs, outputs)
