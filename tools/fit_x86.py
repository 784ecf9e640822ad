"""Fit the x86 latency model on networks measured on this machine with onnxruntime, one thread.

    python tools/fit_x86.py [--networks 24] > profiles/latency/x86_cpu.toml

Random small convolutional networks are measured in float32 and, quantised with unsigned activations, in int8. Errors
are those of networks left out of the fit (ten folds). Takes about two minutes; leave the machine alone meanwhile.
"""

import argparse
import logging
import random
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import fit_cortex_m
import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from scipy.optimize import least_squares

import profiles
from profiles.fuse import Kernel, fuse
from profiles.latency import x86_cpu
from profiles.measure import UnsteadyError, cpu
from profiles.runners import on_onnxruntime

NAMES = [field.name for field in fields(x86_cpu.Constants)]
# name: expected, lowest, highest
BOUNDS = {
    "dense": (0.5, 0.02, 1.5),
    "gemm": (0.4, 0.02, 1.5),
    "matmul": (0.3, 0.02, 1.5),
    "grouped": (0.15, 0.005, 1.5),
    "depthwise": (0.12, 0.005, 1.5),
    "recurrent": (0.2, 0.02, 1.5),
    "fft": (0.05, 0.002, 1.0),
    "int8_gain": (0.45, 0.2, 1.5),
    "half_depth": (30.0, 1.0, 500.0),
    "bandwidth": (0.8, 0.05, 10.0),
    "launch_us": (2.0, 0.2, 20.0),
    "fixed_us": (12.0, 1.0, 60.0),
}
PULL = 0.5  # weight of one constant's log distance from what is expected, in units of one network's log error


@dataclass(frozen=True)
class Case:
    """One measured network."""

    kernels: tuple[Kernel, ...]
    latency_ms: float


def network(rng: np.random.Generator, dice: random.Random) -> onnx.ModelProto:
    """Convolutions of one of three styles with random widths, strides and depth, and a classifier."""
    size, channels = dice.choice([16, 28, 32, 48, 64]), dice.choice([1, 3])
    net = fit_cortex_m.Builder((1, channels, size, size), rng)
    width = dice.choice([8, 16, 32, 48])
    net.conv(width, 3, dice.choice([1, 2]))
    style = dice.choice(["plain", "residual", "separable"])
    for _ in range(dice.randint(2, 8)):
        stride = 2 if net.shape[2] >= 12 and dice.random() < 0.4 else 1
        if stride == 2:
            width = min(2 * width, 256)
        if style == "separable":
            net.conv(net.shape[1], 3, stride, groups=net.shape[1]).conv(width, 1)
        elif style == "residual" and stride == 1 and width == net.shape[1]:
            net.residual(3)
        else:
            net.conv(width, dice.choice([1, 3, 3]), stride)
    return net.head(dice.choice([2, 10, 100])).model()


def cases(count: int, rng: np.random.Generator, dice: random.Random) -> list[list[Case]]:
    """Measured networks, float and int8 of one network together."""
    found = []
    while len(found) < count:
        with tempfile.TemporaryDirectory() as scratch:
            plain, quantised = Path(scratch) / "float.onnx", Path(scratch) / "int8.onnx"
            model = network(rng, dice)
            onnx.save(model, str(plain))
            shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
            quantize_static(
                str(plain), str(quantised), fit_cortex_m.Data(shape, rng), QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, extra_options={"QuantizeBias": False},
            )  # fmt: skip
            pair = []
            for path in (plain, quantised):
                try:
                    latency = on_onnxruntime.measure(path, seconds=0.4).median_ms
                except UnsteadyError:
                    continue
                pair.append(Case(fuse(profiles.read(path), "x86-cpu").kernels, latency))
            if pair:
                found.append(pair)
    return found


def predicted_ms(case: Case, constants: x86_cpu.Constants) -> float:
    hardware = profiles.target("x86").hardware
    return sum(x86_cpu.kernel_ms(kernel, hardware, constants)[0] for kernel in case.kernels) + constants.fixed_us / 1e3


def fit(measured: list[Case]) -> x86_cpu.Constants:
    """The constants, by robust least squares on log latencies."""
    start, low, high = (np.log([BOUNDS[name][side] for name in NAMES]) for side in range(3))

    def residuals(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        constants = x86_cpu.Constants(*np.exp(logs))
        errors = [np.log(predicted_ms(case, constants) / case.latency_ms) for case in measured]
        return np.concatenate([errors, PULL * (logs - start)])

    found = least_squares(residuals, start, bounds=(low, high), loss="soft_l1", f_scale=0.3, max_nfev=60)
    return x86_cpu.Constants(*np.exp(found.x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=24)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    measured = cases(options.networks, np.random.default_rng(0), random.Random(0))
    ratios = []
    for fold in range(10):
        seen = [case for index, pair in enumerate(measured) if index % 10 != fold for case in pair]
        constants = fit(seen)
        unseen = [case for index, pair in enumerate(measured) if index % 10 == fold for case in pair]
        ratios += [case.latency_ms / predicted_ms(case, constants) for case in unseen]
    constants = fit([case for pair in measured for case in pair])
    errors = np.abs(1 / np.array(ratios) - 1)
    low, high = np.percentile(ratios, [5, 95])
    print("# Written by tools/fit_x86.py; what the constants mean is in x86_cpu.py.")
    print("# interval: factors on the predicted median that contain 90 % of unseen cases.\n")
    print("[default]")
    print(
        f'origin = "{len(ratios)} measurements of {len(measured)} networks with onnxruntime, one thread, on {cpu()}: '
        f'median error {np.median(errors):.0%}, 90th percentile {np.percentile(errors, 90):.0%} on networks left out"'
    )
    for name in NAMES:
        print(f"{name} = {getattr(constants, name):.4g}")
    print(f"interval = [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
