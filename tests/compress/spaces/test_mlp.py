"""Perceptrons: sizes worked by hand, residual layers, refusals."""

import pytest
import torch
from torch import nn

from compress.contracts.space import SpaceContext
from compress.errors import RecipeError
from compress.spaces.mlp import SPACE, Mlp, Perceptron, Plan


def space(shape: tuple[int, ...] = (1, 28, 28), multiple: int = 4) -> Mlp:
    return SPACE(SpaceContext(None, torch.zeros(2, *shape), 10, multiple, "cortex-m"))


def test_parameters_equal_those_worked_by_hand() -> None:
    network = space().build(Plan(2, False, (32, 16)))
    expected = 14 * 14 * 32 + 2 * 32 + 32 * 16 + 2 * 16 + 16 * 10 + 10
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_only_layers_of_equal_widths_are_residual() -> None:
    network = space().build(Plan(1, True, (32, 32, 16, 16)))
    assert isinstance(network, Perceptron)
    assert [layer.residual for layer in network.layers] == [False, True, False, True]
    plain = space().build(Plan(1, False, (32, 32, 16, 16)))
    assert isinstance(plain, Perceptron)
    assert not any(layer.residual for layer in plain.layers)


def test_a_residual_layer_adds_its_input_before_the_relu() -> None:
    network = space((2,)).build(Plan(1, True, (8, 8))).eval()
    assert isinstance(network, Perceptron)
    with torch.no_grad():
        layer = network.layers[1]
        assert isinstance(layer.linear, nn.Linear)
        layer.linear.weight.zero_()
        x = torch.tensor([[1.0, -2.0, 0.0, 3.0, -1.0, 0.5, 2.0, -0.5]])
        torch.testing.assert_close(layer(x), x.relu())


def test_averaging_equals_the_mean_of_windows() -> None:
    network = space((1, 4, 8)).build(Plan(1, False, (8,)))
    assert isinstance(network, Perceptron)
    wide = space((1, 8, 16)).build(Plan(2, False, (8,))).eval()
    assert isinstance(wide, Perceptron)
    x = torch.randn(3, 1, 8, 16)
    expected = x.reshape(3, 1, 4, 2, 8, 2).mean((3, 5))
    torch.testing.assert_close(wide.average(x), expected)


@pytest.mark.parametrize(
    ("shape", "reductions"), [((40,), (1,)), ((1, 28, 28), (1, 2, 4)), ((1, 9), (1, 2)), ((3, 2, 3, 4), (1,))]
)
def test_only_long_axes_are_averaged(shape: tuple[int, ...], reductions: tuple[int, ...]) -> None:
    members = space(shape)
    assert members.reductions == reductions
    for plan in members.corners()[:4]:
        assert members.build(plan).eval()(torch.randn(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"residual": True}, "one width behind each other"),
        ({"reduction": 3}, "reduction 3"),
        ({"widths": []}, "0 hidden layers"),
        ({"widths": [7]}, r"\[7\]"),
        ({"residual": 1}, "no bool"),
    ],
)
def test_a_plan_of_another_space_is_refused(change: dict[str, object], says: str) -> None:
    plan = Plan(2, False, (32, 16))
    assert space().from_json(plan.to_json()) == plan
    with pytest.raises(RecipeError, match=says):
        space().from_json(plan.to_json() | change)
