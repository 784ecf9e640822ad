"""Image classifiers, rebuilt from their papers. Only shapes matter: nothing here is trained."""

from math import ceil

import torch
from torch import Tensor, nn

from architectures.blocks import Add, SqueezeExcite, classifier, conv, eight, fused_inverted, inverted

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet_stage(
    channels: int,
    planes: int,
    count: int,
    stride: int,
    deep: bool,
    groups: int = 1,
    base: int = 64,
    squeeze: int = 0,
) -> tuple[nn.Module, int]:
    """One stage of residual blocks and the channels it gives."""
    layers: list[nn.Module] = []
    out, width = planes * (4 if deep else 1), planes * base // 64 * groups
    for block in range(count):
        s = 1 if block else stride
        if deep:
            branch = nn.Sequential(
                conv(channels, width, 1, act=nn.ReLU()),
                conv(width, width, 3, s, groups, act=nn.ReLU()),
                conv(width, out, 1),
                *([SqueezeExcite(out, out // squeeze)] if squeeze else []),
            )
        else:
            branch = nn.Sequential(conv(channels, planes, 3, s, act=nn.ReLU()), conv(planes, planes, 3))
        skip = None if s == 1 and channels == out else conv(channels, out, 1, s)
        layers.append(Add(branch, skip, nn.ReLU()))
        channels = out
    return nn.Sequential(*layers), channels


def resnet_stem() -> list[nn.Module]:
    return [conv(3, 64, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]


def resnet(depth: int, groups: int = 1, base: int = 64, squeeze: int = 0, head: bool = True) -> nn.Module:
    """He et al. 2016. Groups 32 and base 4 give ResNeXt 32x4d (Xie et al. 2017), squeeze 16 SE-ResNet (Hu 2018)."""
    layers, channels = resnet_stem(), 64
    for stage, count in enumerate(DEPTHS[depth]):
        made, channels = resnet_stage(
            channels, 64 << stage, count, 2 if stage else 1, depth >= 50, groups, base, squeeze
        )
        layers.append(made)
    return nn.Sequential(*layers, *(classifier(channels) if head else []))


def fcn_resnet18(classes: int = 21) -> nn.Module:
    """jetson-inference's segNet: a ResNet-18 without stride reduction in the head, one 1x1 classifier."""
    return nn.Sequential(resnet(18, head=False), nn.Conv2d(512, classes, 1))


def vgg(depth: int, norm: bool) -> nn.Module:
    """Simonyan and Zisserman 2015."""
    repeats = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth]
    layers: list[nn.Module] = []
    channels = 3
    for count, width in zip(repeats, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    head = [nn.Linear(25088, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head)


def alexnet() -> nn.Module:
    """Krizhevsky 2014, one column."""
    features = [
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(6), nn.Flatten(),
    ]  # fmt: skip
    head = [nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*features, *head)


class Fire(nn.Module):
    def __init__(self, i: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(i, squeeze, 1), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(squeeze, expand, 1), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(squeeze, expand, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.squeeze(x)
        return torch.cat([self.one(y), self.three(y)], 1)


def squeezenet(version: str) -> nn.Module:
    """Iandola et al. 2016."""
    first = version == "1_0"
    stem = nn.Conv2d(3, 96, 7, 2) if first else nn.Conv2d(3, 64, 3, 2)
    widths = [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    pools = {0, 3, 7} if first else {0, 2, 4}
    layers: list[nn.Module] = [stem, nn.ReLU()]
    channels = 96 if first else 64
    for index, (squeeze, expand) in enumerate(widths):
        if index in pools:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        layers.append(Fire(channels, squeeze, expand))
        channels = 2 * expand
    return nn.Sequential(*layers, nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def mnasnet(scale: float) -> nn.Module:
    """Tan et al. 2019, the variant without squeeze-excite."""
    first, channels = eight(32 * scale), eight(16 * scale)
    layers = [
        conv(3, first, 3, 2, act=nn.ReLU()), conv(first, first, 3, 1, first, act=nn.ReLU()), conv(first, channels, 1)
    ]  # fmt: skip
    for kernel, stride, expansion, count, out in (
        (3, 2, 3, 3, 24), (5, 2, 3, 3, 40), (5, 2, 6, 3, 80), (3, 1, 6, 2, 96), (5, 2, 6, 4, 192), (3, 1, 6, 1, 320)
    ):  # fmt: skip
        for block in range(count):
            width = eight(out * scale)
            layers.append(inverted(channels, width, kernel, 1 if block else stride, channels * expansion, nn.ReLU()))
            channels = width
    return nn.Sequential(*layers, conv(channels, 1280, 1, act=nn.ReLU()), *classifier(1280))


def mobilenet_v2(scale: float = 1.0, head: bool = True) -> nn.Module:
    """Sandler et al. 2018."""
    channels = eight(32 * scale)
    layers = [conv(3, channels, 3, 2, act=nn.ReLU6())]
    for expansion, out, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ):  # fmt: skip
        for block in range(count):
            width = eight(out * scale)
            layers.append(inverted(channels, width, 3, 1 if block else stride, channels * expansion, nn.ReLU6()))
            channels = width
    last = max(1280, eight(1280 * scale))
    return nn.Sequential(*layers, conv(channels, last, 1, act=nn.ReLU6()), *(classifier(last) if head else []))


def mobilenet_v3(large: bool) -> nn.Module:
    """Howard et al. 2019. Rows: kernel, inner width, width, squeeze-excite, hard swish, stride."""
    relu, swish = nn.ReLU(), nn.Hardswish()
    rows: tuple[tuple[int, int, int, bool, bool, int], ...]
    if large:
        rows = (
            (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
            (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
            (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
            (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
            (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
        )  # fmt: skip
    else:
        rows = (
            (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
            (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
            (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
            (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
        )  # fmt: skip
    layers: list[nn.Module] = [conv(3, 16, 3, 2, act=swish)]
    channels = 16
    for kernel, inner, width, squeeze, hard, stride in rows:
        act = swish if hard else relu
        layers.append(
            inverted(channels, width, kernel, stride, inner, act, eight(inner / 4) if squeeze else 0, nn.Hardsigmoid())
        )
        channels = width
    last, hidden = channels * 6, 1280 if large else 1024
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, hidden), nn.Hardswish(), nn.Linear(hidden, 1000)]
    return nn.Sequential(*layers, conv(channels, last, 1, act=swish), *head)


def efficientnet(size: int) -> nn.Module:
    """Tan and Le 2019, B0 to B7: compound scaling of width and depth."""
    width, depth = (
        (1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1)
    )[size]  # fmt: skip
    act = nn.SiLU()
    channels = eight(32 * width)
    layers = [conv(3, channels, 3, 2, act=act)]
    for kernel, stride, expansion, out, count in (
        (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3),
        (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
    ):  # fmt: skip
        for block in range(ceil(count * depth)):
            made = eight(out * width)
            layers.append(
                inverted(
                    channels, made, kernel, 1 if block else stride, channels * expansion, act, max(1, channels // 4)
                )
            )
            channels = made
    last = eight(1280 * width)
    return nn.Sequential(*layers, conv(channels, last, 1, act=act), *classifier(last))


def efficientnet_v2(size: str) -> nn.Module:
    """Tan and Le 2021. Rows: fused, expansion, stride, width, blocks."""
    rows: tuple[tuple[bool, int, int, int, int], ...] = {
        "s": ((True, 1, 1, 24, 2), (True, 4, 2, 48, 4), (True, 4, 2, 64, 4), (False, 4, 2, 128, 6),
              (False, 6, 1, 160, 9), (False, 6, 2, 256, 15)),
        "m": ((True, 1, 1, 24, 3), (True, 4, 2, 48, 5), (True, 4, 2, 80, 5), (False, 4, 2, 160, 7),
              (False, 6, 1, 176, 14), (False, 6, 2, 304, 18), (False, 6, 1, 512, 5)),
        "l": ((True, 1, 1, 32, 4), (True, 4, 2, 64, 7), (True, 4, 2, 96, 7), (False, 4, 2, 192, 10),
              (False, 6, 1, 224, 19), (False, 6, 2, 384, 25), (False, 6, 1, 640, 7)),
    }[size]  # fmt: skip
    act = nn.SiLU()
    channels = rows[0][3]
    layers = [conv(3, channels, 3, 2, act=act)]
    for fused, expansion, stride, width, count in rows:
        for block in range(count):
            s, inner = 1 if block else stride, channels * expansion
            layers.append(
                fused_inverted(channels, width, s, inner, act)
                if fused
                else inverted(channels, width, 3, s, inner, act, max(1, channels // 4))
            )
            channels = width
    return nn.Sequential(*layers, conv(channels, 1280, 1, act=act), *classifier(1280))


class Shuffle(nn.Module):
    def __init__(self, i: int, o: int, s: int) -> None:
        super().__init__()
        half = o // 2
        self.stride = s
        source = i if s == 2 else half
        self.left = nn.Sequential(conv(i, i, 3, 2, i), conv(i, half, 1, act=nn.ReLU())) if s == 2 else nn.Identity()
        self.right = nn.Sequential(
            conv(source, half, 1, act=nn.ReLU()), conv(half, half, 3, s, half), conv(half, half, 1, act=nn.ReLU())
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = (x, x) if self.stride == 2 else x.chunk(2, 1)
        y = torch.cat([self.left(a), self.right(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet(name: str) -> nn.Module:
    """Ma et al. 2018."""
    *stages, last = {
        "0_5": (48, 96, 192, 1024),
        "1_0": (116, 232, 464, 1024),
        "1_5": (176, 352, 704, 1024),
        "2_0": (244, 488, 976, 2048),
    }[name]
    layers = [conv(3, 24, 3, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    channels = 24
    for width, count in zip(stages, (4, 8, 4), strict=True):
        for block in range(count):
            layers.append(Shuffle(channels, width, 1 if block else 2))
            channels = width
    return nn.Sequential(*layers, conv(channels, last, 1, act=nn.ReLU()), *classifier(last))


class Dense(nn.Module):
    def __init__(self, i: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(i), nn.ReLU(), conv(i, 4 * growth, 1, act=nn.ReLU()),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet(depth: int, head: bool = True) -> nn.Module:
    """Huang et al. 2017."""
    counts = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}[depth]
    channels, growth = (96, 48) if depth == 161 else (64, 32)
    layers = [conv(3, channels, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    for stage, count in enumerate(counts):
        for _ in range(count):
            layers.append(Dense(channels, growth))
            channels += growth
        if stage < 3:
            half = channels // 2
            layers += [
                nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, half, 1, bias=False), nn.AvgPool2d(2)
            ]  # fmt: skip
            channels = half
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *(classifier(channels) if head else []))


class Inception(nn.Module):
    def __init__(self, i: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> None:
        super().__init__()
        act = nn.ReLU()
        self.one = conv(i, one, 1, act=act)
        self.three = nn.Sequential(conv(i, three[0], 1, act=act), conv(three[0], three[1], 3, act=act))
        self.five = nn.Sequential(conv(i, five[0], 1, act=act), conv(five[0], five[1], 3, act=act))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(i, pool, 1, act=act))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def googlenet() -> nn.Module:
    """Szegedy et al. 2015, with the 3x3 kernels in the place of 5x5 that the usual implementations have."""
    act = nn.ReLU()
    layers: list[nn.Module] = [
        conv(3, 64, 7, 2, act=act), nn.MaxPool2d(3, 2, ceil_mode=True), conv(64, 64, 1, act=act),
        conv(64, 192, 3, act=act), nn.MaxPool2d(3, 2, ceil_mode=True),
    ]  # fmt: skip
    channels = 192
    for index, (one, three, five, pool) in enumerate((
        (64, (96, 128), (16, 32), 32), (128, (128, 192), (32, 96), 64), (192, (96, 208), (16, 48), 64),
        (160, (112, 224), (24, 64), 64), (128, (128, 256), (24, 64), 64), (112, (144, 288), (32, 64), 64),
        (256, (160, 320), (32, 128), 128), (256, (160, 320), (32, 128), 128), (384, (192, 384), (48, 128), 128),
    )):  # fmt: skip
        if index in (2, 7):
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        layers.append(Inception(channels, one, three, five, pool))
        channels = one + three[1] + five[1] + pool
    return nn.Sequential(*layers, *classifier(channels))
