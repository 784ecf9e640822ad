"""Lower GRU and LSTM to a float kernel; weights that come as int8 codes stay int8 in flash."""

import numpy as np

from exporters.c.context import Context
from exporters.c.graph import Array, Node
from exporters.c.program import Buffer, QuantConst, Step, View, copy_code, view_of
from exporters.errors import ExportError

_GATES = {"GRU": 3, "LSTM": 4}
_DEFAULT = {"GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}


def layer(context: Context, node: Node) -> None:
    """GRU or LSTM of ONNX: x (steps, 1, inputs), or (1, steps, inputs) with layout 1; one or two directions.

    Raises:
        ExportError: other activations, a clip, lengths per sequence, peepholes or coupled gates.
    """
    gates = _GATES[node.op]
    view = context.view(node, 0)
    units = int(node.attributes["hidden_size"])
    direction = node.attributes.get("direction", b"forward").decode()
    directions = 2 if direction == "bidirectional" else 1
    layout = int(node.attributes.get("layout", 0))
    _refuse(context, node, directions)
    shape = view.shape if layout == 0 else (view.shape[1], view.shape[0], view.shape[2])
    steps, batch, inputs = shape
    if batch != 1:
        raise ExportError(f"{node.describe()} has the batch {batch}", fix="export with batch 1")
    program = context.program
    plain = program.real(view, node.name)
    source = program.arrange(plain, plain.index, node.name)  # (steps, inputs) in either layout, as the batch is 1
    names = [*node.outputs, "", "", ""]
    wanted = bool(names[0]) and (bool(context.graph.consumers.get(names[0])) or names[0] in context.graph.outputs)
    every: list[Buffer] = []
    states: list[Buffer] = []
    cells: list[Buffer] = []
    for number in range(directions):
        state = _start(context, node, 5, number, units)
        cell = _start(context, node, 6, number, units) if gates == 4 else None
        work = program.buffer("float", (2 * gates) * units, label=f"{node.name}_gates")
        fields, stored, params = _weights(context, node, number, gates, units, inputs)
        backward = int(direction == "reverse" or number == 1)
        after = int(node.attributes.get("linear_before_reset", 0))
        result = program.buffer("float", steps * units, label=f"{node.name}_{number}") if wanted else None
        code = (
            f"static const model_recurrent_t p = {{.steps = {steps}, .inputs = {inputs}, .units = {units}, "
            f".gates = {gates}, .backward = {backward}, .reset_after = {after}, {fields}}};\n"
            f"model_recurrent(&p, {source.token}, {state.token}, {cell.token if cell else 0}, "
            f"{result.token if result else 0}, {work.token});"
        )
        changed = (state, *((cell,) if cell else ()))
        program.add(
            Step(
                f"{node.name}_{number}" if directions > 1 else node.name,
                (node.op,),
                code,
                (source, *changed),
                (*changed, *((result,) if result else ())),
                (work,),
                kernels=frozenset({"recurrent", "math"}),
                macs=steps * gates * units * (inputs + units),
                weight_bytes=stored,
                params=params,
                integer=False,
            )
        )
        states.append(state)
        cells += [cell] if cell else []
        every += [result] if result else []
    _results(context, node, names, (every, states, cells), (steps, units, layout))


def _results(
    context: Context,
    node: Node,
    names: list[str],
    made: tuple[list[Buffer], list[Buffer], list[Buffer]],
    sizes: tuple[int, int, int],
) -> None:
    every, states, cells = made
    steps, units, layout = sizes
    if every:
        joined = _joined(context, node, every, steps, units)
        index = np.arange(joined.size, dtype=np.int64).reshape(steps, len(every), units)[:, :, None, :]
        context.values[names[0]] = View(joined, index.transpose(2, 0, 1, 3) if layout else index)
    for name, buffers in ((names[1], states), (names[2], cells)):
        if name:
            last = _joined(context, node, buffers, 1, units)
            whole = view_of(last, (len(buffers), 1, units))
            context.values[name] = View(last, whole.index.transpose(1, 0, 2) if layout else whole.index)


def _joined(context: Context, node: Node, parts: list[Buffer], steps: int, units: int) -> Buffer:
    """Directions side by side: (steps, directions, units)."""
    if len(parts) == 1:
        return parts[0]
    target = context.program.buffer("float", len(parts) * steps * units, label=f"{node.name}_both")
    places = np.arange(target.size).reshape(steps, len(parts), units)
    code = "\n".join(
        copy_code(context.program, target.token, places[:, number], part.token, np.arange(part.size))
        for number, part in enumerate(parts)
    )
    context.program.add(Step(f"{node.name}_both", ("Concat",), code, tuple(parts), (target,), integer=False))
    return target


def _start(context: Context, node: Node, position: int, number: int, units: int) -> Buffer:
    """Memory of a state with its first value: zeros, a constant, or another tensor."""
    program = context.program
    target = program.buffer("float", units, label=f"{node.name}_state")
    given = context.optional(node, position)
    layout = int(node.attributes.get("layout", 0))
    reads: tuple[Buffer, ...] = ()
    if given is None:
        code = f"memset({target.token}, 0, {4 * units});"
    elif isinstance(given, View):
        plain = program.real(given, node.name)
        index = plain.index.reshape(-1, units) if layout == 0 else plain.index.transpose(1, 0, 2).reshape(-1, units)
        code = copy_code(program, target.token, np.arange(units), plain.buffer.token, index[number])
        reads = (plain.buffer,)
    else:
        value = context.constant(node, position, "first state").reshape(-1, units)[number]
        name = program.constant(value, "float")
        code = f"memcpy({target.token}, {name}, {4 * units});"
    program.add(Step(f"{target.label}_{target.number}", ("Identity",), code, reads, (target,), integer=False))
    return target


def _weights(context: Context, node: Node, number: int, gates: int, units: int, inputs: int) -> tuple[str, int, int]:
    """(fields of the C structure, bytes stored, learned numbers)."""
    program = context.program
    fields, stored, params = [], 0, 0
    for position, name, size in ((1, "input", inputs), (2, "state", units)):
        value = context.value(node, position)
        if isinstance(value, View):
            raise ExportError(f"{node.describe()} computes its weights", fix="use constant weights")
        rows = gates * units
        scale = _row_scales(value, number, rows) if isinstance(value, QuantConst) else None
        params += rows * size
        if isinstance(value, QuantConst) and scale is not None and value.codes.dtype == np.int8:
            codes = program.constant(value.codes[number], "int8_t")
            fields.append(f".{name}_codes = {codes}, .{name}_scale = {program.constant(scale, 'float')}")
            stored += rows * (size + 4)
        else:
            real = value.real() if isinstance(value, QuantConst) else value
            fields.append(f".{name}_real = {program.constant(real[number].astype(np.float32), 'float')}")
            stored += 4 * rows * size
    bias = np.zeros((2, gates * units), dtype=np.float32)
    if context.optional(node, 3) is not None:
        bias = context.constant(node, 3, "bias").astype(np.float32).reshape(-1, 2, gates * units)[number]
    fields.append(f".bias = {program.constant(bias[0], 'float')}, .state_bias = {program.constant(bias[1], 'float')}")
    return ", ".join(fields), stored + 8 * gates * units, params + 2 * gates * units


def _row_scales(value: QuantConst, number: int, rows: int) -> Array | None:
    """One scale per row of a direction; None where scales run along another axis."""
    if value.axis is None:
        return np.full(rows, value.scale, dtype=np.float32)
    if value.axis == 1:
        return value.scale.astype(np.float32)
    if value.axis == 0:
        return np.full(rows, value.scale[number], dtype=np.float32)
    return None


def _refuse(context: Context, node: Node, directions: int) -> None:
    given = [name.decode().lower() for name in node.attributes.get("activations", ())]
    if given and given != list(_DEFAULT[node.op]) * directions:
        raise ExportError(
            f"{node.describe()} has the activations {', '.join(given)}; there are {', '.join(_DEFAULT[node.op])}",
            fix="use the layer's usual activations",
        )
    if node.attributes.get("clip", 0) or node.attributes.get("input_forget", 0) or len(node.inputs) > 7:
        raise ExportError(f"{node.describe()} has a clip, coupled gates or peepholes", fix="use a layer without them")
    if context.optional(node, 4) is not None:
        lengths = context.value(node, 4)
        steps = context.view(node, 0).shape[1 if node.attributes.get("layout", 0) else 0]
        if isinstance(lengths, View) or not np.array_equal(np.asarray(lengths).reshape(-1), [steps]):
            raise ExportError(f"{node.describe()} has lengths per sequence", fix="export without sequence lengths")
