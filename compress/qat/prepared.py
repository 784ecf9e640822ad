"""A student with fake quantisation inside: trains, evaluates, and stores itself like any module."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from compress.qat.fake_quantize import ActivationFakeQuantize, WeightFakeQuantizePerChannel
from compress.qat.quantizer import BATCH_NORM, DROPOUTS, Site

_TRAINING_ARGUMENT = 5  # aten.batch_norm(x, weight, bias, mean, var, training, momentum, eps, cudnn_enabled)
_DROPOUT_ARGUMENT = 2  # aten.dropout(x, p, train)


class Prepared(nn.Module):
    """An exported student with fake quantisation, in evaluation mode at first.

    `train` and `eval` set the mode of batch norm and dropout in the graph itself, where an exported graph keeps it
    (so momentum and epsilon stay the student's own). The state dict has no tensor under two names.

    Args:
        graph: exported graph with fake-quantisation modules.
        quantizer: name of the runtime's rules.
        sites: weighted operators and products, and whether each runs in integers.
    """

    def __init__(self, graph: GraphModule, quantizer: str, sites: tuple[Site, ...]) -> None:
        super().__init__()
        self.graph = graph
        self.quantizer = quantizer
        self.sites = sites
        self._batchnorm_frozen = False
        # By name: a training over several processes exchanges the operator for one that sees all of them.
        self._batchnorms = frozenset(node.name for node in graph.graph.nodes if node.target is BATCH_NORM)
        self.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Prepared":
        """A copy with tensors of its own, in the same mode."""
        with warnings.catch_warnings():
            # torch warns about the way a copy rebuilds its own tree specifications.
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
            twin = Prepared(copy.deepcopy(self.graph, memo), self.quantizer, self.sites)
        twin._batchnorm_frozen, twin._batchnorms = self._batchnorm_frozen, self._batchnorms
        return twin.train(self.training)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The student's own inputs and outputs."""
        return self.graph(*inputs)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> "Prepared":
        """Set the mode of every module, and of batch norm and dropout in the graph."""
        super().train(mode)
        changed = False
        for node in self.graph.graph.nodes:
            if node.name in self._batchnorms:
                changed |= _set(node, _TRAINING_ARGUMENT, mode and not self._batchnorm_frozen)
            elif node.target in DROPOUTS:
                changed |= _set(node, _DROPOUT_ARGUMENT, mode)
        if changed:
            self.graph.recompile()
        return self

    def freeze_batchnorm(self, frozen: bool = True) -> None:
        """Whether batch norm uses its running statistics in training mode too."""
        self._batchnorm_frozen = frozen
        self.train(self.training)

    def activations(self) -> Iterator[ActivationFakeQuantize]:
        """Fake quantisers of activations, in graph order."""
        return (module for module in self.graph.modules() if isinstance(module, ActivationFakeQuantize))

    def weights(self) -> Iterator[WeightFakeQuantizePerChannel]:
        """Fake quantisers of weights, in graph order."""
        return (module for module in self.graph.modules() if isinstance(module, WeightFakeQuantizePerChannel))


def _set(node: Node, position: int, value: bool) -> bool:
    """Write one positional argument; whether it was another."""
    if node.args[position] is value:
        return False
    node.update_arg(position, value)
    return True
