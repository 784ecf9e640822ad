"""The space of cells: sizes worked by hand, decisions, refusals. That plans export is in test_every_space.py."""

import random
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.selection.skeletons import multiply_accumulates
from compress.spaces.cells import DENSE, KEPT, NODES, SEPARABLE, SPACE, Cells, Plan
from compress.structure.cell_network import NONE

IMAGE = (1, 28, 28)
SIGNAL = (2, 1000)
RESIDUAL = (((0, "conv_3x3"),), ((0, "skip"), (1, "conv_3x3")), ((2, "skip"),))


def space(shape: Sequence[int] = IMAGE, multiple: int = 8, family: str = "cortex-m", outputs: int = 10) -> Cells:
    return SPACE(SpaceContext(None, torch.zeros(2, *shape), outputs, multiple, family))


def decisions(plan: Plan) -> dict[str, object]:
    """What a plan decides, by name."""
    return {
        "stem_stride": plan.stem_stride,
        "channels": plan.channels,
        "stages": len(plan.cells),
        **{f"cells {i}": count for i, count in enumerate(plan.cells)},
        **{f"node {i}": kept for i, kept in enumerate(plan.nodes)},
    }


def test_macs_and_parameters_equal_those_worked_by_hand() -> None:
    network = space().build(Plan(2, 8, (1, 1), RESIDUAL))
    stem = 14 * 14 * 8 * 9
    first = 14 * 14 * 2 * 8 * 8 * 9
    second = 7 * 7 * (8 * 16 * 9 + 2 * 16 * 16 * 9)
    assert multiply_accumulates(network, torch.zeros(1, *IMAGE)) == stem + first + second + 16 * 10
    weights = 8 * 9 + 2 * 8 * 8 * 9 + 8 * 16 * 9 + 2 * 16 * 16 * 9 + 16 * 10 + 10
    norms = 2 * (8 + 2 * 8 + 16 + 2 * 16)
    assert sum(parameter.numel() for parameter in network.parameters()) == weights + norms


@pytest.mark.parametrize("shape", [IMAGE, SIGNAL, (3, 5, 2), (2, 1)])
def test_every_plan_builds_and_runs(shape: tuple[int, ...]) -> None:
    members, rng = space(shape, 4, outputs=7), random.Random(0)
    for plan in [members.sample(rng) for _ in range(6)] + [members.corners()[0]]:
        assert members.wrong_with(plan) is None
        assert members.build(plan).eval()(torch.randn(3, *shape)).shape == (3, 7)


def test_every_operation_keeps_the_shape_and_reaches_the_output() -> None:
    members = space()
    for name in SEPARABLE[1:]:
        network = members.build(Plan(2, 8, (1,), (((0, name),), ((1, name),), ((2, name),)))).train()
        x = torch.randn(2, *IMAGE, requires_grad=True)
        network(x).square().sum().backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters()), name


def test_depthwise_is_not_offered_where_it_is_padded() -> None:
    assert space(family="nvidia-gpu").operations == DENSE
    assert not any("separable" in name for name in DENSE)


def test_a_mutation_changes_exactly_one_decision() -> None:
    members, rng = space(), random.Random(1)
    plan = members.sample(rng)
    for _ in range(400):
        mutated = members.mutate(plan, rng)
        assert members.wrong_with(mutated) is None
        before, after = decisions(plan), decisions(mutated)
        changed = [name for name in before.keys() & after.keys() if before[name] != after[name]]
        assert len(changed) == 1
        assert (changed == ["stages"]) == (before.keys() != after.keys())
        if changed[0].startswith("node"):
            old, new = (set(p.nodes[int(changed[0][-1])]) for p in (plan, mutated))
            assert len(old - new) <= 1 >= len(new - old)  # one edge comes, goes, or is another
        plan = mutated


def test_a_crossover_takes_every_decision_from_a_parent() -> None:
    members, rng = space(), random.Random(2)
    for _ in range(50):
        one, other = members.sample(rng), members.sample(rng)
        child = members.crossover(one, other, rng)
        assert members.wrong_with(child) is None
        for name in ("stem_stride", "channels", "cells"):
            assert getattr(child, name) in (getattr(one, name), getattr(other, name))
        assert all(child.nodes[n] in (one.nodes[n], other.nodes[n]) for n in range(NODES))
        assert members.crossover(one, one, rng) == one


def test_corners_hold_the_smallest_and_the_largest() -> None:
    members = space()
    corners = members.corners()
    assert len(set(corners)) == len(corners)
    assert all(members.wrong_with(plan) is None for plan in corners)
    macs = [multiply_accumulates(members.build(plan), torch.zeros(1, *IMAGE)) for plan in (corners[0], corners[1])]
    assert macs[0] < 60e3
    assert macs[0] < macs[1]
    assert {plan.channels for plan in corners} >= {members.widths[0], members.widths[-1]}


def test_widths_are_multiples_of_what_the_target_wants_and_skeletons_cover_them() -> None:
    assert space(multiple=16).widths == (16, 32, 48, 64)
    members = space(multiple=32)
    assert members.widths == (32, 64)
    assert len(set(members.skeletons())) == len(members.strides) * members.stages * 3 * 2
    assert space((1, 200, 200)).strides == (4, 8, 16)
    assert space((1, 8, 8)).strides == (1, 2)


def test_a_plan_survives_json_and_hashes_the_same_in_every_process() -> None:
    members, rng = space(), random.Random(3)
    for plan in [members.sample(rng) for _ in range(20)]:
        assert members.from_json(plan.to_json()) == plan
    text = "Plan(2, 8, (1,), (((0, 'conv_3x3'),), ((0, 'skip'),), ((1, 'skip'),)))"
    code = f"from compress.spaces.cells import Plan; print(hash({text}))"
    salted = {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=salted).stdout
    assert int(there) == hash(Plan(2, 8, (1,), (((0, "conv_3x3"),), ((0, "skip"),), ((1, "skip"),))))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stem_stride": 3}, "reduces by 3"),
        ({"channels": 17}, "17 channels"),
        ({"cells": [9]}, r"\[9\] cells"),
        ({"cells": []}, r"\[\] cells"),
        ({"nodes": [[[0, "skip"]]]}, "wires 1 nodes"),
        ({"nodes": [[[0, "none"]], [[0, "skip"]], [[0, "skip"]]]}, "operation 'none'"),
        ({"nodes": [[[0, "skip"]], [[2, "skip"]], [[0, "skip"]]]}, "wires node 2"),
        ({"nodes": [[[0, "skip"]], [], [[0, "skip"]]]}, "wires node 2"),
        ({"nodes": 5}, "nodes = 5"),
        ({"nodes": [[["in", "skip"]]] * 3}, "no lists of edges"),
        ({"cells": 5}, "cells = 5"),
        ({"stem_stride": 2.0}, r"stem_stride = 2\.0"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_plan_of_another_space_is_refused(change: dict[str, object], says: str) -> None:
    data = {"stem_stride": 2, "channels": 8, "cells": [1], "nodes": [[[0, "skip"]], [[0, "skip"]], [[0, "skip"]]]}
    with pytest.raises(RecipeError, match=says):
        space().from_json(data | change)


def test_features_that_are_no_image_are_refused() -> None:
    with pytest.raises(RecipeError, match="derived"):
        space((64,))


def test_samples_keep_one_or_two_edges_and_never_none() -> None:
    members, rng = space(), random.Random(4)
    for _ in range(50):
        for kept in members.sample(rng).nodes:
            assert 1 <= len(kept) <= KEPT
            assert NONE not in {name for _, name in kept}
