"""How expressive the student is: how far a small change of its input moves its last map.

Source: Lin, Wang, Sun, Chen, Sun, Qian, Li, Jin, "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition",
ICCV 2021, arXiv:2102.01063, algorithm 1 and equation 6. The paper takes residual links out first; here they stay, as
other people's networks cannot be rewired in general.
"""

import copy
import math
import statistics

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.selection.initialise import initialise
from compress.selection.observation import inside, observe

CHANGE = 0.01  # alpha of algorithm 1
DRAWS = 4


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """log of the mean change per example (Frobenius norm), plus the logarithms of what batch norms scaled away.

    Weights and inputs are drawn N(0, 1) here, as the definition says; the student's own do not matter.
    """
    network, features = inside(student, batch.inputs)
    network = copy.deepcopy(network)
    found = []
    for draw in range(DRAWS):
        initialise(network, "gauss", draw)
        noise = torch.Generator().manual_seed(draw)
        one, other = (torch.randn(features.shape, generator=noise).to(features.device) for _ in range(2))
        before, scaled = observe_scaling(network, one)
        change = (observe(network, one + CHANGE * other).features - before).flatten(1).norm(dim=1).mean()
        found.append(math.log(max(float(change), 1e-300)) + sum(scaled))
    return statistics.fmean(found)


def observe_scaling(network: nn.Module, inputs: Tensor) -> tuple[Tensor, list[float]]:
    """The last map, and of each batch norm the `log_scale` of what it was given."""
    scaled: list[float] = []
    handles = [
        module.register_forward_pre_hook(lambda norm, arguments: scaled.append(log_scale(arguments[0])))
        for module in network.modules()
        if isinstance(module, _BatchNorm)
    ]
    features = observe(network, inputs).features
    for handle in handles:
        handle.remove()
    return features, scaled


def log_scale(values: Tensor) -> float:
    """log of the root of the mean over channels of their variance; 0 where nothing varies."""
    variance = float(values.transpose(0, 1).flatten(1).var(dim=1, correction=0).mean())
    return 0.5 * math.log(variance) if variance > 0 else 0.0


PROXY = Proxy(source="arXiv:2102.01063 alg. 1", score=score, drawn=False)
