"""What every lowering function shares: the graph, the program so far, and the value of every tensor."""

from dataclasses import dataclass, field

import numpy as np

from exporters.c.graph import Array, Graph, Node
from exporters.c.program import Program, Quant, QuantConst, Value, View
from exporters.errors import ExportError


@dataclass(frozen=True)
class Ending:
    """[Relu or Clip ...] and QuantizeLinear after an operator: they become the clamp of its integer kernel.

    `low`, `high`: least and greatest code, from -128 to 127.
    """

    quant: Quant
    low: int
    high: int
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    @property
    def ops(self) -> tuple[str, ...]:
        """The clamping operators."""
        return tuple(node.op for node in self.nodes if node.op != "QuantizeLinear")

    @property
    def limits(self) -> tuple[int, int]:
        """Bounds before the zero point is added, as the kernels take them."""
        return self.low - self.quant.zero, self.high - self.quant.zero


@dataclass
class Context:
    """State of one lowering."""

    graph: Graph
    cmsis_nn: bool = False  # convolutions and products call the user's CMSIS-NN
    fixed_point: bool = False  # the spectral front-end runs in integers
    program: Program = field(default_factory=Program)
    values: dict[str, Value] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)  # nodes that an earlier kernel swallowed
    fallback: list[str] = field(default_factory=list)  # nodes inside the quantised part that run as float kernels

    def value(self, node: Node, position: int) -> Value:
        """Input `position` of a node."""
        return self.values[node.inputs[position]]

    def optional(self, node: Node, position: int) -> Value | None:
        """Input `position`, or None where it is absent."""
        if position >= len(node.inputs) or not node.inputs[position]:
            return None
        return self.values[node.inputs[position]]

    def constant(self, node: Node, position: int, what: str) -> Array:
        """Input `position` as a constant."""
        value = self.value(node, position)
        if isinstance(value, QuantConst):
            return value.real()
        if isinstance(value, View):
            raise ExportError(
                f"{node.describe()} takes its {what} from data", fix="export the model with a constant there"
            )
        return value

    def view(self, node: Node, position: int) -> View:
        """Input `position` as a tensor; a constant becomes an error."""
        value = self.value(node, position)
        if not isinstance(value, View):
            raise ExportError(
                f"input {position} of {node.describe()} is constant, and there is no kernel for that",
                fix="fold constants before converting (onnxsim does)",
            )
        return value

    def finish(self, ending: Ending, view: View) -> None:
        """Give an ending's outputs their value, and mark its nodes as done."""
        self.program.full_range &= (ending.low, ending.high) == (-128, 127)
        for name in ending.outputs:
            self.values[name] = view
        self.done.update(node.name for node in ending.nodes)

    def ending(self, name: str) -> Ending | None:
        """What follows tensor `name`, where it is only clamps and then QuantizeLinear; else None."""
        low, high = -np.inf, np.inf
        clamps: list[Node] = []
        while True:
            consumers = self.graph.consumers.get(name, [])
            if name in self.graph.outputs or not consumers:
                return None
            if all(node.op == "QuantizeLinear" and node.inputs[0] == name for node in consumers):
                break
            if len(consumers) > 1 or consumers[0].inputs[0] != name:
                return None
            bounds = clamp_bounds(consumers[0], self.graph.constants)
            if bounds is None:
                return None
            low, high = min(max(low, bounds[0]), bounds[1]), max(min(high, bounds[1]), bounds[0])
            clamps.append(consumers[0])
            name = consumers[0].outputs[0]
        quants = {self._codes(node) for node in consumers}
        if len(quants) != 1:
            return None
        quant = quants.pop()
        least = -128 if low == -np.inf else int(quant.encode(np.array(low)))
        most = 127 if high == np.inf else int(quant.encode(np.array(high)))
        return Ending(quant, least, most, (*clamps, *consumers), tuple(node.outputs[0] for node in consumers))

    def _codes(self, node: Node) -> Quant:
        return quant_of(node, self.graph.constants)


def clamp_bounds(node: Node, constants: dict[str, Array]) -> tuple[float, float] | None:
    """Bounds of a Relu, or of a Clip with constant bounds; None for any other operator."""
    if node.op == "Relu":
        return 0.0, np.inf
    if node.op != "Clip":
        return None
    bounds = [-np.inf, np.inf]
    for position in (1, 2):
        if position < len(node.inputs) and node.inputs[position]:
            if node.inputs[position] not in constants:
                return None
            bounds[position - 1] = float(constants[node.inputs[position]])
    return bounds[0], bounds[1]


def quant_of(node: Node, constants: dict[str, Array]) -> Quant:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear on an activation, as int8.

    uint8 is int8 with every code 128 lower.

    Raises:
        ExportError: they are not constant, not one per tensor, or not 8-bit.
    """
    names = node.inputs[1:3]
    if any(name and name not in constants for name in names):
        raise ExportError(
            f"{node.describe()} computes its scale at run time", fix="quantise statically: scales must be constants"
        )
    scale = constants[names[0]]
    if scale.size != 1:
        raise ExportError(
            f"{node.describe()} has {scale.size} scales for an activation", fix="quantise activations per tensor"
        )
    if not (np.isfinite(scale).all() and float(scale.reshape(())) > 0):
        raise ExportError(
            f"{node.describe()} has the scale {float(scale.reshape(()))}", fix="calibrate the model again"
        )
    zero = constants[names[1]] if len(names) > 1 and names[1] else np.zeros((), dtype=np.uint8)
    if zero.dtype not in (np.int8, np.uint8):
        raise ExportError(f"{node.describe()} quantises to {zero.dtype}", fix="quantise activations to int8 or uint8")
    shift = 128 if zero.dtype == np.uint8 else 0
    return Quant(np.float32(scale.reshape(())), int(zero.reshape(())) - shift)
