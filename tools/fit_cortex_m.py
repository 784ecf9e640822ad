"""Fit instructions per multiply-accumulate of the C that exporters/onnx_to_c.py writes, on emulated cores.

    python tools/fit_cortex_m.py [published_latency.csv] > profiles/latency/cortex_m.toml

Networks of every kind of layer are quantised on random data, turned into C and emulated on every core; the instructions
of each step are those of the kernel that `profiles` predicts for the same ONNX node. Errors are those of whole networks
that were left out of the fit; the four networks of MLPerf Tiny are never in it. Needs arm-none-eabi-gcc and
qemu-system-arm.

Cycles per instruction and per output come from the table of published latencies where it is given: cycles of int8
engines with hand-tuned kernels, against emulated instructions and outputs of the same network. An engine may need more
or fewer instructions than our C does; that is part of the range. Without the table the numbers of the present file are
kept.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mlperf_tiny
import numpy as np
import onnx
from mlperf_tiny import CORE_OF, Network, Published
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader  # type: ignore[attr-defined]
from scipy.optimize import least_squares, nnls

import profiles
from exporters import onnx_to_c
from profiles.fuse import Kernel, fuse
from profiles.latency import cortex_m
from profiles.latency.cortex_m import Cycles
from profiles.runners import on_cortex_m

Case = list[tuple[Kernel | None, float]]
Builder = Network

CORES = ("cortex-m33", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m55")
STEPS: Mapping[str, tuple[int, int]] = MappingProxyType({"cortex-m55": (16, 8)})  # depth, channels; else four
FIXED = ("depth_step", "channel_step")
NAMES = [f.name for f in fields(cortex_m.Constants) if not f.name.startswith("cycles") and f.name not in FIXED]
RANDOM = 16  # generated networks
SPECTRA = ((256, 128, 20), (512, 160, 40))  # frame, hop, bands of the spectral front-ends


class Data(CalibrationDataReader):
    """Random inputs for ranges."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self.left = iter([{"x": rng.normal(size=shape).astype(np.float32)} for _ in range(8)])

    def get_next(self) -> dict[str, NDArray[np.float32]]:
        return next(self.left, {})


