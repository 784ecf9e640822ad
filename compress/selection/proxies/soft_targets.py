"""Minus the distillation loss before training.

Source: Hinton, Vinyals, Dean, arXiv:1503.02531, section 2, taken at initialisation as arXiv:2303.15678 proposes.
"""

from torch import nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.selection.observation import observe, required

TEMPERATURE = 4.0  # that the paper's released scripts distil with


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """Minus KL(teacher || student) of the softened outputs times temperature squared, mean over the batch; <= 0."""
    theirs, ours = observe(required(teacher), batch.inputs).output, observe(student, batch.inputs).output
    log_p, log_q = (F.log_softmax(output / TEMPERATURE, dim=1) for output in (theirs, ours))
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()
    return -(TEMPERATURE**2) * float(divergence)


PROXY = Proxy(source="arXiv:1503.02531 sec. 2 at initialisation, arXiv:2303.15678", score=score, compares=True)
