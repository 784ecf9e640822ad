"""Cut a graph at the tensors that two sides share, so that each layer can be run on its own.

A layer computes one shared tensor from other shared tensors. In the cut graph each layer reads what the *reference*
computed, through an input of its own: one run then gives the error that each layer adds by itself, whatever the layers
before it did.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from exporters import graph
from exporters.passes.strip_traces import module_name

Arrays = Mapping[str, NDArray[np.generic]]
ENTRY = "/entry"  # an input that stands for a tensor of the reference
SHAPE_READERS = frozenset({"Shape", "Size"})
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
NAMING = frozenset({*graph.WEIGHTED, "LSTM", "GRU", "RNN"})  # operators that a layer is named after
ENDINGS = frozenset(  # what runtimes fold into the integer kernel in front of it
    {"Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Gelu", "Mul", "Add", "Sub"}
    | {"BatchNormalization", "Erf", "Div", "Softplus"}
)


@dataclass(frozen=True)
class Layer:
    """What computes one shared tensor from others.

    Attributes:
        output: the tensor.
        inputs: shared tensors and graph inputs that it reads.
        nodes: positions of its nodes in the graph, constant ones too, in order.
        node: name of the node that names it: the one with weights, else the last.
        operators: of the nodes that read data, in order.
        module: path of the torch module; of the nearest one before it where the nodes name none; "" if there is none.
    """

    output: str
    inputs: tuple[str, ...]
    nodes: tuple[int, ...]
    node: str
    operators: tuple[str, ...]
    module: str


def computed(model: ModelProto) -> list[str]:
    """Tensors that depend on the values of the graph's inputs (on more than their shapes), in graph order."""
    fixed = {tensor.name for tensor in model.graph.initializer}
    depends = {value.name for value in model.graph.input if value.name not in fixed}
    found = []
    for node in model.graph.node:
        if node.op_type not in SHAPE_READERS and any(name in depends for name in node.input):
            made = [name for name in node.output if name]
            depends.update(made)
            found.extend(made)
    return found


def fused_boundaries(model: ModelProto) -> set[str]:
    """Tensors at which a runtime with fused integer kernels can be cut without changing what it fuses.

    They are the dequantised activations, and float tensors that no kernel rounds at its end.
    """
    makers, readers = graph.producers(model.graph), graph.consumers(model.graph)
    outputs = {value.name for value in model.graph.output}
    inside: set[str] = set()
    for node in model.graph.node:
        if node.op_type != QUANTIZE:
            continue
        waiting = [node.input[0]]
        while waiting:
            name = waiting.pop()
            maker = makers.get(name)
            if maker is None or maker.op_type == DEQUANTIZE or name in outputs:
                continue
            if any(reader.op_type not in ENDINGS | {QUANTIZE} for reader in readers.get(name, [])):
                continue
            inside.add(name)
            if maker.op_type in ENDINGS:
                waiting.extend(maker.input)
    codes = {name for node in model.graph.node if node.op_type == QUANTIZE for name in node.output}
    return {name for name in computed(model) if name not in inside and name not in codes} | outputs


def layers(model: ModelProto, shared: Collection[str]) -> list[Layer]:
    """The graph as layers between shared tensors, in graph order."""
    kept = set(shared)
    place = {name: index for index, node in enumerate(model.graph.node) for name in node.output if name}
    data = set(computed(model))
    given = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    modules = _modules(model, data | given)
    found = []
    for name in computed(model):
        if name not in kept:
            continue
        inside, inputs, waiting = set(), [], [name]
        while waiting:
            position = place[waiting.pop()]
            if position in inside:
                continue
            inside.add(position)
            for source in model.graph.node[position].input:
                if source in kept or source in given:
                    inputs.append(source)
                elif source in place:
                    waiting.append(source)
        order = sorted(inside)
        nodes = [model.graph.node[index] for index in order]
        acting = [node for node in nodes if any(made in data for made in node.output)]
        main = next((node for node in reversed(acting) if node.op_type in NAMING), acting[-1])
        module = next((text for text in (module_name(main), *map(module_name, reversed(acting))) if text), "")
        found.append(
            Layer(
                output=name,
                inputs=tuple(dict.fromkeys(inputs)),
                nodes=tuple(order),
                node=main.name or main.output[0],
                operators=tuple(node.op_type for node in acting),
                module=module or modules.get(name, ""),
            )
        )
    return found


