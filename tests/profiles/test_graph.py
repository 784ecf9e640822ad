import pytest

from profiles.graph import conv_macs, edge, fft_macs, recurrent_macs


def test_convolution_by_hand() -> None:
    # 16 outputs of 8x8 from 3 channels with 3x3 kernels: 27 products each.
    assert conv_macs(16 * 8 * 8, 3, 1, (3, 3)) == (16 * 64 * 27, 27)
    assert conv_macs(16 * 8 * 8, 16, 16, (3, 3)) == (16 * 64 * 9, 9)  # depthwise


def test_recurrent_by_hand() -> None:
    assert recurrent_macs(gates=3, steps=10, batch=2, inputs=4, hidden=5) == 10 * 2 * 3 * 5 * 9
    assert recurrent_macs(gates=4, steps=1, batch=1, inputs=4, hidden=5, directions=2) == 2 * 4 * 5 * 9


def test_fourier_transform_by_hand() -> None:
    # 5 N log2 N operations of 8 points are 120, two of which are one multiply-accumulate; a real one takes half.
    assert fft_macs(1, 8, real=False) == 60
    assert fft_macs(10, 8, real=True) == 300
    assert fft_macs(3, 1, real=True) == 0


@pytest.mark.parametrize(("shape", "elements"), [((), 1), ((2, 3), 6), ((0, 5), 0)])
def test_elements_of_an_edge(shape: tuple[int, ...], elements: int) -> None:
    assert edge("x", shape, "float32").elements == elements
