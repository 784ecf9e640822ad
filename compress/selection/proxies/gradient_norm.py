"""How strong the first gradient is.

Source: Abdelfattah, Mehrotra, Dudziak, Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, arXiv:2101.08134,
section 3.2.
"""

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.errors import RecipeError
from compress.selection.observation import at_search


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """Euclidean norm of the gradient of the mean cross-entropy with respect to all parameters; >= 0."""
    if batch.labels is None or batch.labels.is_floating_point():
        raise RecipeError(
            "the gradient norm needs class indices as labels", fix="leave it out where the task is no classification"
        )
    network = copy.deepcopy(student).requires_grad_(True)
    with at_search(network), torch.enable_grad():
        loss = F.cross_entropy(network(*batch.inputs), batch.labels.long())
        gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradients if g is not None))


PROXY = Proxy(source="arXiv:2101.08134 sec. 3.2", score=score)
