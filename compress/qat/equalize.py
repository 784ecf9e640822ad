"""Rescale channels between neighbouring layers so that all of them use the grid they share. The function stays.

Sources: Nagel et al. 2019, arXiv:1906.04721, section 4.1: for a positively homogeneous f, W2 f(W1 x) is the same with
W1 / s and W2 * s per channel, and s_i = sqrt(r1_i r2_i) / r2_i makes the ranges of both weights equal (equation 11).
Xiao et al. 2023, arXiv:2211.10438, section 4: the same freedom spent on activations, s_j = sqrt(max|x_j| / max|w_j|).

Weights per output channel have a scale of their own for every output channel, so equal weight ranges buy them little;
what still shares one scale is the activation in between. `equalize_activations` therefore gives a depthwise convolution
an input whose channels all span the same range, at no cost for any weight, and meets other layers halfway.

Batch norm behind the first layer takes the factor (its weight and bias), so nothing needs to be folded before training.
ReLU6 is not homogeneous: such a pair is skipped and named, or, on request, its ReLU6 becomes a ReLU, which changes the
function where values above 6 were cut.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from compress.qat.capture import capture
from compress.qat.quantizer import (
    AVERAGES,
    BATCH_NORM,
    CONVOLUTIONS,
    DROPOUTS,
    LINEAR,
    MAX_POOLS,
    groups_of,
    is_spatial_mean,
    module_path,
    only_reader,
)

aten = torch.ops.aten

Equalize = Literal["none", "weights", "activations"]
EQUALIZE: tuple[Equalize, ...] = ("none", "weights", "activations")

SWEEPS = 40  # over all pairs, at most: a layer in two pairs is rescaled by both
SETTLED = 1e-3  # largest change of a logarithm in a sweep that ends the sweeps
LARGEST = 2.0**10  # factor of a channel, either way: dead channels would take any, and their biases explode

_HOMOGENEOUS = (
    frozenset({aten.relu.default, aten.leaky_relu.default, aten.prelu.default}) | MAX_POOLS | AVERAGES | DROPOUTS
)
_RESHAPES = frozenset({aten.flatten.using_ints, aten.view.default, aten.reshape.default})
_SIXES = frozenset({aten.relu6.default, aten.hardtanh.default})


@dataclass(frozen=True)
class Pair:
    """Two layers that were rescaled against each other.

    Attributes:
        first, second: paths of their modules.
        factors: (C,) what the second layer's weights were multiplied by; the tensor in between was divided by it.
    """

    first: str
    second: str
    factors: Tensor


@dataclass(frozen=True)
class Skipped:
    """A layer whose outputs could not be rescaled, and why."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Equalized:
    """A copy of the network with rescaled weights.

    Attributes:
        model: computes what the original does, but for float rounding (and replaced ReLU6, where that was asked for).
        pairs: in the network's order.
        skipped: layers that are followed by something else.
    """

    model: nn.Module
    pairs: tuple[Pair, ...]
    skipped: tuple[Skipped, ...]


@dataclass
class _Link:
    """Where the factors of one pair go.

    Attributes:
        middle: the node that the second layer reads.
        norm: the batch norm behind the first layer; None without one.
        repeats: values of one channel that lie side by side in a linear layer's input.
    """

    first: Node
    second: Node
    middle: Node
    norm: Node | None
    repeats: int
    log_factors: Tensor = field(default_factory=lambda: torch.zeros(0))


def equalized(model: nn.Module, kind: Equalize, batches: Iterable[tuple[Tensor, ...]]) -> nn.Module:
    """The network as a recipe wants it: the same one for "none", else an equalised copy.

    Args:
        kind: "none", "weights", "activations".
        batches: calibration inputs; at least one batch unless "none".

    Raises:
        RecipeError: the network cannot be captured with a free batch size.
    """
    if kind == "none":
        return model
    batches = list(batches)
    if kind == "weights":
        return equalize_weights(model, batches[0]).model
    return equalize_activations(model, batches).model


def equalize_weights(model: nn.Module, example: tuple[Tensor, ...], *, replace_relu6: bool = False) -> Equalized:
    """Make the ranges of neighbouring layers' weights equal, channel by channel.

    Args:
        model: trained; left as it is.
        example: inputs, (B, ...) each.
        replace_relu6: turn the ReLU6 modules between two layers into ReLU first. This changes the function.

    Raises:
        RecipeError: the network cannot be captured with a free batch size.
    """
    network = _Network(model, example, replace_relu6)
    for _ in range(SWEEPS):
        largest = 0.0
        for link in network.links:
            first, second = network.output_range(link), network.input_range(link)
            move = torch.where((first > 0) & (second > 0), (first.log() - second.log()) / 2, 0.0)
            largest = max(largest, network.rescale(link, move))
        if largest < SETTLED:
            break
    return network.result()


