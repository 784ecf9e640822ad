"""Students cut out of many kinds of teachers: what must hold for every plan, and what must stay whole."""

import importlib.util
import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.spaces.derived import SPACE, Derived, Plan
from compress.structure.proofs import silenced

# Tests are imported by path, without packages: the teachers beside this file too.
_spec = importlib.util.spec_from_file_location("teachers_of_the_spaces", Path(__file__).with_name("teachers.py"))
assert _spec is not None
assert _spec.loader is not None
_teachers = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = _teachers
_spec.loader.exec_module(_teachers)
TEACHERS, SHAPE, teacher = _teachers.TEACHERS, _teachers.SHAPE, _teachers.teacher

SUM_ORDER = 1e-4  # of the largest output: float32 sums over fewer terms are taken in another order


def space(network: nn.Module | None, multiple: int = 16) -> Derived:
    torch.manual_seed(1)
    return SPACE(SpaceContext(network, torch.randn(3, *SHAPE), 10, multiple, "nvidia-gpu"))


def everything(derived: Derived) -> Plan:
    return derived.plan({group.name: group.channels for group in derived.groups}, ())


def decisions(derived: Derived, plan: Plan) -> list[dict[str, int]]:
    """Widths, kernels, head and resolution by name; what is left out is not among them."""
    kernels = {name: derived.kernels[name][-1] for name in derived.convolutions(plan.dropped)}
    return [dict(plan.widths), kernels | dict(plan.kernels), {"pooled": plan.pooled}, {"shrink": plan.shrink}]


