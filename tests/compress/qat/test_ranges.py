"""Ranges of one batch."""

import pytest
import torch

from compress.qat.ranges import METHODS, estimate


def test_minmax_covers_everything() -> None:
    assert estimate(torch.tensor([[-3.0, 0.5], [7.0, 2.0]]), "minmax", 256) == (-3.0, 7.0)


def test_percentile_drops_an_outlier_and_keeps_the_exact_zero_of_a_relu() -> None:
    x = torch.linspace(0, 1, 30_001)
    x[-1] = 100.0
    low, high = estimate(x, "percentile", 256)
    assert low == 0.0
    assert 0.99 < high < 1.01


def test_mse_shrinks_for_outliers_and_hardly_for_a_uniform_tensor() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(10_000, generator=generator) * 2 - 1
    assert estimate(uniform, "mse", 256)[1] > 0.97 * uniform.max()
    outlier = torch.cat([torch.randn(10_000, generator=generator), torch.tensor([40.0])])
    assert estimate(outlier, "mse", 16)[1] < 40.0 * 0.6  # four bits: covering 40 would cost 5 per step


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_tensor_has_its_value_as_range(method: str) -> None:
    assert estimate(torch.full((7,), 2.5), method, 256) == (2.5, 2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_batch_gives_the_same_range(method: str) -> None:
    x = torch.randn(3, 70_000, generator=torch.Generator().manual_seed(1))
    assert estimate(x, method, 256) == estimate(x.clone(), method, 256)  # type: ignore[arg-type]
