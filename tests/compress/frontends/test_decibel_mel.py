"""The front-end of Wav2Small: against a Fourier transform, by hand, and what must not change it."""

import math

import pytest
import torch
from torch import Tensor

from compress.frontends.decibel_mel import DecibelMel
from compress.frontends.log_mel import mel_triangles

PUBLISHED = DecibelMel(rate_hz=16_000, hop=32, mels=26)


def sine(hertz: float, count: int = 16_000) -> Tensor:
    return torch.sin(2 * math.pi * hertz * torch.arange(count, dtype=torch.float64) / 16_000).float()[None]


def test_shape_and_frozen_numbers_are_the_releases() -> None:
    assert PUBLISHED(torch.randn(2, 16_000)).shape == (2, 1, 26, 499)  # the release has (1, 499, 26)
    assert PUBLISHED(torch.randn(1, 64)).shape == (1, 1, 26, 1)
    assert PUBLISHED.cosines.numel() + PUBLISHED.sines.numel() == 4224
    assert PUBLISHED.bank.shape == (26, 33)
    assert not list(PUBLISHED.parameters())
    assert not PUBLISHED.state_dict()


def test_convolutions_are_the_fourier_transform_of_windowed_frames() -> None:
    exact = DecibelMel(rate_hz=16_000, hop=32, mels=26).double()
    angles = torch.arange(33, dtype=torch.float64)[:, None] * torch.arange(64, dtype=torch.float64) * (math.pi / 32)
    window = torch.hann_window(64, periodic=True, dtype=torch.float64)
    exact.cosines = (angles.cos() * window)[:, None]  # the buffers were rounded to float32
    exact.sines = (-angles.sin() * window)[:, None]
    torch.manual_seed(0)
    signal = torch.randn(2, 1000, dtype=torch.float64)
    frames = signal.unfold(1, 64, 32) * window
    expected = torch.fft.rfft(frames).abs().square().transpose(1, 2)
    torch.testing.assert_close(exact.power(signal), expected, atol=1e-11, rtol=0)
    torch.testing.assert_close(PUBLISHED.power(signal.float()).double(), expected, atol=1e-3, rtol=1e-4)


def test_short_and_quiet_clips_are_those_of_numpys_transform() -> None:
    """By numpy's FFT and Slaney's triangles, of 96 samples: of so few the variance's denominator counts, and of so
    quiet ones what is added to it."""
    count = torch.arange(96, dtype=torch.float64)
    quiet = 1e-4 * sine(2000.0, 96)
    loud = sine(2000.0, 96) + 0.5 * count.cos().float()
    found = PUBLISHED(torch.cat([loud, quiet]))[:, 0]  # each clip by itself
    expected = torch.tensor([[-9.3751, -9.3945], [2.5575, 2.5877]])
    torch.testing.assert_close(found[0, [12, 14]], expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(found[1, 12:15, 0], torch.tensor([-21.7771, -15.5831, -9.9206]), atol=2e-3, rtol=0)
    assert float(PUBLISHED.sines[1, 0, 16]) == pytest.approx(-0.5)  # -sin(pi / 2) times the window's 1/2


def test_gain_and_offset_of_a_clip_change_nothing() -> None:
    torch.manual_seed(1)
    signal = torch.randn(3, 2000)
    gain, offset = torch.tensor([[3.0], [0.5], [40.0]]), torch.tensor([[0.5], [-2.0], [0.0]])
    torch.testing.assert_close(PUBLISHED(gain * signal + offset), PUBLISHED(signal), atol=2e-3, rtol=0)  # dB


def test_silence_is_the_floor() -> None:
    for floor in (-100.0, -50.0):
        bands = DecibelMel(rate_hz=16_000, hop=32, mels=26, floor_db=floor)(torch.zeros(1, 640))
        torch.testing.assert_close(bands, torch.full((1, 1, 26, 19), floor), atol=1e-4, rtol=0)


def test_a_sine_of_1_khz_is_in_band_8_of_every_frame() -> None:
    bands = PUBLISHED(sine(1000.0))[0, 0]
    assert torch.all(bands.argmax(dim=0) == 8)
    torch.testing.assert_close(bands[8], torch.full((499,), 6.1730), atol=1e-3, rtol=0)


def test_the_lowest_published_band_holds_no_bin_and_is_constant() -> None:
    assert torch.all(mel_triangles(16_000, 64, 26, 0.0, 8000.0)[0] == 0)
    lowest = PUBLISHED(torch.randn(1, 3200))[0, 0, 0]
    torch.testing.assert_close(lowest, torch.full((99,), -100.0), atol=1e-4, rtol=0)


def test_mixed_precision_stays_outside_and_the_callers_samples_stay() -> None:
    signal = torch.randn(1, 3200)
    before = signal.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = PUBLISHED(signal)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, PUBLISHED(signal))
    assert torch.equal(signal, before)


@pytest.mark.parametrize("numbers", [{"hop": 0}, {"mels": 0}, {"frame": 1}, {"floor_db": -120.0}])
def test_refuses_numbers_out_of_range(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"hop|at least"):
        DecibelMel(**{"rate_hz": 16_000, "hop": 32, "mels": 26, **numbers})  # type: ignore[arg-type]
