"""The reference teachers' network."""

import pytest
import torch

from compress.residual_network import ResidualBlock, ResidualNetwork


def test_shapes_follow_the_widths() -> None:
    network = ResidualNetwork(1, widths=(8, 16), depths=(1, 2), outputs=5, stem_stride=2)
    assert network(torch.zeros(2, 1, 13, 9)).shape == (2, 5)
    assert network.stages(network.stem(torch.zeros(2, 1, 13, 9))).shape == (2, 16, 4, 3)  # 13 -> 7 -> 4, 9 -> 5 -> 3


def test_a_new_block_is_its_shortcut() -> None:
    network = ResidualNetwork(1, widths=(8,), depths=(1,), outputs=2)
    block = network.stages[0][0]
    assert isinstance(block, ResidualBlock)
    x = torch.rand(2, 8, 4, 4)
    torch.testing.assert_close(block.eval()(x), x)


def test_widths_and_depths_must_pair() -> None:
    with pytest.raises(ValueError, match="2 widths, 1 depths"):
        ResidualNetwork(1, widths=(8, 16), depths=(1,), outputs=2)
