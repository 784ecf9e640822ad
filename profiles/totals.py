"""What a network costs where only its totals are known, and how two measured times make any prediction closer.

A paper's table gives multiply-accumulates, parameters and perhaps activations, but no graph. A batch then takes

    t = scale * (MACs / rate + activations / bandwidth + weights / bandwidth) + fixed

with factors per device family that tools/fit_totals.py fitted on published latencies. Sources that time the same
network differ by a third and more: without a time from the same device, runtime and way of measuring the interval is
that wide. Each measured anchor narrows it: `scale` and `fixed` have prior distributions, whose spreads are those
between published protocols, and are drawn to what the anchors say.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # JetPack 6 has Python 3.10
    import tomli as tomllib

import numpy as np
from numpy.typing import NDArray

from profiles.cost import Cost, Precision
from profiles.errors import ProfileError
from profiles.graph import Graph
from profiles.target import Target
from profiles.target import target as find_target

TABLE = Path(__file__).parent / "latency" / "totals.toml"
ANCHORS = Path(__file__).parent / "latency" / "anchors.toml"
NINE_IN_TEN = 1.645  # deviations of a normal distribution to each side
BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
ACTIVATIONS = (8e6, 0.7)  # elements at 1 GMAC and the exponent of GMACs: convolutional networks of the published tables


@dataclass(frozen=True)
class Anchor:
    """One measured time: of a network known by its totals, or by its graph.

    Exactly one of `macs` and `graph` is given.
    """

    ms: float  # of the whole batch
    macs: float | None = None  # per item
    activations: float | None = None  # output elements of convolutions and linear layers, per item
    params: float | None = None
    batch: int = 1
    precision: Precision | None = None  # None is the target's
    graph: Graph | None = None


@dataclass(frozen=True)
class Spread:
    """Standard deviations of natural logarithms."""

    scale: float  # of `scale` between protocols
    fixed: float  # of `fixed` between protocols
    residual: float  # of one network's time within a protocol
    reach: float = NINE_IN_TEN  # how many deviations hold nine in ten networks of families that were left out


@dataclass(frozen=True)
class Line:
    """t = exp(log_scale) * body + exp(log_fixed) * fixed, as far as anchors have told it."""

    log_scale: float
    log_fixed: float
    covariance: NDArray[np.float64]  # (2, 2), of the two logarithms
    residual: float
    reach: float
    anchors: int

    def predict(self, body_ms: float, fixed_ms: float) -> tuple[float, float]:
        """Milliseconds and the standard deviation of their logarithm."""
        scaled, constant = math.exp(self.log_scale) * body_ms, math.exp(self.log_fixed) * fixed_ms
        total = scaled + constant
        share = np.array([scaled / total, constant / total])
        return total, math.sqrt(float(share @ self.covariance @ share) + self.residual**2)


def predict_totals(
    target: str | Target,
    macs: float,
    activations: float | None = None,
    params: float | None = None,
    batch: int = 1,
    precision: Precision | None = None,
    anchors: Sequence[Anchor] = (),
) -> Cost:
    """Cost of a network without a graph.

    Args:
        target: a name, or what `profiles.target` returned.
        macs: multiply-accumulates per item, > 0.
        activations: output elements of convolutions and linear layers per item; None estimates them from `macs`.
        params: None leaves the reading of weights out.
        batch: >= 1.
        precision: None is the target's.
        anchors: times measured in one way on one such device; two say most of what there is to know.

    Returns:
        A cost whose origin is "predicted". Peak memory cannot be known from totals and is 0, which a note says.

    Raises:
        ProfileError: a figure is out of range, or no factors are there for the target's family.
    """
    device = find_target(target) if isinstance(target, str) else target
    _check(macs, batch)
    used: Precision = precision or device.precision
    body, fixed = parts_ms(device, macs, activations, params, batch, used)
    line = fit_line([_measured(device, anchor) for anchor in anchors], spread(device.family))
    latency, deviation = line.predict(body, fixed)
    reach = math.exp(line.reach * deviation)
    count = int(params or 0)
    return Cost(
        target=device.name,
        runtime=f"{device.runtime} {device.runtime_version}".strip(),
        batch=batch,
        precision=used,
        macs=int(macs * batch),
        params=count,
        weight_bytes=count * BYTES[used],
        peak_activation_bytes=0,
        latency_ms=latency,
        interval_ms=(latency / reach, latency * reach),
        origin="predicted",
        notes=_notes(device, activations, params, line),
    )


def _notes(device: Target, activations: float | None, params: float | None, line: Line) -> tuple[str, ...]:
    notes = [
        "from totals, without a graph: peak memory and layers are not known",
        f"model: {_table(device.family)['origin']}",
    ]
    if activations is None:
        notes.append("activations were estimated from the multiply-accumulates")
    if params is None:
        notes.append("the number of parameters was not given: reading weights is not in the time")
    if line.anchors:
        notes.append(f"calibrated by {line.anchors} measured times: scale {math.exp(line.log_scale):.2f}")
    else:
        notes.append("no time of this device, runtime and way of measuring was given: the interval holds any source")
    return tuple(notes)


def _check(macs: float, batch: int) -> None:
    if not (macs > 0 and math.isfinite(macs)):
        raise ProfileError(f"macs is {macs}", fix="pass the multiply-accumulates of one item, such as 4.1e9")
    if batch < 1:
        raise ProfileError(f"batch is {batch}", fix="pass a whole number from 1")


def parts_ms(
    target: Target, macs: float, activations: float | None, params: float | None, batch: int, precision: Precision
) -> tuple[float, float]:
    """Milliseconds of a batch that grow with the work, and those that do not, at the family's median protocol."""
    table = _table(target.family)
    hardware = target.hardware
    elements = ACTIVATIONS[0] * (macs / 1e9) ** ACTIVATIONS[1] if activations is None else activations
    if target.family == "cortex-m":
        cycles = table["cycles_per_mac"]
        per_mac = cycles.get(hardware.core, cycles["other"]) * (1.0 if precision == "int8" else table["float"])
        return per_mac * macs * batch / (hardware.clock_mhz * 1e3), table["fixed_us"] / 1e3
    width, rate = BYTES[precision], hardware.bandwidth_gbs * 1e6  # bytes per millisecond
    body = (
        table["compute"] * 2e-9 * macs * batch / _peak(target, precision)
        + table["activations"] * elements * width * batch / rate
        + table["weights"] * (params or 0.0) * width / rate
    )
    return body, table["fixed_us"] / hardware.clock_mhz


