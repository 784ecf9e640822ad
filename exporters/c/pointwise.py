"""Functions of one element: on an int8 tensor they change a table of 256 values, on a float tensor an expression."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exporters.c.context import Context, clamp_bounds
from exporters.c.graph import Array, Node
from exporters.c.integer import repetition
from exporters.c.program import CODES, Quant, Step, View, literal
from exporters.errors import ExportError


@dataclass(frozen=True)
class Function:
    """One function of one variable: in numpy for tables, in C ({x} is the argument) for float tensors."""

    table: Callable[[Array], Array]
    expression: str
    kernels: frozenset[str] = frozenset()


_MATH = frozenset({"math"})


def _erf(x: Array) -> Array:
    from math import erf

    return np.array([erf(float(value)) for value in x.reshape(-1)]).reshape(x.shape)


def function_of(context: Context, node: Node) -> Function | None:
    """The function of a unary operator with its attributes; None for any other operator."""
    bounds = clamp_bounds(node, context.graph.constants)
    if bounds is not None:
        low, high = bounds
        text = "{x}"
        if high != np.inf:
            text = f"fminf({text}, {literal(high)})"
        if low != -np.inf:
            text = f"fmaxf({text}, {literal(low)})"
        return Function(lambda x: np.clip(x, low, high), text)
    alpha = float(node.attributes.get("alpha", {"LeakyRelu": 0.01, "HardSigmoid": 0.2}.get(node.op, 1.0)))
    beta = float(node.attributes.get("beta", 0.5))
    sixth = "({x} * fmaxf(0.0f, fminf(1.0f, {x} * 0.166666667f + 0.5f)))"
    functions = {
        "Neg": Function(lambda x: -x, "(-{x})"),
        "Abs": Function(np.abs, "fabsf({x})"),
        "Sqrt": Function(np.sqrt, "sqrtf({x})"),
        "Reciprocal": Function(lambda x: 1 / x, "(1.0f / {x})"),
        "Floor": Function(np.floor, "floorf({x})"),
        "Ceil": Function(np.ceil, "ceilf({x})"),
        "Log": Function(np.log, "model_log({x})", _MATH),
        "Exp": Function(np.exp, "model_exp({x})", _MATH),
        "Sigmoid": Function(lambda x: 1 / (1 + np.exp(-x)), "model_sigmoid({x})", _MATH),
        "Tanh": Function(np.tanh, "model_tanh({x})", _MATH),
        "Softplus": Function(lambda x: np.log1p(np.exp(x)), "model_log(1.0f + model_exp({x}))", _MATH),
        "Erf": Function(_erf, "erff({x})"),
        "Gelu": Function(
            lambda x: 0.5 * x * (1 + _erf(x / np.sqrt(2.0))), "(0.5f * {x} * (1.0f + erff({x} * 0.707106781f)))"
        ),
        "HardSwish": Function(lambda x: x * np.clip(x / 6 + 0.5, 0, 1), sixth),
        "HardSigmoid": Function(
            lambda x: np.clip(alpha * x + beta, 0, 1),
            f"fmaxf(0.0f, fminf(1.0f, {{x}} * {literal(alpha)} + {literal(beta)}))",
        ),
        "LeakyRelu": Function(
            lambda x: np.where(x < 0, alpha * x, x), f"({{x}} < 0.0f ? {literal(alpha)} * {{x}} : {{x}})"
        ),
        "Elu": Function(
            lambda x: np.where(x < 0, alpha * np.expm1(x), x),
            f"({{x}} < 0.0f ? {literal(alpha)} * (model_exp({{x}}) - 1.0f) : {{x}})",
            _MATH,
        ),
    }
    if node.op == "Gelu" and node.attributes.get("approximate", b"none") != b"none":
        return None
    return functions.get(node.op)


def unary(context: Context, node: Node) -> bool:
    """Apply a unary operator to its input view."""
    function = function_of(context, node)
    if function is None:
        return False
    context.values[node.outputs[0]] = apply(context.view(node, 0), function)
    return True


def apply(view: View, function: Function) -> View:
    """The view of function(x)."""
    if view.table is not None:
        with np.errstate(all="ignore"):  # values that no input reaches
            table = np.asarray(function.table(view.table.astype(np.float64))).astype(np.float32)
        return View(view.buffer, view.index, table, _same_grid(view, table))
    if function.expression.count("{x}") > 1 and view.expression != "v":
        expression = f"({view.expression})"
        text = function.expression.replace("{x}", expression)
    else:
        text = function.expression.replace("{x}", view.expression)
    return View(view.buffer, view.index, expression=text, kernels=view.kernels | function.kernels)


_OPERATORS = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/"}


def with_constant(context: Context, node: Node) -> bool:
    """Add, Sub, Mul, Div, Pow, Max, Min of a tensor and a constant (either order; broadcast along axes)."""
    values = [context.value(node, position) for position in range(len(node.inputs))]
    if len(values) != 2:
        return False
    side = 0 if isinstance(values[0], View) else 1
    view, constant = values[side], context.constant(node, 1 - side, "operand").astype(np.float32)
    assert isinstance(view, View)
    shape = context.graph.shape(node.outputs[0], node)
    if view.shape != shape:
        view = View(
            view.buffer, np.broadcast_to(view.index, shape), view.table, view.quant, view.expression, view.kernels
        )
        if constant.size > 1 or not view.covers:
            view = _copied(context, view, node)
    if constant.size == 1:
        number = np.float32(constant.reshape(()))
        context.values[node.outputs[0]] = apply(view, _scalar(node, number, side))
        return True
    if view.table is not None or not view.covers:
        view = _copied(context, view, node)
    physical = np.empty(view.buffer.size, dtype=np.float32)
    physical[view.index.reshape(-1)] = np.broadcast_to(constant, shape).reshape(-1)
    inner, period = repetition(np.unique(physical, return_inverse=True)[1].reshape(-1))
    name = context.program.constant(physical[: inner * period : inner], "float")
    place = "i" if inner == 1 else f"(i / {inner})"
    place = place if inner * period == physical.size else f"{place} % {period}"
    term = f"{name}[{place}]"
    text = _binary_text(node, view.expression if side == 0 else term, term if side == 0 else view.expression)
    context.values[node.outputs[0]] = View(view.buffer, view.index, expression=text, kernels=view.kernels)
    return True


def two_views(context: Context, node: Node) -> bool:
    """Add, Sub, Mul, Div, Max, Min of two tensors, as floats; two functions of one int8 tensor stay a table."""
    a, b = context.view(node, 0), context.view(node, 1)
    shape = context.graph.shape(node.outputs[0], node)
    if a.table is not None and b.table is not None and a.buffer is b.buffer and np.array_equal(a.index, b.index):
        operations = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Max": np.maximum}
        if node.op in operations:
            with np.errstate(all="ignore"):
                table = np.asarray(operations[node.op](a.table, b.table)).astype(np.float32)
            context.values[node.outputs[0]] = View(a.buffer, a.index, table, _same_grid(a, table))
            return True
    program = context.program
    a, b = program.real(a, node.name), program.real(b, node.name)
    if a.shape != shape:
        a = View(a.buffer, np.broadcast_to(a.index, shape))
    if b.shape != shape:
        b = View(b.buffer, np.broadcast_to(b.index, shape))
    if a.covers and b.covers and np.array_equal(a.index, b.index):
        first, second, index = a.buffer, b.buffer, a.index
    else:
        first, second = program.arrange(a, a.index, node.name), program.arrange(b, b.index, node.name)
        index = np.arange(a.index.size, dtype=np.int64).reshape(shape)
    target = program.buffer("float", index.size, label=node.name)
    text = _binary_text(node, f"{first.token}[i]", f"{second.token}[i]")
    program.add(
        Step(
            node.name,
            (node.op,),
            f"for (int32_t i = 0; i < {target.size}; i++) {{\n    {target.token}[i] = {text};\n}}",
            tuple(dict.fromkeys((first, second))),
            (target,),
            inplace=first,
            integer=False,
        )
    )
    context.values[node.outputs[0]] = View(target, index)
    return True


def quantize(context: Context, node: Node, quant: Quant) -> View:
    """QuantizeLinear of any view: nothing where the codes stay, a table where it is int8, a rounding loop else."""
    view = context.view(node, 0)
    program = context.program
    if view.table is not None:
        with np.errstate(all="ignore"):
            codes = quant.encode(np.nan_to_num(view.table, nan=0.0))
        if np.array_equal(codes, CODES):
            return View(view.buffer, view.index, quant.table(), quant)
        table = program.constant(codes, "int8_t")
        target = program.buffer("int8_t", view.buffer.size, label=node.name)
        source = view.buffer
        code = (
            f"for (int32_t i = 0; i < {source.size}; i++) {{\n"
            f"    {target.token}[i] = {table}[(uint8_t)({source.token}[i] + 128)];\n}}"
        )
        program.add(Step(node.name, ("QuantizeLinear",), code, (source,), (target,), inplace=source))
        return View(target, view.index, quant.table(), quant)
    result = f"model_quantize(x, {literal(quant.scale)}, {quant.zero})"
    target = program.map(node.name, ("QuantizeLinear",), view, "int8_t", result)
    return View(target, view.index, quant.table(), quant)


def _copied(context: Context, view: View, node: Node) -> View:
    plain = context.program.real(view, node.name)
    buffer = context.program.arrange(plain, plain.index, node.name)
    return View(buffer, np.arange(buffer.size, dtype=np.int64).reshape(view.shape))


def _same_grid(view: View, table: Array) -> Quant | None:
    """The source's scale where every value of the table is one that a code of it stands for already."""
    if view.quant is None:
        return None
    grid = view.quant.table()
    return view.quant if np.array_equal(grid, table) else None


