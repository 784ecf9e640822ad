"""Normalise: per channel."""

import pytest
import torch

from compress.frontends.normalise import Normalise


def test_equals_the_value_worked_by_hand() -> None:
    image = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1)
    got = Normalise([0.25, 0.5], [0.5, 0.25])(image)
    assert got.flatten().tolist() == [0.5, 2.0]  # (0.5 - 0.25) / 0.5, (1 - 0.5) / 0.25


def test_has_nothing_to_train_and_nothing_to_save() -> None:
    module = Normalise([0.2], [0.3])
    assert not list(module.parameters())
    assert not module.state_dict()


@pytest.mark.parametrize(("mean", "std"), [([0.1], [0.0]), ([0.1], [-1.0]), ([0.1, 0.2], [1.0]), ([], [])])
def test_numbers_that_cannot_be_used_are_refused(mean: list[float], std: list[float]) -> None:
    with pytest.raises(ValueError, match="standard deviations"):
        Normalise(mean, std)
