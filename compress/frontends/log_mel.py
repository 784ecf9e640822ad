"""Waveform to log-mel spectrogram, inside the model and its exported file.

Sources: Slaney, "Auditory Toolbox, Version 2", Interval Research technical report 1998-010 (the mel scale and filters
of equal area); Davis, Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition", IEEE
TASSP 28(4), 1980 (log energies of a mel filterbank).
"""

import math

import torch
from torch import Tensor, nn

LINEAR_HZ_PER_MEL = 200.0 / 3.0  # Slaney's scale is linear below 1 kHz,
BREAK_HZ = 1000.0
STEPS_PER_OCTAVE = 27.0 / math.log2(6.4)  # and logarithmic above: 27 steps from 1 kHz to 6.4 kHz


class LogMel(nn.Module):
    """Hann window, power spectrum, Slaney's mel filterbank, natural log with a floor, fixed affine normalisation.

    Without padding: `frames = 1 + (samples - frame) // hop`, so no output rests on samples that were never heard, and a
    stream can be computed frame by frame. It exports to the standard ONNX operator STFT (opset 17 and later), whose
    weights are the window and the filterbank only.

    Args:
        rate_hz: samples per second.
        frame: samples per frame, a power of two.
        hop: samples from one frame to the next, 1..frame.
        mels: bands.
        low_hz: lower edge of the lowest band, >= 0.
        high_hz: upper edge of the highest band, <= rate_hz / 2.
        floor: smallest band power that the log sees, > 0: what counts as silence.
        mean: of the log powers, in nats; subtracted.
        std: of the log powers, > 0; divided by.

    Raises:
        ValueError: a number is out of its range, or a band is so narrow that no frequency bin falls into it.
    """

    window: Tensor
    bank: Tensor

    def __init__(
        self,
        *,
        rate_hz: int,
        frame: int,
        hop: int,
        mels: int,
        low_hz: float,
        high_hz: float,
        floor: float,
        mean: float,
        std: float,
    ) -> None:
        super().__init__()
        if frame < 2 or frame & (frame - 1):
            raise ValueError(f"frame must be a power of two, got {frame}")
        if not 1 <= hop <= frame:
            raise ValueError(f"hop must be 1 to {frame}, got {hop}")
        if not floor > 0 or not std > 0:
            raise ValueError(f"floor and std must be positive, got {floor} and {std}")
        self.frame = frame
        self.hop = hop
        self.floor = floor
        self.mean = mean
        self.std = std
        # Constants of the task, not of a checkpoint: kept out of every state dict.
        self.register_buffer("window", torch.hann_window(frame, periodic=True), persistent=False)
        self.register_buffer("bank", mel_filterbank(rate_hz, frame, mels, low_hz, high_hz), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, samples) float32 in [-1, 1] -> (B, 1, mels, frames) float32."""
        spectrum = torch.view_as_real(
            torch.stft(
                waveform,
                n_fft=self.frame,
                hop_length=self.hop,
                window=self.window,
                center=False,
                onesided=True,
                return_complex=True,
            )
        )
        power = spectrum.square().sum(-1)  # (B, frame // 2 + 1, frames)
        # Under autocast the product comes as bfloat16, whose 8 bits are too few for the logarithm's result.
        bands = torch.matmul(self.bank, power).to(torch.float32)
        logs = torch.log(torch.clamp(bands, min=self.floor))
        return ((logs - self.mean) * (1.0 / self.std)).unsqueeze(1)


def mel_filterbank(rate_hz: int, frame: int, mels: int, low_hz: float, high_hz: float) -> Tensor:
    """Triangles on Slaney's mel scale, each 2 / bandwidth high: white noise puts the same power into every band.

    Returns:
        (mels, frame // 2 + 1) float32, >= 0.

    Raises:
        ValueError: the edges are out of range, or a band holds no frequency bin.
    """
    if not 0 <= low_hz < high_hz <= rate_hz / 2:
        raise ValueError(f"edges must be 0 <= low < high <= {rate_hz / 2} Hz, got {low_hz} and {high_hz}")
    if mels < 1:
        raise ValueError(f"mels must be at least 1, got {mels}")
    bank = mel_triangles(rate_hz, frame, mels, low_hz, high_hz)
    empty = (bank.sum(dim=1) == 0).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"no frequency bin of a {frame}-sample frame falls into band {empty[0]} of {mels}: use fewer")
    return bank.to(torch.float32)


def mel_triangles(rate_hz: int, frame: int, mels: int, low_hz: float, high_hz: float) -> Tensor:
    """The same in float64, where a band may lie between two frequency bins; it is all zero then."""
    edges = mel_to_hz(torch.linspace(hz_to_mel(low_hz), hz_to_mel(high_hz), mels + 2, dtype=torch.float64))
    bins = torch.arange(frame // 2 + 1, dtype=torch.float64) * rate_hz / frame
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0.0) * (2.0 / (right - left))


def hz_to_mel(hz: float) -> float:
    """Frequency in Hz, >= 0, on Slaney's scale: 15 mel at 1 kHz."""
    if hz < BREAK_HZ:
        return hz / LINEAR_HZ_PER_MEL
    return BREAK_HZ / LINEAR_HZ_PER_MEL + math.log2(hz / BREAK_HZ) * STEPS_PER_OCTAVE


def mel_to_hz(mel: Tensor) -> Tensor:
    """The inverse of `hz_to_mel`, of any shape."""
    knee = BREAK_HZ / LINEAR_HZ_PER_MEL
    above = BREAK_HZ * torch.exp2((mel - knee) / STEPS_PER_OCTAVE)
    return torch.where(mel < knee, mel * LINEAR_HZ_PER_MEL, above)
