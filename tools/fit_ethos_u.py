"""Fit the latency model of Ethos-U NPUs to the estimates of Arm's compiler for them, Vela.

    python tools/fit_ethos_u.py > profiles/latency/ethos_u.toml

Networks of every kind of layer are quantised on random data, written as TensorFlow Lite and estimated by Vela on every
size of the NPU, with weights in slow flash and in fast memory. Vela's operators are matched to the kernels that
`profiles` sees in the same ONNX file by their names. Errors are those of whole networks that were left out of the fit;
the four networks of MLPerf Tiny are never in it. Needs ethos-u-vela; takes about four minutes.

Vela is an estimator too, and no silicon is here to compare it with. So the interval holds 90 % of Vela's estimates, and
is then widened by what Vela itself leaves open: from one resource that hides all others to no overlap at all.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType

import fit_cortex_m
import mlperf_tiny
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.optimize import least_squares

import profiles
from exporters import onnx_to_tflite
from profiles.fuse import Kernel, fuse
from profiles.latency import ethos_u
from profiles.latency.ethos_u import Constants
from profiles.runners import on_vela
from profiles.runners.on_vela import Estimate, System
from profiles.target import Hardware

# Blocks of outputs, width x height x channels: Arm Ethos-U55 and U65 technical references.
BLOCKS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "ethos-u55-32": (1, 1, 4),
        "ethos-u55-64": (1, 1, 8),
        "ethos-u55-128": (2, 1, 8),
        "ethos-u55-256": (2, 2, 8),
        "ethos-u65-256": (2, 2, 8),
        "ethos-u65-512": (2, 2, 8),
    }
)
NAMES = [f.name for f in fields(Constants) if f.name != "block"]
START = (1.0, 1.0, 8.0, 0.5, 60.0, 1.5, 0.5, 1.4, 1.5, 1.0, 100.0)
TAILS = 1.5  # with which the autoencoder takes about as many cycles as MLPerf Tiny's trained file of it (201 thousand)
CLOCK = 500.0  # MHz; estimates in cycles depend on the bytes per cycle alone


@dataclass(frozen=True)
class Case:
    """One network on one NPU: its kernels there with Vela's cycles, and cycles of the whole."""

    name: str
    hardware: Hardware
    pairs: tuple[tuple[Kernel, float], ...]
    estimate: Estimate


def systems(accelerator: str) -> Iterator[System]:
    """Weights in flash at the rate of Vela's own embedded systems, and weights in memory as fast as the SRAM."""
    port, share = (8, 8) if "u55" in accelerator else (16, 16)
    yield System(accelerator, CLOCK, port * CLOCK / 1e3, port * CLOCK / share / 1e3)
    yield System(accelerator, CLOCK, port * CLOCK / 1e3, port * CLOCK / 1e3)


def networks() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Those of the Cortex-M fit that are int8 and have no grouped convolutions, which the file format has no place for,
    then the four of MLPerf Tiny.

    How much Vela compresses weights depends on their values. Every other network has weights with the long tails that
    training leaves, whose codes are mostly small; the rest normal random numbers, which hardly compress.
    """
    rng = np.random.default_rng(0)
    for number, (name, model) in enumerate(fit_cortex_m.networks(rng)):
        if not name.startswith(("float", "grouped")):
            yield name, long_tailed(model, rng) if number % 2 else model
    for number, (name, build) in enumerate(mlperf_tiny.NETWORKS.items()):
        model = mlperf_tiny.quantised(build(rng), rng)
        yield name, long_tailed(model, rng) if number % 2 else model


def long_tailed(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """`model` with int8 weights from Student's t with TAILS degrees of freedom, the largest of a channel at 127."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        codes = numpy_helper.to_array(tensor)
        if codes.dtype == np.int8 and codes.ndim > 1:
            drawn = rng.standard_t(TAILS, size=(codes.shape[0], codes[0].size))
            drawn *= 127 / np.maximum(np.abs(drawn).max(axis=1, keepdims=True), 1e-6)
            tensor.CopyFrom(numpy_helper.from_array(np.rint(drawn).astype(np.int8).reshape(codes.shape), tensor.name))
    return result