def _peak(target: Target, precision: Precision) -> float:
    """Tera-operations per second; a runtime falls back to the next wider format that the device has."""
    order = {
        "int8": ("int8", "fp16", "tf32", "fp32"),
        "fp16": ("fp16", "tf32", "fp32"),
        "bf16": ("bf16", "fp16", "tf32", "fp32"),
        "fp32": ("tf32", "fp32"),
    }
    tops = target.hardware.tops
    return next(tops[name] for name in (*order[precision], *tops) if name in tops)


def spread(family: str) -> Spread:
    """How far protocols differ, and networks within one.

    Raises:
        ProfileError: no factors are there for the family.
    """
    table = _table(family)
    return Spread(table["scale_spread"], table["fixed_spread"], table["residual"], table["reach"])


def graph_spread(family: str) -> Spread:
    """The same where the networks' graphs are known: tools/fit_anchors.py.

    On published TensorRT rows whose model family was left out, two anchors bring the median error from 26 to 11 %
    (A100) and from 16 to 10 % (Jetson).
    """
    tables = _tables(ANCHORS)
    table = tables.get(family, tables["other"])
    return Spread(table["scale_spread"], table["fixed_spread"], table["residual"], table["reach"])


def fit_line(measured: Sequence[tuple[float, float, float]], prior: Spread) -> Line:
    """The line that anchors and the prior agree on: the mode of the posterior, and its curvature there.

    Args:
        measured: (body_ms, fixed_ms, measured_ms) of each anchor, by the family's own factors.

    Raises:
        ProfileError: a measured time is not positive and finite.
    """
    precision = np.diag([1 / prior.scale**2, 1 / prior.fixed**2])
    x = np.zeros(2)
    curvature = precision
    for _, _, ms in measured:
        if not (ms > 0 and math.isfinite(ms)):
            raise ProfileError(f"an anchor took {ms} ms", fix="pass measured milliseconds of the whole batch")
    if measured:
        body, fixed, took = np.array(measured).T
        value = tried = _value(x, body, fixed, took, precision, prior)
        for _ in range(50):  # Gauss-Newton with halved steps: two unknowns, smooth in both
            scaled, constant = np.exp(x[0]) * body, np.exp(x[1]) * fixed
            total = scaled + constant
            jacobian = np.stack([scaled / total, constant / total], axis=1)
            error = np.log(took) - np.log(total)
            curvature = precision + jacobian.T @ jacobian / prior.residual**2
            step = np.linalg.solve(curvature, jacobian.T @ error / prior.residual**2 - precision @ x)
            for _ in range(20):
                tried = _value(x + step, body, fixed, took, precision, prior)
                if tried <= value:
                    break
                step = step / 2
            x = x + step
            value = tried
            if float(np.abs(step).max()) < 1e-10:
                break
    return Line(float(x[0]), float(x[1]), np.linalg.inv(curvature), prior.residual, prior.reach, len(measured))


