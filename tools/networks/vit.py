"""A small vision transformer, attention written as two matrix products (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

import torch
from torch import Tensor, nn

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.digits import SIDE, digits

PATCH = 4
WIDTH = 64
HEADS = 4


class Attention(nn.Module):
    """softmax(q k' / sqrt(d)) v for each head."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same shape."""
        query, key, value = (
            layer(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = torch.matmul(query, key.transpose(-2, -1)) * (WIDTH // HEADS) ** -0.5
        mixed = torch.matmul(scores.softmax(-1), value)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a two-layer perceptron, layer norm in front of each, both residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.perceptron(self.norm2(x))  # type: ignore[no-any-return]


class ViT(nn.Module):
    """Patches, a learned place for each, blocks, the mean of the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(0.02 * torch.randn(1, (SIDE // PATCH) ** 2, WIDTH))
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 16, 16) -> (B, 10) logits."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(1))  # type: ignore[no-any-return]


def samples(count: int, seed: int, part: Part) -> Split:
    """Noisy digits."""
    images, labels = digits(count, seed, part)
    return Split((images,), labels)


NETWORK = Network("vit", "vision transformer", ViT, samples, cross_entropy, top1, epochs=12, rate=2e-3)
