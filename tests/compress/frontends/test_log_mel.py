"""LogMel: against numbers worked out without it, and in the exported file."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from compress.frontends.log_mel import LogMel, hz_to_mel, mel_filterbank, mel_to_hz
from exporters import torch_to_onnx

# 256-point sums in float32, whatever their order: relative 256 * 2^-24 of the band's power, read through a logarithm.
ROUNDING = 256 * 2.0**-24 * 8


def log_mel(floor: float = 1e-7) -> LogMel:
    return LogMel(
        rate_hz=8000, frame=256, hop=128, mels=32, low_hz=60.0, high_hz=4000.0, floor=floor, mean=-11.5, std=4.0
    )


def sound(batch: int, samples: int = 8000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    time = torch.arange(samples) / 8000
    tones = torch.sin(2 * math.pi * (300 + 400 * torch.arange(batch))[:, None] * time)
    return 0.4 * tones + 0.05 * torch.randn(batch, samples, generator=generator)


def by_numpy(waveform: np.ndarray, floor: float) -> np.ndarray:
    """The same features from the definitions, in float64, with loops where the module has products."""

    def to_mel(hz: float) -> float:
        return 3 * hz / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)

    def to_hz(mel: float) -> float:
        return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    edges = [to_hz(mel) for mel in np.linspace(to_mel(60.0), to_mel(4000.0), 34)]
    rows = []
    for samples in waveform.astype(np.float64):
        frames = []
        for start in range(0, len(samples) - 255, 128):
            power = np.abs(np.fft.rfft(samples[start : start + 256] * window)) ** 2
            bands = []
            for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
                total = 0.0
                for place, value in enumerate(power):
                    hz = place * 8000 / 256
                    slope = (hz - low) / (centre - low) if hz <= centre else (high - hz) / (high - centre)
                    total += max(0.0, slope) * 2 / (high - low) * value
                bands.append((math.log(max(total, floor)) + 11.5) / 4.0)
            frames.append(bands)
        rows.append(np.array(frames).T[None])
    return np.stack(rows)


def test_equals_an_independent_implementation() -> None:
    waveform = sound(2, 2048)
    got = log_mel()(waveform)
    assert got.shape == (2, 1, 32, 15)  # 1 + (2048 - 256) // 128
    np.testing.assert_allclose(got.numpy(), by_numpy(waveform.numpy(), 1e-7), atol=1e-4, rtol=0)


def test_silence_is_the_floor() -> None:
    got = log_mel()(torch.zeros(1, 8000))
    torch.testing.assert_close(got, torch.full((1, 1, 32, 61), (math.log(1e-7) + 11.5) / 4.0))


def test_a_tone_lands_in_its_band() -> None:
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 8000)[None]
    loudest = log_mel()(tone).mean(dim=-1).argmax().item()
    mels = np.linspace(hz_to_mel(60.0), hz_to_mel(4000.0), 34)
    assert loudest == int(np.abs(mels[1:-1] - 15.0).argmin())  # 1 kHz is 15 mel


def test_twice_as_loud_is_the_same_step_everywhere() -> None:
    module = log_mel(floor=1e-30)
    waveform = sound(1)
    step = module(2 * waveform) - module(waveform)
    torch.testing.assert_close(step, torch.full_like(step, math.log(4.0) / 4.0), atol=1e-4, rtol=0)


def test_a_later_start_is_a_later_frame() -> None:
    module = log_mel()
    waveform = sound(1, 8128)
    torch.testing.assert_close(
        module(waveform[:, 128:])[..., :-1], module(waveform[:, :-128])[..., 1:], atol=ROUNDING, rtol=ROUNDING
    )


def test_the_logarithm_is_float32_under_autocast() -> None:
    module, waveform = log_mel(), sound(1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(waveform)
    assert mixed.dtype == torch.float32
    # bfloat16 rounds the band's power by at most 2^-8, and the sum's terms by as much again.
    assert (mixed - module(waveform)).abs().max() < 3 * 2.0**-8 / 4.0


def test_the_scale_is_slaneys_and_inverts() -> None:
    assert hz_to_mel(1000.0) == pytest.approx(15.0)
    assert hz_to_mel(6400.0) == pytest.approx(42.0)
    for hz in (0.0, 60.0, 999.0, 1000.0, 3999.0):
        assert mel_to_hz(torch.tensor(hz_to_mel(hz), dtype=torch.float64)).item() == pytest.approx(hz)


def test_white_noise_is_level_across_the_bands() -> None:
    bank = mel_filterbank(8000, 4096, 32, 60.0, 4000.0)  # long frames: the triangles' sums approach their areas
    torch.testing.assert_close(bank.sum(dim=1) * 8000 / 4096, torch.ones(32), atol=0.01, rtol=0)


def test_has_nothing_to_train_and_nothing_to_save() -> None:
    assert not list(log_mel().parameters())
    assert not log_mel().state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": 200}, "power of two"),
        ({"hop": 0}, "hop"),
        ({"hop": 257}, "hop"),
        ({"floor": 0.0}, "floor"),
        ({"std": 0.0}, "std"),
        ({"high_hz": 4001.0}, "edges"),
        ({"low_hz": 4000.0}, "edges"),
        ({"mels": 0}, "mels"),
        ({"mels": 128, "frame": 128, "hop": 64}, "no frequency bin"),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(change: dict[str, float], message: str) -> None:
    numbers = {
        "rate_hz": 8000, "frame": 256, "hop": 128, "mels": 32, "low_hz": 60.0, "high_hz": 4000.0,
        "floor": 1e-7, "mean": 0.0, "std": 1.0,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        LogMel(**(numbers | change))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log_mel") / "front_end.onnx"
    torch_to_onnx.convert(
        log_mel().eval(), (sound(3),), path, opset=20, input_names=["input"], output_names=["features"], metadata={}
    )
    return path


def test_the_file_holds_one_standard_stft_and_small_weights(exported: Path) -> None:
    model = onnx.load(str(exported))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("STFT") == 1
    assert kinds.count("MatMul") == 1
    assert "Cast" not in kinds
    assert {node.domain for node in model.graph.node} == {""}
    # The window and the bank of 32 x 129 as float32 are 17.5 kB; Fourier matrices would be 264 kB.
    assert exported.stat().st_size < 32_000


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_onnxruntime_gives_the_same_at_every_batch_size(exported: Path, batch: int) -> None:
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    waveform = sound(batch)
    (got,) = session.run(None, {"input": waveform.numpy()})
    np.testing.assert_allclose(got, log_mel()(waveform).numpy(), atol=ROUNDING * 10, rtol=ROUNDING)