def _scalar(node: Node, number: np.float32, side: int) -> Function:
    text = literal(number)
    value = np.float64(number)
    if node.op == "Pow":
        if side == 1:
            return Function(lambda x: value**x, f"model_exp({{x}} * {literal(np.log(value))})", _MATH)
        if number == 2:
            return Function(np.square, "model_square({x})", _MATH)
        if number == np.float32(0.5):
            return Function(np.sqrt, "sqrtf({x})")
        return Function(lambda x: x**value, f"powf({{x}}, {text})")
    tables: dict[str, Callable[[Array], Array]] = {
        "Add": lambda x: x + value,
        "Sub": lambda x: x - value if side == 0 else value - x,
        "Mul": lambda x: x * value,
        "Div": lambda x: x / value if side == 0 else value / x,
        "Max": lambda x: np.maximum(x, value),
        "Min": lambda x: np.minimum(x, value),
    }
    return Function(tables[node.op], _binary_text(node, "{x}" if side == 0 else text, text if side == 0 else "{x}"))


def _binary_text(node: Node, a: str, b: str) -> str:
    if node.op in _OPERATORS:
        return f"({a} {_OPERATORS[node.op]} {b})"
    if node.op in ("Max", "Min"):
        return f"f{node.op.lower()}f({a}, {b})"
    raise ExportError(f"{node.describe()} has no kernel for two tensors", fix="make one operand a constant")
