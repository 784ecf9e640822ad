"""Mixers: sizes worked by hand, what mixes with what, refusals."""

import pytest
import torch

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.spaces.mixer import SPACE, Block, MixerSpace, Plan


def space(shape: tuple[int, ...] = (1, 28, 28), family: str = "nvidia-gpu") -> MixerSpace:
    return SPACE(SpaceContext(None, torch.zeros(2, *shape), 10, 16, family))


def test_parameters_equal_those_worked_by_hand() -> None:
    network = space().build(Plan(False, 4, 32, 16, 2, 1))
    embedding = 16 * 32 + 32
    block = (49 * 16 + 16) + (16 * 49 + 49) + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 2 * 32
    head = 2 * 32 + 32 * 10 + 10
    assert sum(parameter.numel() for parameter in network.parameters()) == embedding + block + head


def test_one_half_of_a_block_mixes_tokens_and_the_other_channels() -> None:
    torch.manual_seed(0)
    block, x = Block(5, 8, 16, 16).eval(), torch.randn(1, 5, 8)
    other = x.clone()
    other[0, 2, 3] += 1.0

    def changed() -> torch.Tensor:
        return (block(x) - block(other)).abs() > 1e-6

    assert changed().all()
    with torch.no_grad():
        block.tokens[2].weight.zero_()
    assert changed()[0, 2].all()  # the token that changed, and no other
    assert changed().sum() == 8


def test_both_halves_are_residual() -> None:
    block, x = Block(5, 8, 16, 16), torch.randn(2, 5, 8)
    with torch.no_grad():
        for half in (block.tokens, block.channels):
            half[2].weight.zero_()
            half[2].bias.zero_()
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("family", ["cortex-m", "ethos-u", "riscv-cluster"])
def test_families_without_the_kernels_are_refused(family: str) -> None:
    with pytest.raises(RecipeError, match="layer norm and GELU") as refusal:
        space(family=family)
    assert "int8_conv" in (refusal.value.fix or "")


@pytest.mark.parametrize("shape", [(40,), (1, 3), (2, 3, 4, 5)])
def test_features_without_tokens_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError, match="tokens"):
        space(shape)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mixing": 24}, "mixing 24"),
        ({"patch": 3}, "patches of 3"),
        ({"frames": True, "patch": 8}, "frames of 8"),
        ({"depth": 9}, "depth 9"),
        ({"ratio": 3}, "ratio 3"),
        ({"width": 17}, "width 17"),
    ],
)
def test_a_plan_of_another_space_is_refused(change: dict[str, object], says: str) -> None:
    plan = Plan(False, 4, 16, 32, 2, 2)
    assert space().from_json(plan.to_json()) == plan
    with pytest.raises(RecipeError, match=says):
        space().from_json(plan.to_json() | change)
