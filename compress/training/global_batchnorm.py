"""Batch normalisation over the batches of all processes, so that many processes train what one would.

torch's own SyncBatchNorm refuses the CPU. Here the sums are all-reduced by an operation that autograd can
differentiate (twice, too), and the rest is ordinary arithmetic.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn.modules.batchnorm import _BatchNorm

_OPERATOR = torch.ops.aten.batch_norm.default


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
        normalised, mean, variance, count = _normalised(values, self.weight, self.bias, self.eps)
        self._follow(mean, variance, count)
        return normalised

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        factor = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if factor is None:
                factor = 1.0 / float(self.num_batches_tracked)
        _move(self.running_mean, self.running_var, mean, variance, count, factor or 0.0)


def batch_norm(
    values: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    """The operator aten.batch_norm, with the arguments it has in an exported graph, over the batches of all processes.

    Args:
        values: (B, C, ...).
        training: whether to use, and to follow, the statistics of the whole batch.

    Returns:
        The shape and type of `values`.
    """
    if not training:
        return nn.functional.batch_norm(values, running_mean, running_var, weight, bias, False, momentum, eps)
    normalised, mean, variance, count = _normalised(values, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            _move(running_mean, running_var, mean, variance, count, momentum)
    return normalised


def _normalised(
    values: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What batch norm gives; the whole batch's mean (C,), variance (C,) and values per channel, without gradient."""
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
    scaled = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None and bias is not None:
        scaled = scaled * weight.view(shape) + bias.view(shape)
    return scaled.to(values.dtype), mean.detach(), variance.detach(), count


def _move(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, count: Tensor, factor: float
) -> None:
    """Move running statistics towards the batch's."""
    unbiased = variance * (count / (count - 1))
    running_mean.lerp_(mean.to(running_mean.dtype), factor)
    running_var.lerp_(unbiased.to(running_var.dtype), factor)


@contextmanager
def global_batchnorm(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, every BatchNorm below `modules` is computed over all processes; afterwards the modules are as before.

    In an exported graph batch norm is an operator, which is exchanged for `batch_norm`.
    """
    replaced: list[tuple[nn.Module, str, _BatchNorm, GlobalBatchNorm]] = []
    graphs: list[GraphModule] = []
    for module in modules:
        for graph in (found for found in module.modules() if isinstance(found, GraphModule)):
            if _exchange(graph, _OPERATOR, batch_norm):
                graphs.append(graph)
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
        for graph in graphs:
            _exchange(graph, batch_norm, _OPERATOR)


def _exchange(graph: GraphModule, old: Callable[..., Tensor], new: Callable[..., Tensor]) -> bool:
    """Call `new` where the graph calls `old`; whether it did anywhere."""
    nodes = [node for node in graph.graph.nodes if node.target is old]
    for node in nodes:
        node.target = new
    if nodes:
        graph.recompile()
    return bool(nodes)
