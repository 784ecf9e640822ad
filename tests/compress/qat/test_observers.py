"""How ranges are found in calibration and followed in training."""

import pytest
import torch
from torch import Tensor

from compress.qat.fake_quantize import ObservedActivation
from compress.qat.observers import HistogramObserver, MinMaxObserver, RangeObserver
from compress.qat.ranges import FLOOR, Codes, LeastSquares, Percentile

INT8 = Codes(-128, 127, symmetric=True)


def normal(seed: int, count: int = 4000) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def calibrated(*batches: Tensor) -> HistogramObserver:
    observer = HistogramObserver(Percentile(99.0))
    for batch in batches:
        observer.calibrate(batch, INT8)
    observer.settle(INT8)
    return observer


def test_the_order_of_calibration_batches_does_not_matter() -> None:
    parts = [normal(0), 3 * normal(1, 100), 0.1 * normal(2)]
    assert float(calibrated(*parts).high) == float(calibrated(*reversed(parts)).high)
    assert float(calibrated(*parts).high) == float(calibrated(torch.cat(parts)).high)


def test_training_keeps_the_shape_and_follows_the_size() -> None:
    observer = calibrated(normal(0))
    low, high = float(observer.low), float(observer.high)
    for _ in range(1500):
        observer.follow(2.0 * normal(0), INT8)
    assert (float(observer.low), float(observer.high)) == (
        pytest.approx(2 * low, rel=1e-3),
        pytest.approx(2 * high, rel=1e-3),
    )


def test_an_outlier_in_training_hardly_moves_a_histogram_range() -> None:
    x = normal(0)
    observer = calibrated(x)
    for _ in range(200):
        observer.follow(x, INT8)
    before = float(observer.high)
    observer.follow(torch.cat([x, torch.tensor([1000.0])]), INT8)
    assert float(observer.high) < 1.005 * before
    minmax = MinMaxObserver()
    for _ in range(200):
        minmax.follow(x, INT8)
    minmax.follow(torch.cat([x, torch.tensor([1000.0])]), INT8)
    assert float(minmax.high) > 3 * float(x.max())


def test_without_calibration_the_first_batch_gives_the_range() -> None:
    observer = HistogramObserver(LeastSquares())
    assert observer.follow(normal(0), INT8)
    assert int(observer.seen) == 1
    assert 2.5 < float(observer.high) < 4.5


def test_a_tensor_that_was_dead_in_calibration_gets_its_range_when_it_comes_alive() -> None:
    observer = calibrated(torch.zeros(100), torch.zeros(100))
    assert (float(observer.low), float(observer.high)) == (0, 0)
    observer.follow(torch.zeros(10), INT8)
    observer.follow(normal(0), INT8)
    alive = float(observer.high)
    assert 2.0 < alive < 3.0
    observer.follow(normal(0), INT8)
    assert float(observer.high) == pytest.approx(alive)


@pytest.mark.parametrize("observer", [MinMaxObserver(), HistogramObserver(Percentile())])
@pytest.mark.parametrize("bad", [torch.empty(0), torch.tensor([1.0, float("nan")]), torch.tensor([float("inf")])])
def test_bad_batches_change_nothing(observer: RangeObserver, bad: Tensor) -> None:
    before = {key: value.clone() for key, value in observer.state_dict().items()}
    observer.calibrate(bad, INT8)
    observer.settle(INT8)
    observer.follow(bad, INT8)
    assert all(torch.equal(before[key], value) for key, value in observer.state_dict().items())


def test_the_histogram_is_dropped_when_calibration_ends() -> None:
    observer = calibrated(normal(0))
    assert observer._counts is None
    assert set(observer.state_dict()) == {"low", "high", "seen", "size"}


def test_a_fake_quantiser_takes_its_grid_when_calibration_ends() -> None:
    fake = ObservedActivation(
        torch.int8, -128, 127, torch.per_tensor_symmetric, observer=lambda: HistogramObserver(Percentile(99.0))
    ).eval()
    fake.calibrating = True
    fake.disable_fake_quant()
    x = normal(0)
    assert torch.equal(fake(x), x)
    fake.calibrating = False
    fake.settle()
    fake.enable_fake_quant()
    assert float(fake.scale) == pytest.approx(float(calibrated(x).high) / 127, rel=0.1)
    assert float(fake(x).max()) == pytest.approx(127 * float(fake.scale))
    assert float(fake.scale) > FLOOR
