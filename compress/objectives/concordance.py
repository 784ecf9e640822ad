"""Lin's concordance correlation coefficient of student and teacher over a set of examples.

Source: Kounadis-Bastian et al. 2024, arXiv:2408.13920; the coefficient: Lin, "A Concordance Correlation Coefficient to
Evaluate Reproducibility", Biometrics 45(1), 1989, equation 1:

    CCC(p, t) = 2 cov(p, t) / (var p + var t + (mean p - mean t)^2),    loss = 1 - mean over outputs of CCC

with moments of the set, biased. Whether the paper adds a squared error was not found; it has the weight 0 here.

A set needs spread: of few examples the coefficient is mostly chance, and of equal ones it is 0 / 0.
"""

from torch import Tensor

from compress.coefficients import concordance
from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.errors import RecipeError

FEWEST = 8
"""Examples of a set below which the coefficient is not looked at (proposed)."""


class Concordance(Objective):
    """1 - the mean coefficient of student and teacher over the batch.

    Args:
        squared_error: weight of the mean squared error beside it, >= 0.
        fewest: examples, >= 2; the last batch of an epoch teaches nothing where it has fewer.

    Raises:
        RecipeError: a number out of its range.
    """

    batch_wide = True

    def __init__(self, squared_error: float = 0.0, fewest: int = FEWEST) -> None:
        super().__init__()
        if not 0.0 <= squared_error < float("inf"):
            raise RecipeError(f"concordance has squared_error {squared_error}", fix="write 0.0 or a positive weight")
        if fewest < 2:
            raise RecipeError(f"concordance has fewest {fewest}", fix="write 2 or more; one example has no spread")
        self._squared_error, self._fewest = squared_error, fewest

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(1,): the batch is one set.

        Raises:
            RecipeError: the first batch is too small, and so are all.
        """
        ours, theirs = student.output, teacher.output.detach()
        if len(ours) < self._fewest:
            if clock.step == 0:
                raise RecipeError(
                    f"concordance met a batch of {len(ours)}, and looks at {self._fewest} examples or more",
                    fix="write a larger distill.batch_size, such as 32",
                )
            return (ours * 0.0).sum().reshape(1)
        loss = 1.0 - concordance(ours, theirs).mean()
        if self._squared_error:
            loss = loss + self._squared_error * (ours - theirs).square().mean()
        return loss.reshape(1)