def equalize_activations(
    model: nn.Module, batches: Iterable[tuple[Tensor, ...]], *, replace_relu6: bool = False
) -> Equalized:
    """Bring the channels of the tensors between neighbouring layers to similar ranges.

    Args:
        model: trained; left as it is.
        batches: calibration inputs; at least one batch.
        replace_relu6: as for `equalize_weights`.

    Raises:
        RecipeError: the network cannot be captured with a free batch size.
        ValueError: no batch.
    """
    batches = list(batches)
    if not batches:
        raise ValueError("activations cannot be equalised without a batch of inputs")
    network = _Network(model, batches[0], replace_relu6)
    seen = _channel_ranges(network.graph, [link.middle for link in network.links], batches)
    for link in network.links:
        span = seen[link.middle].reshape(-1, link.repeats).amax(1)
        alive = span > 0
        if _is_depthwise(link):
            move = torch.where(alive, span.log(), 0.0)  # every channel has a weight scale of its own
        else:
            weights = network.input_range(link)
            alive &= weights > 0
            move = torch.where(alive, (span.log() - weights.log()) / 2, 0.0)
        if bool(alive.any()):
            # Only ratios count. Without this, weights and activations would change size for nothing.
            network.rescale(link, torch.where(alive, move - move[alive].mean(), 0.0))
    return network.result()


class _Network:
    """A copy of the network, its graph, and the pairs of layers in it."""

    def __init__(self, model: nn.Module, example: tuple[Tensor, ...], replace_relu6: bool) -> None:
        self._model = copy.deepcopy(model)
        self.graph = capture(self._model, example, (), {})
        if replace_relu6:
            paths = {module_path(node) for node in _sixes(self.graph)}
            for path in paths:
                if isinstance(self._model.get_submodule(path), nn.ReLU6 | nn.Hardtanh):
                    self._model.set_submodule(path, nn.ReLU())
            self.graph = capture(self._model, example, (), {})
        self._parameters = dict(self._model.named_parameters(remove_duplicate=False))
        self._readers: dict[int, int] = {}  # parameter -> layers that read it
        for node in self.graph.graph.nodes:
            for source in node.all_input_nodes:
                if str(source.target) in self._parameters and source.op == "get_attr":
                    key = id(self._parameters[str(source.target)])
                    self._readers[key] = self._readers.get(key, 0) + 1
        self.links: list[_Link] = []
        self._skipped: list[Skipped] = []
        for node in self.graph.graph.nodes:
            if _weighted(node):
                found = self._follow(node)
                if isinstance(found, _Link):
                    found.log_factors = torch.zeros(self._of(node, 1).shape[0])
                    self.links.append(found)
                else:
                    self._skipped.append(Skipped(module_path(node), found))

    def result(self) -> Equalized:
        """What came of it."""
        pairs = (Pair(module_path(link.first), module_path(link.second), link.log_factors.exp()) for link in self.links)
        return Equalized(self._model, tuple(pairs), tuple(self._skipped))

    def output_range(self, link: _Link) -> Tensor:
        """(C,) largest magnitude of the first layer's folded weights, by output channel."""
        weight = self._of(link.first, 1).detach()
        found = weight.abs().reshape(len(weight), -1).amax(1)
        if link.norm is not None:
            factor = self._of(link.norm, 1).detach() * self._buffer(link.norm, 4).add(_epsilon(link.norm)).rsqrt()
            found = found * factor.abs()
        return found

    def input_range(self, link: _Link) -> Tensor:
        """(C,) largest magnitude of the second layer's weights, by input channel."""
        return _by_input(self._of(link.second, 1).detach(), link).abs().amax((1, 3)).reshape(-1)

    @torch.no_grad()
    def rescale(self, link: _Link, move: Tensor) -> float:
        """Multiply the factors by exp(move), within bounds; returns the largest change of a logarithm."""
        bound = torch.tensor(LARGEST).log()
        moved = (link.log_factors + move).clamp(-bound, bound)
        change = moved - link.log_factors
        link.log_factors = moved
        factor = change.exp()
        if link.norm is not None:
            for position in (1, 2):
                self._of(link.norm, position).div_(factor)
        else:
            weight = self._of(link.first, 1)
            weight.div_(factor.reshape(-1, *[1] * (weight.dim() - 1)))
            if _named(link.first, 2) is not None:
                self._of(link.first, 2).div_(factor)
        # A view: the parameter itself changes.
        _by_input(self._of(link.second, 1), link).mul_(factor.reshape(_groups(link.second), 1, -1, 1))
        return float(change.abs().max())

    def _follow(self, first: Node) -> "_Link | str":
        """From a layer to the next one through what lets a factor pass; the reason where there is none."""
        norm: Node | None = None
        if self._shared(first):
            return "its weight is shared or computed"
        axis_is_last = first.target is LINEAR
        repeats = 1
        node: Node = first
        while True:
            reader = only_reader(node)
            if reader is None or reader.op == "output":
                return "several layers read it" if reader is None and node.users else "it is an output"
            if _weighted(reader) and reader.args[0] is node:
                rank = node.meta["val"].dim()
                if (reader.target is LINEAR) != (axis_is_last or rank == 2):
                    return "the next layer works along another dimension"
                if self._shared(reader):
                    return "the next layer's weight is shared or computed"
                return _Link(first, reader, node, norm, repeats)
            if reader.target is BATCH_NORM and node is first and reader.args[0] is node:
                if _named(reader, 1) is None or self._shared(reader, (1, 2)):
                    return "its batch norm has no weights of its own"
                norm = reader
            elif reader.target in _SIXES and not _is_relu(reader):
                return "ReLU6 is not homogeneous"
            elif reader.target in _RESHAPES and not axis_is_last:
                before, after = node.meta["val"].shape, reader.meta["val"].shape
                values = int(before[2:].numel())
                if len(before) < 2 or len(after) != 2 or int(after[1]) != int(before[1]) * values or repeats > 1:
                    return "its channels are rearranged"
                repeats = values
            elif not (reader.target in _HOMOGENEOUS or _is_relu(reader) or is_spatial_mean(reader)):
                return f"{reader.target} is not homogeneous in each channel"
            elif reader.args[0] is not node or (reader.target in MAX_POOLS | AVERAGES and axis_is_last):
                return "its channels are mixed"
            node = reader

    def _of(self, node: Node, position: int) -> Tensor:
        """The copy's own parameter that a node reads."""
        name = _named(node, position)
        assert name is not None
        return self._parameters[name]

    def _buffer(self, node: Node, position: int) -> Tensor:
        name = _named(node, position)
        assert name is not None
        return self._model.get_buffer(name)

    def _shared(self, node: Node, positions: tuple[int, ...] = (1,)) -> bool:
        names = [_named(node, position) for position in positions]
        return any(
            name is None or name not in self._parameters or self._readers[id(self._parameters[name])] > 1
            for name in names
        )


