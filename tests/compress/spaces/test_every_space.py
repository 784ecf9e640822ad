"""What every student space promises, over random plans: values, networks, files, integers. A new file is tested too.

`tools/fuzz_spaces.py` checks the same for thousands of plans, more inputs and more targets, and the float files too:
here the quantised ones stand for them, which are held to a closer bar.
"""

import itertools
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from compress import catalog
from compress.contracts.space import Space
from compress.errors import RecipeError
from compress.spaces import derived
from tools import fuzz_spaces as fuzz

NAMES = catalog.names(fuzz.SPACES)
EXAMPLES = 6
CASES = (  # kind of input and family; the first that a space takes stands for it in the tests of networks
    ("digits", "nvidia-gpu"),
    ("log_mel", "cortex-m"),
    ("signal", "x86-cpu"),
    ("table", "cortex-m"),
    ("odd_pixels", "cortex-m"),
    ("steps", "x86-cpu"),
    ("tokens", "x86-cpu"),
)


def spaces() -> dict[tuple[str, str, str], Space[Any]]:
    """Every space for every case that it takes."""
    found = {}
    for kind, family in CASES:
        for name, space in fuzz.spaces_of(fuzz.KINDS[kind], family, NAMES):
            found[name, kind, family] = space
    return found


SPACES = spaces()


def near_the_smallest(space: Space[Any], rng: random.Random) -> Any:
    """A random member that is quick to quantise: a few mutations away from the first corner, which is the smallest."""
    plan = space.corners()[0]
    for _ in range(3):
        plan = space.mutate(plan, rng)
    return plan


@pytest.mark.parametrize("name", NAMES)
def test_a_space_takes_some_of_the_inputs(name: str) -> None:
    assert any(case[0] == name for case in SPACES)


@pytest.mark.parametrize("case", SPACES, ids="-".join)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_plans_are_values_that_change_by_one_decision_and_cross(case: tuple[str, str, str], seed: int) -> None:
    space, rng = SPACES[case], random.Random(seed)
    plan = space.sample(rng)
    for other in (space.sample(rng), space.mutate(plan, rng), space.from_json(plan.to_json())):
        fuzz.as_values(space, plan, other, rng)


@pytest.mark.parametrize("case", SPACES, ids="-".join)
def test_corners_are_of_the_space_and_distinct(case: tuple[str, str, str]) -> None:
    space = SPACES[case]
    corners = list(space.corners())
    assert len(corners) >= 2
    assert len(set(corners)) == len(corners)
    assert all(space.from_json(json.loads(json.dumps(plan.to_json()))) == plan for plan in corners)


@pytest.mark.parametrize("case", SPACES, ids="-".join)
def test_the_same_random_numbers_give_the_same_plans(case: tuple[str, str, str]) -> None:
    space = SPACES[case]

    def walk() -> list[Any]:
        rng = random.Random(5)
        plans = [space.sample(rng), space.sample(rng)]
        for _ in range(6):
            plans += [space.mutate(plans[-1], rng), space.crossover(plans[-1], plans[-2], rng)]
        return plans

    assert walk() == walk()


@pytest.mark.parametrize("case", SPACES, ids="-".join)
def test_a_search_reaches_other_plans_from_any(case: tuple[str, str, str]) -> None:
    """No plan is a dead end: mutations lead away from it, to more than one other."""
    space, rng = SPACES[case], random.Random(2)
    for plan in [space.sample(rng), *list(space.corners())[:1]]:
        assert len({space.mutate(plan, rng) for _ in range(40)} - {plan}) >= 2


@pytest.mark.parametrize("case", [case for case in SPACES if case[0] not in ("derived",)], ids="-".join)
def test_widths_are_multiples_of_what_the_target_wants(case: tuple[str, str, str]) -> None:
    space, rng = SPACES[case], random.Random(1)
    multiple = fuzz.context(fuzz.KINDS[case[1]], case[2]).width_multiple
    for _ in range(20):
        data = space.sample(rng).to_json()
        widths = [data[key] for key in ("widths", "width", "channels", "last") if key in data]
        flat = list(itertools.chain.from_iterable(w if isinstance(w, list) else [w] for w in widths))
        assert flat
        assert all(width % multiple == 0 for width in flat)


@pytest.mark.parametrize("case", SPACES, ids="-".join)
def test_a_stored_plan_that_is_damaged_is_refused(case: tuple[str, str, str]) -> None:
    space, rng = SPACES[case], random.Random(3)
    data = space.sample(rng).to_json()
    damaged = [{**data, "colour": 1}, {}]
    damaged += [{**data, key: wrong} for key in data for wrong in (None, -7, "none such", [-7], ["none such"])]
    for content in damaged:
        with pytest.raises(RecipeError) as refusal:
            space.from_json(content)
        assert refusal.value.fix, content


