"""Blocks of attention and a perceptron, written as products that runtimes have in int8."""

import torch
from torch import Tensor, nn

ABSENT = -1e4  # a score that softmax makes 0 of; float16 ends at -65504


class Attention(nn.Module):
    """softmax(q k' / sqrt(d)) v for each head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, absent: Tensor | None = None) -> Tensor:
        """(B, tokens, width) -> the same.

        Args:
            absent: (B, tokens) of bool, the tokens that nobody looks at; None where all are there.
        """
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scores = torch.matmul(query, key.transpose(-2, -1)) * self.scale
        if absent is not None:
            scores = scores.masked_fill(absent[:, None, None, :], ABSENT)
        output: Tensor = self.out(torch.matmul(scores.softmax(-1), value).transpose(1, 2).flatten(2))
        return output


class Block(nn.Module):
    """Attention and a perceptron, layer norm in front of each, each added to its input."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, absent: Tensor | None = None) -> Tensor:
        """(B, tokens, width) -> the same; `absent` as `Attention` takes it."""
        x = x + self.attention(self.norm1(x), absent)
        output: Tensor = x + self.perceptron(self.norm2(x))
        return output
