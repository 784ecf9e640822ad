"""Encoders of text and images as runtimes see them: fused query-key-value product, two matrix products, softmax."""

import torch
from torch import Tensor, nn

VIT = {  # layers, width, heads
    "ti": (12, 192, 3),
    "s": (12, 384, 6),
    "b": (12, 768, 12),
    "l": (24, 1024, 16),
    "h": (32, 1280, 16),
    "g": (40, 1408, 16),
}


class Transformer(nn.Module):
    """Encoder blocks on tokens (B, T, width) (Vaswani et al. 2017); where the norms stand does not change the cost."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width),
                    "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width),
                    "norm1": nn.LayerNorm(width), "norm2": nn.LayerNorm(width),
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
    """Dosovitskiy et al. 2021: patches and a class token; `classes` 0 gives all tokens back (OWL-ViT's encoder)."""

    def __init__(self, size: str, patch: int, classes: int = 1000) -> None:
        super().__init__()
        layers, width, heads = VIT[size]
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.body = Transformer(layers, width, heads)
        self.head = nn.Linear(width, classes) if classes else None

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = self.body(torch.cat([self.first.expand(len(x), -1, -1), tokens], 1))
        return tokens if self.head is None else self.head(tokens[:, 0])
