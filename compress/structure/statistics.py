"""Batch norm that looks at its batch and remembers nothing of it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """In training mode batch norms normalise by their batch; inside, their running statistics do not move."""
    tracking = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