def cases(name: str, model: onnx.ModelProto, accelerators: Sequence[str]) -> Iterator[tuple[str, Case]]:
    """One network on every NPU."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "net.onnx"
        onnx.save(model, str(path))
        written = onnx_to_tflite.convert(path, None, path.parent).path
        kernels = [k for k in fuse(profiles.read(path), "ethos-u").kernels if not ethos_u.on_core(k)]
        for accelerator in accelerators:
            for system in systems(accelerator):
                found = on_vela.estimate(written, system)
                hardware = Hardware(CLOCK, 1, {}, system.sram_gbs, flash_gbs=system.flash_gbs)
                yield accelerator, Case(name, hardware, matched(kernels, found), found)


def matched(kernels: Sequence[Kernel], found: Estimate) -> tuple[tuple[Kernel, float], ...]:
    """Each kernel with the cycles of the operators that Vela makes of it; their names begin with its own."""
    cycles = dict.fromkeys((kernel.name for kernel in kernels), 0.0)
    for operator in found.operators:
        owners = [name for name in cycles if operator.name == name or operator.name.startswith(f"{name}_")]
        if not owners:
            raise SystemExit(f"Vela's operator {operator.name!r} belongs to no kernel")
        cycles[max(owners, key=len)] += operator.cycles
    return tuple((kernel, cycles[kernel.name]) for kernel in kernels)


class Terms:
    """What a layer's cycles are made of, as arrays over the layers of several networks: `ethos_u.parts` without a loop.

    A test compares both.
    """

    def __init__(self, cases: Sequence[Case], block: tuple[int, int, int]) -> None:
        rows = []
        for number, case in enumerate(cases):
            for kernel, got in case.pairs:
                rows.append([number, got, *_terms(kernel, case.hardware, block)])
        table = np.array(rows)
        self.of, self.got, self.terms = table[:, 0].astype(int), table[:, 1], table[:, 2:]
        self.totals = np.bincount(self.of, self.got)

    def cycles(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predicted cycles of each layer."""
        p = dict(zip(NAMES, values, strict=True))
        t = self.terms
        array = np.maximum(t[:, 0] * p["dense"] + t[:, 1] * p["depthwise"] + t[:, 2] * p["gemm"], t[:, 3] * p["output"])
        array = (
            array + t[:, 4] * p["channels"] + t[:, 5] * p["element"] + t[:, 6] * p["pooled"] + t[:, 7] * p["averaged"]
        )
        return np.asarray(np.maximum.reduce([array, t[:, 8] * p["sram"], t[:, 9] * p["flash"]]) + p["layer"])

    def ratios(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Vela's cycles over the predicted ones, by network."""
        return np.asarray(self.totals / np.bincount(self.of, self.cycles(values)))


def _terms(kernel: Kernel, hardware: Hardware, block: tuple[int, int, int]) -> list[float]:
    """Each constant's factor, by asking the model with that constant alone."""
    row = []
    for name in NAMES[:-3]:
        alone = Constants(block, **{key: float(key == name) for key in NAMES})
        row.append(ethos_u.parts(kernel, hardware, alone)[0])
    for index, name in ((1, "sram"), (2, "flash")):
        alone = Constants(block, **{key: float(key == name) for key in NAMES})
        row.append(ethos_u.parts(kernel, hardware, alone)[index])
    return row


def fit(terms: Terms) -> NDArray[np.float64]:
    """The constants, by least squares on relative errors of layers (what takes long matters) and of whole networks."""
    share = np.sqrt(np.maximum(terms.got, 1.0) / terms.totals[terms.of])

    def errors(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        predicted = terms.cycles(np.exp(logs))
        layers = share * np.log(predicted / np.maximum(terms.got, 1.0))
        whole = np.log(np.bincount(terms.of, predicted) / terms.totals)
        return np.concatenate([layers, whole])

    return np.asarray(np.exp(least_squares(errors, np.log(START), loss="soft_l1", f_scale=0.2).x))


def main() -> None:
    """Estimate, fit, print."""
    known: dict[str, list[Case]] = {name: [] for name in BLOCKS}
    for name, model in networks():
        print(name, file=sys.stderr, flush=True)
        for accelerator, case in cases(name, model, list(BLOCKS)):
            known[accelerator].append(case)
    print("# Written by tools/fit_ethos_u.py; what the constants mean is in ethos_u.py.")
    print(
        "# Per network: Vela's cycles over the predicted ones when it was left out: weights in flash, in fast memory."
    )
    print("# interval: 90 % of those in flash, widened by what Vela's own schedule leaves open (median of its bounds).")
    for accelerator, block in BLOCKS.items():
        _print(accelerator, block, known[accelerator])


def left_out(cases: Sequence[Case], block: tuple[int, int, int]) -> dict[str, NDArray[np.float64]]:
    """Network -> Vela's cycles over those predicted by a fit without it; MLPerf Tiny is in no fit."""
    found = {}
    for name in dict.fromkeys(case.name for case in cases):
        others = [case for case in cases if case.name != name and case.name not in mlperf_tiny.NETWORKS]
        own = Terms([case for case in cases if case.name == name], block)
        found[name] = own.ratios(fit(Terms(others, block)))
    return found


def _print(accelerator: str, block: tuple[int, int, int], cases: Sequence[Case]) -> None:
    best = fit(Terms([case for case in cases if case.name not in mlperf_tiny.NETWORKS], block))
    ratios = left_out(cases, block)
    print(f"\n[{accelerator}]")
    for name, values in ratios.items():
        unseen = ", never fitted" if name in mlperf_tiny.NETWORKS else ""
        print(f"# {name}{unseen}: {', '.join(f'{value:.2f}' for value in values)}")
    every = np.concatenate(list(ratios.values()))
    errors = np.expm1(np.abs(np.log(every)))
    lows, highs = zip(*(_bounds(case.estimate) for case in cases), strict=True)
    open_low, open_high = min(1.0, statistics.median(lows)), max(1.0, statistics.median(highs))
    in_flash = [values[0] for values in ratios.values()]  # as in every target there is; how weights compress tells most
    low, high = np.quantile(in_flash, [0.05, 0.95], method="inverted_cdf")
    print(
        f'origin = "estimates of ethos-u-vela for an {accelerator}, an estimator itself: {len(ratios)} int8 networks '
        f"in two memory systems, each left out of the fit: median error {np.median(errors):.1%}, 90th percentile "
        f"{np.quantile(errors, 0.9):.1%}, largest {errors.max():.1%}. How far Vela is from silicon is not known here; "
        f'the interval holds its own bounds of overlap (x{open_low:.2f} to x{open_high:.2f}), not that error"'
    )
    print(f"block = [{', '.join(map(str, block))}]")
    for key, value in zip(NAMES, best, strict=True):
        print(f"{key} = {value:.4g}")
    print(f"interval = [{low * open_low:.3f}, {high * open_high:.3f}]")


def _bounds(found: Estimate) -> tuple[float, float]:
    """Vela's cycles where one resource hides all others, and where none overlap, over those of its schedule."""
    each = (found.npu_cycles, found.sram_cycles, found.flash_cycles)
    return max(each) / found.cycles, sum(each) / found.cycles


if __name__ == "__main__":
    main()
