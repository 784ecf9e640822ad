"""STFT, and what follows it (power or magnitude, mel bands), as one kernel that holds one frame at a time.

In floats where the core has a unit for them; else, or where asked for, in 32-bit integers.
"""

from dataclasses import dataclass

import numpy as np

from exporters.c.context import Context
from exporters.c.graph import Array, Node, evaluate
from exporters.c.program import Buffer, Step, View
from exporters.errors import ExportError

_TOLERANCE = 1e-4  # float32 against float32, values near one


@dataclass(frozen=True)
class _Match:
    """A tensor that is a function of the spectrum: its `kind` and, per element, which (frame, bin) it is."""

    name: str
    kind: int  # 1: power, 2: magnitude
    nodes: tuple[Node, ...]
    swapped: bool  # (bin, frame) instead of (frame, bin)


def stft(context: Context, node: Node) -> None:
    """Lower an STFT of a real signal with a power-of-two frame."""
    view = context.view(node, 0)
    shape = context.graph.shape(node.outputs[0], node)  # (1, frames, bins, 2)
    hop = int(context.constant(node, 1, "hop").reshape(()))
    window = context.optional(node, 2)
    length = None if context.optional(node, 3) is None else int(context.constant(node, 3, "length").reshape(()))
    values = None if window is None else context.constant(node, 2, "window").astype(np.float64).reshape(-1)
    length = length or (len(values) if values is not None else 0)
    values = np.ones(length) if values is None else values
    if not node.attributes.get("onesided", 1) or view.shape[-1] == 2 or view.index.size != max(view.shape):
        raise ExportError(
            f"{node.describe()} is not the one-sided transform of one real signal", fix="use onesided=True, batch 1"
        )
    if length < 8 or length > 4096 or length & (length - 1):
        raise ExportError(
            f"{node.describe()} has frames of {length} samples; there are powers of two from 8 to 4096",
            fix="choose such a frame (n_fft) in the task's front-end",
        )
    if len(values) != length or shape[2] != length // 2 + 1:
        raise ExportError(
            f"{node.describe()} has a window of {len(values)} for frames of {length}",
            fix="use windows of the frame's size",
        )
    plain = context.program.real(view, node.name)
    signal = context.program.arrange(plain, plain.index, node.name)
    frames, bins = shape[1], shape[2]
    match = _spectrum_function(context, node, shape)
    if match is None:
        target = _place(context, node, (node,), signal, values, hop, frames, 0, None)
        index = np.arange(target.size, dtype=np.int64).reshape(shape)
        context.values[node.outputs[0]] = View(target, index)
        return
    swallowed = match.nodes
    bands = _bands(context, match, bins)
    if bands is None:
        target = _place(context, node, (node, *swallowed), signal, values, hop, frames, match.kind, None)
        index = np.arange(target.size, dtype=np.int64).reshape(frames, bins)
        name = match.name
    else:
        product, matrix, swapped = bands
        target = _place(context, node, (node, *swallowed, product), signal, values, hop, frames, match.kind, matrix)
        index = np.arange(target.size, dtype=np.int64).reshape(frames, matrix.shape[1])
        index = index.T if swapped else index
        name = product.outputs[0]
        context.done.add(product.name)
    context.done.update(one.name for one in swallowed)
    if bands is None and match.swapped:
        index = index.T
    context.values[name] = View(target, np.ascontiguousarray(index).reshape(context.graph.shape(name, node)))


