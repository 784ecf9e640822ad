"""Calibrate this processor, then score the predictions on generated networks that no fit has seen.

    python tools/score_calibration.py [--networks 40] [--seed 1000] [--seconds 110] [--float-only] [--worst 8]

The networks are whole students of eight families with random widths, depths and resolutions, in float and in int8; the
suite that calibrates comes from other generators and another seed. Prints the error by family, the rank correlation,
the coverage of the 90 % interval, what the calibration took, and how far two measurements of one network are apart,
below which no prediction can be judged. Use another --seed than the default while changing the model.
"""

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

import profiles
from profiles import calibration
from profiles.calibration.build import Net
from profiles.calibration.suite import Sample
from profiles.calibration.timing import time_models
from profiles.measure import UnsteadyError
from profiles.runners import on_onnxruntime


def width(dice: random.Random, low: int, high: int, step: int = 8) -> int:
    return max(step, step * round(dice.uniform(low, high) / step))


def residual(dice: random.Random, rng: np.random.Generator, int8: bool) -> onnx.ModelProto:
    """A ResNet of basic or bottleneck blocks."""
    size = dice.choice([32, 40, 48, 64, 96, 128])
    net = Net((1, 3, size, size), rng, int8)
    channels = width(dice, 8, 64)
    x = net.conv(net.x, channels, 3, dice.choice([1, 2]) if size < 64 else 2)
    deep = dice.random() < 0.3
    for stage in range(dice.choice([2, 3, 4])):
        for block in range(dice.choice([1, 1, 2, 3])):
            stride = 2 if stage and not block else 1
            same = stride == 1 and net.shape[x][1] == channels
            skip = x if same else net.conv(x, channels, 1, stride, act="")
            if deep:
                inner = max(8, channels // 4)
                y = net.conv(net.conv(net.conv(x, inner, 1), inner, 3, stride), channels, 1, skip=skip)
            else:
                y = net.conv(net.conv(x, channels, 3, stride), channels, 3, skip=skip)
            x = y
        channels = min(256, 2 * channels)
    return net.model(net.head(x, dice.choice([10, 100, 200])))


def inverted(dice: random.Random, rng: np.random.Generator, int8: bool) -> onnx.ModelProto:
    """A MobileNet of inverted residuals, half of them with squeeze-and-excitation."""
    size = dice.choice([48, 64, 96, 128, 160, 192])
    act, gated = dice.choice(["Relu", "Clip", "HardSwish", "Silu"]), dice.random() < 0.5
    net = Net((1, 3, size, size), rng, int8)
    channels = width(dice, 8, 32)
    x = net.conv(net.x, channels, 3, 2, act=act)
    for stage in range(dice.choice([3, 4])):
        channels = min(160, width(dice, channels, 1.6 * channels + 8))
        for block in range(dice.choice([1, 2, 2])):
            before = net.shape[x][1]
            inner = before * dice.choice([2, 3, 4, 6])
            kernel, stride = dice.choice([3, 3, 5]), 2 if not block else 1
            y = net.conv(x, inner, 1, act=act)
            y = net.conv(y, inner, kernel, stride, groups=inner, act=act)
            if gated and stage:
                y = net.squeeze(y, max(8, inner // 8), "HardSigmoid" if act == "HardSwish" else "Sigmoid")
            skip = x if stride == 1 and before == channels else ""
            x = net.conv(y, channels, 1, act="", skip=skip)
    return net.model(net.head(net.conv(x, 4 * channels, 1, act=act), dice.choice([10, 100])))


def plain(dice: random.Random, rng: np.random.Generator, int8: bool) -> onnx.ModelProto:
    """Convolutions and pools, like a VGG, with fully connected layers at the end."""
    size = dice.choice([28, 32, 48, 64, 96])
    net = Net((1, dice.choice([1, 3]), size, size), rng, int8)
    channels, x = width(dice, 8, 64), net.x
    for _ in range(dice.choice([2, 3, 4])):
        for _ in range(dice.choice([1, 2])):
            x = net.conv(x, channels, dice.choice([3, 3, 5]))
        x = net.pool(x, "MaxPool" if dice.random() < 0.8 else "AveragePool")
        channels = min(192, 2 * channels)
    x = net.flatten(x) if net.shape[x][2] <= 8 else net.flatten(net.mean(x))
    return net.model(net.gemm(net.gemm(x, width(dice, 32, 256), "Relu"), 10))


def audio(dice: random.Random, rng: np.random.Generator, int8: bool) -> onnx.ModelProto:
    """A network over one axis, on a waveform or on features; plain or separable."""
    wave = dice.random() < 0.4
    length = dice.choice([4000, 8000, 16000]) if wave else dice.choice([49, 98, 150, 300])
    net = Net((1, 1 if wave else dice.choice([13, 40, 64]), length), rng, int8)
    channels = width(dice, 16, 64)
    x = net.conv(net.x, channels, dice.choice([16 + 1, 40 + 1]) if wave else 3, 8 if wave else 1)
    separable = dice.random() < 0.4
    for _ in range(dice.randint(2, 5)):
        stride = dice.choice([1, 2])
        channels = min(160, width(dice, channels, 1.5 * channels))
        if separable:
            x = net.conv(net.conv(x, net.shape[x][1], 9, stride, groups=net.shape[x][1]), channels, 1)
        else:
            x = net.conv(x, channels, dice.choice([3, 5, 9]), stride)
            x = net.conv(x, channels, 3, skip=x) if dice.random() < 0.4 else x
    return net.model(net.head(x, dice.choice([10, 12, 35])))


def keyword(dice: random.Random, rng: np.random.Generator, int8: bool) -> onnx.ModelProto:
    """A depthwise-separable keyword spotter on a spectrogram."""
    net = Net((1, 1, dice.choice([40, 49, 64, 98]), dice.choice([10, 40, 64])), rng, int8)
    channels = width(dice, 24, 96)
    x = net.conv(net.x, channels, dice.choice([3, 5]), 2)
    for _ in range(dice.randint(2, 5)):
        x = net.conv(net.conv(x, channels, 3, groups=channels), channels, 1)
    return net.model(net.head(x, 12))


def perceptron(dice: random.Random, rng: np.random.Generator, int8: bool) -> onnx.ModelProto:
    """Fully connected layers."""
    net = Net((1, dice.choice([64, 256, 640, 784, 1024])), rng, int8)
    x = net.x
    for _ in range(dice.randint(2, 6)):
        x = net.gemm(x, width(dice, 32, 768), "Relu")
    return net.model(net.gemm(x, dice.choice([10, 100, 640])))


def transformer(dice: random.Random, rng: np.random.Generator, int8: bool) -> onnx.ModelProto:
    """An encoder: norm first, on patches, tokens or frames."""
    heads = dice.choice([2, 3, 4, 6])
    size = heads * dice.choice([16, 24, 32])
    patches = dice.random() < 0.5
    if patches:
        side, patch = dice.choice([(32, 4), (48, 8), (64, 8), (96, 16)])
        net = Net((1, 3, side, side), rng, int8)
        x = net.conv(net.x, size, patch, patch, act="", padded=False)
        steps = (side // patch) ** 2
        x = net.transpose(net.reshape(x, (1, size, steps)), [0, 2, 1])
    else:
        net = Net((1, dice.choice([16, 32, 50, 98, 128]), size), rng, int8)
        x = net.x
    for _ in range(dice.randint(1, 4)):
        x = net.add(x, net.attention(net.norm(x), heads))
        x = net.add(x, net.linear(net.linear(net.norm(x), dice.choice([2, 3, 4]) * size, "Gelu"), size))
    return net.model(net.gemm(net.average(net.norm(x)), dice.choice([10, 100])))


def segmenter(dice: random.Random, rng: np.random.Generator, int8: bool) -> onnx.ModelProto:
    """A U-Net."""
    size = dice.choice([32, 64, 96, 128])
    net = Net((1, dice.choice([1, 3]), size, size), rng, int8)
    channels = width(dice, 8, 32)
    way, twice = dice.choice(["transposed", "nearest"]), dice.random() < 0.5
    x, kept = net.x, []
    for _ in range(dice.choice([2, 3])):
        x = net.conv(x, channels, 3)
        x = net.conv(x, channels, 3) if twice else x
        kept.append(x)
        x = net.pool(x, "MaxPool")
        channels *= 2
    x = net.conv(x, channels, 3)
    for skip in reversed(kept):
        channels //= 2
        x = net.up(x, channels) if way == "transposed" else net.conv(net.resize(x), channels, 1)
        x = net.conv(net.concat(x, skip), channels, 3)
    return net.model(net.conv(x, dice.choice([1, 2, 8]), 1, act=""))


FAMILIES: dict[str, Callable[[random.Random, np.random.Generator, bool], onnx.ModelProto]] = {
    "residual": residual,
    "inverted residual": inverted,
    "plain with pools": plain,
    "audio, one axis": audio,
    "keyword spotter": keyword,
    "fully connected": perceptron,
    "transformer": transformer,
    "U-Net": segmenter,
}


def networks(count: int, seed: int, float_only: bool = False) -> list[Sample]:
    """`count` networks, families in turn, float and int8 in turn."""
    dice, rng = random.Random(seed), np.random.default_rng(seed)
    names = list(FAMILIES)
    made = []
    for index in range(count):
        name = names[index % len(names)]
        int8 = bool((index // len(names)) % 2) and not float_only
        made.append(Sample(f"{name}, int8" if int8 else name, FAMILIES[name](dice, rng, int8)))
    return made


def on_the_wall(samples: list[Sample]) -> NDArray[np.float64]:
    """Milliseconds of each network, (N,), as `profiles.measure_cost` has them; NaN where it refuses."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        for sample in samples:
            path.write_bytes(sample.model.SerializeToString())
            try:
                found.append(on_onnxruntime.measure(path, seconds=0.3).median_ms)
            except UnsteadyError:
                found.append(float("nan"))
    return np.array(found)


def kendall(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Kendall's tau-b: pairs in the same order less pairs in the other order, over all pairs that are not ties."""
    upper = np.triu_indices(len(first), 1)
    a = np.sign(first[:, None] - first[None, :])[upper]
    b = np.sign(second[:, None] - second[None, :])[upper]
    return float((a * b).sum() / np.sqrt((a != 0).sum() * (b != 0).sum()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument(
        "--seed", type=int, default=1000, help="of the networks; the default is that of the closing score"
    )
    parser.add_argument("--seconds", type=float, default=110.0, help="of measuring for the calibration")
    parser.add_argument(
        "--calibrated", type=Path, help="a project folder with targets/x86.toml; do not calibrate again"
    )
    parser.add_argument("--float-only", action="store_true")
    parser.add_argument("--wall", action="store_true", help="judge by the runner's median on the wall; a quiet machine")
    parser.add_argument("--worst", type=int, default=8, help="networks to list")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        project = options.calibrated or Path(scratch)
        if options.calibrated is None:
            calibration.calibrate(profiles.target("x86"), project, seconds=options.seconds)
        target = profiles.target("x86", search=project)
    samples = networks(options.networks, options.seed, options.float_only)
    costs = [profiles.profile(sample.model, target) for sample in samples]
    first, again = (time_models(samples, seconds=0.5 * len(samples)) for _ in range(2))
    measured = np.array([(one.ms + two.ms) / 2 for one, two in zip(first.timed, again.timed, strict=True)])
    if options.wall:
        wall = on_the_wall(samples)
        steady = ~np.isnan(wall)
        print(
            f"wall clock over the thread's own time: {np.median((wall / measured)[steady]):.3f} in the median of "
            f"{steady.sum()} networks; the others were too unsteady and keep the thread's time"
        )
        measured = np.where(steady, wall, measured)
    repeat = np.abs(np.array([two.ms / one.ms for one, two in zip(first.timed, again.timed, strict=True)]) - 1)
    predicted = np.array([cost.latency_ms for cost in costs])
    errors = np.abs(predicted / measured - 1)
    inside = [low <= ms <= high for (low, high), ms in zip((cost.interval_ms for cost in costs), measured, strict=True)]

    print(f"\n{'family':28} {'networks':>8} {'median':>8} {'largest':>8} {'bias':>7}   measured ms")
    for name in dict.fromkeys(sample.name for sample in samples):
        at = [index for index, sample in enumerate(samples) if sample.name == name]
        bias = float(np.median(predicted[at] / measured[at])) - 1
        print(
            f"{name:28} {len(at):8} {np.median(errors[at]):8.1%} {errors[at].max():8.1%} {bias:+7.1%}   "
            f"{measured[at].min():.3f} to {measured[at].max():.3f}"
        )
    print(f"\n{len(samples)} networks that were not used for fitting (seed {options.seed})")
    print(
        f"median error {np.median(errors):.1%} (bar 10 %), 90th percentile {np.percentile(errors, 90):.1%} (bar 25 %)"
    )
    print(f"Kendall's tau {kendall(predicted, measured):.3f} (bar 0.85)")
    print(f"inside the 90 % interval: {np.mean(inside):.0%}")
    print(
        f"two measurements of one network are {np.median(repeat):.1%} apart in the median, "
        f"{np.percentile(repeat, 90):.1%} at the 90th percentile; other work took {first.waited:.0%} of the core"
    )
    print(target.latency.get("origin", ""))
    for index in np.argsort(-errors)[: options.worst]:
        print(f"  {samples[index].name:28} measured {measured[index]:.3f} ms, predicted {predicted[index]:.3f} ms")


if __name__ == "__main__":
    main()
