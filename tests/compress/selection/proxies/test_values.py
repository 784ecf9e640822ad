"""Each score's formula by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.errors import RecipeError
from compress.network import Model
from compress.residual_network import ResidualNetwork
from compress.selection.proxies import (
    class_relation,
    correlation_congruence,
    gradient_norm,
    multiply_accumulates,
    naswot,
    parameters,
    probabilistic_transfer,
    relation,
    relational,
    soft_targets,
    synflow,
    zen,
)
from compress.selection.proxies.naswot import log_determinant

IMAGES = Batch((torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0)),), torch.arange(4), torch.arange(4))


def linear(*weights: list[list[float]]) -> nn.Sequential:
    """Linear layers without bias, with these weights."""
    layers = []
    for weight in weights:
        layer = nn.Linear(len(weight[0]), len(weight), bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight))
        layers.append(layer)
    return nn.Sequential(*layers)


def vectors(*rows: list[float]) -> Batch:
    return Batch((torch.tensor(rows),), torch.arange(len(rows)) % 2, torch.arange(len(rows)))


def test_controls_count() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4))
    assert parameters.score(network, None, IMAGES) == 3 * 9 + 3 + 48 * 4 + 4
    assert multiply_accumulates.score(network, None, IMAGES) == 16 * 3 * 9 + 48 * 4


def test_soft_targets_are_minus_the_softened_divergence() -> None:
    # Logits 4 log 3 and 0 at temperature 4: p = (3/4, 1/4) against q = (1/2, 1/2).
    teacher, student = linear([[4 * math.log(3.0)], [0.0]]), linear([[0.0], [0.0]])
    two = nn.Sequential(nn.Identity(), linear([[1.0]]), *teacher), nn.Sequential(linear([[1.0]]), *student)
    expected = 16 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert soft_targets.score(two[1], two[0], vectors([1.0], [1.0])) == pytest.approx(-expected, rel=1e-5)


def test_correlation_congruence_of_orthogonal_and_equal_vectors() -> None:
    kernel = correlation_congruence.kernel(torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 0.0]]))
    far, near = math.exp(-0.8), math.exp(-0.8) * (1 + 0.8 + 0.32)
    torch.testing.assert_close(kernel, torch.tensor([[near, far, near], [far, near, far], [near, far, near]]))


def test_probabilistic_transfer_worked_by_hand() -> None:
    # Cosines 0, 1, 0 between samples 0-1, 0-2, 1-2 give (0.5, 1, 0.5): row 0 is (0, 1/3, 2/3), row 1 (1/2, 0, 1/2).
    found = probabilistic_transfer.neighbours(torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 0.0]]))
    expected = torch.tensor([[0.0, 1 / 3, 2 / 3], [0.5, 0.0, 0.5], [2 / 3, 1 / 3, 0.0]])
    torch.testing.assert_close(found, expected)
    even = torch.eye(3)  # all rows are (1/2, 1/2)
    divergence = probabilistic_transfer.divergence(even, torch.tensor([[2.0, 0.0], [0.0, 5.0], [3.0, 0.0]]))
    one = math.log(2.0) - (math.log(3.0) - 2 / 3 * math.log(2.0))
    assert divergence == pytest.approx(2 / 3 * one, rel=1e-5)


def test_distances_and_angles_worked_by_hand() -> None:
    corner = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    torch.testing.assert_close(
        relational.distances(corner), torch.tensor([[0.0, 3.0, 4.0], [3.0, 0.0, 5.0], [4.0, 5.0, 0.0]]) / 4
    )
    angles = relational.angles(corner)
    assert angles[0, 1, 2] == pytest.approx(0.0, abs=1e-6)
    assert angles[1, 0, 2] == pytest.approx(0.6)
    assert angles[2, 0, 1] == pytest.approx(0.8)
    assert angles[0, 0, 2] == 0.0


@pytest.mark.parametrize("compared", [relation, relational, correlation_congruence, probabilistic_transfer])
def test_what_compares_samples_takes_any_width(compared: object) -> None:
    torch.manual_seed(0)
    student, teacher = ResidualNetwork(1, (4,), (1,), 4), ResidualNetwork(1, (12,), (2,), 4)
    assert compared.score(student, teacher, IMAGES) < 0  # type: ignore[attr-defined]
    assert class_relation.score(student, teacher, IMAGES) < 0


def test_synflow_is_the_sum_over_layers_of_the_flow_through_each() -> None:
    # R = 1' |W2| |W1| 1 = (1 + 2) * 3 + (3 + 4) * 7 = 58, and every layer's |theta dR / dtheta| sums to R.
    network = linear([[1.0, -2.0], [-3.0, 4.0]], [[3.0, -7.0]])
    assert synflow.score(network, None, vectors([9.0, 9.0])) == pytest.approx(math.log(2 * 58))
    behind = Model(nn.Flatten(), network)
    assert synflow.score(behind, None, vectors([9.0, 9.0])) == pytest.approx(math.log(2 * 58))
    assert synflow.score(linear([[0.0, 0.0]]), None, vectors([9.0, 9.0])) == -math.inf


def test_naswot_worked_by_hand() -> None:
    one = torch.tensor([[True, True, False], [True, False, False]])
    assert log_determinant([one]) == pytest.approx(math.log(3 * 3 - 2 * 2))
    two = torch.tensor([[True], [False]])
    assert log_determinant([one, two]) == pytest.approx(math.log(4 * 4 - 2 * 2))
    assert log_determinant([one[:1].repeat(2, 1)]) == -math.inf
    with pytest.raises(RecipeError, match="no ReLU-like"):
        naswot.score(linear([[1.0], [1.0]], [[1.0, 2.0]]), None, vectors([1.0], [2.0]))


def test_naswot_sees_signs_of_what_goes_into_the_activations() -> None:
    network = nn.Sequential(linear([[1.0], [-1.0]]), nn.ReLU(), nn.Linear(2, 2))
    # x > 0 lights the first unit, x < 0 the second: samples 0 and 1 differ in both units.
    assert naswot.score(network, None, vectors([1.0], [-1.0])) == pytest.approx(math.log(2 * 2))


def test_gradient_norm_is_autograds() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 4))
    found = gradient_norm.score(network.requires_grad_(False), None, IMAGES)
    network.requires_grad_(True)
    F.cross_entropy(network(IMAGES.inputs[0]), torch.arange(4)).backward()
    expected = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()
    assert found == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(RecipeError, match="class indices"):
        gradient_norm.score(network, None, Batch(IMAGES.inputs, None, IMAGES.index))


def test_zen_rises_by_what_a_batch_norm_scales_away() -> None:
    values = torch.tensor([[0.0, 10.0], [2.0, 14.0]])  # variances 1 and 4
    assert zen.log_scale(values) == pytest.approx(0.5 * math.log(2.5))
    assert zen.log_scale(torch.ones(3, 2)) == 0.0


def test_zen_of_one_linear_map_is_the_change_of_its_output() -> None:
    torch.manual_seed(0)
    narrow, wide = (
        nn.Sequential(nn.Conv2d(1, width, 3, bias=False), nn.Flatten(), nn.Linear(16 * width, 4)) for width in (8, 32)
    )
    # N(0, 1) weights: each output moves by about 0.01 sqrt(9); there are 16 positions and `width` channels.
    for network, width in ((narrow, 8), (wide, 32)):
        expected = math.log(0.01 * math.sqrt(9 * 16 * width))
        assert zen.score(network, None, IMAGES) == pytest.approx(expected, abs=0.15)


def test_zen_grows_with_depth() -> None:
    shallow, deep = ResidualNetwork(1, (8,), (1,), 4), ResidualNetwork(1, (8,), (3,), 4)
    assert zen.score(deep, None, IMAGES) > zen.score(shallow, None, IMAGES)