def _place(
    context: Context,
    node: Node,
    nodes: tuple[Node, ...],
    signal: Buffer,
    window: Array,
    hop: int,
    frames: int,
    kind: int,
    matrix: Array | None,
) -> Buffer:
    program = context.program
    if context.fixed_point and kind != 0 and (matrix is None or (matrix.min() >= 0 and matrix.max() > 0)):
        return _place_fixed(context, node, nodes, signal, window, hop, frames, kind, matrix)
    length = len(window)
    half = length // 2
    angles = 2 * np.pi * np.arange(half) / length
    bits = half.bit_length() - 1
    reversed_ = [int(format(k, f"0{bits}b")[::-1], 2) for k in range(half)]
    roots = program.constant(np.stack([np.cos(angles), -np.sin(angles)], axis=1), "float")
    fields = (
        f".frames = {frames}, .hop = {hop}, .length = {length}, .kind = {kind}, "
        f".window = {program.constant(window / 2, 'float')}, .roots = {roots}, "
        f".reversed = {program.constant(np.array(reversed_), 'uint16_t')}"
    )
    width = (half + 1) * (2 if kind == 0 else 1)
    stored = 4 * length + 4 * length + 2 * half
    macs = frames * (length + 2 * half * bits)
    if matrix is not None:
        width = matrix.shape[1]
        first, count, weights = _sparse(matrix)
        fields += (
            f", .bands = {width}, .first = {program.constant(first, 'uint16_t')}, "
            f".count = {program.constant(count, 'uint16_t')}, .weights = {program.constant(weights, 'float')}"
        )
        stored += 4 * len(weights) + 4 * width
        macs += frames * len(weights)
    target = program.buffer("float", frames * width, label=node.name)
    work = program.buffer("float", 3 * length + 8, label=f"{node.name}_frame")
    code = (
        f"static const model_spectrum_t p = {{{fields}}};\n"
        f"model_spectrum(&p, {signal.token}, {target.token}, {work.token});"
    )
    program.add(
        Step(
            node.name,
            tuple(one.op for one in nodes),
            code,
            (signal,),
            (target,),
            (work,),
            kernels=frozenset({"spectrum"}),
            macs=macs,
            weight_bytes=stored,
            integer=False,
        )
    )
    return target


def _place_fixed(
    context: Context,
    node: Node,
    nodes: tuple[Node, ...],
    signal: Buffer,
    window: Array,
    hop: int,
    frames: int,
    kind: int,
    matrix: Array | None,
) -> Buffer:
    """The same in integers: window and roots with 30 bits of fraction, weights of bands with 16 bits."""
    program = context.program
    length = len(window)
    half = length // 2
    largest = float(np.abs(window).max())
    if largest > 1:
        raise ExportError(
            f"{node.describe()} has a window that reaches {largest:.3g}; in fixed point the most is 1",
            fix="scale the window, or pass fixed_point=False",
        )
    angles = 2 * np.pi * np.arange(half) / length
    bits = half.bit_length() - 1
    reversed_ = [int(format(k, f"0{bits}b")[::-1], 2) for k in range(half)]
    roots = np.rint(np.stack([np.cos(angles), -np.sin(angles)], axis=1) * 2.0**30)
    fields = (
        f".frames = {frames}, .hop = {hop}, .length = {length}, .kind = {kind}, "
        f".window = {program.constant(np.rint(window * 2.0**30), 'int32_t')}, "
        f".roots = {program.constant(roots, 'int32_t')}, "
        f".reversed = {program.constant(np.array(reversed_), 'uint16_t')}"
    )
    width, stored, macs = half + 1, 8 * length + 2 * half, frames * (length + 2 * half * bits)
    if matrix is not None:
        width = matrix.shape[1]
        first, count, weights = _sparse(matrix)
        weight_bits = 15 - int(np.floor(np.log2(weights.max())))
        whole = np.minimum(np.rint(weights.astype(np.float64) * 2.0**weight_bits), 65535)
        fields += (
            f", .bands = {width}, .weight_bits = {weight_bits}, .first = {program.constant(first, 'uint16_t')}, "
            f".count = {program.constant(count, 'uint16_t')}, .weights = {program.constant(whole, 'uint16_t')}"
        )
        stored += 2 * len(weights) + 4 * width
        macs += frames * len(weights)
    target = program.buffer("float", frames * width, label=node.name)
    work = program.buffer("int32_t", 2 * length + 4, label=f"{node.name}_frame")
    code = (
        f"static const model_spectrum_fixed_t p = {{{fields}}};\n"
        f"model_spectrum_fixed(&p, {signal.token}, {target.token}, {work.token});"
    )
    program.add(
        Step(
            node.name,
            tuple(one.op for one in nodes),
            code,
            (signal,),
            (target,),
            (work,),
            kernels=frozenset({"spectrum_fixed"}),
            macs=macs,
            weight_bytes=stored,
            integer=False,
        )
    )
    return target


