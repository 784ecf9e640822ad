"""Which modules round: the names that recipes use, and the choice that `prepare` takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from compress.errors import RecipeError
from compress.qat.fake_quantize import ObservedActivation, ObservedWeightPerChannel, whole
from compress.qat.learned_steps import LearnedActivation, LearnedWeightPerChannel
from compress.qat.observers import HistogramObserver, MinMaxObserver, RangeObserver
from compress.qat.ranges import (
    METHODS,
    PERCENTILE,
    WEIGHT_METHODS,
    Method,
    WeightMethod,
    least_squares_shrink,
    rule,
)

Steps = Literal["observed", "learned"]
STEPS: tuple[Steps, ...] = ("observed", "learned")


@dataclass(frozen=True)
class Rounding:
    """Makers of the fake quantisers, as torchao's specifications take them.

    Args:
        activation: of a module for activations, per tensor.
        weight: of a module for weights, per output channel.
    """

    activation: Any
    weight: Any


def rounding(
    ranges: Method = "minmax",
    *,
    percentile: float = PERCENTILE,
    weight_ranges: WeightMethod = "max",
    steps: Steps = "observed",
) -> Rounding:
    """The choice of a recipe.

    Args:
        ranges: of activations: "minmax", the mean of the batches' extremes; "percentile"; "mse", the range of least
            squared error; "magnitude", the start that LSQ's paper gives. The last three look at the histogram of all
            calibration batches.
        percentile: percent of the values inside the range, in (50, 100]; for "percentile".
        weight_ranges: of weights, per channel: "max", the largest magnitude; "mse".
        steps: "observed": activations' ranges follow the data, weights' their largest magnitude, until they freeze;
            "learned": both start there and train.

    Raises:
        RecipeError: a name that there is not, or a percentile out of its range.
    """
    for what, name, known in (
        ("range method", ranges, METHODS),
        ("weight range method", weight_ranges, WEIGHT_METHODS),
        ("kind of steps", steps, STEPS),
    ):
        if name not in known:
            raise RecipeError(f"no {what} is called {name!r}; there are {', '.join(known)}", fix="use one of these")
    if not 50.0 < percentile <= 100.0:
        raise RecipeError(f"a percentile lies in (50, 100], not at {percentile}", fix=f"try {PERCENTILE}")
    activation, weight = {
        "observed": (ObservedActivation, ObservedWeightPerChannel),
        "learned": (LearnedActivation, LearnedWeightPerChannel),
    }[steps]
    shrink = {"max": whole, "mse": least_squares_shrink}[weight_ranges]
    return Rounding(
        activation.with_args(observer=_observer(ranges, percentile)),  # type: ignore[no-untyped-call]
        weight.with_args(shrink=shrink),  # type: ignore[no-untyped-call]
    )


def _observer(ranges: Method, percentile: float) -> Callable[[], RangeObserver]:
    found = rule(ranges, percentile)
    return MinMaxObserver if found is None else lambda: HistogramObserver(found)


OBSERVED = rounding()