def networks(rng: np.random.Generator) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Small networks that together have every kind of layer in several sizes, int8 unless the name says otherwise."""
    for name, model in (*_chosen(rng), *_generated(rng)):
        yield name, mlperf_tiny.quantised(model, rng)
    yield "float convolutions", Network((1, 2, 12, 12), rng).conv(8, 3, 2).conv(12, 3).head(5).model()
    yield "float convolutions, wider", Network((1, 3, 16, 16), rng).conv(16, 3, 2).conv(24, 1).head(5).model()
    net = Network((1, 1, 24, 20), rng).conv(12, 3, 2).separable(16).separable(24, 2).separable(24)
    yield "float separable", net.head(8).model()
    net = Network((1, 3, 32, 32), rng).conv(8, 3, 2).separable(16).separable(32, 2).separable(48, 2)
    yield "float separable, wider", net.head(8).model()
    # What the compiler makes of a kernel in floats depends on what a network's layers have in common.
    net = Network((1, 3, 32, 32), rng).conv(32, 3).separable(32).separable(32)
    yield "float separable, equal widths", net.head(10).model()
    net = Network((1, 3, 32, 32), rng).conv(16, 3, 2).separable(32).separable(48).conv(32, 5, 2)
    yield "float separable, several windows", net.head(10).model()
    yield "float residual, wider", Network((1, 3, 24, 24), rng).conv(16, 3).block(32, 2).block(32, 1).head(6).model()
    yield "float residual", Network((1, 3, 20, 20), rng).conv(8, 3).block(16, 2).block(24, 2).head(6).model()
    yield "float products", Network((1, 96), rng).dense(64, relu=True).dense(48, relu=True).dense(10).model()
    yield "float products, wider", Network((1, 200), rng).dense(32, relu=True).dense(100).model()
    for frame, hop, bands in SPECTRA:
        yield f"float log-mel, frames of {frame}", _log_mel(frame, hop, bands)


def _chosen(rng: np.random.Generator) -> Iterator[tuple[str, onnx.ModelProto]]:
    net = Network((1, 1, 28, 28), rng).conv(8, 3, 2).conv(16, 3).pool("MaxPool").conv(32, 3).head(10)
    yield "convolutions", net.model()
    net = Network((1, 3, 32, 32), rng).conv(16, 3, 2).residual(3).conv(32, 3, 2).residual(3).head(10)
    yield "residual", net.model()
    net = Network((1, 3, 32, 32), rng).conv(12, 3, 2).conv(20, 3, 2).pool("AveragePool").conv(36, 3).head(10)
    yield "odd widths", net.model()
    net = Network((1, 1, 40, 24), rng).conv(32, 3, 2)
    for _ in range(3):
        net.separable(32)
    yield "separable 32", net.head(12).model()
    net = Network((1, 1, 40, 24), rng).conv(64, 5, 2)
    for _ in range(2):
        net.separable(64)
    yield "separable 64", net.head(12).model()
    net = Network((1, 3, 48, 48), rng).conv(8, 3, 2).separable(16).separable(32, 2).separable(64, 2)
    yield "mobile", net.head(2).model()
    net = Network((1, 3, 64, 64), rng).conv(8, 3, 2).separable(16).separable(24, 2).separable(24).separable(48, 2)
    yield "mobile 64", net.separable(48).separable(96, 2).head(2).model()
    net = Network((1, 1, 64, 32), rng).conv(16, 3, 2).separable(32, 2).separable(32).separable(64)
    yield "mobile 32", net.separable(64, 2).separable(128).head(10).model()
    yield "dense 784", Network((1, 1, 28, 28), rng).flatten().dense(64, relu=True).dense(10).model()
    net = Network((1, 1, 16, 40), rng).flatten()
    for width in (128, 128, 8, 128, 640):
        net.dense(width, relu=True)
    yield "autoencoder", net.model()
    net = Network((1, 8, 16, 16), rng).conv(16, 3, groups=4).conv(32, 3, 2, groups=4).conv(32, 1).head(10)
    yield "grouped by 4", net.model()
    net = Network((1, 4, 24, 24), rng).conv(24, 3, 2, groups=2).conv(48, 3, groups=8).conv(24, 1).head(10)
    yield "grouped by 2 and 8", net.model()


def _generated(rng: np.random.Generator) -> Iterator[tuple[str, onnx.ModelProto]]:
    for number in range(RANDOM):
        net = Network((1, int(rng.choice([1, 2, 3])), int(rng.integers(16, 41)), int(rng.integers(16, 41))), rng)
        net.conv(int(rng.integers(2, 13)) * 4, int(rng.choice([3, 5])), 2)
        for _ in range(int(rng.integers(2, 5))):
            width, stride = int(rng.integers(2, 17)) * 4, int(rng.choice([1, 1, 2]))
            kind = rng.choice(["conv", "separable", "pointwise", "residual", "block"])
            if kind == "conv":
                net.conv(width, 3, stride)
            elif kind == "separable":
                net.separable(width, stride)
            elif kind == "pointwise":
                net.conv(width, 1)
            elif kind == "residual":
                net.residual(3)
            else:
                net.block(width, stride)
        if rng.random() < 0.3:
            net.pool(str(rng.choice(["MaxPool", "AveragePool"])))
        yield f"generated {number}", net.head(int(rng.integers(2, 33))).model()


def _log_mel(frame: int, hop: int, bands: int) -> onnx.ModelProto:
    """Waveform of a second at 8 kHz -> logarithm of mel bands, as a front-end writes it."""
    samples, bins = 8000, frame // 2 + 1
    frames = (samples - frame) // hop + 1
    centres = np.geomspace(2, bins - 2, bands)
    widths = np.maximum(1.5, centres / 6)
    mel = np.maximum(0, 1 - np.abs(np.arange(bins)[:, None] - centres) / widths).astype(np.float32)
    stored = {
        "hop": np.array(hop),
        "window": np.hanning(frame + 1)[:-1].astype(np.float32),
        "length": np.array(frame),
        "last": np.array([2]),
        "power": np.float32(2),
        "axis": np.array([-1]),
        "mel": mel,
        "least": np.float32(1e-6),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["column"]),
        helper.make_node("STFT", ["column", "hop", "window", "length"], ["spectrum"], name="stft", onesided=1),
        helper.make_node("Pow", ["spectrum", "power"], ["squares"]),
        helper.make_node("ReduceSum", ["squares", "axis"], ["energy"], keepdims=0),
        helper.make_node("MatMul", ["energy", "mel"], ["bands"], name="mel"),
        helper.make_node("Clip", ["bands", "least"], ["clipped"]),
        helper.make_node("Log", ["clipped"], ["y"], name="log"),
    ]
    graph = helper.make_graph(
        nodes,
        "mel",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, samples])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, frames, bands])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@dataclass(frozen=True)
class Counted:
    """Kernels of one network with their emulated instructions; None collects what no kernel was predicted for."""

    name: str
    cases: Mapping[str, Case]  # core -> kernels


def count(name: str, model: onnx.ModelProto, cores: Sequence[str], rng: np.random.Generator) -> Counted:
    """Emulate one network on every core."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        path = folder / "net.onnx"
        onnx.save(model, str(path))
        artifact = onnx_to_c.convert(path, profiles.target("hearing-aid"), folder)
        kernels = {kernel.name: kernel for kernel in fuse(profiles.read(path), "cortex-m").kernels}
        x = rng.normal(size=tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim))
        cases = {}
        for core in cores:
            with on_cortex_m.load(artifact.path, core) as loaded:
                steps = loaded.emulate({"x": x.astype(np.float32)}).steps[0]
                names = [step["name"] for step in loaded.facts["steps"]]
            cases[core] = _matched(kernels, names, steps)
    return Counted(name, cases)


