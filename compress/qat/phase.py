"""When batch norm and ranges stop moving during quantisation-aware fine-tuning.

Source: Krishnamoorthi 2018, arXiv:1806.08342, section 3.2.2: switch batch norm to its long-term statistics once
training has settled, so that training and inference compute the same; Jacob et al. 2018, arXiv:1712.05877, section
3.1: ranges move with a moving average. Ranges freeze last, because freezing batch norm still shifts activations.
"""

from enum import Enum

BATCHNORM_FREEZES = 0.5  # share of the fine-tuning steps
RANGES_FREEZE = 0.75


class Phase(Enum):
    """What still moves beside the weights."""

    ADAPT = "ranges and batch norm statistics follow the data"
    FIXED_BATCHNORM = "batch norm uses its running statistics; ranges follow the data"
    FIXED_RANGES = "nothing but weights moves: what trains is what ships"


def phase(progress: float) -> Phase:
    """The phase at a share of the fine-tuning.

    Args:
        progress: steps done over steps in all, 0 to 1.

    Raises:
        ValueError: progress is outside 0..1.
    """
    if not 0.0 <= progress <= 1.0:
        raise ValueError(f"progress is a share between 0 and 1, got {progress}")
    if progress < BATCHNORM_FREEZES:
        return Phase.ADAPT
    return Phase.FIXED_BATCHNORM if progress < RANGES_FREEZE else Phase.FIXED_RANGES
