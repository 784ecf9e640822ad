"""Sharpness of a quadratic worked by hand, invariances, and the discretisation gap."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.diagnostics.sharpness import adaptive_sharpness, sam_sharpness, top_eigenvalue

RADIUS = 0.1


def bowl(w: Tensor) -> Callable[[], Tensor]:
    """(4 w1^2 + w2^2) / 2"""
    return lambda: 0.5 * (4 * w[0] ** 2 + w[1] ** 2)


def parameter(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_the_quadratic_worked_by_hand() -> None:
    w = parameter(1.0, 1.0)
    assert sam_sharpness(bowl(w), [w], RADIUS) == pytest.approx(0.43142821, abs=1e-8)
    assert w.tolist() == [1.0, 1.0]


def test_at_the_minimum_curvature_alone_is_left() -> None:
    w = parameter(0.0, 0.0)
    assert sam_sharpness(bowl(w), [w], RADIUS) == 0.0  # no slope to follow
    assert top_eigenvalue(bowl(w), [w]) == pytest.approx(4.0, abs=1e-6)
    worst = max(
        float(bowl(parameter(RADIUS * torch.cos(t).item(), RADIUS * torch.sin(t).item()))().detach())
        for t in torch.linspace(0, 3.1415926, 181, dtype=torch.float64)
    )
    assert worst == pytest.approx(0.5 * 4.0 * RADIUS**2, abs=1e-6)


def test_the_eigenvalue_of_largest_magnitude_keeps_its_sign() -> None:
    w = parameter(0.3, -0.2, 0.1)
    matrix = torch.tensor([[1.0, 2.0, 0.0], [2.0, -5.0, 1.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    expected = torch.linalg.eigvalsh(matrix)
    found = top_eigenvalue(lambda: 0.5 * w @ matrix @ w, [w], iterations=60)
    assert found == pytest.approx(float(expected[0]), abs=1e-6)  # -5.8, larger than +2.4


def test_several_tensors_are_one_vector() -> None:
    w = parameter(1.0, 1.0)
    a, b = parameter(1.0), parameter(1.0)
    apart = lambda: (0.5 * (4 * a**2 + b**2)).sum()  # noqa: E731
    assert sam_sharpness(apart, [a, b], RADIUS) == pytest.approx(sam_sharpness(bowl(w), [w], RADIUS), abs=1e-12)
    assert top_eigenvalue(apart, [a, b]) == pytest.approx(4.0, abs=1e-6)


def test_a_linear_loss_has_no_curvature() -> None:
    w = parameter(1.0, 2.0)
    assert top_eigenvalue(lambda: 3.0 * w.sum(), [w]) == 0.0
    assert sam_sharpness(lambda: 3.0 * w.sum(), [w], RADIUS) == pytest.approx(3.0 * 2**0.5 * RADIUS)


@pytest.mark.parametrize(("sharpness", "invariant"), [(adaptive_sharpness, True), (sam_sharpness, False)])
def test_only_the_adaptive_figure_ignores_the_scale_of_normalised_weights(
    sharpness: Callable[..., float], invariant: bool
) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(64, 6, dtype=torch.float64), torch.randint(0, 3, (64,))
    network = nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8, eps=1e-12, affine=False), nn.Linear(8, 3))
    network.double()
    figures = []
    for scale in (1.0, 10.0):
        with torch.no_grad():
            network[0].weight.mul_(scale)  # type: ignore[operator,union-attr]
        figures.append(sharpness(lambda: F.cross_entropy(network(x), y), list(network.parameters()), RADIUS))
    assert (figures[0] == pytest.approx(figures[1], rel=1e-6)) == invariant


def test_parameters_are_left_as_they_were_even_where_the_loss_fails() -> None:
    w = parameter(1.0, 1.0)
    calls = []

    def fails_later() -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise FloatingPointError
        return bowl(w)()

    with pytest.raises(FloatingPointError):
        sam_sharpness(fails_later, [w], RADIUS)
    assert w.tolist() == [1.0, 1.0]
