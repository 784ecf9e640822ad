"""What lowering builds: buffers, constants and steps of C, and views that move no data."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.c.graph import Array
from exporters.errors import ExportError

Index = NDArray[np.int64]
BYTES = {"int8_t": 1, "int16_t": 2, "int32_t": 4, "float": 4}
CODES = np.arange(-128, 128)  # every int8 value, in the order of a table's entries


@dataclass(frozen=True)
class Buffer:
    """Memory of one tensor. `place`: arena, input or output (the caller's)."""

    number: int
    ctype: str
    size: int  # elements
    place: str = "arena"
    label: str = ""

    @property
    def bytes(self) -> int:
        """Its size in bytes."""
        return self.size * BYTES[self.ctype]

    @property
    def token(self) -> str:
        """Stands for its address in a step's code until the arena is planned."""
        return f"@{self.number}@"


TOKEN = re.compile(r"@(\d+)@")


@dataclass(frozen=True)
class Quant:
    """real = scale * (code - zero), code an int8."""

    scale: np.float32
    zero: int

    def table(self) -> Array:
        """The real value of every code from -128 to 127, (256,) float32."""
        decoded: Array = (CODES - self.zero).astype(np.float32) * self.scale
        return decoded

    def encode(self, real: Array) -> Array:
        """Nearest codes (half to even, as ONNX QuantizeLinear rounds), int8."""
        codes = np.rint(real.astype(np.float32) / self.scale) + self.zero
        narrow: Array = np.clip(codes, -128, 127).astype(np.int8)
        return narrow


@dataclass(frozen=True, eq=False)
class View:
    """A real-valued tensor: which element of a buffer each of its elements is, and how to decode that element.

    Attributes:
        index: logical shape -> position in the buffer. Reshape, Transpose, Slice and Expand only change this.
        table: int8 buffers only: the real value of each code, (256,). A function of one variable only changes this.
        quant: set where the table is scale * (code - zero).
        expression: float buffers only: C expression of the element `v` (and of its position `i`).
        kernels: kernel sources that the expression needs.
    """

    buffer: Buffer
    index: Index
    table: Array | None = None
    quant: Quant | None = None
    expression: str = "v"
    kernels: frozenset[str] = frozenset()

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape."""
        return self.index.shape

    @property
    def covers(self) -> bool:
        """Whether every element of the buffer appears exactly once."""
        return self.index.size == self.buffer.size and _is_permutation(self.index)


@dataclass(frozen=True)
class QuantConst:
    """Constant int8 weights with their scale. `axis` is the scale's axis; None is one scale for all."""

    codes: Array
    scale: Array
    axis: int | None

    def real(self) -> Array:
        """The decoded weights, float32."""
        if self.axis is None:
            return (self.codes.astype(np.float32) * self.scale).astype(np.float32)
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return (self.codes.astype(np.float32) * self.scale.reshape(shape)).astype(np.float32)


Value = Array | QuantConst | View


@dataclass(frozen=True)
class Step:
    """One call or loop of the model.

    Attributes:
        code: C with a token for each buffer.
        inplace: a read buffer that the result may overwrite, where nothing later reads it.
    """

    name: str
    ops: tuple[str, ...]
    code: str
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    scratch: tuple[Buffer, ...] = ()
    inplace: Buffer | None = None
    kernels: frozenset[str] = frozenset()
    macs: int = 0
    weight_bytes: int = 0
    params: int = 0  # learned numbers among its constants
    integer: bool = True


@dataclass
class Program:
    """Everything that model.c will hold.

    `full_range`: no integer kernel clamps its codes to less than -128 to 127.
    """

    buffers: list[Buffer] = field(default_factory=list)
    constants: dict[str, tuple[str, Array]] = field(default_factory=dict)  # C name -> C type, values
    steps: list[Step] = field(default_factory=list)
    full_range: bool = True
    _by_bytes: dict[tuple[str, bytes], str] = field(default_factory=dict)
    _copies: dict[tuple[object, ...], Buffer] = field(default_factory=dict)

    def buffer(self, ctype: str, size: int, place: str = "arena", label: str = "") -> Buffer:
        """New memory of `size` elements."""
        made = Buffer(len(self.buffers), ctype, int(size), place, label)
        self.buffers.append(made)
        return made

    def constant(self, values: Array, ctype: str) -> str:
        """The C name of a constant array; equal arrays are stored once."""
        flat = np.ascontiguousarray(values, dtype=_DTYPES[ctype]).reshape(-1)
        key = (ctype, flat.tobytes())
        if key not in self._by_bytes:
            name = f"model_data_{len(self.constants)}"
            self.constants[name] = (ctype, flat)
            self._by_bytes[key] = name
        return self._by_bytes[key]

    def add(self, step: Step) -> None:
        """Append a step."""
        self.steps.append(step)

    def map(
        self,
        name: str,
        ops: Sequence[str],
        view: View,
        ctype: str,
        result: str,
        kernels: Iterable[str] = (),
        target: Buffer | None = None,
    ) -> Buffer:
        """Append a loop over a whole buffer: `result` is a C expression of the decoded element `x`."""
        source = view.buffer
        made = target or self.buffer(ctype, source.size, label=name)
        code = ["MODEL_UNROLL", f"for (int32_t i = 0; i < {source.size}; i++) {{"]
        code += _decode(self, view, f"{source.token}[i]")
        code += [f"    {made.token}[i] = {result};", "}"]
        overlay = source if source.place == "arena" and BYTES[ctype] <= BYTES[source.ctype] else None
        self.add(
            Step(
                name=name,
                ops=tuple(ops),
                code="\n".join(code),
                reads=(source,),
                writes=(made,),
                inplace=overlay,
                kernels=frozenset(kernels) | view.kernels,
                integer=ctype == "int8_t",
            )
        )
        return made

    def real(self, view: View, name: str) -> View:
        """The same tensor as plain floats in a buffer of its own (or as it is, where it already is)."""
        if view.table is None and view.expression == "v":
            return view
        key = ("real", view.buffer.number, view.expression, None if view.table is None else view.table.tobytes())
        if key not in self._copies:
            self._copies[key] = self.map(f"{name}_real", ("DequantizeLinear",), view, "float", "x")
        return View(self._copies[key], view.index)

    def arrange(self, view: View, order: Index, name: str, ctype: str | None = None) -> Buffer:
        """A buffer whose element k is the view's buffer element `order`[k]; the same buffer where that is no move.

        The codes of an int8 view stay codes; a float view is made plain first.
        """
        if view.table is None:
            view = self.real(view, name)
        order = np.ascontiguousarray(order.reshape(-1))
        if order.size == view.buffer.size and np.array_equal(order, np.arange(order.size)):
            return view.buffer
        key = ("arrange", view.buffer.number, order.tobytes())
        if key not in self._copies:
            made = self.buffer(view.buffer.ctype, order.size, label=name)
            code = copy_code(self, made.token, np.arange(order.size), view.buffer.token, order)
            self.add(
                Step(f"{name}_layout", ("Transpose",), code, (view.buffer,), (made,), integer=view.table is not None)
            )
            self._copies[key] = made
        return self._copies[key]


def view_of(buffer: Buffer, shape: Sequence[int], quant: Quant | None = None) -> View:
    """A view of a buffer in row-major order."""
    index = np.arange(buffer.size, dtype=np.int64).reshape(shape)
    return View(buffer, index, None if quant is None else quant.table(), quant)


def channel_last(buffer: Buffer, shape: Sequence[int], quant: Quant | None = None) -> View:
    """A view of logical shape (1, C, ...) of a buffer that stores the channels last."""
    _, channels, *spatial = shape
    index = np.moveaxis(np.arange(buffer.size, dtype=np.int64).reshape((*spatial, channels)), -1, 0)[None]
    return View(buffer, index, None if quant is None else quant.table(), quant)


def channel_last_order(view: View) -> Index:
    """Positions in the buffer in the order (spatial..., channel) of a view (1, C, ...)."""
    return np.moveaxis(view.index[0], 0, -1)


def copy_code(
    program: Program, target: str, target_order: Index, source: str, source_order: Index, table: str = ""
) -> str:
    """C that copies element by element, as the fewest nested loops; an index table where no loops fit."""
    value = f"{table}[(uint8_t)({{}} + 128)]" if table else "{}"
    loops = _affine(np.stack([target_order.reshape(-1), source_order.reshape(-1)]))
    if loops is not None:
        first = (int(target_order.reshape(-1)[0]), int(source_order.reshape(-1)[0]))
        return _nest(loops, target, source, first, value)
    runs = _runs(np.stack([target_order.reshape(-1), source_order.reshape(-1)]))
    if len(runs) <= 16:
        return "\n".join(_nest([(n, step)], target, source, start, value) for start, n, step in runs)
    if source_order.max() > 65535:
        raise ExportError("a change of layout is too irregular to write as loops", fix="simplify the reshapes")
    places = program.constant(source_order, "uint16_t")
    where = program.constant(target_order, "uint16_t")
    picked = value.format(f"{source}[{places}[i]]")
    return f"for (int32_t i = 0; i < {source_order.size}; i++) {{\n    {target}[{where}[i]] = {picked};\n}}"


_DTYPES: dict[str, Any] = {
    "int8_t": np.int8,
    "uint8_t": np.uint8,
    "int16_t": np.int16,
    "uint16_t": np.uint16,
    "int32_t": np.int32,
    "float": np.float32,
}


def _is_permutation(index: Index) -> bool:
    seen = np.zeros(index.size, dtype=bool)
    seen[index.reshape(-1)] = True
    return bool(seen.all())


def _decode(program: Program, view: View, element: str) -> list[str]:
    if view.table is None:
        if view.expression == "v":
            return [f"    const float x = {element};"]
        return [f"    const float v = {element};", f"    const float x = {view.expression};"]
    if view.quant is not None:
        return [f"    const float x = (float)({element} - ({view.quant.zero})) * {literal(view.quant.scale)};"]
    return [f"    const float x = {program.constant(view.table, 'float')}[(uint8_t)({element} + 128)];"]


def literal(value: float | np.floating[Any]) -> str:
    """A float32 as a C literal that reads back exactly."""
    number = float(np.float32(value))
    if np.isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    if np.isnan(number):
        raise ExportError("the graph has a constant that is not a number", fix="export the model again")
    text = f"{number:.9g}"
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"


def _affine(orders: Index) -> list[tuple[int, tuple[int, int]]] | None:
    """Loops (count, strides), outermost first, that visit both orders; None where there are no such loops."""
    loops: list[tuple[int, tuple[int, int]]] = []
    while orders.shape[1] > 1:
        steps = np.diff(orders, axis=1)
        same = np.all(steps == steps[:, :1], axis=0)
        count = int(np.argmin(same)) + 1 if not same.all() else orders.shape[1]
        if orders.shape[1] % count:
            return None
        blocks = orders.reshape(2, -1, count)
        if not np.array_equal(
            blocks - blocks[:, :, :1], np.broadcast_to(blocks[:, :1] - blocks[:, :1, :1], blocks.shape)
        ):
            return None
        loops.append((count, (int(steps[0, 0]), int(steps[1, 0]))))
        orders = blocks[:, :, 0]
    return loops[::-1] or [(1, (0, 0))]


def _runs(orders: Index) -> list[tuple[tuple[int, int], int, tuple[int, int]]]:
    runs = []
    at = 0
    steps = np.diff(orders, axis=1)
    while at < orders.shape[1]:
        stop = at + 1
        if at + 1 < orders.shape[1]:
            same = np.all(steps[:, at:] == steps[:, at : at + 1], axis=0)
            stop = at + 1 + (int(np.argmin(same)) if not same.all() else same.size)
        step = (int(steps[0, at]), int(steps[1, at])) if stop - at > 1 else (0, 0)
        runs.append(((int(orders[0, at]), int(orders[1, at])), stop - at, step))
        at = stop
        if len(runs) > 64:
            break
    return runs


def _nest(
    loops: Sequence[tuple[int, tuple[int, int]]], target: str, source: str, first: tuple[int, int], value: str
) -> str:
    lines = []
    for depth, (count, _) in enumerate(loops):
        lines.append(f"{'    ' * depth}for (int32_t i{depth} = 0; i{depth} < {count}; i{depth}++) {{")
    terms = [[str(start)] if start else [] for start in first]
    for depth, (_, strides) in enumerate(loops):
        for term, stride in zip(terms, strides, strict=True):
            if stride:
                term.append(f"i{depth}" if stride == 1 else f"i{depth} * {stride}")
    there, here = (" + ".join(term).replace("+ -", "- ") or "0" for term in terms)
    inside = "    " * len(loops)
    lines.append(f"{inside}{target}[{there}] = {value.format(f'{source}[{here}]')};")
    lines += [f"{'    ' * depth}}}" for depth in reversed(range(len(loops)))]
    return "\n".join(lines)