def _matched(kernels: Mapping[str, Kernel], names: Sequence[str], steps: NDArray[np.int64]) -> Case:
    sums = dict.fromkeys(kernels, 0.0)
    rest = 0.0
    last = None
    for name, instructions in zip(names, steps, strict=True):
        found = next(
            (key for key in (name, name.removesuffix("_layout"), name.removesuffix("_real")) if key in sums), None
        )
        if found is None and name.startswith("output_"):
            found = last  # what decodes the last kernel's result
        if found is None:
            rest += float(instructions)
        else:
            sums[found] += float(instructions)
            last = found
    return [*((kernels[key], value) for key, value in sums.items()), (None, rest)]


def design(kernel: Kernel, core: str) -> list[float]:
    """How often each constant counts in one kernel: `cortex_m.instructions` is linear in them."""
    row = []
    depth, channels = STEPS.get(core, (4, 4))
    for name in NAMES:
        only: dict[str, Any] = {f.name: 0.0 for f in fields(cortex_m.Constants)}
        only |= {name: 1.0, "depth_step": depth, "channel_step": channels}
        constants = cortex_m.Constants(**only)
        row.append(cortex_m.instructions(kernel, constants))
    return row


def fit(cases: Sequence[Case], core: str) -> NDArray[np.float64]:
    """The constants, by non-negative least squares on relative errors of kernels and of whole networks."""
    rows, goals = [], []
    for case in cases:
        whole = sum(instructions for _, instructions in case)
        pairs: list[tuple[list[float], float]] = []
        for kernel, got in case:
            if kernel is not None and got > 0:
                pairs.append((design(kernel, core), got))
            elif kernel is not None and pairs:  # the C has one step for it and for what stands before it
                row = [a + b for a, b in zip(pairs[-1][0], design(kernel, core), strict=True)]
                pairs[-1] = (row, pairs[-1][1])
        for row, got in pairs:
            weight = np.sqrt(got / whole)  # what takes long matters
            rows.append(np.array(row) / got * weight)
            goals.append(weight)
        rows.append(np.sum([row for row, _ in pairs], axis=0) / whole)
        goals.append(1.0)
    return np.asarray(nnls(np.array(rows), np.array(goals))[0])


def total(case: Case, constants: NDArray[np.float64], core: str) -> float:
    """Predicted over emulated instructions of a network."""
    predicted = sum(float(np.dot(design(kernel, core), constants)) for kernel, _ in case if kernel is not None)
    return predicted / sum(instructions for _, instructions in case)


def cycles_of(medians: Mapping[str, float], sizes: Mapping[str, tuple[float, float]]) -> NDArray[np.float64]:
    """(per instruction, per output) by least squares on logarithms; each network counts once.

    Args:
        medians: network -> median of its published cycles.
        sizes: network -> (emulated instructions, outputs of int8 multiply-accumulates).
    """
    rows = np.array([np.array(sizes[name]) / medians[name] for name in medians])
    start = np.maximum(nnls(rows, np.ones(len(medians)))[0], 1e-6)
    # Logarithms of both keep them positive, and take twice as much and half as much for the same error.
    found = least_squares(lambda p: np.log(rows @ np.exp(p)), np.log(start), xtol=1e-12, ftol=1e-12)
    return np.asarray(np.exp(found.x))


def measured_cycles(rows: Sequence[Published], sizes: Mapping[str, tuple[float, float]]) -> Cycles:
    """From every published result; the range is from the 5th to the 95th percentile of them."""
    medians = {name: float(np.median([r.cycles for r in rows if r.model == name])) for name in sizes}
    fitted = cycles_of(medians, sizes)
    errors = []
    for name in medians:
        without = cycles_of({key: value for key, value in medians.items() if key != name}, sizes)
        errors.append(abs(float(np.dot(sizes[name], without)) / medians[name] - 1))
    ratios = [r.cycles / float(np.dot(sizes[r.model], fitted)) for r in rows]
    low, high = np.quantile(ratios, [0.05, 0.95])
    boards = sorted({row.device.split(" (")[0] for row in rows})
    left_out = ", ".join(f"{error:.0%}" for error in errors)
    return Cycles(
        round(float(fitted[0]), 3),
        round(float(fitted[1]), 1),
        round(float(low), 2),
        round(float(high), 2),
        f"fitted on published cycles of MLPerf Tiny submissions with hand-tuned int8 kernels against emulated "
        f"instructions and outputs of the same networks: {len(rows)} values on {', '.join(boards)}; medians of a "
        f"network that was left out are off by {left_out}; engines and flash wait states make the range",
    )


