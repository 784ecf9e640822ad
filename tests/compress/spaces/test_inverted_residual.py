"""The inverted residual family: sizes worked by hand, every plan builds, refusals, what each target gets."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import nn

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.spaces.inverted_residual import PER_STAGE, SPACE, Bottleneck, InvertedResidual, Kind, Plan

IMAGE = (1, 28, 28)
LOG_MEL = (1, 40, 98)
SIGNAL = (1, 4000)
SMALL = Plan(2, ("depthwise",), (16,), (1,), (6,), (3,))


def space(
    shape: Sequence[int] = IMAGE, multiple: int = 4, family: str = "cortex-m", outputs: int = 10
) -> InvertedResidual:
    return SPACE(SpaceContext(None, torch.zeros(2, *shape), outputs, multiple, family))


def macs(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates of convolutions and linear layers for one example."""
    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        total += output[0].numel() * weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return total


def decisions(plan: Plan) -> dict[str, object]:
    """What a plan decides, by name; a stage is there or not as one decision, what it is are further ones."""
    each = {f"{name} {i}": value for name in PER_STAGE for i, value in enumerate(getattr(plan, name))}
    return {"stem_stride": plan.stem_stride, "last": plan.last, "stages": len(plan.widths)} | each


@pytest.mark.parametrize(
    ("kind", "expansion", "kernel", "expected"),
    [
        ("depthwise", 6, 3, 14 * 14 * 16 * 6 * (16 + 9 + 24)),  # h w d t (d + k^2 + e), section 3.3 of MobileNetV2
        ("depthwise", 6, 5, 14 * 14 * 16 * 6 * (16 + 25 + 24)),
        ("depthwise", 1, 3, 14 * 14 * 16 * (9 + 24)),
        ("fused", 4, 3, 14 * 14 * 16 * 4 * (16 * 9 + 24)),
        ("fused", 1, 3, 14 * 14 * 16 * 24 * 9),
    ],
)
def test_macs_of_a_block_equal_those_worked_by_hand(kind: Kind, expansion: int, kernel: int, expected: int) -> None:
    block = Bottleneck(kind, 16, 24, expansion, (kernel, kernel), (1, 1))
    assert macs(block, (16, 14, 14)) == expected


def test_macs_and_parameters_of_a_network_equal_those_worked_by_hand() -> None:
    plan = Plan(2, ("depthwise", "fused"), (16, 24), (1, 2), (6, 2), (3, 3), 64)
    network = space().build(plan)
    stem = 14 * 14 * 16 * 9
    first = 14 * 14 * 16 * 6 * (16 + 9 + 16)
    second = 7 * 7 * (16 * 2 * (16 * 9 + 24) + 24 * 2 * (24 * 9 + 24))
    assert macs(network, IMAGE) == stem + first + second + 7 * 7 * 24 * 64 + 64 * 10
    weights = 16 * 9 + 96 * (16 + 9 + 16) + 32 * (16 * 9 + 24) + 48 * (24 * 9 + 24) + 24 * 64 + 64 * 10 + 10
    norms = 2 * (16 + (96 + 96 + 16) + (32 + 24) + (48 + 24) + 64)
    assert sum(parameter.numel() for parameter in network.parameters()) == weights + norms


def test_what_is_projected_is_not_activated_and_added_where_shapes_allow() -> None:
    torch.manual_seed(0)
    for kind, expansion in (("depthwise", 3), ("fused", 2)):
        block = Bottleneck(kind, 8, 8, expansion, (3, 3), (1, 1)).eval()  # type: ignore[arg-type]
        x = torch.randn(2, 8, 6, 6)
        inside = block.project(block.filter(block.widen(x)))
        assert inside.min() < 0
        torch.testing.assert_close(block(x), x + inside)
    assert not Bottleneck("depthwise", 8, 8, 3, (3, 3), (2, 2)).adds
    assert not Bottleneck("depthwise", 8, 16, 3, (3, 3), (1, 1)).adds


