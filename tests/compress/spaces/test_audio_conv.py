"""The audio family: sizes worked by hand, published members, pooling and layouts, refusals."""

import random

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.spaces.audio_conv import SPACE, AttentivePool, AudioConv, AudioNet, Plan

LOG_MEL = (1, 32, 61)


def space(
    shape: tuple[int, ...] = LOG_MEL, multiple: int = 4, family: str = "cortex-m", outputs: int = 10
) -> AudioConv:
    return SPACE(SpaceContext(None, torch.zeros(2, *shape), outputs, multiple, family))


def macs(network: nn.Module, shape: tuple[int, ...]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, *shape))
    return int(counter.get_total_flops()) // 2


def test_wav2small_is_a_member_by_its_parameter_count() -> None:
    # Trainable parameters of the released network with c channels, 26 bands of which 13 are left, and 3 outputs, in
    # closed form: 9c + 54c^2 + 14c + 2(c^2 + c) + 3(13c + c^2) + 3; c = 13 gives 10,806 and c = 33 gives 66,366.
    for c, expected in ((13, 10_806), (33, 66_366)):
        plan = Plan("map", "plain", 3, 1, "pool", "attentive", (c, c), (2, 4))
        network = AudioNet(plan, (1, 26, 499), 3)
        assert sum(parameter.numel() for parameter in network.parameters()) == expected
        assert expected == 9 * c + 54 * c**2 + 14 * c + 2 * (c**2 + c) + 3 * (13 * c + c**2) + 3


def test_macs_of_a_temporal_network_equal_those_worked_by_hand() -> None:
    network = space().build(Plan("temporal", "plain", 9, 2, "stride", "mean", (16, 24), (1, 1)))
    stem = 31 * 16 * 32 * 9  # 32 bands are channels; 61 positions become 31
    first = 31 * 16 * 16 * 9
    second = 16 * 24 * 16 * 9
    assert macs(network, LOG_MEL) == stem + first + second + 24 * 10


def test_bands_as_channels_cost_a_fraction_of_bands_as_an_axis() -> None:
    def cost(layout: str) -> int:
        plan = Plan(layout, "plain", 3, 1, "stride", "mean", (32,), (2,))  # type: ignore[arg-type]
        return macs(space().build(plan), LOG_MEL)

    assert cost("temporal") < cost("map") / 10


def test_attentive_pooling_equals_the_one_worked_by_hand() -> None:
    pool = AttentivePool(2, 1, 1)
    with torch.no_grad():
        pool.value.weight.copy_(torch.eye(2)[:, :, None, None])
        pool.value.bias.zero_()  # type: ignore[union-attr]
        pool.weight.weight.zero_()  # every moment weighs the same
        pool.weight.bias.zero_()  # type: ignore[union-attr]
        pool.head.weight.copy_(torch.tensor([[1.0, 10.0]]))
        pool.head.bias.zero_()
        pool.gram_head.weight.copy_(torch.tensor([[100.0, 0.0, 1000.0, 10000.0]]))
    x = torch.tensor([[[[1.0, 3.0]], [[4.0, 6.0]]]])  # means 2 and 5
    # z = (2, 5), Gram matrix ((4, 10), (10, 25)): 2 + 50 + 400 + 10,000 + 250,000
    assert float(pool(x).detach()) == pytest.approx(2 + 50 + 400 + 10_000 + 250_000)


def test_attentive_pooling_does_not_depend_on_the_order_of_time() -> None:
    torch.manual_seed(0)
    pool = AttentivePool(5, 3, 4)
    x = torch.randn(2, 5, 3, 20)
    torch.testing.assert_close(pool(x[..., torch.randperm(20)]), pool(x))


def test_pooling_over_time_keeps_the_bands() -> None:
    plan = Plan("map", "plain", 3, 1, "stride", "time", (8,), (1,))
    network = space().build(plan)
    assert isinstance(network, AudioNet)
    assert isinstance(network.head, nn.Sequential)
    assert network.head[-1].in_features == 8 * 32


@pytest.mark.parametrize(
    ("shape", "first"), [((8000,), 16), ((1, 8000), 16), ((2, 16000), 32), ((1, 26, 499), 1), ((40, 98), 1)]
)
def test_the_stem_brings_long_inputs_down(shape: tuple[int, ...], first: int) -> None:
    members = space(shape, outputs=3)
    assert members.strides[0] == first
    network = members.build(members.corners()[0]).eval()
    assert network(torch.randn(2, *shape)).shape == (2, 3)


def test_a_waveform_has_one_layout_and_a_map_two() -> None:
    assert space((1, 8000)).layouts == ("temporal",)
    assert space().layouts == ("map", "temporal")


def test_what_a_family_cannot_run_in_integers_is_not_offered() -> None:
    assert "separable" not in space(family="nvidia-gpu").kinds
    assert "attentive" in space(family="cortex-m").poolings
    assert "attentive" not in space(family="ethos-u").poolings
    assert "attentive" not in space(family="riscv-cluster").poolings


def test_tiny_members_exist() -> None:
    members = space()
    tiny = [plan for plan in members.corners() if plan.depths == (1,) and plan.widths == members.widths[:1]]
    assert min(macs(members.build(plan), LOG_MEL) for plan in tiny[-3:]) < 50_000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layout": "temporal"}, "'mean'"),
        ({"widths": [8], "depths": [1], "reduction": "pool"}, "'stride'"),
        ({"kernel": 7}, "kernel 7"),
        ({"widths": [8, 9]}, r"\[9\]"),
        ({"depths": [1]}, "2 widths and 1 depths"),
        ({"depths": [1, 9]}, "depths"),
    ],
)
def test_a_plan_of_another_space_is_refused(change: dict[str, object], says: str) -> None:
    plan = Plan("map", "plain", 3, 1, "pool", "time", (8, 12), (1, 1))
    assert space().from_json(plan.to_json()) == plan
    with pytest.raises(RecipeError, match=says):
        space().from_json(plan.to_json() | change)


@pytest.mark.parametrize("shape", [(1, 8, 2), (3,), (2, 3, 4, 5)])
def test_features_without_time_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError, match="audio_conv"):
        space(shape)


def test_samples_cover_small_and_large_members() -> None:
    members, rng = space(), random.Random(0)
    costs = sorted(macs(members.build(members.sample(rng)), LOG_MEL) for _ in range(24))
    assert costs[4] < 1e6
    assert costs[-3] > 5e6