def assumed(known: Mapping[str, Cycles]) -> dict[str, Cycles]:
    """Cores without a published network."""
    m4 = known["cortex-m4"]
    m3 = replace(m4, source="assumed: those of the Cortex-M4; no published network was found")
    m55 = Cycles(
        1.5, 0.0, 0.67, 1.27, "assumed: a vector instruction takes two cycles, loads and products overlap; no "
        "published network was found. A Cortex-M85 (Renesas RA8D1) takes 0.9 to 1.9 cycles over the instructions of an "
        "M55",
    )  # fmt: skip
    return {**known, "cortex-m3": m3, "cortex-m55": m55}


def outputs_of(case: Case) -> float:
    """Outputs of int8 multiply-accumulates."""
    kernels = [kernel for kernel, _ in case if kernel is not None]
    return float(sum(kernel.elements for kernel in kernels if kernel.macs and kernel.precision == "int8"))


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Count, fit, print."""
    rng = np.random.default_rng(0)
    counted = []
    for name, model in networks(rng):
        _log(name)
        counted.append(count(name, model, CORES, rng))
    unseen = []
    for name in mlperf_tiny.NETWORKS:
        _log(name)
        unseen.append(count(name, mlperf_tiny.quantised(mlperf_tiny.NETWORKS[name](rng), rng), CORES, rng))
    if len(sys.argv) > 1:
        rows = mlperf_tiny.published(Path(sys.argv[1]))
        found = {}
        for core in CORE_OF.values():
            cases = {one.name: one.cases[core] for one in unseen}
            sizes = {name: (sum(got for _, got in case), outputs_of(case)) for name, case in cases.items()}
            found[core] = measured_cycles([row for row in rows if row.core == core], sizes)
        known = assumed(found)
    else:
        known = {core: cortex_m.cycles(core) for core in CORES}
    print("# Written by tools/fit_cortex_m.py; what the constants mean is in cortex_m.py.")
    print(
        "# interval: factors on the predicted median: the range of cycles per instruction, widened by the error of the"
    )
    print("# instruction counts. Per network: predicted over emulated instructions when it was left out of the fit.")
    for core in CORES:
        _print(core, counted, unseen, known[core])


def _print(core: str, counted: Sequence[Counted], unseen: Sequence[Counted], cycles: Cycles) -> None:
    cases = {one.name: one.cases[core] for one in counted}
    constants = fit(list(cases.values()), core)
    left_out = {}
    for name, case in cases.items():
        left_out[name] = total(case, fit([other for key, other in cases.items() if key != name], core), core)
    tiny = {one.name: total(one.cases[core], constants, core) for one in unseen}
    integer = {name: ratio for name, ratio in left_out.items() if not name.startswith("float")}
    errors = np.abs(np.array([*integer.values(), *tiny.values()]) - 1)
    p90 = 1 + float(np.quantile(errors, 0.9))
    print(f"\n[{core}]")
    for name, ratio in left_out.items():
        print(f"# {name}: {ratio:.2f}")
    for name, ratio in tiny.items():
        print(f"# {name}, never fitted: {ratio:.2f}")
    error = f"median error {np.median(errors):.1%}, 90th percentile {p90 - 1:.1%}, largest {errors.max():.1%}"
    print(
        f'origin = "instructions of generated C on an emulated {core}: {len(errors)} int8 networks, each left out of '
        f'the fit: {error}; cycles per instruction: {cycles.source}"'
    )
    values = {name: float(value) for name, value in zip(NAMES, constants, strict=True)}
    # Products of two activations and recurrent layers have no C kernel yet: as products in floats, with a fourth more
    # for gates. A guess, which the interval does not cover.
    values["matmul"] = values["float_gemm"]
    values["recurrent"] = 1.25 * values["float_gemm"]
    depth, channels = STEPS.get(core, (4, 4))
    for name, value in values.items():
        print(f"{name} = {value:.4g}")
    print(f"depth_step = {depth}\nchannel_step = {channels}")
    print(f"cycles_per_instruction = {cycles.per_instruction}")
    print(f"cycles_per_output = {cycles.per_output}")
    print(f"cycles_range = [{cycles.low}, {cycles.high}]")
    print(f'cycles_source = "{cycles.source}"')
    print(f"interval = [{cycles.low / p90:.3f}, {cycles.high * p90:.3f}]")


if __name__ == "__main__":
    main()
