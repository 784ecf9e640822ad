"""U-Nets: sizes worked by hand, every size of map and answer, where the answer's shape comes from, refusals."""

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.spaces.unet import SPACE, Grown, Plan, UNetSpace, reduction_of


def space(
    shape: tuple[int, ...] = (1, 32, 32),
    answer: tuple[int, ...] = (3, 32, 32),
    family: str = "cortex-m",
    teacher: nn.Module | None = None,
) -> UNetSpace:
    return SPACE(SpaceContext(teacher, torch.zeros(2, *shape), 3, 4, family, answer))


def test_parameters_equal_those_worked_by_hand() -> None:
    stem, first, second, narrow, head = 9 * 8 + 16, 9 * 64 + 16, 9 * 8 * 16 + 32, 16 * 8 + 16, 8 * 3 + 3
    for join, read in (("concat", 16), ("add", 8)):
        network = space().build(Plan("plain", join, 1, 1, (8, 16)))  # type: ignore[arg-type]
        up = 9 * read * 8 + 16
        assert sum(p.numel() for p in network.parameters()) == stem + first + second + narrow + up + head


@pytest.mark.parametrize(
    ("shape", "answer"),
    [
        ((1, 32, 32), (3, 32, 32)),
        ((2, 15, 13), (3, 15, 13)),
        ((3, 30, 50), (3, 15, 25)),
        ((3, 33, 48), (3, 9, 12)),
        ((1, 7, 1), (3, 7, 1)),
        ((2, 100), (3, 100)),
        ((2, 101), (3, 51)),
    ],
)
def test_answers_have_the_shape_that_is_wanted(shape: tuple[int, ...], answer: tuple[int, ...]) -> None:
    members = space(shape, answer)
    x = torch.randn(2, *shape)
    for stride in members.strides:
        for join in ("concat", "add"):
            plan = Plan("plain", join, stride, 1, (8,) * members.levels)  # type: ignore[arg-type]
            plan = plan if members.wrong_with(plan) is None else Plan("plain", "concat", stride, 1, (8,))
            assert members.build(plan).eval()(x).shape == (2, *answer)


def test_every_position_is_repeated_and_what_is_too_much_cut_off() -> None:
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    expected = [[1, 1, 2], [1, 1, 2], [3, 3, 4]]
    assert Grown((2, 2), (3, 3), (4, 4))(x)[0, 0].tolist() == expected


def test_an_answer_depends_on_its_surroundings_more_than_on_what_is_far() -> None:
    torch.manual_seed(0)
    network = space().build(Plan("plain", "concat", 1, 1, (8,))).eval()
    x = torch.zeros(1, 1, 32, 32)
    x[..., 16, 16] = 1.0
    changed = (network(x) - network(torch.zeros_like(x))).abs().sum(1)[0] > 0
    rows = changed.nonzero()
    assert rows.min() >= 14  # two convolutions of 3 reach two positions far
    assert rows.max() <= 18


@pytest.mark.parametrize(
    ("shape", "answer", "factor"),
    [
        ((1, 32, 32), (3, 32, 32), 1),
        ((1, 32, 48), (3, 8, 12), 4),
        ((1, 30, 31), (3, 15, 16), 2),
        ((1, 32, 32), (3, 8, 16), None),
        ((1, 32, 32), (3, 11, 11), None),
        ((1, 32, 32), (3,), None),
        ((1, 32), (3, 32), 1),
    ],
)
def test_how_dense_an_answer_is(shape: tuple[int, ...], answer: tuple[int, ...], factor: int | None) -> None:
    assert reduction_of(shape, answer) == factor


class Asked(nn.Module):
    """A teacher that keeps its mode."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 3, H, W)."""
        assert not self.training
        return x.expand(-1, 3, -1, -1)


def test_the_teacher_is_asked_where_nobody_has_looked() -> None:
    teacher = Asked().train()
    assert space(answer=(), teacher=teacher).answer == (3, 32, 32)
    assert teacher.training


def test_where_answers_are_not_known_or_not_dense_is_said() -> None:
    with pytest.raises(RecipeError, match="black box"):
        space(answer=())
    with pytest.raises(RecipeError, match="black box"):
        space(answer=(), teacher=nn.Linear(5, 5))
    with pytest.raises(RecipeError, match=r"an answer is \(3,\)"):
        space(answer=(3,))
    with pytest.raises(RecipeError, match="3 outputs"):
        space(answer=(4, 32, 32))


@pytest.mark.parametrize("family", ["ethos-u", "riscv-cluster"])
def test_families_without_upsampling_are_refused(family: str) -> None:
    with pytest.raises(RecipeError, match="upsampling"):
        space(family=family)


def test_nothing_is_transposed() -> None:
    members = space()
    for plan in members.corners()[::9]:
        assert not any(isinstance(module, nn.ConvTranspose2d) for module in members.build(plan).modules())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"widths": [8], "join": "add"}, "'concat'"),
        ({"stem_stride": 3}, "stem_stride 3"),
        ({"widths": [8] * 7}, "7 levels"),
        ({"widths": [9]}, r"\[9\]"),
        ({"depth": 0}, "depth 0"),
    ],
)
def test_a_plan_of_another_space_is_refused(change: dict[str, object], says: str) -> None:
    plan = Plan("plain", "concat", 1, 1, (8, 16))
    assert space().from_json(plan.to_json()) == plan
    with pytest.raises(RecipeError, match=says):
        space().from_json(plan.to_json() | change)