def _value(
    x: NDArray[np.float64],
    body: NDArray[np.float64],
    fixed: NDArray[np.float64],
    ms: NDArray[np.float64],
    precision: NDArray[np.float64],
    prior: Spread,
) -> float:
    """Minus the logarithm of the posterior, without its constant."""
    error = np.log(ms) - np.log(np.exp(x[0]) * body + np.exp(x[1]) * fixed)
    return 0.5 * float(error @ error) / prior.residual**2 + 0.5 * float(x @ precision @ x)


def _measured(device: Target, anchor: Anchor) -> tuple[float, float, float]:
    """What the family's own factors say of an anchor, and what was measured."""
    if (anchor.macs is None) == (anchor.graph is None):
        raise ProfileError("an anchor has both or neither of macs and graph", fix="pass one of them")
    if anchor.graph is not None:
        from profiles.latency.models import latency_model
        from profiles.predict import predict

        fixed = latency_model(device).fixed_ms
        whole = predict(anchor.graph, device, anchor.precision, layers=False).latency_ms
        return whole - fixed, fixed, anchor.ms
    assert anchor.macs is not None  # for the type checker: the test above
    _check(anchor.macs, anchor.batch)
    precision: Precision = anchor.precision or device.precision
    body, fixed = parts_ms(device, anchor.macs, anchor.activations, anchor.params, anchor.batch, precision)
    return body, fixed, anchor.ms


def latency_table(target: str | Target, anchors: Sequence[Anchor]) -> dict[str, Any]:
    """The `[latency]` table of a user's target: `scale`, `fixed_us`, `interval` and `origin`, from graphs and times.

    Args:
        anchors: at least two, each with a graph; measured on one device, with one runtime, in one way.

    Raises:
        ProfileError: fewer than two anchors, or one without a graph.
    """
    device = find_target(target) if isinstance(target, str) else target
    if len(anchors) < 2:
        raise ProfileError(
            f"{len(anchors)} anchors; two constants need at least two", fix="measure another network there"
        )
    if any(anchor.graph is None for anchor in anchors):
        raise ProfileError("an anchor has no graph", fix="pass graph=profiles.read(...); totals serve predict_totals")
    measured = [_measured(device, anchor) for anchor in anchors]
    line = fit_line(measured, graph_spread(device.family))
    reaches = [line.reach * line.predict(body, fixed)[1] for body, fixed, _ in measured]
    reach = math.exp(max(reaches))
    fixed_ms = math.exp(line.log_fixed) * measured[0][1]
    older = device.latency.get("scale", 1.0)  # the times above are already multiplied with it
    return {
        "scale": math.exp(line.log_scale) * older,
        "fixed_us": fixed_ms * 1e3,
        "interval": [1 / reach, reach],
        "origin": f"{len(anchors)} measured times, drawn towards the family's constants",
    }


def _table(family: str) -> dict[str, Any]:
    tables = _tables(TABLE)
    if family not in tables:
        raise ProfileError(
            f"nothing is known to predict a {family!r} from totals; there are {', '.join(sorted(tables))}",
            fix="profile the network's graph instead",
        )
    return tables[family]


@lru_cache(maxsize=2)
def _tables(path: Path) -> dict[str, dict[str, Any]]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
