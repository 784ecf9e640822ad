"""Half the sum of the squares of a network's weights: the decay of papers that train by Adam.

Source: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101, section 2. A decay in
the gradient, as Adam's `weight_decay` in most published code, is scaled by Adam like the rest of it, and so pulls
hardest at weights that the loss hardly moves: those of rare words, in a bag of words. AdamW's, which is
`distill.weight_decay` here, pulls at all alike. Neither's strength can be told from the other's.
"""

from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals


class WeightPenalty(Objective):
    """|weights|^2 / 2 of the first student; its weight in a recipe is the published `weight_decay`.

    Left out is what has one number a row, as AdamW's decay leaves it: biases, norms, steps of quantisers.
    """

    _weights: tuple[nn.Parameter, ...] = ()

    def prepare(self, preparation: Preparation) -> None:
        """Take the student's weights; they stay the student's and are no parameters of this objective."""
        student = next(iter(preparation.students.values()))
        self._weights = tuple(
            parameter
            for parameter in student.parameters()
            if parameter.requires_grad and parameter.ndim > 1 and parameter.numel() > len(parameter)
        )

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(1,), >= 0."""
        total = student.output.new_zeros(1)
        for weights in self._weights:
            total = total + 0.5 * weights.square().sum()
        return total