def cut(model: ModelProto, chosen: Sequence[Layer], values: Arrays, *, requantise: bool = False) -> ModelProto:
    """A model in which each of `chosen` reads the reference's tensors and returns its own output.

    Args:
        model: the candidate.
        chosen: some of its layers.
        values: the reference's value of every tensor that they read; its type and rank become the input's.
        requantise: put the quantiser of a dequantised tensor between the input that stands for it and its readers, so
            that a runtime with integer kernels still finds Q, DQ, operator.

    Returns:
        Inputs are named `entry(tensor)`, outputs as the layers.
    """
    new = graph.copy(model)
    main = new.graph
    wanted = {index for layer in chosen for index in layer.nodes}
    outputs = [layer.output for layer in chosen]
    reads = list(dict.fromkeys(name for layer in chosen for name in layer.inputs))
    makers = graph.producers(model.graph)
    del main.node[:]
    del main.input[:]
    del main.output[:]
    del main.value_info[:]
    stand_in = {name: entry(name) for name in reads}
    for name in reads:
        main.input.append(_typed(entry(name), values[name]))
        maker = makers.get(name)
        if not requantise or maker is None or maker.op_type != DEQUANTIZE:
            continue
        pair = quantiser_of(makers, maker)
        if pair is not None:
            codes, again = f"{name}/codes", f"{name}/again"
            main.node.append(_like(pair, [entry(name), *pair.input[1:]], [codes], codes))
            main.node.append(_like(maker, [codes, *maker.input[1:]], [again], again))
            stand_in[name] = again
    for index, node in enumerate(model.graph.node):
        if index in wanted:
            main.node.append(_like(node, [stand_in.get(name, name) for name in node.input], node.output, node.name))
    main.output.extend(ValueInfoProto(name=name) for name in dict.fromkeys(outputs))
    used = {name for node in main.node for name in node.input}
    _keep_initializers(main, used)
    return new


def entry(name: str) -> str:
    """Name of the input that stands for a tensor."""
    return f"{name}{ENTRY}"


def exposed(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """The model with these tensors as its outputs; nodes that none of them needs are dropped."""
    new = graph.copy(model)
    place = {name: index for index, node in enumerate(model.graph.node) for name in node.output if name}
    needed: set[int] = set()
    waiting = [name for name in names if name in place]
    while waiting:
        position = place[waiting.pop()]
        if position not in needed:
            needed.add(position)
            waiting.extend(name for name in model.graph.node[position].input if name in place)
    del new.graph.output[:]
    new.graph.output.extend(ValueInfoProto(name=name) for name in names)
    graph.replace_nodes(new.graph, [node for index, node in enumerate(model.graph.node) if index in needed])
    _keep_initializers(new.graph, {name for node in new.graph.node for name in node.input})
    return new


def quantiser_of(makers: Mapping[str, NodeProto], dequantize: NodeProto) -> NodeProto | None:
    """The QuantizeLinear in front of a DequantizeLinear, over operators that only move codes; None without one."""
    node: NodeProto | None = dequantize
    while node is not None and node.op_type != QUANTIZE:
        node = makers.get(node.input[0])
    return node


def batches(chosen: Sequence[Layer], sizes: Mapping[str, int], limit: int) -> Iterator[list[Layer]]:
    """Consecutive layers whose tensors together stay within `limit` bytes; one layer alone may exceed it."""
    held: list[Layer] = []
    names: set[str] = set()
    for layer in chosen:
        more = names | {layer.output, *layer.inputs}
        if held and sum(sizes.get(name, 0) for name in more) > limit:
            yield held
            held, more = [], {layer.output, *layer.inputs}
        held.append(layer)
        names = more
    if held:
        yield held


def _modules(model: ModelProto, data: Collection[str]) -> dict[str, str]:
    """Tensor -> module of its maker, or of the nearest node before it that names one."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        before = next((found[name] for name in node.input if name in data and found.get(name)), "")
        for name in node.output:
            found[name] = module_name(node) or before
    return found


def _keep_initializers(main: GraphProto, used: Collection[str]) -> None:
    for index in reversed(range(len(main.initializer))):
        if main.initializer[index].name not in used:
            del main.initializer[index]


def _like(node: NodeProto, inputs: Sequence[str], outputs: Sequence[str], name: str) -> NodeProto:
    twin = NodeProto()
    twin.CopyFrom(node)
    twin.name = name
    del twin.input[:]
    del twin.output[:]
    twin.input.extend(inputs)
    twin.output.extend(outputs)
    return twin


def _typed(name: str, value: NDArray[np.generic]) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