@pytest.mark.parametrize("name", TEACHERS)
def test_the_full_plan_is_the_teacher(name: str) -> None:
    network = teacher(name)
    derived = space(network)
    student = derived.build(everything(derived)).eval()
    x = torch.randn(4, *SHAPE)
    assert torch.equal(student(x), network(x))
    assert all(student.state_dict()[key].data_ptr() != value.data_ptr() for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", TEACHERS)
def test_every_plan_runs_keeps_the_output_and_is_no_larger(name: str) -> None:
    network = teacher(name)
    derived = space(network)
    rng = random.Random(0)
    total = sum(p.numel() for p in network.parameters())
    plans = [*(derived.sample(rng) for _ in range(8)), *derived.corners()[:4]]
    for plan in plans:
        assert derived.from_json(plan.to_json()) == plan
        student = derived.build(plan)
        assert student.training
        assert all(p.requires_grad for p in student.parameters())
        answer = student(torch.randn(3, *SHAPE))
        assert answer.shape == (3, 10)
        answer.square().mean().backward()
        # A state written by one build is read by another of the same plan.
        derived.build(plan).load_state_dict(student.state_dict())
        count = sum(p.numel() for p in student.parameters())
        assert count <= total
        if dict(plan.widths) != dict(everything(derived).widths):
            assert count < total


@pytest.mark.parametrize("name", TEACHERS)
def test_widths_are_as_planned_and_weights_are_the_teachers(name: str) -> None:
    network = teacher(name)
    derived = space(network)
    rng = random.Random(1)
    for _ in range(6):
        plan = derived.plan(dict(derived.sample(rng).widths), ())
        student = derived.build(plan).state_dict()
        expected = dict(network.state_dict())
        for group in derived.groups:
            kept = group.kept(dict(plan.widths)[group.name])
            assert len(kept) == dict(plan.widths)[group.name]
            for piece in group.slices:
                for tensor, dim in piece.tensors:
                    whole = expected[f"{piece.layer}.{tensor}"]
                    gone = set(range(group.channels)) - set(kept.tolist())
                    # Mark what goes; what stays is compared below, when all groups have marked theirs.
                    positions = piece.positions[sorted(gone)].flatten()
                    expected[f"{piece.layer}.{tensor}"] = whole.index_fill(dim, positions, torch.nan)
        for key, value in student.items():
            stays = expected[key]
            if stays.is_floating_point():
                stays = stays[~stays.isnan()]
            assert torch.equal(value.flatten(), stays.flatten()), key


@pytest.mark.parametrize("name", ["plain", "residual", "separable", "concat", "perceptron", "gated", "transformer"])
def test_a_cut_network_answers_like_the_teacher_with_these_channels_silenced(name: str) -> None:
    network = teacher(name)
    derived = space(network)
    x = torch.randn(5, *SHAPE)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for group in derived.groups:
        for width in derived.offered[group.name][:-1]:
            widths = {other.name: other.channels for other in derived.groups} | {group.name: width}
            answer = derived.build(derived.plan(widths, ())).eval()(x)
            expected = silenced(network, group, width, x)
            assert (answer - expected).abs().max() <= SUM_ORDER * expected.abs().max()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", TEACHERS)
def test_widths_suit_the_kernels(name: str) -> None:
    derived = space(teacher(name))
    for group in derived.groups:
        *smaller, whole = derived.offered[group.name]
        assert whole == group.channels
        assert smaller
        assert all(width % 16 == 0 and width % group.sections == 0 for width in smaller)


@pytest.mark.parametrize("name", TEACHERS)
def test_a_mutation_changes_one_decision(name: str) -> None:
    derived = space(teacher(name))
    rng = random.Random(2)
    plan = derived.sample(rng)
    for _ in range(60):
        mutated = derived.mutate(plan, rng)
        blocks = set(plan.dropped) ^ set(mutated.dropped)
        changed = [
            key
            for before, after in zip(decisions(derived, plan), decisions(derived, mutated), strict=True)
            for key in before.keys() & after.keys()
            if before[key] != after[key]
        ]
        assert len(blocks) + len(changed) == 1
        assert derived.from_json(mutated.to_json()) == mutated
        plan = mutated


@pytest.mark.parametrize("name", TEACHERS)
def test_a_crossover_decides_everything_as_one_of_its_parents(name: str) -> None:
    derived = space(teacher(name))
    rng = random.Random(6)
    for _ in range(40):
        parents = derived.sample(rng), derived.sample(rng)
        child = derived.crossover(*parents, rng)
        assert derived.from_json(child.to_json()) == child
        dropped = [set(parent.dropped) for parent in parents]
        assert dropped[0] & dropped[1] <= set(child.dropped) <= dropped[0] | dropped[1]
        for ours, *theirs in zip(*(decisions(derived, plan) for plan in (child, *parents)), strict=True):
            for key, value in ours.items():
                assert value in [parent[key] for parent in theirs if key in parent]
        assert derived.crossover(parents[0], parents[0], rng) == parents[0]


def test_equal_networks_have_equal_plans() -> None:
    derived = space(teacher("residual"))
    inner = next(group for group in derived.groups if group.name.startswith("stages.0.1.first"))
    widths = {group.name: group.channels for group in derived.groups}
    one = derived.plan(widths, ("stages.0.1",))
    other = derived.plan(widths | {inner.name: 16}, ("stages.0.1",))
    assert one == other
    assert hash(one) == hash(other)
    assert inner.name not in dict(one.widths)


def test_dropping_a_residual_block_leaves_what_the_others_compute() -> None:
    network = teacher("residual")
    derived = space(network)
    assert derived.blocks == ("stages.0.0", "stages.0.1", "stages.1.1", "stages.2.1")
    student = derived.build(derived.plan({}, ("stages.0.1", "stages.2.1"))).eval()
    network.get_submodule("stages.0")[1] = nn.Identity()  # type: ignore[operator, index]
    network.get_submodule("stages.2")[1] = nn.Identity()  # type: ignore[operator, index]
    x = torch.randn(2, *SHAPE)
    assert torch.equal(student(x), network(x))


def test_blocks_are_found_without_addition_and_with_gates_inside() -> None:
    assert space(teacher("separable")).blocks == ("4", "6", "7")
    assert space(teacher("gated")).blocks == ("stage.0", "stage.1", "stage.2")
    assert space(teacher("transformer")).blocks == ("blocks.0", "blocks.1", "blocks.2")
    assert space(teacher("plain")).blocks == ("8",)  # the hidden layer of its head


def test_coupled_layers_share_one_group() -> None:
    derived = space(teacher("separable"))
    coupled = {group.name: {piece.layer for piece in group.slices} for group in derived.groups}
    # Blocks 6 and 7 can be left out, so both ends of each have one width with the block before.
    assert coupled["5.3"] >= {"5.3", "6.0", "6.3", "7.0", "7.3", "10"}


@pytest.mark.parametrize(
    ("name", "layer", "says"),
    [
        ("plain", "10", "outputs"),
        ("transformer", "patch", "parameter outside"),
        ("transformer", "blocks.0.attention.qkv", "pattern"),
        ("shared", "first", "runs 2 times"),
        ("grouped", "grouped", "grouped convolution"),
        ("recurrent", "first", "followed"),
        ("gated", "stage.0.gate.down", "multiple of 16"),
    ],
)
def test_what_stays_whole_has_a_reason(name: str, layer: str, says: str) -> None:
    derived = space(teacher(name))
    assert says in derived.whole[layer]
    assert layer not in derived.offered


def test_the_most_important_channels_stay() -> None:
    network = teacher("perceptron")
    with torch.no_grad():
        for layer in (network[1], network[3]):  # type: ignore[index]
            layer.weight.fill_(0.01)
        network[1].weight[40:56] = 1.0  # type: ignore[index]
    derived = space(network)
    group = next(group for group in derived.groups if group.name == "1")
    assert group.kept(16).tolist() == list(range(40, 56))
    # Equal channels keep their order.
    assert group.kept(32).tolist() == [*range(16), *range(40, 56)]


def test_group_norm_keeps_as_many_channels_of_each_group() -> None:
    derived = space(teacher("group_normed"))
    (group,) = derived.groups
    assert group.sections == 8
    kept = group.kept(32)
    assert torch.bincount(kept // 8).tolist() == [4] * 8
    student = derived.build(derived.plan({group.name: 32}, ()))
    assert student.get_submodule("norm1").num_groups == 4
    assert student.get_submodule("norm1").num_channels == 32


def test_the_teacher_is_untouched_and_frozen_parameters_become_trainable() -> None:
    network = teacher("residual").requires_grad_(False)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    derived = space(network)
    student = derived.build(derived.corners()[0])
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert all(p.requires_grad for p in student.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_the_same_teacher_gives_the_same_space() -> None:
    one, other = space(teacher("residual")), space(teacher("residual"))
    assert one.corners() == other.corners()
    assert one.sample(random.Random(5)) == other.sample(random.Random(5))
    first, second = (each.build(each.corners()[0]).state_dict() for each in (one, other))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_plans_of_earlier_versions_are_read_and_print_and_hash_as_before() -> None:
    derived = space(teacher("residual"))
    data = {"widths": {group.name: group.channels for group in derived.groups}, "dropped": []}
    plan = derived.from_json(data)
    assert plan.to_json() == {"widths": dict(sorted(data["widths"].items())), "dropped": []}
    assert plan == everything(derived)
    assert hash(Plan((("stem", 16),), ("block",))) == 35910302589942371


def test_kernels_and_resolution_are_as_planned_and_the_centre_is_the_teachers() -> None:
    network = teacher("residual")
    derived = space(network)
    widths = {group.name: group.channels for group in derived.groups}
    plan = derived.plan(widths, ("stages.0.1",), {"stages.0.1.first.0": 1, "stages.2.1.first.0": 1}, shrink=2)
    assert plan.kernels == (("stages.2.1.first.0", 1),)  # the other lies in a block that is left out
    assert plan.to_json()["shrink"] == 2
    student = derived.build(plan)
    whole = network.get_parameter("stages.2.1.first.0.weight")
    assert torch.equal(student.get_parameter("stages.2.1.first.0.weight"), whole[:, :, 1:2, 1:2])
    sizes: list[torch.Size] = []
    student.get_submodule("stem").register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape))
    student.eval()(torch.randn(2, *SHAPE))
    assert sizes == [(2, 1, 14, 14)]


def test_a_head_is_left_out_and_reads_averages() -> None:
    derived = space(teacher("plain"))
    assert derived.shrinks == {False: (1,), True: (1, 2, 4)}  # the flattened map has one size only
    with pytest.raises(ValueError, match="shrink 2"):
        derived.plan({}, (), shrink=2)
    student = derived.build(derived.plan({"0": 16, "4": 32}, ("8",), pooled=True, shrink=4))
    assert student.get_parameter("10.weight").shape == (10, 32)
    assert student(torch.randn(3, *SHAPE)).shape == (3, 10)
    assert "8" not in dict(derived.plan({}, ("8",)).widths)


def test_a_black_box_is_refused() -> None:
    with pytest.raises(RecipeError, match="black box") as caught:
        space(None)
    assert "int8_conv" in caught.value.fix


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
        nn.Sequential(nn.Conv2d(1, 8, 28), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10)),
    ],
)
def test_a_teacher_with_nothing_to_scale_is_refused(network: nn.Module) -> None:
    with pytest.raises(RecipeError, match="left out") as caught:
        space(network.eval())
    assert "int8_conv" in caught.value.fix


