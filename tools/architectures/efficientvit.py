"""EfficientViT: linear attention of several scales (Cai et al., ICCV 2023) and its SAM encoders (Zhang et al. 2024)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from architectures.blocks import Add, conv

SMALL = {  # widths, depths, width of one head, widths of the classifier
    "b0": ((8, 16, 32, 64, 128), (1, 2, 2, 2, 2), 16, (1024, 1280)),
    "b1": ((16, 32, 64, 128, 256), (1, 2, 3, 3, 4), 16, (1536, 1600)),
    "b2": ((24, 48, 96, 192, 384), (1, 3, 4, 4, 6), 32, (2304, 2560)),
    "b3": ((32, 64, 128, 256, 512), (1, 4, 6, 6, 9), 32, (2304, 2560)),
}
LARGE = {  # widths, depths, block of each stage, expansion of each stage
    "l0": ((32, 64, 128, 256, 512), (1, 1, 1, 4, 4), "residual fused fused inverted attention", (1, 4, 4, 4, 6)),
    "l1": ((32, 64, 128, 256, 512), (1, 1, 1, 6, 6), "residual fused fused inverted attention", (1, 4, 4, 4, 6)),
    "l2": ((32, 64, 128, 256, 512), (1, 2, 2, 8, 8), "residual fused fused inverted attention", (1, 4, 4, 4, 6)),
    "l3": ((64, 128, 256, 512, 1024), (1, 2, 2, 8, 8), "residual fused fused inverted attention", (1, 4, 4, 4, 6)),
    "xl0": (
        (32, 64, 128, 256, 512, 1024), (0, 1, 1, 2, 3, 3),
        "residual fused fused fused attention3 attention3", (1, 4, 4, 4, 4, 6),
    ),
    "xl1": (
        (32, 64, 128, 256, 512, 1024), (1, 2, 2, 4, 6, 6),
        "residual fused fused fused attention3 attention3", (1, 4, 4, 4, 4, 6),
    ),
}  # fmt: skip


def biased(i: int, o: int, k: int, s: int, g: int, act: nn.Module) -> nn.Module:
    """Convolution with a bias in the place of a normalisation."""
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=g), act)


def inverted(i: int, o: int, s: int, expansion: float, act: nn.Module, normed: bool = True) -> nn.Module:
    inner = round(i * expansion)
    part = (
        (lambda i, o, k, s, g: conv(i, o, k, s, g, act)) if normed else lambda i, o, k, s, g: biased(i, o, k, s, g, act)
    )
    body = nn.Sequential(part(i, inner, 1, 1, 1), part(inner, inner, 3, s, inner), conv(inner, o, 1))
    return Add(body) if s == 1 and i == o else body


def fused(i: int, o: int, s: int, expansion: float, act: nn.Module, normed: bool = True) -> nn.Module:
    inner = round(i * expansion)
    first = conv(i, inner, 3, s, act=act) if normed else biased(i, inner, 3, s, 1, act)
    body = nn.Sequential(first, conv(inner, o, 1))
    return Add(body) if s == 1 and i == o else body


class LinearAttention(nn.Module):
    """ReLU attention over queries, keys and values of two scales: no matrix of tokens by tokens."""

    def __init__(self, channels: int, dim: int, scale: int) -> None:
        super().__init__()
        heads = channels // dim
        total = heads * dim
        self.dim = dim
        self.qkv = nn.Conv2d(channels, 3 * total, 1, bias=False)
        self.wide = nn.Sequential(
            nn.Conv2d(3 * total, 3 * total, scale, padding=scale // 2, groups=3 * total, bias=False),
            nn.Conv2d(3 * total, 3 * total, 1, groups=3 * heads, bias=False),
        )
        self.proj = conv(2 * total, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, self.wide(qkv)], 1)
        b, _, h, w = qkv.shape
        q, k, v = qkv.reshape(b, -1, 3 * self.dim, h * w).split(self.dim, 2)
        q, k = torch.relu(q), torch.relu(k)
        v = nn.functional.pad(v, (0, 0, 0, 1), value=1.0)
        out = (v @ k.transpose(-1, -2)) @ q
        out = out[:, :, :-1] / (out[:, :, -1:] + 1e-6)
        return self.proj(out.reshape(b, -1, h, w))


def attention_block(channels: int, dim: int, expansion: float, act: nn.Module, scale: int = 5) -> nn.Module:
    return nn.Sequential(
        Add(LinearAttention(channels, dim, scale)), inverted(channels, channels, 1, expansion, act, normed=False)
    )


class Backbone(nn.Module):
    """The stages; `features` are their outputs, the finest first."""

    def __init__(self, size: str) -> None:
        super().__init__()
        stages = self._small(size) if size in SMALL else self._large(size)
        self.stages = nn.ModuleList(stages)

    @staticmethod
    def _small(size: str) -> list[nn.Module]:
        widths, depths, dim, _ = SMALL[size]
        act = nn.Hardswish()
        first = widths[0]
        stem = [conv(3, first, 3, 2, act=act)]
        stem += [
            Add(nn.Sequential(conv(first, first, 3, 1, first, act), conv(first, first, 1))) for _ in range(depths[0])
        ]
        stages: list[nn.Module] = [nn.Sequential(*stem)]
        channels = first
        for stage in (1, 2, 3, 4):
            width, late = widths[stage], stage > 2
            layers = [inverted(channels, width, 2, 4, act, normed=not late)]
            if late:
                layers += [attention_block(width, dim, 4, act) for _ in range(depths[stage])]
            else:
                layers += [inverted(width, width, 1, 4, act) for _ in range(depths[stage] - 1)]
            stages.append(nn.Sequential(*layers))
            channels = width
        return stages

    @staticmethod
    def _large(size: str) -> list[nn.Module]:
        widths, depths, names, expansions = LARGE[size]
        act = nn.GELU()
        first = widths[0]
        stem = [conv(3, first, 3, 2, act=act)]
        stem += [Add(nn.Sequential(conv(first, first, 3, act=act), conv(first, first, 3))) for _ in range(depths[0])]
        stages: list[nn.Module] = [nn.Sequential(*stem)]
        channels = first
        for stage, name in list(enumerate(names.split()))[1:]:
            width, expansion = widths[stage], expansions[stage]
            normed = stage < (4 if size.startswith("x") else 3)
            block = fused if name == "fused" else inverted
            layers = [block(channels, width, 2, expansion * 4, act, normed)]
            for _ in range(depths[stage]):
                if name.startswith("attention"):
                    layers.append(attention_block(width, 32, expansion, act, 3 if name[-1] == "3" else 5))
                else:
                    layers.append(block(width, width, 1, expansion, act, normed))
            stages.append(nn.Sequential(*layers))
            channels = width
        return stages

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Classifier(nn.Module):
    def __init__(self, size: str) -> None:
        super().__init__()
        self.body = Backbone(size)
        small = size in SMALL
        wide = SMALL[size][3] if small else ((6144, 6400) if size == "l3" else (3072, 3200))
        act = nn.Hardswish() if small else nn.GELU()
        last = (SMALL[size][0] if small else LARGE[size][0])[-1]
        self.head = nn.Sequential(
            conv(last, wide[0], 1, act=act), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(wide[0], wide[1], bias=False), nn.LayerNorm(wide[1]), act, nn.Linear(wide[1], 1000),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[-1])


class Merge(nn.Module):
    """The last three stages at one size and width, added, and blocks over their sum."""

    def __init__(self, widths: Sequence[int], width: int, blocks: Sequence[nn.Module], last: nn.Module) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(conv(i, width, 1) for i in widths)
        self.blocks, self.last = nn.Sequential(*blocks), last

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        size = features[-1].shape[-2:]
        total = None
        for maps, layer in zip(features, self.inputs, strict=True):
            y = layer(maps)
            if y.shape[-2:] != size:
                y = nn.functional.interpolate(y, size=size, mode="bicubic")
            total = y if total is None else total + y
        assert total is not None
        return self.last(self.blocks(total))


class Dense(nn.Module):
    """A backbone with the merging head of segmentation and SAM encoders."""

    def __init__(self, size: str, stages: Sequence[int], merge: Merge) -> None:
        super().__init__()
        self.body, self.stages, self.merge = Backbone(size), tuple(stages), merge

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return self.merge([features[stage] for stage in self.stages])


def segmentation(size: str, cityscapes: bool) -> nn.Module:
    """Heads for Cityscapes (19 classes) and ADE20K (150)."""
    classes = 19 if cityscapes else 150
    if size in SMALL:
        act: nn.Module = nn.Hardswish()
        widths = SMALL[size][0]
        width = {"b0": 32, "b1": 64, "b2": 96, "b3": 128}[size]
        depth, final = (1 if size == "b0" else 3), (4 if cityscapes else 0)
        blocks = [inverted(width, width, 1, 4, act) for _ in range(depth)]
    else:
        act = nn.GELU()
        widths = LARGE[size][0]
        width, expansion, final = (256, 1, 0) if cityscapes else (128, 4, 8)
        depth = 5 if cityscapes and size == "l2" else 3
        blocks = [fused(width, width, 1, expansion, act) for _ in range(depth)]
    wide = [conv(width, width * final, 1, act=act)] if final else []
    last = nn.Sequential(*wide, nn.Conv2d(width * final if final else width, classes, 1))
    return Dense(size, (4, 3, 2), Merge((widths[4], widths[3], widths[2]), width, blocks, last))


def sam_encoder(size: str) -> nn.Module:
    """Image encoder: 512 x 512 for l0 to l2, 1024 x 1024 for xl0 and xl1, to 256 channels of 64 x 64."""
    act = nn.GELU()
    widths = LARGE[size][0]
    depth, expansion = {"l0": (4, 1), "l1": (8, 1), "l2": (12, 1), "xl0": (6, 4), "xl1": (12, 4)}[size]
    blocks = [fused(256, 256, 1, expansion, act) for _ in range(depth)]
    stages = (5, 4, 3) if size.startswith("x") else (4, 3, 2)
    return Dense(size, stages, Merge([widths[s] for s in stages], 256, blocks, nn.Conv2d(256, 256, 1)))
