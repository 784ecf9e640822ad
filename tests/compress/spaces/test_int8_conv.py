"""The int8 convolutional family: sizes worked by hand, every plan builds and exports, refusals."""

import io
import random
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.spaces.int8_conv import MOST_DEPTH, SPACE, Int8Conv, Plan
from compress.structure.convnets import reduced, stem_strides

IMAGE = (1, 28, 28)
LOG_MEL = (1, 40, 98)
SIGNAL = (1, 4000)


def space(shape: Sequence[int] = IMAGE, multiple: int = 16, family: str = "nvidia-gpu", outputs: int = 10) -> Int8Conv:
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
    """What a plan decides, by name; a stage is there or not as one decision, its width and depth are further ones."""
    return {
        "kind": plan.kind,
        "stem_stride": plan.stem_stride,
        "stages": len(plan.widths),
        **{f"width {i}": width for i, width in enumerate(plan.widths)},
        **{f"depth {i}": depth for i, depth in enumerate(plan.depths)},
    }


def test_macs_and_parameters_equal_those_worked_by_hand() -> None:
    network = space().build(Plan("residual", 2, (16, 32), (1, 1)))
    stem = 14 * 14 * 16 * 9
    first = 14 * 14 * 2 * 16 * 16 * 9
    second = 7 * 7 * (16 * 32 * 9 + 32 * 32 * 9 + 16 * 32)  # with the 1x1 shortcut
    assert macs(network, IMAGE) == stem + first + second + 32 * 10
    weights = 16 * 9 + 2 * 16 * 16 * 9 + 16 * 32 * 9 + 32 * 32 * 9 + 16 * 32 + 32 * 10 + 10
    norms = 2 * (16 + 16 + 16 + 32 + 32 + 32)
    assert sum(parameter.numel() for parameter in network.parameters()) == weights + norms


def test_resnet_20_is_a_member() -> None:
    network = space((3, 32, 32)).build(Plan("residual", 1, (16, 32, 64), (3, 3, 3)))
    shortcuts = 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64  # this one has projections, the paper's pads
    # 40.8 M multiply-adds without shortcuts: He et al., arXiv:1512.03385, table 6's ResNet-20 (0.27 M parameters).
    assert macs(network, (3, 32, 32)) - shortcuts == pytest.approx(40.55e6, rel=0.001)
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(0.27e6, rel=0.03)


def test_light_block_has_five_ninths_of_the_residual_one() -> None:
    def block(kind: str) -> int:
        one, two = (macs(space().build(Plan(kind, 1, (32,), (depth,))), IMAGE) for depth in (1, 2))  # type: ignore[arg-type]
        return two - one

    assert 9 * block("light") == 5 * block("residual")


@pytest.mark.parametrize(
    ("shape", "multiple", "family", "most"),
    [
        ((1, 8, 8), 16, "nvidia-gpu", 50e3),
        ((1, 8, 8), 4, "cortex-m", 10e3),
        (IMAGE, 16, "nvidia-gpu", 300e3),
        (LOG_MEL, 4, "cortex-m", 300e3),
    ],
)
def test_tiny_members_exist(shape: tuple[int, ...], multiple: int, family: str, most: float) -> None:
    members = space(shape, multiple, family)
    tiny = [plan for plan in members.corners() if plan.depths == (1,)]
    assert min(macs(members.build(plan), shape) for plan in tiny) < most


def test_the_largest_corner_has_the_widest_and_deepest_of_everything() -> None:
    members = space()
    largest = Plan("residual", members.strides[0], (128,) * members.stages, (MOST_DEPTH,) * members.stages)
    assert largest in members.corners()


@pytest.mark.parametrize(
    ("axes", "strides"),
    [((28, 28), (1, 2, 4)), ((8, 8), (1, 2)), ((40, 98), (2, 4, 8)), ((224, 224), (4, 8, 16)), ((4000,), (8, 16, 32))],
)
def test_stem_reductions_follow_the_input(axes: tuple[int, ...], strides: tuple[int, ...]) -> None:
    assert stem_strides(axes) == strides


def test_a_short_axis_is_reduced_less() -> None:
    assert (reduced(40, 8), reduced(10, 8), reduced(3, 8), reduced(1, 8)) == (8, 2, 1, 1)


def test_widths_are_multiples_of_what_the_target_wants() -> None:
    assert space(multiple=16).widths == (16, 32, 48, 64, 96, 128)
    assert space(multiple=4, family="cortex-m").widths == (8, 12, 16, 24, 32, 48, 64, 96, 128)
    assert all(width % 32 == 0 for width in space(multiple=32).widths)


