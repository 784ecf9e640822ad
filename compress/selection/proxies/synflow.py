"""How much flows through the student's paths, whatever the data.

Source: Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
flow", NeurIPS 2020, arXiv:2006.05467, equation 2, summed over all parameters as in arXiv:2101.08134, section 3.2. Norms
in between stand still (statistics 0 and 1): with the batch's own they would hide the flow.
"""

import copy
import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.selection.observation import inside


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """log of the sum over parameters of |theta dR / dtheta|, where R is the sum of outputs for an input of ones and
    absolute weights. The logarithm keeps the order and stays in range."""
    network, features = inside(student, [tensor[:1] for tensor in batch.inputs])
    network = copy.deepcopy(network).double().eval().requires_grad_(True)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.reset_running_stats()
        for parameter in network.parameters():
            parameter.abs_()
    parameters = list(network.parameters())
    with torch.enable_grad():
        flow = network(torch.ones_like(features, dtype=torch.float64)).sum()
        gradients = torch.autograd.grad(flow, parameters, allow_unused=True)
    saliency = sum(
        float((parameter.detach() * gradient).abs().sum())
        for parameter, gradient in zip(parameters, gradients, strict=True)
        if gradient is not None
    )
    return math.log(saliency) if saliency > 0 else -math.inf


PROXY = Proxy(source="arXiv:2006.05467 eq. 2, arXiv:2101.08134 sec. 3.2", score=score)
