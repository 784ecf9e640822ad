"""Names in recipes and what they make."""

import typing

import pytest
import torch
from torch import nn

from compress.qat import prepare as qat
from compress.qat.equalize import EQUALIZE, equalized
from compress.qat.fake_quantize import ObservedActivation
from compress.qat.learned_steps import LearnedActivation
from compress.qat.observers import HistogramObserver, MinMaxObserver
from compress.qat.ranges import METHODS, WEIGHT_METHODS, Percentile
from compress.qat.rounding import STEPS, rounding
from compress.recipe import QuantizePart


def test_recipes_know_the_same_names() -> None:
    """The recipe module loads no torch, so it repeats them."""
    kinds = typing.get_type_hints(QuantizePart)
    assert typing.get_args(kinds["ranges"]) == METHODS
    assert typing.get_args(kinds["weight_ranges"]) == WEIGHT_METHODS
    assert typing.get_args(kinds["steps"]) == STEPS
    assert typing.get_args(kinds["equalize"]) == EQUALIZE


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()


@pytest.mark.parametrize("ranges", METHODS)
@pytest.mark.parametrize("steps", STEPS)
def test_every_choice_is_made_and_calibrates(ranges: str, steps: str) -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    model = qat.prepare(network(), (x[:1],), "cortex_m", rounding=rounding(ranges, steps=steps))  # type: ignore[arg-type]
    qat.calibrate(model, [x[:32], x[32:]])
    for module in model.activations():
        assert isinstance(module, ObservedActivation if steps == "observed" else LearnedActivation)
        assert isinstance(module.observer, MinMaxObserver if ranges == "minmax" else HistogramObserver)
        assert int(module.seen) == 2
        assert float(module.low) < 0.0 < float(module.high) or float(module.low) == 0.0 < float(module.high)


def test_the_percentile_reaches_the_rule() -> None:
    x = torch.rand(1000, 4, generator=torch.Generator().manual_seed(0))
    model = qat.prepare(network(), (x[:1],), "tensorrt", rounding=rounding("percentile", percentile=90.0))
    qat.calibrate(model, [x])
    first = next(iter(model.activations()))
    assert isinstance(first.observer, HistogramObserver)
    assert first.observer.rule == Percentile(90.0)
    assert float(first.high) == pytest.approx(0.95, abs=0.02)


def test_weight_ranges_of_least_error_ship() -> None:
    """A channel with one outlier is clipped a little, a constant one is not; conversion stores the clipped codes."""
    torch.manual_seed(0)
    layer = nn.Linear(4000, 2, bias=False)
    with torch.no_grad():
        layer.weight[0].uniform_(-1, 1)
        layer.weight[0, 0] = 4.0
        layer.weight[1] = 1.0
    x = torch.randn(16, 4000)
    found = {}
    for name in WEIGHT_METHODS:
        model = qat.prepare(layer, (x[:1],), "tensorrt", rounding=rounding(weight_ranges=name))
        qat.calibrate(model, [x])
        weight = next(iter(model.weights()))
        found[name] = weight.scale.clone()
        rounded = weight(layer.weight)
        with torch.no_grad():
            torch.testing.assert_close(qat.convert(model)(x), model(x))
        torch.testing.assert_close(weight.train()(layer.weight), rounded)  # the shrink stays while weights train
    assert found["mse"][0] < found["max"][0]
    assert found["mse"][1] == found["max"][1]


def test_equalisation_by_name() -> None:
    student, x = network(), torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    assert equalized(student, "none", ()) is student
    with torch.no_grad():
        for kind in ("weights", "activations"):
            model = equalized(student, kind, [(x,)])
            assert not torch.equal(model[0].weight, student[0].weight)  # type: ignore[index]
            torch.testing.assert_close(model(x), student(x))