def test_depthwise_is_not_offered_where_it_is_padded() -> None:
    assert "separable" not in space(family="nvidia-gpu").kinds
    assert "separable" in space(family="cortex-m").kinds


@pytest.mark.parametrize("shape", [IMAGE, LOG_MEL, SIGNAL, (3, 5, 2), (2, 1)])
def test_every_plan_builds_and_runs(shape: tuple[int, ...]) -> None:
    members = space(shape, 4, "cortex-m", outputs=7)
    rng = random.Random(0)
    for _ in range(8):
        network = members.build(members.sample(rng)).eval()
        assert network(torch.randn(3, *shape)).shape == (3, 7)


@pytest.mark.parametrize("shape", [IMAGE, LOG_MEL, SIGNAL])
def test_a_mutation_changes_exactly_one_decision(shape: tuple[int, ...]) -> None:
    members = space(shape, 4, "cortex-m")
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
            assert before.keys() ^ after.keys() == {f"width {last}", f"depth {last}"}
        else:
            assert before.keys() == after.keys()
        plan = mutated


@pytest.mark.parametrize("shape", [IMAGE, SIGNAL])
def test_a_crossover_decides_everything_as_one_of_its_parents(shape: tuple[int, ...]) -> None:
    members = space(shape, 4, "cortex-m")
    rng = random.Random(4)
    children = set()
    for _ in range(200):
        parents = members.sample(rng), members.sample(rng)
        child = members.crossover(*parents, rng)
        assert members.wrong_with(child) is None
        either = [decisions(parent) for parent in parents]
        for name, value in decisions(child).items():
            assert value in [parent[name] for parent in either if name in parent]
        assert members.crossover(parents[0], parents[0], rng) == parents[0]
        children.add(child in parents)
    assert children == {True, False}  # some mix both, a few repeat one of them


def test_samples_cover_small_and_large_members() -> None:
    members = space()
    rng = random.Random(0)
    costs = sorted(macs(members.build(members.sample(rng)), IMAGE) for _ in range(30))
    assert costs[5] < 1e6
    assert costs[-3] > 8e6


def test_a_plan_survives_json_and_hashes_the_same_in_every_process() -> None:
    members = space()
    rng = random.Random(3)
    for plan in [members.sample(rng) for _ in range(20)]:
        assert members.from_json(plan.to_json()) == plan
    code = "from compress.spaces.int8_conv import Plan; print(hash(Plan('light', 2, (16, 32), (1, 2))))"
    salted = {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=salted).stdout
    assert int(there) == hash(Plan("light", 2, (16, 32), (1, 2)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "separable"}, "separable"),
        ({"stem_stride": 3}, "reduces by 3"),
        ({"widths": [17]}, r"\[17\]"),
        ({"depths": [9]}, r"\[9\]"),
        ({"depths": [1, 1]}, "1 widths and 2 depths"),
        ({"colour": 1}, "colour"),
    ],
)
def test_a_plan_of_another_space_is_refused(change: dict[str, object], says: str) -> None:
    data = {"kind": "light", "stem_stride": 2, "widths": [16], "depths": [1]}
    with pytest.raises(RecipeError, match=says):
        space().from_json(data | change)


@pytest.mark.parametrize("shape", [(64,), (3, 4, 5, 6)])
def test_features_that_are_no_image_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError, match="derived"):
        space(shape)


def test_the_same_seed_gives_the_same_network() -> None:
    plan = Plan("light", 2, (16,), (1,))
    networks = []
    for _ in range(2):
        torch.manual_seed(5)
        networks.append(space().build(plan).state_dict())
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning")  # torch's own code
@pytest.mark.parametrize(
    ("shape", "plan"),
    [
        (IMAGE, Plan("light", 2, (16, 32), (1, 1))),
        (LOG_MEL, Plan("separable", 4, (16, 32), (1, 2))),
        (SIGNAL, Plan("separable", 16, (16, 24), (1, 1))),
    ],
)
def test_exports_with_a_dynamic_batch_and_gives_the_same_answers(shape: tuple[int, ...], plan: Plan) -> None:
    import onnxruntime

    network = space(shape, 4, "cortex-m").build(plan).eval()
    example = torch.randn(2, *shape)
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.onnx.export(network, (example,), dynamo=True, dynamic_shapes=({0: batch},), opset_version=20)
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for size in (1, 5):
        x = torch.randn(size, *shape)
        (answer,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        # float32 sums of at most a thousand terms in another order
        torch.testing.assert_close(torch.from_numpy(answer), network(x), rtol=1e-4, atol=1e-5)
