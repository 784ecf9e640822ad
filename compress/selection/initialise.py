"""Fresh weights for any network, whatever it holds: what training-free scores compare students and teachers with."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from compress.errors import RecipeError


def initialise(network: nn.Module, init: str, seed: int) -> None:
    """Give every parameter a new value, in place: nothing of the old ones is left.

    Convolutions and linear layers by `init`, their biases 0 but for "default"; norms scale by 1, shift by 0 and forget
    their statistics. Other layers draw as they do when they are made; parameters that belong to no known layer
    (position embeddings, layer scales) get N(0, 1 / fan-in) where they are matrices, else 0 for a bias and 1 for the
    rest. Buffers that are no statistics (a mel filterbank) stay.

    Args:
        init: a name in `INITIALISERS`: "gauss" is N(0, 1), as the correlation experiments of arXiv:2303.15678 draw,
            "kaiming" N(0, 2 / fan-out) for convolutions (arXiv:1502.01852), "default" torch's own.
        seed: the same networks get the same weights; torch's own random state is left as it was.

    Raises:
        RecipeError: there is no initialiser of this name.
    """
    if init not in INITIALISERS:
        raise RecipeError(f"no initialiser is called {init!r}", fix=f"use one of {', '.join(sorted(INITIALISERS))}")
    with torch.random.fork_rng(devices=()), torch.no_grad():
        torch.manual_seed(seed)
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):  # also forgets running statistics
                reset()
            else:
                _loose(module)
            if isinstance(module, _ConvNd | nn.Linear):
                INITIALISERS[init](module)


def _loose(module: nn.Module) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=1.0 / math.sqrt(max(1, parameter[0].numel())))
        else:
            nn.init.constant_(parameter, 0.0 if "bias" in name else 1.0)


def _gauss(layer: _ConvNd | nn.Linear) -> None:
    nn.init.normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _kaiming(layer: _ConvNd | nn.Linear) -> None:
    if isinstance(layer, _ConvNd):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _default(layer: _ConvNd | nn.Linear) -> None:
    """As `reset_parameters` left it."""


INITIALISERS: Mapping[str, Callable[[_ConvNd | nn.Linear], None]] = {
    "gauss": _gauss,
    "kaiming": _kaiming,
    "default": _default,
}
