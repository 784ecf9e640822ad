"""Batch normalisation over the batches of all processes, so that many processes train what one would.

torch's own SyncBatchNorm refuses the CPU. Here the sums are all-reduced by an operation that autograd can
differentiate (twice, too), and the rest is ordinary arithmetic.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _AllReduceSum(torch.autograd.Function):
    """y = sum of x over the processes. The sum of all processes' losses has the sum of all gradients as its own."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _AllReduceSum.apply(gradient)  # type: ignore[no-any-return, no-untyped-call]


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum over the processes, through which gradients flow. Every process must call it equally often, in one order."""
    return _AllReduceSum.apply(value)  # type: ignore[no-any-return, no-untyped-call]


class GlobalBatchNorm(_BatchNorm):
    """What `of` would compute if it saw the batches of all processes at once.

    It shares the parameters and running statistics of `of`, under the same names; in eval mode it computes the same.

    Args:
        of: a BatchNorm of any dimension.
    """

    def __init__(self, of: _BatchNorm) -> None:
        super().__init__(of.num_features, of.eps, of.momentum, affine=False, track_running_stats=False)
        self.affine, self.track_running_stats, self.training = of.affine, of.track_running_stats, of.training
        self.weight, self.bias = of.weight, of.bias
        self.running_mean, self.running_var = of.running_mean, of.running_var
        self.num_batches_tracked = of.num_batches_tracked

    def forward(self, values: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape and type; statistics are float32."""
        if not self.training:
            return nn.functional.batch_norm(
                values,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                self.running_mean is None,
                0,
                self.eps,
            )
        axes = [axis for axis in range(values.ndim) if axis != 1]
        shape = [1, -1] + [1] * (values.ndim - 2)
        exact = values.float()
        counted = exact.new_tensor([values.numel() / values.shape[1]])
        sums = all_reduce_sum(torch.cat([exact.sum(axes), counted]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = exact - mean.view(shape)
        # A second pass over the data instead of E[x^2] - mean^2, which cancels where the mean is large.
        variance = all_reduce_sum(centred.square().sum(axes)) / count
        self._follow(mean.detach(), variance.detach(), count)
        scaled = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(values.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        factor = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if factor is None:
                factor = 1.0 / float(self.num_batches_tracked)
        unbiased = variance * (count / (count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor or 0.0)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor or 0.0)


@contextmanager
def global_batchnorm(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, every BatchNorm below `modules` is computed over all processes; afterwards the modules are as before.

    An exported graph computes batch norm by a function, not by a module, and keeps the statistics of its own process.
    """
    replaced: list[tuple[nn.Module, str, _BatchNorm, GlobalBatchNorm]] = []
    for module in modules:
        for parent in list(module.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, _BatchNorm) and not isinstance(child, GlobalBatchNorm):
                    whole = GlobalBatchNorm(child)
                    setattr(parent, name, whole)
                    replaced.append((parent, name, child, whole))
    try:
        yield
    finally:
        for parent, name, child, whole in replaced:
            child.training = whole.training
            child.running_mean, child.running_var = whole.running_mean, whole.running_var
            child.num_batches_tracked = whole.num_batches_tracked
            setattr(parent, name, child)
