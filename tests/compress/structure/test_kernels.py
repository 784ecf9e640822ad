"""Kernels cut around their centre: sizes worked by hand, equal answers, what is not offered."""

from typing import Any

import pytest
import torch
from torch import nn

from compress.structure.cut import cut
from compress.structure.kernels import candidates, cropped, kernel_sizes, rimless

SUM_ORDER = 1e-5  # float32 sums over fewer terms are taken in another order


@pytest.mark.parametrize(
    ("layer", "sizes"),
    [
        (nn.Conv2d(8, 8, 7, padding=3), (1, 3, 5, 7)),
        (nn.Conv2d(8, 8, 5, padding=2, stride=2), (3, 5)),  # a window of 1 would leave every second position unread
        (nn.Conv2d(8, 8, 5, padding=1), (3, 5)),  # there is one position of padding to give back
        (nn.Conv2d(8, 8, 3), (3,)),
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2), (1, 3)),
        (nn.Conv2d(8, 8, 3, padding=1, dilation=2), (3,)),
        (nn.Conv2d(8, 8, (5, 3), padding=(2, 1)), (1, 3, 5)),
        (nn.Conv2d(8, 8, (5, 1), padding=(2, 0)), (1, 3, 5)),
        (nn.Conv2d(8, 8, (5, 4), padding=(2, 2)), (5,)),  # at 3 the other axis would not be symmetric
        (nn.Conv1d(8, 8, 9, padding="same"), (1, 3, 5, 7, 9)),
        (nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1), (2, 4)),
    ],
)
def test_sizes_equal_those_worked_by_hand(layer: nn.Module, sizes: tuple[int, ...]) -> None:
    assert kernel_sizes(layer, 1) == sizes


def test_the_centre_of_a_kernel_stays() -> None:
    weight = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert cropped(weight, 3).tolist() == [[[[6, 7, 8], [11, 12, 13], [16, 17, 18]]]]
    assert cropped(weight, 1).tolist() == [[[[12]]]]
    assert cropped(weight[..., 1:4], 3).shape == (1, 1, 3, 3)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(2, 4, 7, padding=3, stride=2), (2, 15, 16)),
        (nn.Conv2d(2, 4, (5, 3), padding=(2, 1)), (2, 9, 8)),
        (nn.Conv2d(2, 4, 3, padding=4, dilation=3), (2, 9, 8)),
        (nn.Conv2d(2, 4, 5, padding=2, padding_mode="reflect"), (2, 9, 8)),
        (nn.Conv2d(2, 4, 5, padding=2, padding_mode="circular"), (2, 9, 8)),
        (nn.Conv2d(2, 4, 5, padding="same", padding_mode="replicate"), (2, 9, 8)),
        (nn.Conv1d(2, 4, 9, padding="same", dilation=2), (2, 40)),
        (nn.Conv3d(2, 4, 3, padding=1), (2, 5, 4, 6)),
        (nn.ConvTranspose2d(2, 4, 5, stride=2, padding=2, output_padding=1), (2, 7, 6)),
        (nn.ConvTranspose1d(2, 4, 4, stride=2, padding=1), (2, 7)),
    ],
)
def test_a_cut_kernel_answers_as_if_its_rim_were_zero(layer: nn.Module, shape: tuple[int, ...]) -> None:
    network = nn.Sequential(layer, nn.ReLU()).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    x = torch.randn(3, *shape)
    for size in kernel_sizes(layer, 1)[:-1]:
        smaller = cut(network, (), {}, (), True, {"0": size}).eval()
        torch.testing.assert_close(smaller(x), rimless(network, {"0": size}, x), rtol=SUM_ORDER, atol=SUM_ORDER)
        assert max(smaller[0].kernel_size) == size  # type: ignore[index, arg-type]
        assert max(smaller[0].weight.shape[2:]) == size  # type: ignore[index]
        said: Any = smaller[0]  # type: ignore[index]
        fresh = type(said)(
            2, 4, said.kernel_size, said.stride, said.padding, dilation=said.dilation, padding_mode=said.padding_mode
        )
        # What is derived from the padding once, when a convolution is made, has followed.
        assert list(said._reversed_padding_repeated_twice) == list(fresh._reversed_padding_repeated_twice)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_the_first_layer_and_depthwise_ones_keep_a_window() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2),
        nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.Conv2d(8, 8, 5, padding=2),
    )
    assert candidates(network.eval(), torch.randn(2, 1, 9, 9)) == {"0": (3, 5), "1": (3, 5), "2": (1, 3, 5)}


def test_shared_and_computed_weights_are_left_alone() -> None:
    shared = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))
    shared[2].weight = shared[1].weight
    nn.utils.parametrizations.weight_norm(shared[0])
    assert candidates(shared.eval(), torch.randn(2, 2, 9, 9)) == {}
