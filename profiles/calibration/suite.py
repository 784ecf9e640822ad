"""The networks that a core is calibrated on: chains that isolate each kernel, and small whole networks.

Shapes are drawn from ranges that small networks have, by a fixed seed, so that two calibrations time the same models.
Nothing here may look like the networks that a calibration is scored on: those come from other generators and seeds.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from profiles.calibration.build import Net

if TYPE_CHECKING:
    import onnx

SEED = 20
LARGEST_MACS = 60e6  # of one chain; longer ones take too much of the time there is


@dataclass(frozen=True)
class Sample:
    """One model of the suite."""

    name: str  # of its generator
    model: "onnx.ModelProto"


def suite(seed: int = SEED, share: float = 1.0) -> Iterator[Sample]:
    """The models, in an order in which kinds alternate.

    Args:
        share: of each generator's models, in (0, 1]; at least one of each.
    """
    dice, rng = random.Random(seed), np.random.default_rng(seed)
    plans = [
        (name, make, int8)
        for name, (make, count, both) in GENERATORS.items()
        for int8 in ((False, True) if both else (False,))
        for _ in range(max(1, round(count * share)))
    ]
    dice.shuffle(plans)
    for name, make, int8 in plans:
        yield Sample(f"{name} int8" if int8 else name, make(dice, rng, int8))


def _log(dice: random.Random, low: float, high: float) -> int:
    return round(low * math.pow(high / low, dice.random()))


def _width(dice: random.Random, low: float = 8, high: float = 256) -> int:
    """Channels: mostly multiples of 8, as in practice; some of 4 and some odd."""
    step = dice.choice([16, 16, 8, 8, 4, 1])
    return max(step, round(_log(dice, low, high) / step) * step)


def _size(dice: random.Random, macs_per_pixel: float, low: int = 4, high: int = 64) -> int:
    """Height and width such that a layer stays below the largest size."""
    most = int((LARGEST_MACS / 3 / macs_per_pixel) ** 0.5)
    return _log(dice, low, max(low + 1, min(high, most)))


def dense(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Two or three convolutions of 3x3 or 5x5, the first with stride 1 or 2."""
    before, width = _width(dice), _width(dice)
    kernel = dice.choice([3, 3, 3, 5, 7])
    size = _size(dice, (before + width) * width * kernel**2)
    net = Net((1, before, size, size), rng, int8)
    x = net.conv(net.x, width, kernel, dice.choice([1, 1, 2]))
    for _ in range(dice.choice([1, 2])):
        x = net.conv(x, width, kernel)
    return net.model(x, coded=True)


