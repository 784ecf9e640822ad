"""Counts in bins of constant relative width."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compress.qat.histogram import MANTISSA, counted, histogram

HALF_A_BIN = 2.0 ** -(MANTISSA + 1)  # of the value


def test_equal_values_share_a_bin_and_zero_has_its_own() -> None:
    found = histogram(counted(torch.tensor([1.0, 0.0, -2.0, 1.0, 0.0, -0.0])))
    assert found.counts.tolist() == [1, 3, 2]
    assert found.centres[1] == 0
    torch.testing.assert_close(found.centres, torch.tensor([-2.0, 0.0, 1.0]).double(), rtol=HALF_A_BIN, atol=0)


def test_the_bin_of_one_by_hand() -> None:
    # Nine bits of mantissa: from 1 to 1 + 2^-9, in the middle 1 + 2^-10.
    assert histogram(counted(torch.tensor([1.0, 1.0 + 2.0**-10, 1.0 + 2.0**-9]))).counts.tolist() == [2, 1]
    assert float(histogram(counted(torch.tensor([1.0]))).centres) == 1.0 + 2.0**-10


@given(st.lists(st.floats(2.0**-23, 2.0**39, width=32), min_size=1, max_size=40))
def test_centres_are_within_half_a_bin_and_ascend(values: list[float]) -> None:
    x = torch.tensor(values) * torch.tensor([1.0, -1.0]).repeat(len(values))[: len(values)]
    found = histogram(counted(x))
    assert bool((found.centres.diff() > 0).all())
    nearest = found.centres[(found.centres[None] - x.double()[:, None]).abs().argmin(1)]
    torch.testing.assert_close(nearest, x.double(), rtol=HALF_A_BIN, atol=0)
    assert float(found.counts.sum()) == len(values)


def test_parts_add_up_to_the_whole_in_any_order() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 100
    parts = [counted(part) for part in x.split([1, 700, 299])]
    assert torch.equal(parts[2] + parts[0] + parts[1], counted(x))


def test_tiny_values_are_zero_and_huge_ones_fall_into_the_last_bin() -> None:
    found = histogram(counted(torch.tensor([1e-30, 3e38, -3e38])))
    assert found.counts.tolist() == [1, 1, 1]
    assert found.centres[1] == 0
    assert float(found.centres[2]) == pytest.approx(2.0**40, rel=1e-2)


@pytest.mark.parametrize("x", [torch.empty(0), torch.tensor([float("nan"), float("inf"), -float("inf")])])
def test_nothing_finite_counts_nothing(x: Tensor) -> None:
    assert len(histogram(counted(x)).counts) == 0


def test_half_precision_counts_as_its_values() -> None:
    x = torch.linspace(-3, 3, 99).bfloat16()
    assert torch.equal(counted(x), counted(x.float()))
