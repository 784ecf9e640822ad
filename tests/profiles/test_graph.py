import pytest

from profiles.graph import Graph, Op, Weight, bytes_by_dtype, conv_macs, edge, fft_macs, recurrent_macs, totals


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


def test_bytes_by_type_pack_small_codes_and_count_a_tensor_once() -> None:
    weights = [Weight("a", 15, "int4"), Weight("b", 3, "float16"), Weight("a", 15, "int4"), Weight("c", 9, "uint2")]
    assert bytes_by_dtype(weights) == {"int4": 8, "float16": 6, "uint2": 3}


def test_totals_by_hand() -> None:
    edges = {name: edge(name, shape, "float32") for name, shape in (("x", (1, 4)), ("h", (1, 6)), ("v", (6,)))}
    norm = tuple(Weight(f"n.{name}", 6, "float32") for name in ("scale", "offset", "mean", "variance"))
    ops = (
        Op("fc", "Gemm", "gemm", ("x",), ("h",), 24 * 3, (Weight("w", 24, "int8"),), repeats=3),
        Op("bn", "BatchNormalization", "batchnorm", ("h",), ("h",), 0, norm),
        Op("flat", "Reshape", "view", ("h",), ("v",)),
    )
    found = totals(Graph(ops, edges, ("x",), ("v",), 1, idle=(Weight("other", 5, "float32"),)))
    assert (found.macs, found.params) == (72, 24 + 2 * 6 + 5)  # of a batch norm, scale and offset
    assert found.weight_bytes_by_dtype == {"int8": 24, "float32": 4 * (12 + 5)}
    assert found.activation_bytes == 3 * 4 * (4 + 6) + 4 * (6 + 6)  # views move nothing