def _channel_ranges(
    graph: GraphModule, nodes: Iterable[Node], batches: Iterable[tuple[Tensor, ...]]
) -> dict[Node, Tensor]:
    """Largest magnitude of each channel (dimension 1, or the last one in front of a linear layer) over the batches."""
    wanted = set(nodes)
    seen: dict[Node, Tensor] = {}

    class Watch(Interpreter):
        def run_node(self, n: Node) -> object:
            value = super().run_node(n)
            if n in wanted:
                linear = next(iter(n.users)).target is LINEAR
                axis = value.dim() - 1 if linear else 1
                span = value.detach().abs().amax([d for d in range(value.dim()) if d != axis])
                seen[n] = torch.maximum(seen[n], span) if n in seen else span
            return value

    with torch.no_grad():
        for batch in batches:
            Watch(graph).run(*batch)
    return seen


def _weighted(node: Node) -> bool:
    return node.op == "call_function" and (node.target in CONVOLUTIONS or node.target is LINEAR)


def _groups(node: Node) -> int:
    return 1 if node.target is LINEAR else groups_of(node)


def _by_input(weight: Tensor, link: _Link) -> Tensor:
    """A view of the second layer's weight: (groups, outputs, input channels, rest)."""
    groups = _groups(link.second)
    return weight.view(groups, weight.shape[0] // groups, weight.shape[1] // link.repeats, -1)


def _is_depthwise(link: _Link) -> bool:
    groups = _groups(link.second)
    return groups > 1 and groups == len(link.log_factors)


def _named(node: Node, position: int) -> str | None:
    """The name of the parameter or buffer that a node reads."""
    argument = node.args[position] if len(node.args) > position else None
    return str(argument.target) if isinstance(argument, Node) and argument.op == "get_attr" else None


def _epsilon(norm: Node) -> float:
    epsilon = norm.args[7]
    assert isinstance(epsilon, float)
    return epsilon


def _is_relu(node: Node) -> bool:
    """A clamp at zero with no upper end."""
    if node.target is not aten.clamp.default:
        return False
    low = node.args[1] if len(node.args) > 1 else node.kwargs.get("min")
    high = node.args[2] if len(node.args) > 2 else node.kwargs.get("max")
    return bool(low == 0) and high is None


def _sixes(graph: GraphModule) -> list[Node]:
    return [node for node in graph.graph.nodes if node.op == "call_function" and node.target in _SIXES]