def test_a_teacher_that_does_not_take_the_features_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot be traced"):
        space(nn.Sequential(nn.Linear(5, 64), nn.Linear(64, 10)).eval())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": 1}, "colour"),
        ({"dropped": ["stem"]}, "stem"),
        ({"widths": {"nothing": 16}}, "nothing"),
        ({"kernels": {"head": 1}}, "head"),
        ({"kernels": {"stages.0.0.first.0": 2}}, "this one 2"),
        ({"pooled": True}, "pooled"),
        ({"shrink": 3}, "shrink"),
    ],
)
def test_a_plan_for_another_teacher_is_refused(change: dict[str, object], says: str) -> None:
    derived = space(teacher("residual"))
    with pytest.raises(RecipeError, match=says):
        derived.from_json(everything(derived).to_json() | change)
    odd = everything(derived).to_json()
    odd["widths"]["stem.0.0"] = 17
    with pytest.raises(RecipeError, match="17"):
        derived.from_json(odd)


@pytest.mark.parametrize("name", ["residual", "separable", "concat", "transformer"])
def test_a_student_exports_with_a_dynamic_batch(name: str) -> None:
    derived = space(teacher(name))
    student = derived.build(derived.corners()[0]).eval()
    batch = torch.export.Dim("batch", min=1, max=256)
    program = torch.export.export(student, (torch.randn(2, *SHAPE),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, *SHAPE)
    torch.testing.assert_close(program.module()(x), student(x))