def _sparse(matrix: Array) -> tuple[Array, Array, Array]:
    """First bin, number of bins and weights of every band of (bins, bands); zeros outside are not stored."""
    first, count, weights = [], [], []
    for band in range(matrix.shape[1]):
        used = np.flatnonzero(matrix[:, band])
        start, stop = (int(used[0]), int(used[-1]) + 1) if used.size else (0, 1)
        first.append(start)
        count.append(stop - start)
        weights.append(matrix[start:stop, band])
    return np.array(first), np.array(count), np.concatenate(weights).astype(np.float32)


def _spectrum_function(context: Context, node: Node, shape: tuple[int, ...]) -> _Match | None:
    """The first tensor after the STFT that is the power or magnitude spectrum, found by evaluating it on numbers.

    There are many ways to write a power spectrum (Pow and ReduceSum, two Gathers, Split, ReduceL2 and Pow, ...);
    comparing values recognises all of them. Each step must depend on the spectrum and constants alone.
    """
    graph = context.graph
    rng = np.random.default_rng(0)
    spectrum = rng.standard_normal(shape).astype(np.float32)
    power = (spectrum.astype(np.float64) ** 2).sum(-1)[0]
    known: dict[str, Array] = {node.outputs[0]: spectrum}
    nodes: list[Node] = []
    best: _Match | None = None
    for candidate in graph.nodes:
        inside = [name for name in candidate.inputs if name in known]
        if not inside or len(nodes) > 16:
            continue
        if not all(name in known or name in graph.constants for name in candidate.inputs if name):
            continue
        if candidate.op in ("MatMul", "Gemm", "QuantizeLinear", "Log", "Clip"):
            continue
        nodes.append(candidate)
        for name in candidate.outputs:
            known[name] = evaluate(nodes, {node.outputs[0]: spectrum}, graph.constants, name)
            found = _compare(known[name], power)
            if found is not None and _only_way(context, node.outputs[0], nodes, name):
                best = _Match(name, found[0], tuple(nodes), found[1])
    return best


def _compare(value: Array, power: Array) -> tuple[int, bool] | None:
    if value.size != power.size:
        return None
    for kind, reference in ((1, power), (2, np.sqrt(power))):
        for swapped in (False, True):
            wanted = (reference.T if swapped else reference).reshape(-1)
            sizes = tuple(size for size in value.shape if size != 1)
            if sizes == tuple(size for size in (reference.T if swapped else reference).shape if size != 1) and (
                np.abs(value.reshape(-1) - wanted).max() < _TOLERANCE * max(1.0, float(wanted.max()))
            ):
                return kind, swapped
    return None


def _only_way(context: Context, start: str, nodes: list[Node], name: str) -> bool:
    """Whether nothing but `nodes` reads what lies between the spectrum and `name`."""
    made = {start, *(output for node in nodes for output in node.outputs)} - {name}
    names = {node.name for node in nodes}
    if any(output in context.graph.outputs for output in made):
        return False
    return all(user.name in names for output in made for user in context.graph.consumers.get(output, []))


def _bands(context: Context, match: _Match, bins: int) -> tuple[Node, Array, bool] | None:
    """The MatMul of the spectrum with a constant: (node, matrix (bins, bands), whether the result is (band, frame))."""
    consumers = context.graph.consumers.get(match.name, [])
    if match.name in context.graph.outputs or len(consumers) != 1 or consumers[0].op != "MatMul":
        return None
    node = consumers[0]
    side = 0 if node.inputs[0] == match.name else 1
    given = context.graph.constants.get(node.inputs[1 - side])
    if given is None or given.ndim < 2 or given.size != int(np.prod(given.shape[-2:])):
        return None
    matrix: Array = given.reshape(given.shape[-2:])
    matrix = matrix if side == 0 else matrix.T
    if matrix.shape[0] != bins or match.swapped != (side == 1):
        return None
    return node, matrix, side == 1
