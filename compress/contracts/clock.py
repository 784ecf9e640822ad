"""Where a training stands: what every schedule is a function of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """Counts start at 0 and are of the present phase; `step` of `steps` is about to be taken."""

    phase: str
    step: int
    steps: int
    epoch: int
    epochs: int

    @property
    def progress(self) -> float:
        """Share of the phase that is done, in [0, 1)."""
        return self.step / max(1, self.steps)

    @property
    def starts_epoch(self) -> bool:
        """Whether this is an epoch's first step: prototypes or labels are made anew here."""
        return self.step * self.epochs == self.epoch * self.steps
