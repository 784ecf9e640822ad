"""Classifiers whose counts are published, rebuilt from their papers at the settings of the timm release that has them.

They are here to check counting, so everything that has weights or multiply-accumulates is as published; what has
neither (dropout, initial values) is left out. The convolutional families that are costed on devices too are in
`architectures`.
"""

from collections.abc import Callable
from math import log

import torch
from architectures.blocks import Add, SqueezeExcite, classifier, conv
from torch import Tensor, nn


def mlp(width: int, inner: int) -> nn.Module:
    """Two linear layers."""
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


class Scaled(nn.Module):
    """x + gamma * f(x), with one factor per channel (Touvron et al. 2021); channels are the last axis or the second."""

    def __init__(self, body: nn.Module, width: int, last: bool = True) -> None:
        super().__init__()
        self.body = body
        self.gamma = nn.Parameter(torch.ones(width if last else (width, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.body(x)


class Attention(nn.Module):
    """Multi-head self-attention; `talking` mixes the heads before and after the softmax (Touvron et al. 2021)."""

    def __init__(self, width: int, heads: int, talking: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.before, self.after = (nn.Linear(heads, heads) if talking else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        b, t, w = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = self.before((q @ k.transpose(-1, -2)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(-1)
        scores = self.after(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.out((scores @ v).transpose(1, 2).reshape(b, t, w))


class Vit(nn.Module):
    """Dosovitskiy et al. 2021; DeiT's of the same size are the same network."""

    def __init__(self, width: int, layers: int, heads: int, patch: int, image: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    Add(nn.Sequential(nn.LayerNorm(width), Attention(width, heads))),
                    Add(nn.Sequential(nn.LayerNorm(width), mlp(width, 4 * width))),
                )
                for _ in range(layers)
            )
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(x.shape[0], -1, -1), tokens], 1) + self.places
        return self.head(self.norm(self.blocks(tokens))[:, 0])


class ClassAttention(nn.Module):
    """The class token looks at all tokens (Touvron et al. 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, t, w = x.shape
        q = self.q(x[:, :1]).view(b, 1, self.heads, -1).transpose(1, 2)
        k, v = (part(x).view(b, t, self.heads, -1).transpose(1, 2) for part in (self.k, self.v))
        return self.out(((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).reshape(b, 1, w))


class Cait(nn.Module):
    """Touvron et al. 2021: 24 layers of self-attention, two of class attention."""

    def __init__(self, width: int, layers: int, image: int) -> None:
        super().__init__()
        heads = width // 48
        self.patch = nn.Conv2d(3, width, 16, 16)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.zeros(1, (image // 16) ** 2, width))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    Scaled(nn.Sequential(nn.LayerNorm(width), Attention(width, heads, talking=True)), width),
                    Scaled(nn.Sequential(nn.LayerNorm(width), mlp(width, 4 * width)), width),
                )
                for _ in range(layers)
            )
        )
        self.last = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(width), "look": ClassAttention(width, heads),
                           "norm2": nn.LayerNorm(width), "mlp": mlp(width, 4 * width)})
            for _ in range(2)
        )  # fmt: skip
        self.gammas = nn.Parameter(torch.ones(2, 2, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks(self.patch(x).flatten(2).transpose(1, 2) + self.places)
        first = self.first.expand(x.shape[0], -1, -1)
        for layer, gamma in zip(self.last, self.gammas, strict=True):
            first = first + gamma[0] * layer["look"](layer["norm"](torch.cat([first, tokens], 1)))
            first = first + gamma[1] * layer["mlp"](layer["norm2"](first))
        return self.head(self.norm(torch.cat([first, tokens], 1))[:, 0])


class Transposed(nn.Module):
    """A layer over tokens instead of over features."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.transpose(1, 2)).transpose(1, 2)


class Tokens(nn.Module):
    """Patches, a chain on tokens, their mean, a classifier."""

    def __init__(self, width: int, patch: int, body: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.patch, self.body, self.norm = nn.Conv2d(3, width, patch, patch), body, norm
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(self.patch(x).flatten(2).transpose(1, 2))).mean(1))


def mixer(width: int, layers: int, patch: int) -> nn.Module:
    """Tolstikhin et al. 2021, at 224x224."""
    tokens = (224 // patch) ** 2
    blocks = [
        nn.Sequential(
            Add(nn.Sequential(nn.LayerNorm(width), Transposed(_between(tokens, width // 2)))),
            Add(nn.Sequential(nn.LayerNorm(width), mlp(width, 4 * width))),
        )
        for _ in range(layers)
    ]
    return Tokens(width, patch, nn.Sequential(*blocks), nn.LayerNorm(width))


def _between(width: int, inner: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))


class Affine(nn.Module):
    """Scale and offset per feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.offset + self.scale * x


def resmlp(layers: int, width: int = 384, patch: int = 16) -> nn.Module:
    """Touvron et al. 2021, "ResMLP", at 224x224."""
    tokens = (224 // patch) ** 2
    blocks = [
        nn.Sequential(
            Scaled(nn.Sequential(Affine(width), Transposed(nn.Linear(tokens, tokens))), width),
            Scaled(nn.Sequential(Affine(width), mlp(width, 4 * width)), width),
        )
        for _ in range(layers)
    ]
    return Tokens(width, patch, nn.Sequential(*blocks), Affine(width))


class ChannelsLast(nn.Module):
    """A layer over the channels of an image."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    """Global response normalisation (Woo et al. 2023), channels last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        length = x.norm(p=2, dim=(1, 2), keepdim=True)
        return x + self.offset + self.scale * x * (length / (length.mean(-1, keepdim=True) + 1e-6))


def convnext(depths: tuple[int, ...], widths: tuple[int, ...], second: bool = False) -> nn.Module:
    """Liu et al. 2022; `second` is ConvNeXt V2 (Woo et al. 2023)."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), ChannelsLast(nn.LayerNorm(widths[0]))]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        if stage:
            before = widths[stage - 1]
            layers += [ChannelsLast(nn.LayerNorm(before)), nn.Conv2d(before, width, 2, 2)]
        for _ in range(depth):
            inner = [nn.Linear(width, 4 * width), nn.GELU(), *([ResponseNorm(4 * width)] if second else []),
                     nn.Linear(4 * width, width)]  # fmt: skip
            body = nn.Sequential(
                nn.Conv2d(width, width, 7, padding=3, groups=width),
                ChannelsLast(nn.Sequential(nn.LayerNorm(width), *inner)),
            )
            layers.append(Add(body) if second else Scaled(body, width, last=False))
    width = widths[-1]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(width), nn.Linear(width, 1000))


class WindowAttention(nn.Module):
    """Self-attention inside windows with a table of relative places (Liu et al. 2021), on (B, H, W, C)."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("places", torch.zeros(window**4, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        s, n = self.window, self.window**2
        y = x.view(b, h // s, s, w // s, s, c).transpose(2, 3).reshape(-1, n, c)
        q, k, v = self.qkv(y).view(-1, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.places].view(n, n, self.heads).permute(2, 0, 1)
        y = ((q @ k.transpose(-1, -2) + bias).softmax(-1) @ v).transpose(1, 2).reshape(-1, n, c)
        return self.out(y).view(b, h // s, w // s, s, s, c).transpose(2, 3).reshape(b, h, w, c)


class Merge(nn.Module):
    """Two by two patches become one of twice the width (Liu et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.down = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.down(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    """Liu et al. 2021. The shift of every other window moves data and changes no count, so it is left out."""

    def __init__(self, width: int, depths: tuple[int, ...], heads: int) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)
        layers: list[nn.Module] = []
        for stage, depth in enumerate(depths):
            if stage:
                layers.append(Merge(width))
                width, heads = 2 * width, 2 * heads
            for _ in range(depth):
                layers += [
                    Add(nn.Sequential(nn.LayerNorm(width), WindowAttention(width, heads, 7))),
                    Add(nn.Sequential(nn.LayerNorm(width), mlp(width, 4 * width))),
                ]
        self.body = nn.Sequential(*layers)
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.body(self.norm(self.patch(x).permute(0, 2, 3, 1)))).mean((1, 2)))


def poolformer(depths: tuple[int, ...], widths: tuple[int, ...]) -> nn.Module:
    """Yu et al. 2022."""
    layers: list[nn.Module] = []
    before = 3
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        layers.append(nn.Conv2d(before, width, 3, 2, 1) if stage else nn.Conv2d(3, width, 7, 4, 2))
        for _ in range(depth):
            body = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1))
            layers += [
                Scaled(nn.Sequential(nn.GroupNorm(1, width), nn.AvgPool2d(3, 1, 1)), width, last=False),
                Scaled(nn.Sequential(nn.GroupNorm(1, width), body), width, last=False),
            ]
        before = width
    return nn.Sequential(*layers, nn.GroupNorm(1, before), *classifier(before))


REGNETS: dict[str, tuple[int, float, float, int, int]] = {  # first width, slope, step, group width, depth
    "x_002": (24, 36.44, 2.49, 8, 13), "x_004": (24, 24.48, 2.54, 16, 22), "x_006": (48, 36.97, 2.24, 24, 16),
    "x_016": (80, 34.01, 2.25, 24, 18), "x_032": (88, 26.31, 2.25, 48, 25), "x_040": (96, 38.65, 2.43, 40, 23),
    "x_120": (168, 73.36, 2.37, 112, 19), "x_160": (216, 55.59, 2.1, 128, 22), "y_002": (24, 36.44, 2.49, 8, 13),
    "y_004": (48, 27.89, 2.09, 8, 16), "y_008": (56, 38.84, 2.4, 16, 14), "y_016": (48, 20.71, 2.65, 24, 27),
    "y_032": (80, 42.63, 2.66, 24, 21), "y_040": (96, 31.41, 2.24, 64, 22), "y_064": (112, 33.22, 2.27, 72, 25),
    "y_080": (192, 76.82, 2.19, 56, 17), "y_120": (168, 73.36, 2.37, 112, 19), "y_160": (200, 106.23, 2.48, 112, 18),
}  # fmt: skip


def regnet(name: str) -> nn.Module:
    """Radosavovic et al. 2020, eq. 2 to 4 for the widths; Y has squeeze-excite."""
    first, slope, step, group, depth = REGNETS[name]
    widths = []
    for block in range(depth):
        power = round(log((first + slope * block) / first) / log(step))
        widths.append(int(round(first * step**power / 8) * 8))
    layers = [conv(3, 32, 3, 2, act=nn.ReLU())]
    before, last = 32, 0
    for width in widths:
        groups = min(group, width)
        out = int(round(width / groups) * groups)
        stride = 2 if width != last else 1
        body = nn.Sequential(
            conv(before, out, 1, act=nn.ReLU()),
            conv(out, out, 3, stride, out // groups, act=nn.ReLU()),
            *([SqueezeExcite(out, round(before / 4))] if name.startswith("y") else []),
            conv(out, out, 1),
        )
        skip = None if stride == 1 and before == out else conv(before, out, 1, stride)
        layers.append(Add(body, skip, nn.ReLU()))
        before, last = out, width
    return nn.Sequential(*layers, *classifier(before))


class RepVggBlock(nn.Module):
    """A 3x3, a 1x1 and where shapes allow an identity branch, each with its norm, as trained (Ding et al. 2021)."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.large, self.small = conv(i, o, 3, stride), conv(i, o, 1, stride)
        self.same = nn.BatchNorm2d(i) if stride == 1 and i == o else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.large(x) + self.small(x)
        return torch.relu(y if self.same is None else y + self.same(x))


def repvgg(depths: tuple[int, ...], factors: tuple[float, ...]) -> nn.Module:
    """Ding et al. 2021, before its branches are merged."""
    before = int(64 * min(1.0, factors[0]))
    layers: list[nn.Module] = [RepVggBlock(3, before, 2)]
    for depth, base, factor in zip(depths, (64, 128, 256, 512), factors, strict=True):
        width = int(base * factor)
        for block in range(depth):
            layers.append(RepVggBlock(before, width, 1 if block else 2))
            before = width
    return nn.Sequential(*layers, *classifier(before))


_VITS = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
_CONVNEXTS = {"atto": ((2, 2, 6, 2), 40), "femto": ((2, 2, 6, 2), 48), "nano": ((2, 2, 8, 2), 80),
              "tiny": ((3, 3, 9, 3), 96)}  # fmt: skip
_A, _B = (2, 4, 14, 1), (4, 6, 16, 1)
_REPVGGS = {"a0": (_A, (0.75, 0.75, 0.75, 2.5)), "a1": (_A, (1, 1, 1, 2.5)), "a2": (_A, (1.5, 1.5, 1.5, 2.75)),
            "b0": (_B, (1, 1, 1, 2.5)), "b1": (_B, (2, 2, 2, 4)), "b2": (_B, (2.5, 2.5, 2.5, 5)),
            "b3": (_B, (3, 3, 3, 5))}  # fmt: skip
_MIXERS = {"s32": (512, 8, 32), "b16": (768, 12, 16), "b32": (768, 12, 32), "l16": (1024, 24, 16),
           "l32": (1024, 24, 32)}  # fmt: skip
_CAITS = {"xxs24": (192, 24), "xxs36": (192, 36), "xs24": (288, 24), "s24": (384, 24)}
_POOLFORMERS = {"s24": ((4, 4, 12, 4), (64, 128, 320, 512)), "s36": ((6, 6, 18, 6), (64, 128, 320, 512)),
                "m48": ((8, 8, 24, 8), (96, 192, 384, 768))}  # fmt: skip


def makers(image: int) -> dict[str, Callable[[], nn.Module]]:
    """Every network here by the name that timm gives it, at an image size."""
    made: dict[str, Callable[[], nn.Module]] = {}
    for size, (width, layers, heads) in _VITS.items():
        for patch in (14, 16, 32):
            made[f"vit_{size}_patch{patch}_{image}"] = _call(Vit, width, layers, heads, patch, image)
        made[f"deit_{size}_patch16_{image}"] = _call(Vit, width, layers, heads, 16, image)
    for size, (depths, width) in _CONVNEXTS.items():
        for version, second in (("", False), ("v2", True)):
            widths = (width, 2 * width, 4 * width, 8 * width)
            made[f"convnext{version}_{size}"] = _call(convnext, depths, widths, second)
    made |= {f"regnet{name}": _call(regnet, name) for name in REGNETS}
    made |= {f"repvgg_{name}": _call(repvgg, *shape) for name, shape in _REPVGGS.items()}
    made |= {f"mixer_{name}_224": _call(mixer, *shape) for name, shape in _MIXERS.items()}
    made |= {f"resmlp_{layers}_224": _call(resmlp, layers) for layers in (12, 24, 36)}
    made |= {f"poolformer_{name}": _call(poolformer, *shape) for name, shape in _POOLFORMERS.items()}
    made |= {f"cait_{name}_{image}": _call(Cait, width, layers, image) for name, (width, layers) in _CAITS.items()}
    made["swin_base_patch4_window7_224"] = _call(Swin, 128, (2, 2, 18, 2), 4)
    return made


def _call(function: Callable[..., nn.Module], *args: object) -> Callable[[], nn.Module]:
    return lambda: function(*args)
