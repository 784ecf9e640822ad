"""How sharp a loss is around the present parameters.

Sources: Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization", ICLR 2021, arXiv:2010.01412, equation 2
(one step along the gradient to the edge of a ball); Kwon, Kim, Park, Choi, "ASAM", ICML 2021, arXiv:2102.11600,
equation 7 (steps scaled by the parameters' size; here one size per tensor); Zela et al., "Understanding and
Robustifying Differentiable Architecture Search", ICLR 2020, arXiv:1909.09656, section 4 (the dominant eigenvalue).

The loss must be the same function at every call: a fixed batch, and batch norm under
`structure.statistics.frozen_statistics`. Parameters come back bit by bit as they were.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[], Tensor]
"""A scalar of the parameters as they are at the call."""


def sam_sharpness(loss: Loss, parameters: Sequence[Tensor], radius: float = 0.05) -> float:
    """L(w + radius * g / ||g||) - L(w) with g = dL/dw over all parameters together; 0 where the gradient is 0.

    Where a network normalises what its weights give, scaling them changes this figure and nothing else: see
    `adaptive_sharpness`.
    """
    start, gradients = _slope(loss, parameters)
    norm = _norm(gradients)
    if norm == 0.0:
        return 0.0
    return _moved(loss, parameters, [radius / norm * g for g in gradients]) - start


def adaptive_sharpness(loss: Loss, parameters: Sequence[Tensor], radius: float = 0.05) -> float:
    """The same on a ball that grows with each tensor's norm n: a step of radius * n^2 g / ||(n g over all tensors)||.

    Scaling a tensor by c scales its gradient by 1/c where the network normalises, and its step by c: the figure stays.
    """
    start, gradients = _slope(loss, parameters)
    sizes = [float(parameter.detach().norm()) for parameter in parameters]
    norm = _norm([size * g for size, g in zip(sizes, gradients, strict=True)])
    if norm == 0.0:
        return 0.0
    steps = [radius * size**2 / norm * g for size, g in zip(sizes, gradients, strict=True)]
    return _moved(loss, parameters, steps) - start


def top_eigenvalue(loss: Loss, parameters: Sequence[Tensor], iterations: int = 20, seed: int = 0) -> float:
    """The Hessian's eigenvalue of largest magnitude, with its sign, by power iteration.

    Args:
        iterations: products of the Hessian with a vector, each as dear as two gradients.
        seed: of the first vector.
    """
    source = torch.Generator().manual_seed(seed)
    vector = [torch.randn(p.shape, generator=source, dtype=p.dtype).to(p.device) for p in parameters]
    gradients = torch.autograd.grad(loss(), list(parameters), create_graph=True, materialize_grads=True)
    found = 0.0
    for _ in range(iterations):
        norm = _norm(vector)
        if norm == 0.0:
            return 0.0
        vector = [v / norm for v in vector]
        slope = torch.stack([(g * v).sum() for g, v in zip(gradients, vector, strict=True)]).sum()
        if not slope.requires_grad:  # a loss linear in all of them
            return 0.0
        product = torch.autograd.grad(slope, list(parameters), retain_graph=True, materialize_grads=True)
        found = sum(float((p * v).sum()) for p, v in zip(product, vector, strict=True))
        vector = list(product)
    return found


def _slope(loss: Loss, parameters: Sequence[Tensor]) -> tuple[float, list[Tensor]]:
    value = loss()
    return float(value.detach()), list(torch.autograd.grad(value, list(parameters), materialize_grads=True))


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(sum(float(tensor.detach().double().square().sum()) for tensor in tensors) ** 0.5)


def _moved(loss: Loss, parameters: Sequence[Tensor], steps: Sequence[Tensor]) -> float:
    """The loss at w + step; the parameters are put back."""
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        try:
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(step)
            return float(loss().detach())
        finally:
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