PLANS = {case: [space.sample(random.Random(seed)) for seed in range(4)] for case, space in SPACES.items()}


def test_hashes_are_the_same_in_a_process_that_salts_its_texts() -> None:
    plans = [plan for drawn in PLANS.values() for plan in drawn]
    code = "import pickle, sys; print([hash(plan) for plan in pickle.load(sys.stdin.buffer)])"
    salted = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[3]
    there = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        input=pickle.dumps(plans), capture_output=True, check=True, env=salted, cwd=root,
    )  # fmt: skip
    assert json.loads(there.stdout) == [hash(plan) for plan in plans]


@pytest.mark.parametrize("case", SPACES, ids="-".join)
def test_plans_build_alike_answer_in_shape_and_train(case: tuple[str, str, str]) -> None:
    name, kind, _ = case
    torch.manual_seed(0)
    fuzz.built(SPACES[case], near_the_smallest(SPACES[case], random.Random(f"build {name}")), fuzz.KINDS[kind])


# One whole path per space, each for another input and family, so that together they meet every family.
PATHS = {name: [case for case in SPACES if case[0] == name] for name in NAMES}
WHOLE = [cases[number % len(cases)] for number, cases in enumerate(PATHS.values()) if cases]


def one_percent_off(path: Path) -> Path:
    """The file with one wrong step: of the activation in the middle, in its Q/DQ pair alone."""
    model = onnx.load(path)
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    pair = pairs[len(pairs) // 2]
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == pair.input[1])
    wrong = (numpy_helper.to_array(scale) * 1.01).astype("float32")
    model.graph.initializer.append(numpy_helper.from_array(wrong, "wrong_scale"))
    for node in model.graph.node:
        if node is pair or (node.op_type == "DequantizeLinear" and node.input[0] == pair.output[0]):
            node.input[1] = "wrong_scale"
    onnx.save(model, path.with_name("wrong.onnx"))
    return path.with_name("wrong.onnx")


@pytest.mark.parametrize("case", WHOLE, ids="-".join)
def test_a_plan_exports_and_quantises(case: tuple[str, str, str], tmp_path: Path) -> None:
    name, kind, family = case
    torch.manual_seed(0)
    network = fuzz.built(SPACES[case], near_the_smallest(SPACES[case], random.Random(name)), fuzz.KINDS[kind])
    quantizer = fuzz.profiles.target(fuzz.TARGETS[family]).quantizer
    prepared = fuzz.quantised(network, fuzz.KINDS[kind], quantizer, tmp_path / "model.onnx")
    with pytest.raises(AssertionError, match=r"of \d+ (examples|positions) differ"):
        fuzz.same_codes(prepared, one_percent_off(tmp_path / "model.onnx"), fuzz.KINDS[kind].draw(16))
    made = fuzz.made(family, prepared, tmp_path / "model.onnx", tmp_path, False)
    assert made == ("C" if family == "cortex-m" else "")


def test_the_measure_of_one_decision_counts_what_it_should() -> None:
    data = {"kind": "a", "widths": [8, 16], "depths": [1, 1], "dropped": ["x", "y"], "edges": [[[0, "c"], [1, "d"]]]}
    assert fuzz.changes(data, data) == 0
    assert fuzz.changes(data, {**data, "kind": "b"}) == 1
    assert fuzz.changes(data, {**data, "kind": "b", "widths": [8, 8]}) == 2
    assert fuzz.changes(data, {**data, "widths": [16, 8]}) == 2
    assert fuzz.changes(data, {**data, "widths": [8, 16, 16], "depths": [1, 1, 1]}) == 1
    assert fuzz.changes(data, {**data, "widths": [8, 24, 16], "depths": [1, 1, 1]}) == 1 + 0
    assert fuzz.changes(data, {**data, "dropped": ["y"]}) == 1
    assert fuzz.changes(data, {**data, "dropped": []}) == 2
    assert fuzz.changes(data, {**data, "edges": [[[1, "d"], [2, "c"]]]}) == 1
    assert not fuzz.of_neither(data, data, {**data, "kind": "b"})
    assert fuzz.of_neither({**data, "widths": [8, 24]}, data, {**data, "widths": [8]}) == ["/widths/1"]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("derived", "unet")])
def test_one_answer_per_example_is_no_answer_for_every_position(name: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        catalog.load(fuzz.SPACES, name).SPACE(fuzz.context(fuzz.KINDS["pixels"], "x86-cpu"))
    assert "unet" in (refusal.value.fix or "")


def test_derived_is_there_for_every_input() -> None:
    """The space that needs no rule for an input: whatever numbers the teacher reads, its students read."""
    assert {case[1] for case in SPACES if case[0] == "derived"} == {kind for kind, _ in CASES} - {"tokens"}
    assert derived.SPACE
