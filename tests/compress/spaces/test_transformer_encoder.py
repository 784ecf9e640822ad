"""Transformer encoders: sizes worked by hand, attention beside torch's own, patches that fit, refusals."""

import pytest
import torch
from torch.nn import functional as F

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.spaces.transformer_encoder import SPACE, Plan, TransformerEncoder
from compress.structure.attention import Attention
from compress.structure.tokens import patches


def space(shape: tuple[int, ...] = (1, 28, 28), family: str = "nvidia-gpu") -> TransformerEncoder:
    return SPACE(SpaceContext(None, torch.zeros(2, *shape), 10, 16, family))


def test_parameters_equal_those_worked_by_hand() -> None:
    network = space().build(Plan(False, 4, 32, 2, 2, 1))
    embedding = 16 * 32 + 32 + 49 * 32
    block = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 2 * 32
    head = 2 * 32 + 32 * 10 + 10
    assert sum(parameter.numel() for parameter in network.parameters()) == embedding + block + head


def test_attention_equals_torchs_own() -> None:
    torch.manual_seed(0)
    layer, x = Attention(16, 4), torch.randn(2, 5, 16)
    query, key, value = (part(x).reshape(2, 5, 4, 4).transpose(1, 2) for part in (layer.query, layer.key, layer.value))
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(2, 5, 16)
    torch.testing.assert_close(layer(x), layer.out(mixed))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 28, 28), {(False, 2), (False, 4), (False, 8), (True, 1), (True, 2), (True, 4)}),
        ((12, 50), {(False, 1), (False, 2), (False, 4), (False, 8)}),
        ((3, 2, 2), {(False, 1)}),
    ],
)
def test_patches_make_a_good_number_of_tokens(shape: tuple[int, ...], expected: set[tuple[bool, int]]) -> None:
    assert set(patches(shape)) == expected


def test_frames_are_as_high_as_the_map() -> None:
    network = space((1, 32, 61)).build(Plan(True, 4, 16, 1, 1, 1)).eval()
    x = torch.randn(1, 1, 32, 61)
    assert network.places.shape == (1, 15, 16)
    other = x.clone()
    other[..., 60] += 1.0  # the 61st position is in no frame
    assert torch.equal(network(x), network(other))


@pytest.mark.parametrize("family", ["cortex-m", "ethos-u", "riscv-cluster"])
def test_families_without_the_kernels_are_refused(family: str) -> None:
    with pytest.raises(RecipeError, match="layer norm and softmax") as refusal:
        space(family=family)
    assert "int8_conv" in (refusal.value.fix or "")


@pytest.mark.parametrize("shape", [(40,), (1, 3), (2, 3, 4, 5)])
def test_features_without_tokens_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecipeError, match="tokens"):
        space(shape)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heads": 4}, "4 heads at width 16"),
        ({"patch": 3}, "patches of 3"),
        ({"frames": True, "patch": 8}, "frames of 8"),
        ({"depth": 7}, "depth 7"),
        ({"ratio": 3}, "ratio 3"),
        ({"width": 17}, "width 17"),
    ],
)
def test_a_plan_of_another_space_is_refused(change: dict[str, object], says: str) -> None:
    plan = Plan(False, 4, 16, 2, 2, 2)
    assert space().from_json(plan.to_json()) == plan
    with pytest.raises(RecipeError, match=says):
        space().from_json(plan.to_json() | change)
