"""What a candidate promises and what it costs, as one number each, before anything is trained."""

import math

from profiles.cost import Cost


def capacity(cost: Cost) -> float:
    """A stand-in for accuracy before any training: the mean of the logarithms of multiply-accumulates and parameters.

    Within one family of networks accuracy rises with both, with neither alone: width adds parameters, resolution adds
    multiply-accumulates (Tan and Le, "EfficientNet", ICML 2019, arXiv:1905.11946, figure 3). It only orders who is
    tried first.
    """
    return 0.5 * (math.log(max(1, cost.macs)) + math.log(max(1, cost.params)))


def expense(cost: Cost) -> float:
    """How dear a candidate is: the mean of the logarithms of latency, multiply-accumulates and weight bytes.

    Latency alone does not tell small students apart where launching kernels takes the time.
    """
    parts = (max(1e-6, cost.latency_ms), max(1, cost.macs), max(1, cost.weight_bytes))
    return sum(math.log(part) for part in parts) / len(parts)
