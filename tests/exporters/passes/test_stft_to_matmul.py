"""The transform as a convolution gives the same spectrum."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, helper

from exporters.errors import ExportError
from exporters.passes import stft_to_matmul

RNG = np.random.default_rng(0)


def stft_model(
    model_of: Callable[..., ModelProto],
    rank: int,
    window: np.ndarray | None,
    onesided: int,
    length: int = 64,
    step: int = 16,
) -> ModelProto:
    bins = length // 2 + 1 if onesided else length
    frames = (200 - length) // step + 1
    constants: dict[str, np.ndarray] = {"step": np.int64(step), "length": np.int64(length)}
    if window is not None:
        constants["window"] = window
    inputs = ["x", "step", "window" if window is not None else "", "length"]
    shape: list[int | str] = ["batch", 200, 1] if rank == 3 else ["batch", 200]
    return model_of(
        [helper.make_node("STFT", inputs, ["y"], name="stft", onesided=onesided)],
        {"x": shape},
        {"y": ["batch", frames, bins, 2]},
        constants,
    )


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("window", [None, np.hanning(64).astype(np.float32)])
@pytest.mark.parametrize("batch", [1, 3])
def test_stft_to_matmul(kinds, model_of, onesided: int, window: np.ndarray | None, batch: int, unchanged_by) -> None:
    model = stft_model(model_of, 3, window, onesided)
    after = stft_to_matmul.apply(model)
    assert "STFT" not in kinds(after)
    assert kinds(after).count("Conv") == 1
    # Sums of 64 products of values of size 1, in float32.
    unchanged_by(model, after, {"x": RNG.standard_normal((batch, 200, 1)).astype(np.float32)}, 64 * 2e-6)


def test_stft_filters_find_a_tone() -> None:
    """A cosine of 5 periods in 32 samples has all its energy in bin 5: 16 = N / 2, real."""
    filters = stft_to_matmul.dft_filters(np.ones(32), 32, onesided=True)
    tone = np.cos(2 * np.pi * 5 * np.arange(32) / 32)
    spectrum = filters[:, 0, :] @ tone
    expected = np.zeros(34)
    expected[5] = 16.0
    np.testing.assert_allclose(spectrum, expected, atol=1e-5)


def test_stft_with_a_computed_window_is_refused(model_of) -> None:
    model = model_of(
        [
            helper.make_node("Relu", ["w"], ["window"]),
            helper.make_node("STFT", ["x", "step", "window", "length"], ["y"], name="stft", onesided=1),
        ],
        {"x": ["batch", 200, 1], "w": [64]},
        {"y": ["batch", 9, 33, 2]},
        {"step": np.int64(16), "length": np.int64(64)},
    )
    with pytest.raises(ExportError, match="window of STFT 'stft' is computed"):
        stft_to_matmul.apply(model)


def test_a_model_without_stft_is_handed_back(int8_proto: ModelProto) -> None:
    assert stft_to_matmul.apply(int8_proto) == int8_proto
