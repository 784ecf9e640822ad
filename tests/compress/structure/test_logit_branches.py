"""Branches: shapes for every stage and family, sizes worked by hand, initial weights."""

import pytest
import torch
from torch import nn

from compress.contracts.stages import Stage
from compress.structure.logit_branches import Convolutions, Light, PatchMerging, Tokens, full_branch, merges_of


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("stage", "feature"),
    [
        (Stage("a", 1, (16, 12)), (3, 8, 16, 12)),
        (Stage("a", 1, (5, 1)), (3, 8, 5, 1)),
        (Stage("a", 1, (40,)), (3, 8, 40)),
        (Stage("a", 2, (14, 14)), (3, 8, 14, 14)),
        (Stage("a", 2, (7, 9)), (3, 8, 7, 9)),
        (Stage("a", 2, (30,)), (3, 8, 1, 30)),
        (Stage("a", 1, ()), (3, 8)),
    ],
)
def test_every_stage_of_every_family_gives_logits(number: int, stage: Stage, feature: tuple[int, ...]) -> None:
    for branch in (Light(8, 10), full_branch(stage, 8, number, 4, 16, 10, 7)):
        assert branch(torch.randn(feature)).shape == (3, 10)


def test_convolutions_halve_the_map_and_double_the_channels() -> None:
    branch = Convolutions(8, 3, 40, 10)
    assert branch.blocks(torch.randn(2, 8, 28, 28)).shape == (2, 40, 4, 4)
    block = lambda before, after: 9 * before + before**2 + 2 * before + 9 * before + before * after + 2 * after  # noqa: E731
    assert parameters(branch) == block(8, 16) + block(16, 32) + block(32, 40) + 40 * 10 + 10


def test_a_map_is_halved_once_for_every_stage_that_is_left() -> None:
    for number, side in ((1, 4), (2, 8), (3, 16), (4, 32)):
        branch = full_branch(Stage("a", 1, (32, 32)), 8, number, 4, 24, 10, 7)
        assert isinstance(branch, Convolutions)
        assert branch.blocks(torch.randn(2, 8, 32, 32)).shape == (2, 24, side, side)


def test_the_last_stage_of_a_convolutional_student_has_one_convolution() -> None:
    assert parameters(Convolutions(8, 0, 40, 10)) == (8 * 40 + 40) + (40 * 10 + 10)


@pytest.mark.parametrize(
    ("grid", "expected"), [((56, 56), 3), ((28, 28), 2), ((14, 14), 1), ((7, 7), 0), ((14, 7), 0), ((30, 30), 1)]
)
def test_merging_ends_at_the_grid_of_the_paper_or_an_odd_side(grid: tuple[int, int], expected: int) -> None:
    assert merges_of(grid, 7) == expected


def test_merging_joins_neighbours_and_no_others() -> None:
    merge = PatchMerging(2, 3)
    x = torch.randn(1, 4, 6, 2)
    other = x.clone()
    other[0, 2, 5] += 1.0
    changed = (merge(x) != merge(other)).any(-1)[0]
    assert changed.nonzero().tolist() == [[1, 2]]
    assert parameters(merge) == 8 * 3 + 2 * 8


def test_tokens_are_merged_and_go_through_as_many_blocks_as_stages_are_left() -> None:
    branch = full_branch(Stage("a", 2, (28, 28)), 8, 1, 4, 32, 10, 7)
    assert isinstance(branch, Tokens)
    assert [merge.reduce.out_features for merge in branch.merges] == [16, 32]
    assert len(branch.blocks) == 3
    assert len(full_branch(Stage("a", 2, (7, 7)), 32, 4, 4, 32, 10, 7).blocks) == 1


def test_initial_weights() -> None:
    torch.manual_seed(0)
    branch = Convolutions(64, 1, 64, 10)
    pointwise = branch.blocks[1]
    assert float(pointwise.weight.detach().std()) == pytest.approx((2 / 64) ** 0.5, rel=0.05)  # fan-out of a 1x1 of 64
    assert float(branch.head.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not branch.head.bias.any()
    assert branch.blocks[2].weight.eq(1).all()
