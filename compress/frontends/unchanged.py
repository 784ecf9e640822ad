"""No preprocessing: networks take the raw inputs, token ids and a mask for instance."""

from torch import Tensor, nn


class Unchanged(nn.Module):
    """Passes every input on. One input comes back as a tensor, several as a tuple in their order."""

    def forward(self, *raw: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(B, ...) each -> the same."""
        return raw[0] if len(raw) == 1 else raw
