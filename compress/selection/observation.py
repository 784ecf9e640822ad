"""What an untrained network of any architecture says about one batch: its last map, its classifier, its active units.

Operators are watched below the modules, so a ReLU or a mean written as a function is seen like one that is a layer.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from compress.errors import RecipeError
from compress.network import Model, features_of
from compress.similarity import classifier_gradient

ACTIVATIONS = frozenset(
    {"relu", "relu_", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "elu", "elu_", "gelu", "silu", "silu_"}
    | {"hardswish", "hardswish_"}
)
"""Operators whose output is above 0 exactly where their input is: the units that are on."""

AGREE = 1e-4  # relative: sums over positions are taken in another order


@dataclass(frozen=True)
class Classifier:
    """The linear layer that gives the logits.

    Attributes:
        inputs: (N, D): N is the batch, or batch times positions where each position is classified.
        logits: (N, K).
    """

    inputs: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Observation:
    """One forward pass.

    Attributes:
        features: the last map before global pooling, (B, C, ...); the classifier's input, (B, D), where no map is.
        output: (B, ...).
        classifier: None where `no_classifier` says why.
        active: of each activation, in order: which units are on, (B, units) of bool.
    """

    features: Tensor
    output: Tensor
    classifier: Classifier | None
    no_classifier: str
    active: tuple[Tensor, ...]

    @property
    def vectors(self) -> Tensor:
        """One vector per example, (B, D): the classifier's input, or the features averaged over positions."""
        if self.classifier is not None and len(self.classifier.inputs) == len(self.output):
            return self.classifier.inputs
        return self.features.flatten(2).mean(dim=2) if self.features.ndim > 2 else self.features

    def gradient(self, labels: Tensor | None) -> Tensor:
        """Gradient of the mean cross-entropy with respect to the classifier's weight, (K, D).

        Raises:
            RecipeError: there is no classifier, or the labels are no class indices for it.
        """
        if self.classifier is None:
            raise RecipeError(self.no_classifier, fix=USE_RELATIONS)
        if labels is None or labels.is_floating_point() or labels.numel() != len(self.classifier.logits):
            found = "none" if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
            raise RecipeError(
                f"semantics need a class index for each of {len(self.classifier.logits)} logits; labels are {found}",
                fix=USE_RELATIONS,
            )
        return classifier_gradient(self.classifier.logits, self.classifier.inputs, labels.flatten())


def required(teacher: nn.Module | None) -> nn.Module:
    """The teacher, for scores that compare with it.

    Raises:
        RecipeError: there is none.
    """
    if teacher is None:
        raise RecipeError(
            "this score compares students with the teacher, and the teacher is a black box",
            fix="give the teacher as a network, or take a score that needs none (naswot, synflow, zen)",
        )
    return teacher


USE_RELATIONS = "rank by relations alone, which need no classifier"


