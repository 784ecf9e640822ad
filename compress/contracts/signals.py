"""What a network says about a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Signals:
    """A network's answers.

    Attributes:
        output: the first output, (B, ...): logits (B, C) in classification.
        others: further outputs by name (a detector's heads, a second task).
        taps: features by the module name or stage (`contracts.stages`) that was tapped.
    """

    output: Tensor
    others: Mapping[str, Tensor] = field(default_factory=dict)
    taps: Mapping[str, Tensor] = field(default_factory=dict)

    def detach(self) -> "Signals":
        """The same values, through which no gradient flows."""
        return Signals(
            self.output.detach(),
            {name: value.detach() for name, value in self.others.items()},
            {name: value.detach() for name, value in self.taps.items()},
        )
