"""From the states of tokens to one vector per text: masked mean, linear layer, unit length."""

from torch import Tensor, nn

SHORTEST = 1e-6  # length that a vector is divided by at least; float16 has it


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are there.

    Args:
        states: (B, tokens, width).
        mask: (B, tokens), 1 where a token is there and 0 where padding is.

    Returns:
        (B, width); zeros for a text of no token.
    """
    kept = states.masked_fill(mask.unsqueeze(-1) == 0, 0.0).sum(dim=1)
    return kept / mask.sum(dim=1, keepdim=True).to(states.dtype).clamp(min=1.0)


def unit(vectors: Tensor) -> Tensor:
    """(B, d) -> the same directions of length 1; a zero vector stays one."""
    return vectors / vectors.square().sum(dim=1, keepdim=True).sqrt().clamp(min=SHORTEST)


class LeafHead(nn.Module):
    """Norm(W_out MeanPool(states) + b), part of the graph that is exported.

    Source: Vujanic, Rueckstiess, arXiv:2509.12539 (the mean pool, the trainable map to the teacher's dimension, and an
    optional norm). The norm belongs there where the teacher's vectors have length 1: proposed.

    Args:
        hidden: width of the states.
        dim: of the teacher's vectors.
        normalize: whether the answer has length 1.
    """

    def __init__(self, hidden: int, dim: int, normalize: bool = True) -> None:
        super().__init__()
        self.out = nn.Linear(hidden, dim)
        self.normalize = normalize

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, tokens, hidden) and (B, tokens) -> (B, dim)."""
        return self.project(masked_mean(states, mask))

    def project(self, pooled: Tensor) -> Tensor:
        """(B, hidden) -> (B, dim)."""
        vectors: Tensor = self.out(pooled)
        return unit(vectors) if self.normalize else vectors