def test_each_family_gets_what_its_kernels_are_good_at() -> None:
    gpu = space(multiple=16, family="nvidia-gpu")
    assert gpu.offered["kinds"] == ("fused",)
    assert gpu.offered["kernels"] == (3,)
    assert all(width % 16 == 0 for width in (*gpu.offered["widths"], *gpu.offered["last"]))
    assert not any(
        isinstance(module, nn.Conv2d) and module.groups > 1 for p in gpu.corners() for module in gpu.build(p).modules()
    )
    assert space().offered["kinds"] == ("depthwise", "fused")


@pytest.mark.parametrize(
    ("shape", "family"),
    [(IMAGE, "nvidia-gpu"), (LOG_MEL, "cortex-m"), (SIGNAL, "cortex-m"), ((3, 5, 2), "x86-cpu"), ((2, 1), "ethos-u")],
)
def test_every_plan_builds_and_runs(shape: tuple[int, ...], family: str) -> None:
    members = space(shape, 4, family, outputs=7)
    rng = random.Random(0)
    for _ in range(6):
        network = members.build(members.sample(rng)).eval()
        assert network(torch.randn(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize("shape", [IMAGE, SIGNAL])
def test_a_mutation_changes_exactly_one_decision(shape: tuple[int, ...]) -> None:
    members = space(shape)
    rng = random.Random(1)
    plan = members.sample(rng)
    for _ in range(300):
        mutated = members.mutate(plan, rng)
        assert members.wrong_with(mutated) is None
        before, after = decisions(plan), decisions(mutated)
        changed = [name for name in before.keys() & after.keys() if before[name] != after[name]]
        assert len(changed) == 1
        if changed == ["stages"]:
            last = max(len(plan.widths), len(mutated.widths)) - 1
            assert before.keys() ^ after.keys() == {f"{name} {last}" for name in PER_STAGE}
        else:
            assert before.keys() == after.keys()
        plan = mutated


def test_a_crossover_decides_everything_as_one_of_its_parents() -> None:
    members = space()
    rng = random.Random(4)
    for _ in range(200):
        parents = members.sample(rng), members.sample(rng)
        child = members.crossover(*parents, rng)
        assert members.wrong_with(child) is None
        either = [decisions(parent) for parent in parents]
        for name, value in decisions(child).items():
            assert value in [parent[name] for parent in either if name in parent]
        assert members.crossover(parents[0], parents[0], rng) == parents[0]


def test_small_and_large_members_are_drawn_and_tiny_ones_exist() -> None:
    members = space()
    rng = random.Random(0)
    costs = sorted(macs(members.build(members.sample(rng)), IMAGE) for _ in range(20))
    assert costs[3] < 1e6
    assert costs[-2] > 8e6
    tiny = [plan for plan in members.corners() if plan.depths == (1,)]
    assert min(macs(members.build(plan), IMAGE) for plan in tiny) < 30e3


def test_plans_survive_json_and_hash_as_equals() -> None:
    members = space()
    rng = random.Random(3)
    for plan in [*members.corners(), *(members.sample(rng) for _ in range(20))]:
        assert members.from_json(plan.to_json()) == plan
        assert hash(members.from_json(plan.to_json())) == hash(plan)
    assert hash(SMALL) != hash(replace(SMALL, last=16))
    assert hash(SMALL) == STORED_HASH


STORED_HASH = 40638873786659405  # of SMALL, in every process and version


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kinds": ["dense"]}, "dense"),
        ({"stem_stride": 3}, r"stem_stride \[3\]"),
        ({"widths": [17]}, r"widths \[17\]"),
        ({"depths": [1, 1]}, r"lists of \[1, 2\] stages"),
        ({"expansions": [5]}, r"expansions \[5\]"),
        ({"last": 5}, r"last \[5\]"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_plan_of_another_space_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        space().from_json(SMALL.to_json() | change)


@pytest.mark.parametrize("shape", [(64,), (3, 4, 5, 6)])
def test_features_that_are_no_image_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError, match="derived"):
        space(shape)
