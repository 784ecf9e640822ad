"""Put fake quantisation into a trained student, find its first ranges, and say when they stop moving.

Sources: Jacob et al. 2018, arXiv:1712.05877, section 3; Krishnamoorthi 2018, arXiv:1806.08342, section 3 (batch norm);
torchao's pt2e flow (annotate, prepare, convert).

Batch norm stays an operator of its own while training. Weights are rounded per output channel and symmetrically, so
that rounding before or after the fold gives the same codes (see WeightFakeQuantizePerChannel): the network that trains
is exactly the folded one, without the division of every activation that a fold inside the training graph costs.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torchao.quantization.pt2e.prepare import prepare as insert_fake_quantize

from compress.errors import TaskError
from compress.qat import bias_grid
from compress.qat.capture import Lengths, capture
from compress.qat.convert import convert
from compress.qat.phase import Phase, phase
from compress.qat.prepared import Prepared
from compress.qat.quantizer import PlacementQuantizer, module_path, rules
from compress.qat.rounding import OBSERVED, Rounding

NO_LENGTHS: Lengths = {}


def prepare(
    model: nn.Module,
    example: tuple[Tensor, ...],
    quantizer: str,
    *,
    input_names: tuple[str, ...] = (),
    dynamic: Lengths = NO_LENGTHS,
    float_modules: tuple[str, ...] = ("frontend",),
    rounding: Rounding = OBSERVED,
) -> Prepared:
    """A copy of the student with fake quantisation where its runtime needs it, in evaluation mode.

    Equal networks give equal module and parameter names, so weights stored by one are loaded by another.

    Args:
        model: trained or untrained student; the batch is dimension 0 of every input and output. Left as it is, its
            parameters are copied.
        example: inputs of the right shapes and types, (B, ...) each; B may be 1.
        quantizer: a file of compress/qat: tensorrt, onnxruntime_x86, cortex_m.
        input_names: as in the exported file, for `dynamic`; () takes the names of forward's parameters.
        dynamic: input -> {axis: name of its size}, for lengths that are free beside the batch; axes of one name have
            one size.
        float_modules: children whose inside stays float (normalisation, log-mel); what they give to the first
            quantised layer is quantised there.
        rounding: how ranges are found, and whether steps are learned; see `compress.qat.rounding.rounding`.

    Returns:
        The prepared student. It computes in float until ranges were seen (`calibrate`, or training).

    Raises:
        RecipeError: no such quantizer or input; or the student cannot be captured with free sizes.
    """
    marks = PlacementQuantizer(rules(quantizer), rounding, float_modules)
    graph = capture(model, example, input_names, dynamic)
    for rewrite in rules(quantizer).captured:
        rewrite(graph)
    # torchao's prepare_qat_pt2e would first rewrite conv + batch norm into its own fold (fixed epsilon, and a division
    # of every activation); this is the step after it.
    scopes: dict[str, tuple[str, type]] = {node.name: (module_path(node), type(None)) for node in graph.graph.nodes}
    marks.annotate(graph)
    graph = insert_fake_quantize(graph, scopes, is_qat=True)
    _name_once(graph)
    bias_grid.insert(graph)
    prepared = Prepared(graph, quantizer, tuple(marks.sites))
    _fit_weights(prepared)
    return prepared


def calibrate(prepared: Prepared, batches: Iterable[Tensor | tuple[Tensor, ...]]) -> None:
    """Set the first ranges from data, on the float network in evaluation mode.

    Min-max ranges are the mean over batches, the others that of all batches' values together.

    The mode (training or evaluation) is as before afterwards; weights and batch norm do not change.

    Args:
        prepared: what `prepare` returned.
        batches: inputs, (B, ...) each, or tuples of them. Ten batches of training data do.

    Raises:
        TaskError: no batch at all, or an activation that was never finite.
    """
    training = prepared.training
    prepared.eval()
    _switch(prepared, rounding=False, calibrating=True)
    try:
        with torch.no_grad():
            for batch in batches:
                prepared(*(batch if isinstance(batch, tuple) else (batch,)))
        for module in prepared.activations():
            module.settle()
    finally:
        _switch(prepared, rounding=True, calibrating=False)
        prepared.train(training)
    unseen = [
        name
        for name, module in prepared.graph.named_modules()
        if any(module is found for found in prepared.activations()) and int(module.seen) == 0
    ]
    if unseen:
        raise TaskError(
            f"{len(unseen)} activations got no range during calibration ({unseen[0]} first)",
            fix="calibrate with at least one batch of finite values, on a student whose weights are finite",
        )


def freeze_observers(prepared: Prepared, frozen: bool = True) -> None:
    """Stop (or restart) all ranges: activations keep theirs, weights keep their scales."""
    for module in [*prepared.activations(), *prepared.weights()]:
        module.enable_observer(not frozen)


def freeze_batchnorm(prepared: Prepared, frozen: bool = True) -> None:
    """Make batch norm use its running statistics in training mode too (or no longer)."""
    prepared.freeze_batchnorm(frozen)


def enter(prepared: Prepared, now: Phase) -> None:
    """Freeze and unfreeze what the phase says. Cheap when nothing changes: call it every step."""
    prepared.freeze_batchnorm(now is not Phase.ADAPT)
    freeze_observers(prepared, now is Phase.FIXED_RANGES)


def _name_once(graph: GraphModule) -> None:
    """Give each shared fake quantiser one name: safetensors stores no tensor twice."""
    first: dict[int, str] = {}
    spare = set()
    for node in graph.graph.nodes:
        if node.op == "call_module":
            name = first.setdefault(id(graph.get_submodule(node.target)), node.target)
            spare |= {node.target} - {name}
            node.target = name
    for name in spare:
        delattr(graph, name)
    graph.recompile()


def _fit_weights(prepared: Prepared) -> None:
    weights = {id(module): module for module in prepared.weights()}
    for node in prepared.graph.graph.nodes:
        if node.op == "call_module":
            module = weights.get(id(prepared.graph.get_submodule(node.target)))
            if module is not None:
                module.fit(prepared.graph.get_parameter(str(node.args[0].target)))


def _switch(prepared: Prepared, *, rounding: bool, calibrating: bool) -> None:
    for module in prepared.activations():
        module.enable_fake_quant(rounding)
        module.calibrating = calibrating
    for weight in prepared.weights():
        weight.enable_fake_quant(rounding)


__all__ = [
    "Phase",
    "Prepared",
    "calibrate",
    "capture",
    "convert",
    "enter",
    "freeze_batchnorm",
    "freeze_observers",
    "phase",
    "prepare",
]
