"""How many multiply-accumulates for one example: the other control.

Source: counted by torch's own formulas for convolutions, matrix products and attention; everything else counts nothing.
"""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.selection.observation import at_search


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """Multiply-accumulates per example of the whole student, with what its preprocessing multiplies."""
    with at_search(student), torch.no_grad(), FlopCounterMode(display=False) as counter:
        student(*batch.inputs)
    return float(counter.get_total_flops()) / 2 / len(batch)


PROXY = Proxy(source="control", score=score, drawn=False)
