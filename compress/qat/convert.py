"""From a prepared student to the graph that ships: batch norm folded, int8 weights stored, Q/DQ between.

Sources: the fold, Jacob et al. 2018, arXiv:1712.05877, equation 14, and Krishnamoorthi 2018, arXiv:1806.08342, section
3.2.2; torchao's convert_pt2e.
"""

import copy

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

from compress.errors import RunError
from compress.qat import bias_grid
from compress.qat.fake_quantize import ActivationFakeQuantize, WeightFakeQuantizePerChannel
from compress.qat.prepared import Prepared
from compress.qat.quantizer import BATCH_NORM, DROPOUTS, only_reader

_ADD = torch.ops.aten.add.Tensor
_FOLDABLE = bias_grid.WEIGHTED


def convert(prepared: Prepared) -> GraphModule:
    """The student as standard operators around quantize/dequantize pairs, for torch.onnx.export(dynamo=True).

    Args:
        prepared: with ranges. Left as it is; it can train on.

    Returns:
        A module in evaluation mode: same inputs and outputs; weights of quantised layers stored as int8 codes, batch
        norm behind a convolution or linear layer folded into it, dropout gone. Differs from the prepared student in
        evaluation mode by float rounding alone, so by single codes on rare values.

    Raises:
        RunError: a range was never seen, or a weight is not finite.
    """
    _check(prepared)
    graph = copy.deepcopy(prepared).eval().graph
    for node in list(graph.graph.nodes):
        if node.target in DROPOUTS:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
        elif node.target in _FOLDABLE:
            _fold(graph, node)
        elif node.op == "call_module":
            _snap_alone(graph, node)
    for node in list(graph.graph.nodes):
        if node.target is BATCH_NORM:
            _as_affine(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    converted = convert_pt2e(graph)
    # torchao forbids train() and eval() on what it returns; here both are harmless, and exporters call eval().
    del converted.train, converted.eval
    return converted.eval()


def _check(prepared: Prepared) -> None:
    for name, module in prepared.graph.named_modules():
        if isinstance(module, ActivationFakeQuantize) and int(module.seen) == 0:
            raise RunError(f"no range was ever seen at {name}", fix="calibrate or train the prepared student first")
    for name, parameter in prepared.graph.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise RunError(f"the weight {name} is not finite", fix="lower the learning rate and train again")


def _fold(graph: GraphModule, node: Node) -> None:
    """Fold the batch norm behind `node` into its weight and bias, and put the weight on its final grid."""
    _own_weight(graph, node)
    weight_node, fake_quantize = _weight_of(graph, node)
    if weight_node is None or (fake_quantize is None and _is_constant(graph, str(weight_node.target))):
        return
    weight = graph.get_parameter(str(weight_node.target)).detach().clone()
    norm = only_reader(node)
    factor: Tensor | None = None
    bias = _bias_of(graph, node)
    folds = fake_quantize is None or fake_quantize.folds
    if norm is not None and norm.target is BATCH_NORM and norm.args[0] is node and folds:
        factor, bias = _folded(graph, norm, bias)
        norm.replace_all_uses_with(node)
        graph.graph.erase_node(norm)
    if fake_quantize is None:
        if factor is not None:
            _store(graph, node, 1, weight * _per_channel(factor, weight))
    else:
        source = node.args[0]
        assert isinstance(source, Node)
        step = _activation_scale(graph, source)
        scale = bias_grid.final_scale(fake_quantize.scales(weight), factor, bias, step)
        _store(graph, node, 1, fake_quantize.on_grid(weight, factor, scale))
        if bias is not None and step is not None:
            bias = bias_grid.on_grid(bias, step, scale)
    if bias is not None and (factor is not None or fake_quantize is not None):
        _store(graph, node, 2, bias)


def _is_constant(graph: GraphModule, name: str) -> bool:
    """Whether the weight of this name is none that is trained: the kernel of a transform in a front-end."""
    holder, _, field = name.rpartition(".")
    return not isinstance(getattr(graph.get_submodule(holder), field), nn.Parameter)


def _own_weight(graph: GraphModule, node: Node) -> None:
    """Give `node` a fake quantiser of its own where several layers share one weight: each folds its own batch norm."""
    shared = node.args[1]
    assert isinstance(shared, Node)
    if shared.op == "call_module" and len(shared.users) > 1:
        name = f"{node.name}_weight_fake_quantize"
        graph.add_submodule(name, copy.deepcopy(graph.get_submodule(str(shared.target))))
        with graph.graph.inserting_before(node):
            own = graph.graph.call_module(name, shared.args)
        own.meta = dict(shared.meta)
        node.update_arg(1, own)


def _snap_alone(graph: GraphModule, node: Node) -> None:
    """A quantised parameter of another operator (MatMul): put it on its grid."""
    module = graph.get_submodule(str(node.target))
    reader = only_reader(node)
    if isinstance(module, WeightFakeQuantizePerChannel) and (reader is None or reader.target not in _FOLDABLE):
        source = node.args[0]
        assert isinstance(source, Node)
        weight = graph.get_parameter(str(source.target)).detach().clone()
        scale = bias_grid.final_scale(module.scales(weight), None, None, None)
        parameter = _parameter(graph, f"{node.name}_weight", module.on_grid(weight, None, scale))
        with graph.graph.inserting_before(node):
            node.update_arg(0, _get_attr(graph, parameter, source))


def _as_affine(graph: GraphModule, norm: Node) -> None:
    """Write a batch norm that follows nothing it could fold into as factor * x + shift."""
    source = norm.args[0]
    assert isinstance(source, Node)
    factor, shift = _folded(graph, norm, None)
    shape = [1, -1] + [1] * (norm.meta["val"].dim() - 2)
    node = source
    for name, operator, value in (("factor", torch.ops.aten.mul.Tensor, factor), ("shift", _ADD, shift)):
        parameter = _parameter(graph, f"{norm.name}_{name}", value.reshape(shape))
        with graph.graph.inserting_before(norm):
            constant = _get_attr(graph, parameter, norm)
            node = graph.graph.call_function(operator, (node, constant))
        node.meta = {key: norm.meta[key] for key in ("val", "nn_module_stack") if key in norm.meta}
    norm.replace_all_uses_with(node)
    graph.graph.erase_node(norm)


def _folded(graph: GraphModule, norm: Node, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """(factor, bias) of the fold, (C,) each: y = factor * conv(x) + bias."""
    gamma, beta, mean, variance = (_tensor(graph, argument) for argument in norm.args[1:5])
    epsilon = norm.args[7]
    assert isinstance(epsilon, float)
    assert mean is not None
    assert variance is not None
    return bias_grid.fold(gamma, beta, mean, variance, epsilon, bias)


def _weight_of(graph: GraphModule, node: Node) -> tuple[Node | None, WeightFakeQuantizePerChannel | None]:
    """The parameter that a weighted node reads, and its fake quantiser; (None, None) where it is computed."""
    argument = node.args[1]
    assert isinstance(argument, Node)
    if argument.op == "get_attr":
        return argument, None
    if argument.op == "call_module":
        module = graph.get_submodule(str(argument.target))
        source = argument.args[0]
        if isinstance(module, WeightFakeQuantizePerChannel) and isinstance(source, Node):
            return source, module
    return None, None


def _activation_scale(graph: GraphModule, source: Node) -> float | None:
    if source.op == "call_module":
        module = graph.get_submodule(str(source.target))
        if isinstance(module, ActivationFakeQuantize) and module.integer:
            return float(module.scale)
    return None


def _bias_of(graph: GraphModule, node: Node) -> Tensor | None:
    return _tensor(graph, node.args[2]) if len(node.args) > 2 else None


def _tensor(graph: GraphModule, argument: object) -> Tensor | None:
    """The value of a parameter or buffer that a node reads, also through the rounding of a bias."""
    if isinstance(argument, Node) and argument.op == "call_module":
        argument = argument.args[0]
    if not isinstance(argument, Node):
        return None
    owner, _, name = str(argument.target).rpartition(".")
    value = getattr(graph.get_submodule(owner), name)
    assert isinstance(value, Tensor)
    return value.detach()


def _store(graph: GraphModule, node: Node, position: int, value: Tensor) -> None:
    """Replace a weighted node's weight (behind its fake quantiser) or bias by a new parameter."""
    parameter = _parameter(graph, f"{node.name}_{'weight' if position == 1 else 'bias'}", value)
    reader = node.args[position] if position == 1 else None
    behind = isinstance(reader, Node) and reader.op == "call_module"
    target = reader if behind else node
    assert isinstance(target, Node)
    with graph.graph.inserting_before(target):
        new = _get_attr(graph, parameter, node)
    if behind:
        target.update_arg(0, new)
    elif len(node.args) > position:
        node.update_arg(position, new)
    else:
        node.insert_arg(position, new)


def _parameter(graph: GraphModule, name: str, value: Tensor) -> str:
    name = f"folded_{name}"
    graph.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return name


def _get_attr(graph: GraphModule, name: str, like: Node) -> Node:
    node = graph.graph.get_attr(name)
    node.meta["nn_module_stack"] = like.meta.get("nn_module_stack", {})
    return node


def _per_channel(factor: Tensor, weight: Tensor) -> Tensor:
    return factor.reshape([-1] + [1] * (weight.dim() - 1))
