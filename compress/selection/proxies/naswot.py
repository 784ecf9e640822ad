"""How well the patterns of active units tell the examples apart.

Source: Mellor, Turner, Storkey, Crowley, "Neural Architecture Search without Training", ICML 2021, arXiv:2006.04647,
section 3, the log-determinant of the kernel of Hamming distances.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.errors import RecipeError
from compress.selection.observation import observe


def log_determinant(active: Sequence[Tensor]) -> float:
    """log |det K| with K_ij = units less the units in which samples i and j differ; -inf where two samples agree.

    Args:
        active: per activation, which units are on, (B, units) of bool.
    """
    kernel = torch.zeros(len(active[0]), len(active[0]), dtype=torch.float64)
    for units in active:
        on = units.float()
        kernel += (on @ on.T + (1 - on) @ (1 - on).T).double().cpu()
    return float(torch.linalg.slogdet(kernel).logabsdet)


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """`log_determinant` over all activations of the student."""
    active = observe(student, batch.inputs, units=True).active
    if not active:
        raise RecipeError(
            f"{type(student).__name__} has no ReLU-like activation", fix="leave naswot out for this space"
        )
    return log_determinant(active)


PROXY = Proxy(source="arXiv:2006.04647 sec. 3", score=score)
