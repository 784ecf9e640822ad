"""Ultralytics YOLOv8 and YOLO11 with the heads of their tasks (https://docs.ultralytics.com/models)."""

from typing import Literal

import torch
from torch import Tensor, nn

from architectures.blocks import Add, conv

Task = Literal["detect", "segment", "pose", "oriented"]
CLASSES = {"detect": 80, "segment": 80, "pose": 1, "oriented": 15}  # COCO, COCO, people, DOTA
EXTRA = {"detect": 0, "segment": 32, "pose": 51, "oriented": 1}  # values per anchor beside box and classes


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
        return self.last(torch.cat(parts, 1))


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


class Head(nn.Module):
    """Boxes as distributions over 16 distances, classes, and what the task adds; decoded as the export decodes them."""

    def __init__(self, widths: list[int], task: Task, classes: int, light: bool) -> None:
        super().__init__()
        act = nn.SiLU()
        first = widths[0]
        box, cls, more = max(16, first // 4, 64), max(first, min(classes, 100)), EXTRA[task]
        inner = max(first // 4, more)
        self.classes = classes
        self.box = nn.ModuleList(
            nn.Sequential(conv(c, box, 3, act=act), conv(box, box, 3, act=act), nn.Conv2d(box, 64, 1)) for c in widths
        )
        self.cls = nn.ModuleList(
            nn.Sequential(
                conv(c, c, 3, 1, c, act), conv(c, cls, 1, act=act), conv(cls, cls, 3, 1, cls, act),
                conv(cls, cls, 1, act=act), nn.Conv2d(cls, classes, 1),
            ) if light
            else nn.Sequential(conv(c, cls, 3, act=act), conv(cls, cls, 3, act=act), nn.Conv2d(cls, classes, 1))
            for c in widths
        )  # fmt: skip
        self.more = nn.ModuleList(
            nn.Sequential(conv(c, inner, 3, act=act), conv(inner, inner, 3, act=act), nn.Conv2d(inner, more, 1))
            for c in (widths if more else [])
        )
        self.distance = nn.Conv2d(16, 1, 1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        flat = torch.cat(
            [torch.cat([b(f), c(f)], 1).flatten(2) for b, c, f in zip(self.box, self.cls, features, strict=True)], 2
        )
        b, _, anchors = flat.shape
        box, cls = flat.split([64, self.classes], 1)
        box = self.distance(torch.softmax(box.view(b, 4, 16, anchors).transpose(1, 2), 1)).view(b, 4, anchors)
        near, far = box.chunk(2, 1)
        grid, stride = box.new_empty(1, 2, anchors), box.new_empty(1, anchors)
        low, high = grid - near, grid + far
        decoded = [torch.cat([(low + high) / 2, high - low], 1) * stride, torch.sigmoid(cls)]
        if self.more:
            decoded.append(torch.cat([m(f).flatten(2) for m, f in zip(self.more, features, strict=True)], 2))
        return torch.cat(decoded, 1)


class Prototypes(nn.Module):
    """Masks that segmentation mixes."""

    def __init__(self, i: int, width: int) -> None:
        super().__init__()
        act = nn.SiLU()
        self.body = nn.Sequential(
            conv(i, width, 3, act=act), nn.ConvTranspose2d(width, width, 2, 2), conv(width, width, 3, act=act),
            conv(width, 32, 1, act=act),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Pyramid(nn.Module):
    """Down, up and down again between a backbone's last three stages, then the task's head."""

    def __init__(
        self, blocks: list[nn.Module], widths: list[int], task: Task, classes: int | None, light: bool, masks: int
    ) -> None:
        super().__init__()
        act = nn.SiLU()
        self.up4, self.up3, self.down4, self.down5 = blocks
        self.go4, self.go5 = conv(widths[0], widths[0], 3, 2, act=act), conv(widths[1], widths[1], 3, 2, act=act)
        self.head = Head(widths, task, classes or CLASSES[task], light)
        self.masks = Prototypes(widths[0], masks) if task == "segment" else None

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        p3, p4, p5 = features
        p4 = self.up4(torch.cat([nn.functional.interpolate(p5, scale_factor=2), p4], 1))
        p3 = self.up3(torch.cat([nn.functional.interpolate(p4, scale_factor=2), p3], 1))
        p4 = self.down4(torch.cat([self.go4(p3), p4], 1))
        p5 = self.down5(torch.cat([self.go5(p4), p5], 1))
        outs = [self.head([p3, p4, p5])]
        return outs if self.masks is None else [*outs, self.masks(p3)]


class PoolPyramid(nn.Module):
    """Three poolings in a row, concatenated (SPPF)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.first, self.last = conv(c, c // 2, 1, act=nn.SiLU()), conv(2 * c, c, 1, act=nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        pools = [self.first(x)]
        for _ in range(3):
            pools.append(nn.functional.max_pool2d(pools[-1], 5, 1, 2))
        return self.last(torch.cat(pools, 1))


class Detector(nn.Module):
    def __init__(self, stages: list[nn.Module], neck: nn.Module) -> None:
        super().__init__()
        self.stages, self.neck = nn.ModuleList(stages), neck

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.neck(features[-3:])


def _classifier(stages: list[nn.Module], width: int) -> nn.Module:
    head = [conv(width, 1280, 1, act=nn.SiLU()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000)]
    return nn.Sequential(*stages, *head)


def _widths(scale: float, most: int) -> list[int]:
    return [int(min(c, most) * scale) for c in (64, 128, 256, 512, 1024)]


def yolov8(size: str, task: Task | None, classes: int | None = None) -> nn.Module:
    """Sizes n, s, m, l, x; a task, or None for the classifier. `classes` where it is not the task's usual number."""
    depth, scale, most = {
        "n": (1 / 3, 0.25, 1024), "s": (1 / 3, 0.5, 1024), "m": (2 / 3, 0.75, 768), "l": (1, 1, 512),
        "x": (1, 1.25, 512),
    }[size]  # fmt: skip
    w = _widths(scale, most if task else 1024)
    n = [max(1, round(c * depth)) for c in (3, 6, 6, 3)]
    act = nn.SiLU()
    stages = [nn.Sequential(conv(w[i], w[i + 1], 3, 2, act=act), C2f(w[i + 1], w[i + 1], n[i], True)) for i in range(4)]
    stages[0] = nn.Sequential(conv(3, w[0], 3, 2, act=act), stages[0])
    if task is None:
        return _classifier(stages, w[4])
    stages[3] = nn.Sequential(stages[3], PoolPyramid(w[4]))
    k = n[0]
    blocks = [
        C2f(w[4] + w[3], w[3], k, False), C2f(w[3] + w[2], w[2], k, False),
        C2f(w[2] + w[3], w[3], k, False), C2f(w[3] + w[4], w[4], k, False),
    ]  # fmt: skip
    return Detector(stages, Pyramid(blocks, w[2:], task, classes, False, int(min(256, most) * scale)))


def yolo11(size: str, task: Task | None, classes: int | None = None) -> nn.Module:
    """Sizes n, s, m, l, x; a task, or None for the classifier."""
    depth, scale, most = {
        "n": (0.5, 0.25, 1024), "s": (0.5, 0.5, 1024), "m": (0.5, 1, 512), "l": (1, 1, 512), "x": (1, 1.5, 512)
    }[size]  # fmt: skip
    w = _widths(scale, most)
    n, deep, act = max(1, round(2 * depth)), size in "mlx", nn.SiLU()
    stages: list[nn.Module] = [
        nn.Sequential(conv(3, w[0], 3, 2, act=act), conv(w[0], w[1], 3, 2, act=act), C3k2(w[1], w[2], n, deep, 0.25)),
        nn.Sequential(conv(w[2], w[2], 3, 2, act=act), C3k2(w[2], w[3], n, deep, 0.25)),
        nn.Sequential(conv(w[3], w[3], 3, 2, act=act), C3k2(w[3], w[3], n, True)),
        nn.Sequential(conv(w[3], w[4], 3, 2, act=act), C3k2(w[4], w[4], n, True)),
    ]
    if task is None:
        return _classifier([*stages, C2psa(w[4], n)], w[4])
    stages[3] = nn.Sequential(stages[3], PoolPyramid(w[4]), C2psa(w[4], n))
    blocks: list[nn.Module] = [
        C3k2(w[4] + w[3], w[3], n, deep), C3k2(w[3] + w[3], w[2], n, deep),
        C3k2(w[2] + w[3], w[3], n, deep), C3k2(w[3] + w[4], w[4], n, True),
    ]  # fmt: skip
    return Detector(stages, Pyramid(blocks, w[2:], task, classes, True, int(min(256, most) * scale)))
