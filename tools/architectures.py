"""Well-known networks, rebuilt from their papers to give published latencies their graphs.

Only shapes matter here: nothing is trained, and everything is built on the meta device. Names are those of the tables.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def conv(
    i: int, o: int, k: int, s: int = 1, g: int = 1, act: nn.Module | None = None, pad: int | None = None
) -> nn.Module:
    """Convolution, batch normalisation, activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(i, o, k, s, k // 2 if pad is None else pad, groups=g, bias=False),
        nn.BatchNorm2d(o),
    ]
    return nn.Sequential(*layers, *([act] if act is not None else []))


class Add(nn.Module):
    """A residual block: branch plus skip, then an activation."""

    def __init__(self, branch: nn.Module, skip: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.skip, self.act = branch, skip or nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.branch(x) + self.skip(x))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


def resnet(depth: int, groups: int = 1, base: int = 64, squeeze: bool = False, head: bool = True) -> nn.Module:
    """He et al. 2016. Groups 32 and base 4 give ResNeXt-50 32x4d (Xie et al. 2017), squeeze SE-ResNet (Hu 2018)."""
    counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    wide = 1 if depth < 50 else 4
    layers = [conv(3, 64, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, count in enumerate(counts):
        planes = 64 << stage
        width = planes * base // 64 * groups
        for block in range(count):
            stride = 2 if stage and not block else 1
            if wide == 1:
                branch = nn.Sequential(conv(channels, planes, 3, stride, act=nn.ReLU()), conv(planes, planes, 3))
            else:
                branch = nn.Sequential(
                    conv(channels, width, 1, act=nn.ReLU()),
                    conv(width, width, 3, stride, groups, act=nn.ReLU()),
                    conv(width, planes * 4, 1),
                    *([SqueezeExcite(planes * 4, planes // 4)] if squeeze else []),
                )
            skip = None if stride == 1 and channels == planes * wide else conv(channels, planes * wide, 1, stride)
            layers.append(Add(branch, skip, nn.ReLU()))
            channels = planes * wide
    if head:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)]
    return nn.Sequential(*layers)


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


def inverted(i: int, o: int, k: int, s: int, expansion: int) -> nn.Module:
    inner = i * expansion
    body = nn.Sequential(
        *([conv(i, inner, 1, act=nn.ReLU6())] if expansion > 1 else []),
        conv(inner, inner, k, s, inner, act=nn.ReLU6()),
        conv(inner, o, 1),
    )
    return Add(body) if s == 1 and i == o else body


def mnasnet(scale: float) -> nn.Module:
    """Tan et al. 2019, the variant without squeeze-excite."""

    def width(value: float) -> int:
        rounded = max(8, int(value * scale + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * value * scale else rounded + 8

    first, channels = width(32), width(16)
    layers = [
        conv(3, first, 3, 2, act=nn.ReLU()), conv(first, first, 3, 1, first, act=nn.ReLU()), conv(first, channels, 1)
    ]  # fmt: skip
    for kernel, stride, expansion, count, out in (
        (3, 2, 3, 3, 24), (5, 2, 3, 3, 40), (5, 2, 6, 3, 80), (3, 1, 6, 2, 96), (5, 2, 6, 4, 192), (3, 1, 6, 1, 320)
    ):  # fmt: skip
        for block in range(count):
            layers.append(inverted(channels, width(out), kernel, stride if block == 0 else 1, expansion))
            channels = width(out)
    return nn.Sequential(
        *layers, conv(channels, 1280, 1, act=nn.ReLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)
    )


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
    widths = {
        "0_5": (48, 96, 192, 1024),
        "1_0": (116, 232, 464, 1024),
        "1_5": (176, 352, 704, 1024),
        "2_0": (244, 488, 976, 2048),
    }
    *stages, last = widths[name]
    layers = [conv(3, 24, 3, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    channels = 24
    for width, count in zip(stages, (4, 8, 4), strict=True):
        for block in range(count):
            layers.append(Shuffle(channels, width, 1 if block else 2))
            channels = width
    return nn.Sequential(
        *layers, conv(channels, last, 1, act=nn.ReLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, 1000)
    )


class Dense(nn.Module):
    def __init__(self, i: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(i), nn.ReLU(), conv(i, 128, 1, act=nn.ReLU()), nn.Conv2d(128, 32, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet(depth: int) -> nn.Module:
    """Huang et al. 2017."""
    counts = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}[depth]
    layers = [conv(3, 64, 7, 2, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, count in enumerate(counts):
        for _ in range(count):
            layers.append(Dense(channels))
            channels += 32
        if stage < 3:
            layers += [
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels // 2, 1, bias=False),
                nn.AvgPool2d(2),
            ]
            channels //= 2
    return nn.Sequential(
        *layers, nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)
    )


def ssd_mobilenet() -> nn.Module:
    """MobileNetV1 at 300x300 (Howard et al. 2017) with the first two prediction heads of SSD in one chain."""
    layers = [conv(3, 32, 3, 2, act=nn.ReLU6())]
    channels = 32
    for width, stride in (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *(((512, 1),) * 5),
        (1024, 2),
        (1024, 1),
    ):
        layers += [
            conv(channels, channels, 3, stride, channels, act=nn.ReLU6()),
            conv(channels, width, 1, act=nn.ReLU6()),
        ]
        channels = width
    for inner, width in ((256, 512), (128, 256), (128, 256), (64, 128)):
        layers += [conv(channels, inner, 1, act=nn.ReLU6()), conv(inner, width, 3, 2, act=nn.ReLU6())]
        channels = width
    return nn.Sequential(*layers)


class Transformer(nn.Module):
    """Encoder blocks as runtimes see them: fused query-key-value, two matrix products, softmax."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width),
                    "up": nn.Linear(width, 4 * width),
                    "down": nn.Linear(4 * width, width), "norm1": nn.LayerNorm(width), "norm2": nn.LayerNorm(width),
                }
            )
            for _ in range(layers)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        b, t, w = x.shape
        for block in self.blocks:
            q, k, v = block["qkv"](x).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
            scores = torch.softmax(q @ k.transpose(-1, -2), -1)
            y = (scores @ v).transpose(1, 2).reshape(b, t, w)
            x = block["norm1"](x + block["out"](y))
            x = block["norm2"](x + block["down"](nn.functional.gelu(block["up"](x))))
        return x


class Vit(nn.Module):
    def __init__(self, layers: int, width: int, heads: int, patch: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.body = Transformer(layers, width, heads)
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class C2f(nn.Module):
    def __init__(self, i: int, o: int, count: int, shortcut: bool) -> None:
        super().__init__()
        self.half = o // 2
        self.first, self.last = conv(i, o, 1, act=nn.SiLU()), conv((2 + count) * self.half, o, 1, act=nn.SiLU())
        pair = [
            nn.Sequential(conv(self.half, self.half, 3, act=nn.SiLU()), conv(self.half, self.half, 3, act=nn.SiLU()))
            for _ in range(count)
        ]
        self.blocks = nn.ModuleList(Add(block) if shortcut else block for block in pair)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return torch.cat(parts, 1)


class C2fCat(nn.Module):
    def __init__(self, block: C2f) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block.last(self.block(x))


class Yolov8(nn.Module):
    """Ultralytics YOLOv8, detection (box and class branches) or classification."""

    def __init__(self, size: str, classify: bool = False, classes: int = 80) -> None:
        super().__init__()
        depth, width, most = {
            "n": (1 / 3, 0.25, 1024),
            "s": (1 / 3, 0.5, 1024),
            "m": (2 / 3, 0.75, 768),
            "l": (1, 1, 512),
            "x": (1, 1.25, 512),
        }[size]
        if classify:
            depth, width, most = {
                "n": (1 / 3, 0.25, 1024),
                "s": (1 / 3, 0.5, 1024),
                "m": (2 / 3, 0.75, 1024),
                "l": (1, 1, 1024),
                "x": (1, 1.25, 1024),
            }[size]
        w = [int(min(c, most) * width) for c in (64, 128, 256, 512, 1024)]
        n = [max(1, round(c * depth)) for c in (3, 6, 6, 3)]
        act = nn.SiLU()
        self.classify = classify
        self.stem = conv(3, w[0], 3, 2, act=act)
        self.down = nn.ModuleList(conv(w[i], w[i + 1], 3, 2, act=act) for i in range(4))
        self.stage = nn.ModuleList(C2fCat(C2f(w[i + 1], w[i + 1], n[i], True)) for i in range(4))
        if classify:
            self.head = nn.Sequential(
                conv(w[4], 1280, 1, act=act), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)
            )
            return
        self.pool1, self.pool2 = conv(w[4], w[4] // 2, 1, act=act), conv(w[4] * 2, w[4], 1, act=act)
        k = n[0]
        self.up4, self.up3 = C2fCat(C2f(w[4] + w[3], w[3], k, False)), C2fCat(C2f(w[3] + w[2], w[2], k, False))
        self.go4, self.go5 = conv(w[2], w[2], 3, 2, act=act), conv(w[3], w[3], 3, 2, act=act)
        self.down4, self.down5 = C2fCat(C2f(w[2] + w[3], w[3], k, False)), C2fCat(C2f(w[3] + w[4], w[4], k, False))
        box, cls = max(16, w[2] // 4, 64), max(w[2], min(classes, 100))
        self.box = nn.ModuleList(
            nn.Sequential(conv(c, box, 3, act=act), conv(box, box, 3, act=act), nn.Conv2d(box, 64, 1)) for c in w[2:]
        )
        self.cls = nn.ModuleList(
            nn.Sequential(conv(c, cls, 3, act=act), conv(cls, cls, 3, act=act), nn.Conv2d(cls, classes, 1))
            for c in w[2:]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        features = []
        for down, stage in zip(self.down, self.stage, strict=True):
            x = stage(down(x))
            features.append(x)
        if self.classify:
            return self.head(x)
        p3, p4, p5 = features[1:]
        y = self.pool1(p5)
        pools = [y]
        for _ in range(3):
            pools.append(nn.functional.max_pool2d(pools[-1], 5, 1, 2))
        p5 = self.pool2(torch.cat(pools, 1))
        p4 = self.up4(torch.cat([nn.functional.interpolate(p5, scale_factor=2), p4], 1))
        p3 = self.up3(torch.cat([nn.functional.interpolate(p4, scale_factor=2), p3], 1))
        p4 = self.down4(torch.cat([self.go4(p3), p4], 1))
        p5 = self.down5(torch.cat([self.go5(p4), p5], 1))
        outs = [torch.cat([b(p), c(p)], 1).flatten(2) for b, c, p in zip(self.box, self.cls, (p3, p4, p5), strict=True)]
        return torch.cat(outs, 2)


class Bottleneck(nn.Module):
    def __init__(self, c: int, share: float, shortcut: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(c, int(c * share), 3, act=nn.SiLU()), conv(int(c * share), c, 3, act=nn.SiLU()))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


class C3k(nn.Module):
    def __init__(self, c: int, shortcut: bool) -> None:
        super().__init__()
        h = c // 2
        self.left, self.right = conv(c, h, 1, act=nn.SiLU()), conv(c, h, 1, act=nn.SiLU())
        self.body = nn.Sequential(Bottleneck(h, 1.0, shortcut), Bottleneck(h, 1.0, shortcut))
        self.last = conv(2 * h, c, 1, act=nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.body(self.left(x)), self.right(x)], 1))


class C3k2(nn.Module):
    def __init__(self, i: int, o: int, n: int, deep: bool, share: float = 0.5, shortcut: bool = True) -> None:
        super().__init__()
        c = int(o * share)
        self.first, self.last = conv(i, 2 * c, 1, act=nn.SiLU()), conv((2 + n) * c, o, 1, act=nn.SiLU())
        self.blocks = nn.ModuleList(C3k(c, shortcut) if deep else Bottleneck(c, 0.5, shortcut) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Psa(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.heads = c // 64
        self.qkv, self.proj, self.pos = conv(c, 2 * c, 1), conv(c, c, 1), conv(c, c, 3, 1, c)
        self.ffn = nn.Sequential(conv(c, 2 * c, 1, act=nn.SiLU()), conv(2 * c, c, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).view(b, self.heads, 128, h * w).split([32, 32, 64], 2)
        a = (v @ torch.softmax(q.transpose(-1, -2) @ k, -1).transpose(-1, -2)).view(b, c, h, w)
        x = x + self.proj(a + self.pos(v.reshape(b, c, h, w)))
        return x + self.ffn(x)


class C2psa(nn.Module):
    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.first, self.last = conv(c, c, 1, act=nn.SiLU()), conv(c, c, 1, act=nn.SiLU())
        self.body = nn.Sequential(*(Psa(c // 2) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).chunk(2, 1)
        return self.last(torch.cat([a, self.body(b)], 1))


class Yolo11(nn.Module):
    """Ultralytics YOLO11, detection."""

    def __init__(self, size: str, classes: int = 80) -> None:
        super().__init__()
        depth, width, most = {
            "n": (0.5, 0.25, 1024),
            "s": (0.5, 0.5, 1024),
            "m": (0.5, 1, 512),
            "l": (1, 1, 512),
            "x": (1, 1.5, 512),
        }[size]
        w = [int(min(c, most) * width) for c in (64, 128, 256, 512, 1024)]
        n, deep, act = max(1, round(2 * depth)), size in "mlx", nn.SiLU()
        self.stem = conv(3, w[0], 3, 2, act=act)
        self.down = nn.ModuleList(
            [
                conv(w[0], w[1], 3, 2, act=act),
                conv(w[2], w[2], 3, 2, act=act),
                conv(w[3], w[3], 3, 2, act=act),
                conv(w[3], w[4], 3, 2, act=act),
            ]
        )
        self.stage = nn.ModuleList(
            [
                C3k2(w[1], w[2], n, deep, 0.25),
                C3k2(w[2], w[3], n, deep, 0.25),
                C3k2(w[3], w[3], n, True),
                C3k2(w[4], w[4], n, True),
            ]
        )
        self.pool1, self.pool2 = conv(w[4], w[4] // 2, 1, act=act), conv(w[4] * 2, w[4], 1, act=act)
        self.psa = C2psa(w[4], n)
        self.up4, self.up3 = C3k2(w[4] + w[3], w[3], n, deep), C3k2(w[3] + w[3], w[2], n, deep)
        self.go4, self.go5 = conv(w[2], w[2], 3, 2, act=act), conv(w[3], w[3], 3, 2, act=act)
        self.down4, self.down5 = C3k2(w[2] + w[3], w[3], n, deep), C3k2(w[3] + w[4], w[4], n, True)
        box, cls = max(16, w[2] // 4, 64), max(w[2], min(classes, 100))
        self.box = nn.ModuleList(
            nn.Sequential(conv(c, box, 3, act=act), conv(box, box, 3, act=act), nn.Conv2d(box, 64, 1)) for c in w[2:]
        )
        self.cls = nn.ModuleList(
            nn.Sequential(
                conv(c, c, 3, 1, c, act=act),
                conv(c, cls, 1, act=act),
                conv(cls, cls, 3, 1, cls, act=act),
                conv(cls, cls, 1, act=act),
                nn.Conv2d(cls, classes, 1),
            ) for c in w[2:]
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        features = []
        for down, stage in zip(self.down, self.stage, strict=True):
            x = stage(down(x))
            features.append(x)
        p3, p4, p5 = features[1:]
        pools = [self.pool1(p5)]
        for _ in range(3):
            pools.append(nn.functional.max_pool2d(pools[-1], 5, 1, 2))
        p5 = self.psa(self.pool2(torch.cat(pools, 1)))
        p4 = self.up4(torch.cat([nn.functional.interpolate(p5, scale_factor=2), p4], 1))
        p3 = self.up3(torch.cat([nn.functional.interpolate(p4, scale_factor=2), p3], 1))
        p4 = self.down4(torch.cat([self.go4(p3), p4], 1))
        p5 = self.down5(torch.cat([self.go5(p4), p5], 1))
        outs = [torch.cat([b(p), c(p)], 1).flatten(2) for b, c, p in zip(self.box, self.cls, (p3, p4, p5), strict=True)]
        return torch.cat(outs, 2)


Maker = Callable[[], tuple[nn.Module, tuple[int, ...]]]


def find(model: str, shape: str) -> Maker | None:
    """How to build the network of one table row, and its input shape at batch 1; None where it is not known here."""
    size = _image(shape)
    image = (1, 3, *size) if size else None
    plain: dict[str, Callable[[], nn.Module]] = {
        **{f"resnet{depth}": (lambda depth=depth: resnet(depth)) for depth in (18, 34, 50, 101, 152)},
        "resnet50-v1.5": lambda: resnet(50),
        "resnext50_32x4d": lambda: resnet(50, 32, 4),
        "seresnet50": lambda: resnet(50, squeeze=True),
        **{f"vgg{d}{n}": (lambda d=d, n=n: vgg(d, bool(n))) for d in (11, 13, 16, 19) for n in ("", "_bn")},
        "alexnet": alexnet,
        **{f"squeezenet{v}": (lambda v=v: squeezenet(v)) for v in ("1_0", "1_1")},
        "mnasnet0_5": lambda: mnasnet(0.5),
        "mnasnet1_0": lambda: mnasnet(1.0),
        **{f"shufflenet_v2_x{v}": (lambda v=v: shufflenet(v)) for v in ("0_5", "1_0", "1_5", "2_0")},
        **{f"densenet{depth}": (lambda depth=depth: densenet(depth)) for depth in (121, 169, 201)},
        "ssd-mobilenet-v1": ssd_mobilenet,
        "vit-b16-224": lambda: Vit(12, 768, 12, 16),
        "vit-l16-384": lambda: Vit(24, 1024, 16, 16),
        "openclip-vit-b32": lambda: Vit(12, 768, 12, 32),
        **{f"yolo11{s}": (lambda s=s: Yolo11(s)) for s in "nsmlx"},
        **{f"yolov8{s}": (lambda s=s: Yolov8(s)) for s in "nsmlx"},
        **{f"yolov8{s}-oiv7": (lambda s=s: Yolov8(s, classes=601)) for s in "nsmlx"},
        **{f"yolov8{s}-cls": (lambda s=s: Yolov8(s, classify=True)) for s in "nsmlx"},
    }
    if model.startswith("fcn-resnet18") and image:
        return lambda: (fcn_resnet18(), image)
    if model.startswith("bert-") and shape.startswith("seq "):
        layers, width = (24, 1024) if "large" in model else (12, 768)
        return lambda: (Transformer(layers, width, width // 64), (1, int(shape[4:]), width))
    if model in plain and image:
        return lambda: (plain[model](), image)
    return None


def _image(shape: str) -> tuple[int, int] | None:
    parts = shape.split("x")
    return (int(parts[-2]), int(parts[-1])) if len(parts) in (3, 4) and all(part.isdigit() for part in parts) else None
