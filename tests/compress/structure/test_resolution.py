"""Features averaged in front of a network: sizes and values worked by hand; names stay."""

import copy

import pytest
import torch
from torch import nn

from compress.structure.resolution import at_lower_resolution, averaged, windows


@pytest.mark.parametrize(
    ("shape", "shrink", "window"),
    [
        ((1, 28, 28), 2, (2, 2)),
        ((1, 28, 15), 4, (4, 1)),  # 15 / 4 would be fewer than four positions
        ((3, 4000), 4, (4,)),
        ((16,), 4, (4,)),
        ((1, 7, 7), 2, (1, 1)),
    ],
)
def test_windows_leave_four_positions_along_each_axis(
    shape: tuple[int, ...], shrink: int, window: tuple[int, ...]
) -> None:
    assert windows(shape, shrink) == window


def test_means_equal_those_worked_by_hand() -> None:
    image = torch.tensor([[[[1.0, 2.0, 9.0], [3.0, 6.0, 9.0]]]])
    assert averaged(image, (2, 2)).tolist() == [[[[3.0]]]]
    assert averaged(torch.tensor([[[1.0, 2.0, 3.0, 5.0, 7.0]]]), (2,)).tolist() == [[[1.5, 4.0]]]
    assert averaged(torch.tensor([[1.0, 2.0, 3.0, 5.0]]), (2,)).tolist() == [[1.5, 4.0]]


def test_modules_keep_their_names_and_copies_their_resolution() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = torch.randn(2, 1, 28, 28)
    expected = network(averaged(x, (4, 4)))
    names = [name for name, _ in network.named_modules()]
    at_lower_resolution(network, (1, 28, 28), 4)
    assert [name for name, _ in network.named_modules()] == names
    torch.testing.assert_close(network(x), expected)
    torch.testing.assert_close(copy.deepcopy(network)(x), expected)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(torch.cat([x, x]))[:2], expected)
