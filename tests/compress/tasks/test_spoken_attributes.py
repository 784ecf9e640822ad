"""Attributes of waveforms by hand, ratings, and the metric of a whole split."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from compress.contracts.examples import TensorExamples
from compress.tally import Tally, metric
from compress.tasks.spoken_attributes import CENTROID, NOISE, PEAK, RATIO, SAMPLES, TASK, Mean, attributes, rated

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "fsdd"
TIME = torch.arange(SAMPLES, dtype=torch.float64) / 8000


def tone(hertz: float) -> Tensor:
    """Whole periods: 8000 / 3072 Hz is the transform's resolution."""
    return torch.sin(2 * math.pi * hertz * TIME)


def unscaled(found: Tensor) -> list[float]:
    return [low + float(v) * (high - low) for v, (low, high) in zip(found, (CENTROID, RATIO, PEAK), strict=True)]


def test_attributes_by_hand() -> None:
    """Two tones of 500 and 2000 Hz with powers 4 : 1: centroid 800 Hz, ratio 4; a steady signal peaks nowhere."""
    centroid, ratio, peak = unscaled(attributes((2 * tone(500.0) + tone(2000.0))[None])[0])
    assert centroid == pytest.approx(math.log2(800), abs=1e-5)
    assert ratio == pytest.approx(math.log10(4), abs=1e-5)
    assert peak == pytest.approx(0.0, abs=1e-4)


def test_a_signal_in_an_eighth_of_the_time_peaks_eightfold() -> None:
    burst = tone(500.0) * (torch.arange(SAMPLES) < SAMPLES // 8)
    assert unscaled(attributes(burst[None])[0])[2] == pytest.approx(3.0, abs=0.02)


def test_loudness_changes_nothing_and_silence_is_finite() -> None:
    clip = 2 * tone(500.0) + tone(2000.0)
    torch.testing.assert_close(attributes(40 * clip[None]), attributes(clip[None]))
    assert torch.isfinite(attributes(torch.zeros(1, SAMPLES))).all()


def test_ratings_are_the_truth_and_noise_of_the_seed() -> None:
    true = TensorExamples(torch.zeros(4000, 1), torch.zeros(4000, 3), "x")
    noise = rated(true, 0).labels
    assert float(noise.std()) == pytest.approx(NOISE, rel=0.03)
    assert torch.equal(noise, rated(true, 0).labels)
    assert not torch.equal(noise, rated(true, 1).labels)
    assert rated(true, 0).fingerprint() != rated(true, 1).fingerprint() != true.fingerprint()


def test_the_metric_is_of_the_whole_split_and_the_mean_of_three() -> None:
    x, y = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.1, 1.9, 3.2, 3.8])
    output, labels = torch.stack([x, x, x], dim=1), torch.stack([y, x + 1, x.flip(0)], dim=1)
    expected = (0.9894736842 + 0.7142857143 - 1.0) / 3
    assert metric(TASK, output, labels) == pytest.approx(expected, abs=1e-7)
    tally = Tally(TASK)
    for cut in (slice(0, 1), slice(1, 4)):
        tally.add(output[cut], labels[cut])
    assert tally.value() == pytest.approx(expected, abs=1e-7)
    loss = TASK.loss(output, labels)
    assert loss.shape == (4,)
    assert float(loss.mean()) == pytest.approx(1 - expected, abs=1e-6)


def test_the_metric_is_a_number_of_its_own_and_the_noise_is_the_studys() -> None:
    assert (TASK.metric, TASK.metric_unit) == ("concordance", "")
    assert NOISE == 0.28


def test_the_reference_teacher_answers_with_its_members_mean() -> None:
    teacher = Mean(2).eval()
    bands = torch.randn(2, 1, 20, 20)
    with torch.no_grad():
        torch.testing.assert_close(teacher(bands), (teacher.members[0](bands) + teacher.members[1](bands)) / 2)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the recordings in shared/data/fsdd")
def test_real_clips() -> None:
    splits = TASK.load(DATA)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [2400, 300, 300]
    true = TASK.load_unrated(DATA)
    assert torch.equal(splits.test.labels, true.test.labels)
    assert float((splits.train.labels - true.train.labels).std()) == pytest.approx(NOISE, rel=0.03)
    shares = ((true.train.labels > 0) & (true.train.labels < 1)).float().mean(dim=0)
    assert torch.all((shares > 0.85) & (shares < 0.95))  # the scales are those of the 5th and 95th of 100 parts
    # Ratings of single people agree with the truth as the noise says: 2 v / (2 v + 0.28^2).
    variance = true.train.labels.var(dim=0)
    expected = float((2 * variance / (2 * variance + NOISE**2)).mean())
    assert metric(TASK, splits.train.labels, true.train.labels) == pytest.approx(expected, abs=0.02)