@contextmanager
def at_search(network: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics and keep their own, everything else (dropout) is in eval mode; afterwards
    all is as it was. With running statistics of 0 and 1 untrained features would grow by orders of magnitude."""
    modes = [(module, module.training) for module in network.modules()]
    norms = [module for module, _ in modes if isinstance(module, _BatchNorm)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        network.eval()
        for norm in norms:
            norm.train()
            norm.momentum = 0.0
            norm.num_batches_tracked = None
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count
        for module, mode in modes:
            module.training = mode


def inside(student: nn.Module, inputs: Sequence[Tensor]) -> tuple[nn.Module, Tensor]:
    """What has the weights, and what it is given: the network behind its preprocessing, and that one's answer.

    Raises:
        RecipeError: it is given integers or several tensors, in whose place nothing can be drawn.
    """
    network, features = student, tuple(inputs)
    if isinstance(student, Model):
        with torch.no_grad():
            network, features = student.network, features_of(student.frontend, inputs)
    if len(features) > 1 or not features[0].is_floating_point():
        raise RecipeError(
            "the score feeds networks with numbers of its own, and these take token ids or several tensors",
            fix="choose a score that sees real examples, such as gradient_norm, or a selector that trains",
        )
    return network, features[0]


def observe(network: nn.Module, inputs: Tensor | Sequence[Tensor], *, units: bool = False) -> Observation:
    """Push a batch through and look inside. The network is left as it was.

    Args:
        network: inputs -> output, one tensor.
        inputs: (B, ...), B >= 2, or several of them, which the network takes in order.
        units: whether to record which units are on.

    Raises:
        RecipeError: the output is no tensor of the batch, or the network has no features before its last layer.
    """
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    size = len(given[0])
    watch = _Watch(size, units)
    calls: list[_Call] = []
    handles = []
    for module in network.modules():
        if next(module.parameters(recurse=False), None) is not None:
            handles.append(module.register_forward_pre_hook(watch.begin))
        if isinstance(module, nn.Linear | _ConvNd):
            handles.append(module.register_forward_hook(_Caller(watch, calls)))
    try:
        with at_search(network), torch.no_grad(), watch:
            output = network(*given)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != size:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise RecipeError(
            f"{type(network).__name__} gave {shape} for a batch of {size}",
            fix="score networks that give one tensor, (B, ...)",
        )
    found = next((pair for call in reversed(calls) if (pair := _as_classifier(call, output)) is not None), None)
    last, classifier = found if found is not None else (calls[-1] if calls else None, None)
    features = None if last is None else last.before
    if features is None and classifier is not None and len(classifier.inputs) == size and len(calls) > 1:
        features = classifier.inputs
    if features is None:
        raise RecipeError(
            f"{type(network).__name__} has no features between its first and its last layer",
            fix="score networks of at least two layers, or choose a selector that trains",
        )
    why = "" if classifier is not None else f"the output of {type(network).__name__} is that of no linear layer"
    return Observation(features, output, classifier, why, tuple(watch.active))


@dataclass(frozen=True)
class _Call:
    """One run of a linear layer or a convolution, with the last map that was there when it began."""

    layer: nn.Linear | _ConvNd
    inputs: Tensor
    output: Tensor
    before: Tensor | None


def _as_classifier(call: _Call, output: Tensor) -> tuple[_Call, Classifier] | None:
    """The call with its classifier, where it gave the network's output: directly, or as the mean over positions."""
    layer, inputs, given = call.layer, call.inputs, call.output
    if isinstance(layer, _ConvNd):
        if set(layer.kernel_size) != {1} or set(layer.stride) != {1} or layer.groups != 1 or inputs.ndim < 3:
            return None
        inputs, given = inputs.movedim(1, -1), given.movedim(1, -1)  # channels last, as linear layers have them
    if output.ndim > 2 and isinstance(layer, _ConvNd):  # one answer per position
        output = output.movedim(1, -1)
    elif output.ndim == 2 and given.ndim > 2 and len(given) == len(output):  # pooling and a linear layer commute
        inputs, given = (value.flatten(1, -2).mean(dim=1) for value in (inputs, given))
    if given.shape != output.shape or not torch.allclose(given, output, rtol=AGREE, atol=AGREE * _largest(output)):
        return None
    return call, Classifier(inputs.flatten(0, -2), given.flatten(0, -2))


def _largest(values: Tensor) -> float:
    return float(values.abs().max())


class _Caller:
    """The hook of one layer."""

    def __init__(self, watch: "_Watch", calls: list[_Call]) -> None:
        self.watch, self.calls = watch, calls

    def __call__(self, layer: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        inputs = arguments[0] if arguments else None
        if isinstance(layer, nn.Linear | _ConvNd) and isinstance(inputs, Tensor) and isinstance(output, Tensor):
            self.calls.append(_Call(layer, inputs, output, self.watch.before.get(layer)))


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the last map, and which units are on.

    A map has the batch in front and more than one position: (B, C, ...), or tokens (B, T, D). What comes before the
    first layer with weights (an image on its way into a perceptron) is none.
    """

    def __init__(self, batch: int, units: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.batch, self.units = batch, units
        self.begun = False
        self.last: Tensor | None = None
        self.before: dict[nn.Module, Tensor | None] = {}
        self.active: list[Tensor] = []

    def begin(self, layer: nn.Module, arguments: Any) -> None:
        """A layer with weights is about to run."""
        self.before[layer] = self.last
        self.begun = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if self.begun and isinstance(value, Tensor) and self.is_map(value):
                self.last = value
        if self.units and func.overloadpacket.__name__ in ACTIVATIONS and len(result) == self.batch:
            self.active.append((result > 0).flatten(1))
        return result

    def is_map(self, value: Tensor) -> bool:
        """Whether a result is one that the class speaks of."""
        return (
            value.is_floating_point() and value.ndim > 2 and len(value) == self.batch and math.prod(value.shape[2:]) > 1
        )