def strided(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Convolutions that halve the map each."""
    before, width = _width(dice, 16, 64), _width(dice, 16, 128)
    net = Net((1, before, *[dice.choice([16, 24, 32, 48, 64])] * 2), rng, int8)
    x = net.x
    for _ in range(2):
        x = net.conv(x, width, dice.choice([3, 3, 5, 1]), 2)
    return net.model(x, coded=True)


def first(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """A convolution on few channels, as at a network's input."""
    before, width = dice.choice([1, 1, 2, 3, 3, 4, 8, 12]), _width(dice, 8, 96)
    size = dice.choice([24, 32, 40, 48, 64, 96, 128])
    net = Net((1, before, size, size), rng, int8)
    kernel = dice.choice([1, 3, 3, 3, 5, 7])
    x = net.conv(net.x, width, kernel, dice.choice([1, 2, 2]), act=dice.choice(["Relu", "Relu", "HardSwish"]))
    return net.model(x, coded=True)


def pointwise(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Convolutions of 1x1 that widen and narrow."""
    before, width = _width(dice, 16, 256), _width(dice, 16, 512)
    size = _size(dice, 2 * before * width)
    net = Net((1, before, size, size), rng, int8)
    x = net.x
    for _ in range(2):
        x = net.conv(net.conv(x, width, 1, act=dice.choice(["Relu", "HardSwish"])), before, 1, act="")
    return net.model(x, coded=True)


def squeezed(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Convolutions of 1x1 on a map of one pixel, as in squeeze-and-excitation, and what they weight."""
    width = _width(dice, 16, 256)
    net = Net((1, width, *[dice.choice([1, 4, 8, 16, 24])] * 2), rng, int8)
    x = net.conv(net.x, width, 1)
    for _ in range(2):
        x = net.squeeze(x, max(4, width // 4), dice.choice(["Sigmoid", "HardSigmoid"]))
    return net.model(net.conv(x, width, 1), coded=True)


def depthwise(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Depthwise convolutions of 3x3 to 7x7."""
    width, kernel = _width(dice, 16, 384), dice.choice([3, 3, 5, 7])
    size = _size(dice, width * kernel**2 * 4)
    net = Net((1, width, size, size), rng, int8)
    x = net.conv(net.x, width, kernel, dice.choice([1, 1, 2]), groups=width)
    for _ in range(2):
        x = net.conv(x, width, kernel, groups=width, act=dice.choice(["Relu", "Clip", "HardSwish"]))
    return net.model(x, coded=True)


def separable(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Depthwise and pointwise convolutions in turn."""
    width = _width(dice, 16, 192)
    size = _size(dice, 2 * width * (width + 9))
    net = Net((1, width, size, size), rng, int8)
    x = net.x
    for _ in range(dice.choice([2, 3])):
        x = net.conv(net.conv(x, width, 3, groups=width, act=dice.choice(["Relu", "HardSwish", "Silu"])), width, 1)
    return net.model(x, coded=True)


def grouped(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Convolutions in 2 to 8 groups."""
    groups = dice.choice([2, 4, 8])
    width = groups * dice.choice([4, 8, 12, 16, 32])
    size = _size(dice, 2 * width * width // groups * 9, 4, 40)
    net = Net((1, width, size, size), rng, int8)
    x = net.conv(net.x, width, 3, groups=groups)
    return net.model(net.conv(x, width, 3, groups=groups), coded=True)


def line(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Convolutions over one axis."""
    before, width, kernel = _width(dice, 1, 96), _width(dice, 8, 160), dice.choice([1, 3, 5, 9])
    length = _log(dice, 16, max(17, min(2000, LARGEST_MACS / 6 / ((before + width) * width * kernel))))
    net = Net((1, before, length), rng, int8)
    x = net.conv(net.x, width, kernel, dice.choice([1, 1, 2]))
    return net.model(net.conv(x, width, kernel), coded=True)


def line_depthwise(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Depthwise and pointwise convolutions over one axis."""
    width, kernel = _width(dice, 8, 128), dice.choice([3, 5, 9, 15])
    net = Net((1, width, _log(dice, 16, 800)), rng, int8)
    x = net.conv(net.conv(net.x, width, kernel, groups=width), width, 1)
    return net.model(x, coded=True)


def upward(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Transposed convolutions, resizing and joined channels, as in a U-Net's second half."""
    width = _width(dice, 8, 64)
    net = Net((1, width, *[_log(dice, 4, 24)] * 2), rng, int8)
    x = net.conv(net.x, width, 3)
    way = dice.choice(["transposed", "nearest", "nearest"])
    y = net.up(x, width) if way == "transposed" else net.resize(x, way)
    y = net.concat(y, net.resize(x))
    return net.model(net.conv(y, width, 1), coded=True)


def joined(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Branches that are concatenated."""
    width, size = _width(dice, 8, 96), _log(dice, 4, 40)
    net = Net((1, width, size, size), rng, int8)
    x = net.x
    for _ in range(2):
        x = net.concat(net.conv(x, width, 1), net.conv(x, width, 1))
    return net.model(net.conv(x, width, 1), coded=True)


def residual(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Convolutions with skips."""
    width = _width(dice, 8, 128)
    size = _size(dice, 3 * width**2 * 9)
    net = Net((1, width, size, size), rng, int8)
    x = net.conv(net.x, width, 1)
    for _ in range(2):
        x = net.conv(x, width, dice.choice([1, 3]), skip=x, act=dice.choice(["Relu", "Relu", ""]))
    return net.model(net.conv(x, width, 1), coded=True)


def pooled(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Pools of both kinds, and the mean of what is left."""
    width, size = _width(dice, 8, 256), dice.choice([16, 24, 32, 48, 64])
    while width * size**2 > 400_000:
        size //= 2
    net = Net((1, width, size, size), rng, int8)
    x = net.conv(net.x, width, 1)
    kind = dice.choice(["MaxPool", "AveragePool"])
    for _ in range(dice.choice([1, 2])):
        x = net.pool(x, kind, *dice.choice([(2, 2), (3, 2), (3, 1)]))
    return net.model(net.mean(x) if dice.random() < 0.6 else x, coded=True)


def line_pooled(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Pools over one axis."""
    net = Net((1, _width(dice, 8, 96), _log(dice, 64, 2000)), rng, int8)
    kind = dice.choice(["MaxPool", "AveragePool"])
    x = net.pool(net.pool(net.x, kind), kind)
    return net.model(net.mean(x) if dice.random() < 0.5 else x, coded=True)


def elementwise(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """One activation or sum several times over, on maps of any size."""
    shape = (1, _width(dice, 8, 128), *[_log(dice, 2, 64)] * 2)
    net = Net(shape, rng, int8)
    act = dice.choice(["Sigmoid", "Tanh", "Gelu", "HardSwish", "Silu", "Add", "Mul", "Add"])
    x = net.x
    for _ in range(3):
        x = net.add(x, net.x) if act == "Add" else net.mul(x, net.x) if act == "Mul" else net.activation(x, act)
    return net.model(x, coded=True)


def moved(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Axes in another order, as before and behind the products of attention."""
    steps, heads, each = _log(dice, 8, 256), dice.choice([2, 4, 8]), dice.choice([16, 32])
    net = Net((1, steps, heads, each), rng, int8)
    x = net.transpose(net.x, dice.choice([[0, 2, 1, 3], [0, 2, 3, 1]]))
    return net.model(net.softmax(x) if dice.random() < 0.5 else x, coded=True)


def deep(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Many channels on small maps, whose weights do not fit into a core's cache."""
    before, width = _width(dice, 96, 320), _width(dice, 96, 320)
    net = Net((1, before, *[dice.choice([2, 3, 4, 6, 8])] * 2), rng, int8)
    x = net.conv(net.x, width, dice.choice([3, 3, 1]), dice.choice([1, 1, 2]))
    return net.model(net.conv(x, width, 3), coded=True)


def connected(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Fully connected layers on one row or several."""
    rows, depth = dice.choice([1, 1, 1, 1, 4, 20, 64]), _width(dice, 16, 1500)
    net = Net((rows, depth), rng, int8)
    x = net.x
    for _ in range(3):
        x = net.gemm(x, _width(dice, 16, 1000 if rows < 20 else 256), dice.choice(["Relu", "Relu", ""]))
    return net.model(x, coded=True)


def last(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """A network's last layers, whose result stays in float: in int8 their weights become numbers at every run."""
    net = Net((1, _width(dice, 32, 600)), rng, int8)
    return net.model(net.gemm(net.gemm(net.x, _width(dice, 32, 600), "Relu"), _width(dice, 32, 1000)))


def sequence(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Products with stored matrices over a sequence, as in a transformer's second half."""
    steps, width = _log(dice, 8, 256), _width(dice, 32, 256)
    net = Net((1, steps, width), rng, int8)
    x = net.linear(net.x, dice.choice([2, 4]) * width, dice.choice(["Gelu", "Relu", ""]))
    return net.model(net.add(net.linear(x, width), net.x), coded=True)


def attention(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Self-attention."""
    heads, each = dice.choice([1, 2, 4, 6]), dice.choice([16, 24, 32, 64])
    net = Net((1, _log(dice, 8, 200), heads * each), rng, int8)
    return net.model(net.add(net.x, net.attention(net.x, heads)), coded=True)


def scores(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Batched products of activations, and softmax between them."""
    heads, steps = dice.choice([1, 2, 4, 8]), _log(dice, 8, 160)
    net = Net((1, heads, steps, steps), rng, int8)
    x = net.softmax(net.matmul(net.x, net.x))
    return net.model(net.matmul(x, net.x), coded=True)


def normed(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Layer normalisations, also of a sum, and the mean over the steps."""
    net = Net((1, _log(dice, 4, 400), _width(dice, 16, 512)), rng, int8)
    x = net.norm(net.activation(net.norm(net.x), "Relu"))
    x = net.norm(net.add(x, net.x)) if dice.random() < 0.5 else x
    return net.model(net.average(x) if dice.random() < 0.5 else x, coded=True)


def instance_normed(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """Normalisations of each channel over its positions."""
    net = Net((1, _width(dice, 8, 128), *[_log(dice, 4, 40)] * 2), rng, int8)
    return net.model(net.instance_norm(net.conv(net.x, net.shape["x"][1], 1)), coded=True)


def recurrent(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """One or two recurrent layers."""
    kind = dice.choice(["LSTM", "GRU"])
    net = Net((1, _log(dice, 4, 100), _width(dice, 8, 128)), rng, int8)
    x = net.recurrent(net.x, kind, _width(dice, 16, 192))
    return net.model(net.recurrent(x, kind, _width(dice, 16, 192)) if dice.random() < 0.4 else x, coded=True)


def spectrum(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """A short-time Fourier transform."""
    net = Net((1, dice.choice([2000, 4000, 8000]), 1), rng)
    return net.model(net.stft(net.x, dice.choice([128, 256, 512])))


def classifier(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """A whole small convolutional network, drawn layer by layer."""
    size = dice.choice([20, 28, 36, 44, 56])
    net = Net((1, dice.choice([1, 2, 3]), size, size), rng, int8)
    width = _width(dice, 8, 40)
    x = net.conv(net.x, width, dice.choice([3, 5]), dice.choice([1, 2]))
    for _ in range(dice.randint(3, 8)):
        stride = 2 if net.shape[x][2] >= 10 and dice.random() < 0.35 else 1
        style = dice.choice(["plain", "pointwise", "residual", "separable", "weighted", "pooled"])
        if style == "residual":
            x = net.conv(net.conv(x, width, 3), width, 3, skip=x)
        elif style == "separable":
            x = net.conv(net.conv(x, width, 3, stride, groups=width), width, 1, act="")
        elif style == "weighted":
            x = net.squeeze(x, max(4, width // 4))
        elif style == "pooled" and stride == 2:
            x = net.pool(x, dice.choice(["MaxPool", "AveragePool"]))
        else:
            width = min(_width(dice, width, 2 * width), 160)
            x = net.conv(x, width, 1 if style == "pointwise" else 3, stride)
    return net.model(net.head(x, dice.choice([2, 10, 35, 100])))


def listener(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """A whole small network on a signal."""
    net = Net((1, dice.choice([1, 20, 40]), dice.choice([100, 400, 1600])), rng, int8)
    width = _width(dice, 8, 48)
    x = net.conv(net.x, width, dice.choice([3, 9]), 2)
    for _ in range(dice.randint(1, 4)):
        width = _width(dice, width, 1.5 * width)
        x = net.conv(x, width, dice.choice([3, 5]), dice.choice([1, 2]))
    return net.model(net.head(x, 12))


def encoder(dice: random.Random, rng: np.random.Generator, int8: bool) -> "onnx.ModelProto":
    """One or two transformer layers and a classifier."""
    heads = dice.choice([2, 3, 4])
    width = heads * dice.choice([12, 16, 24])
    net = Net((1, _log(dice, 12, 120), width), rng, int8)
    x = net.x
    for _ in range(dice.choice([1, 2])):
        x = net.add(x, net.attention(net.norm(x), heads))
        x = net.add(x, net.linear(net.linear(net.norm(x), 2 * width, "Gelu"), width))
    return net.model(net.gemm(net.average(net.norm(x)), 10))


_Make = Callable[[random.Random, np.random.Generator, bool], "onnx.ModelProto"]
# generator: how many, and whether in int8 too
GENERATORS: dict[str, tuple[_Make, int, bool]] = {
    "dense": (dense, 30, True),
    "deep": (deep, 10, True),
    "strided": (strided, 10, True),
    "first": (first, 16, True),
    "pointwise": (pointwise, 20, True),
    "squeezed": (squeezed, 10, True),
    "depthwise": (depthwise, 16, True),
    "separable": (separable, 10, True),
    "grouped": (grouped, 10, True),
    "line": (line, 18, True),
    "line depthwise": (line_depthwise, 10, True),
    "upward": (upward, 12, True),
    "joined": (joined, 8, True),
    "residual": (residual, 10, True),
    "pooled": (pooled, 12, True),
    "line pooled": (line_pooled, 10, True),
    "elementwise": (elementwise, 14, True),
    "moved": (moved, 8, True),
    "connected": (connected, 20, True),
    "last": (last, 6, True),
    "sequence": (sequence, 10, True),
    "attention": (attention, 10, True),
    "scores": (scores, 8, True),
    "normed": (normed, 14, True),
    "instance normed": (instance_normed, 4, False),
    "recurrent": (recurrent, 14, False),
    "spectrum": (spectrum, 4, False),
    "classifier": (classifier, 24, True),
    "listener": (listener, 12, True),
    "encoder": (encoder, 10, True),
}
