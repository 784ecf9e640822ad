"""Tokens, attention by torch's own operator with a padding mask, the mean of the words; any number of tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.phrases import CLASSES, PADDING, WORDS, phrases

LENGTH = 24
LONGEST = 64
WIDTH = 64
HEADS = 4


class Block(nn.Module):
    """Self-attention and a two-layer perceptron, layer norm behind each, both residual."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, tokens, width), (B, 1, 1, tokens) True where a word stands -> (B, tokens, width)."""
        query, key, value = self.project(x).unflatten(-1, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.norm1(x + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.perceptron(x))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Word and place vectors, two blocks, mean over the words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH, padding_idx=PADDING)
        self.places = nn.Embedding(LONGEST, WIDTH)
        self.first, self.second = Block(), Block()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, tokens) int64 -> (B, 5) logits."""
        present = tokens != PADDING
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        mask = present[:, None, None, :]
        x = self.second(self.first(x, mask), mask)
        weight = present.to(x.dtype).unsqueeze(-1)
        return self.head((x * weight).sum(1) / weight.sum(1).clamp(min=1.0))  # type: ignore[no-any-return]


def samples(count: int, seed: int, part: Part) -> Split:
    """Phrases of 8 to 24 words."""
    tokens, labels = phrases(count, seed, part, LENGTH)
    return Split((tokens,), labels)


NETWORK = Network(
    "text_encoder", "text encoder, integer tokens of any length", Encoder, samples, cross_entropy, top1,
    input_names=("tokens",), dynamic={"tokens": {1: "length"}}, epochs=6, rate=2e-3,
)  # fmt: skip
