"""Whether a cut network is what it should be, found by running it on real features.

A cut network must run, keep its output's shape and, where no normalisation runs over what is cut, answer exactly like
the network with the cut parts silenced.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compress.structure.channels import ChannelGroup

SUM_ORDER = 1e-3  # of the largest output: float32 sums over fewer terms are taken in another order


def silenced(network: nn.Module, group: ChannelGroup, width: int, features: Tensor) -> Tensor:
    """What `network` answers when nothing reads the channels that a cut to `width` removes. It is left as it was."""
    removed = torch.ones(group.channels, dtype=torch.bool)
    removed[group.kept(width)] = False
    before: list[tuple[nn.Parameter, Tensor]] = []
    with torch.no_grad():
        try:
            for piece in group.slices:
                for name, dim in piece.tensors if piece.consumes else ():
                    weight = network.get_submodule(piece.layer).get_parameter(name)
                    before.append((weight, weight.detach().clone()))
                    weight.index_fill_(dim, piece.positions[removed].flatten(), 0.0)
            answer: Tensor = network(features)
        finally:
            for weight, values in reversed(before):
                weight.copy_(values)
    return answer


def same(answer: Tensor, expected: Tensor) -> bool:
    """Whether two answers are the same but for the order of sums."""
    wrong = (answer - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
    return bool(wrong <= SUM_ORDER)


def failure(
    make: Callable[[], nn.Module],
    features: Tensor,
    shape: torch.Size,
    change: str,
    expected: Callable[[], Tensor] | None = None,
) -> str | None:
    """Why a changed network is not what it should be, or None.

    Args:
        make: gives the changed network.
        features: (B, ...), what it takes.
        shape: of the answer.
        change: in words, to end the reason: "without it".
        expected: gives the answer that it must have; None where only the shape is known.
    """
    try:
        with torch.no_grad():
            answer: Tensor = make().eval()(features)
    except Exception as error:  # a forward pass of the user's may raise anything on shapes it does not expect
        return f"the network does not run {change} ({type(error).__name__})"
    if answer.shape != shape:
        return f"the output's shape changes {change}"
    if expected is not None and not same(answer, expected()):
        return f"the network computes something else {change} than it should"
    return None
