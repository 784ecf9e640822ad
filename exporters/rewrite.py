"""Apply graph passes in a row, and make sure that they changed nothing that they may not.

With samples, the outputs of the first graph are compared with those of the last. Only where they differ by more than
the passes allow together is each pass run and compared on its own, so that the error names the one at fault. A caller
that wants every pass compared (tests do) says `each=True`.

onnxruntime runs the graphs without rewrites of its own, so that its optimiser hides nothing.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from exporters import large
from exporters.errors import ExportError

Arrays = Mapping[str, NDArray[np.generic]]
# A last digit that moved may move a value over a rounding border of a quantiser behind it: one step of 1/255 of a
# tensor's range in few values. Of an output's size that is far less, and a wrong rewrite far more.
ROUNDING_BORDER = 2.0**-7


@dataclass(frozen=True)
class Pass:
    """One rewrite as the runner sees it.

    Attributes:
        name: what an error calls it.
        apply: model -> model; leaves its argument as it is.
        largest_change: of the outputs, in the L2 norm relative to theirs; 0 is bit for bit.
    """

    name: str
    apply: Callable[[ModelProto], ModelProto]
    largest_change: float = 0.0


def named(module: Any, *arguments: Any, **options: Any) -> Pass:
    """The pass of a module of `exporters.passes`, with arguments for its `apply` behind the model."""
    name = str(module.__name__).rpartition(".")[2]
    return Pass(name, lambda model: module.apply(model, *arguments, **options), float(module.LARGEST_CHANGE))


def run(
    model: ModelProto,
    passes: Sequence[Pass],
    *,
    samples: Arrays | None = None,
    each: bool = False,
    evaluable: Callable[[ModelProto], ModelProto] = lambda model: model,
) -> ModelProto:
    """The model after all passes, in order.

    Args:
        model: the first graph.
        passes: rewrites.
        samples: real inputs by name; None compares nothing.
        each: compare after every pass instead of once at the end.
        evaluable: makes a graph that onnxruntime runs faithfully, such as `half.in_float.in_float32`.

    Raises:
        ExportError: a pass changed the outputs by more than it says; the error names it.
    """
    if samples is None:
        for one in passes:
            model = one.apply(model)
        return model
    first = outputs(evaluable(model), samples)
    if not each:
        last = model
        for one in passes:
            last = one.apply(last)
        allowed = sum(one.largest_change for one in passes)
        if _differs(first, outputs(evaluable(last), samples), allowed, last) is None:
            return last
    before = first
    for one in passes:
        model = one.apply(model)
        after = outputs(evaluable(model), samples)
        why = _differs(before, after, one.largest_change, model)
        if why is not None:
            raise ExportError(
                f"the graph pass {one.name!r} changed the model: {why}",
                fix="report this with the model; until it is mended, export with simplify=False",
            )
        before = after
    return model


def outputs(model: ModelProto, samples: Arrays) -> dict[str, NDArray[np.generic]]:
    """Outputs by name, as onnxruntime's CPU provider computes the graph as it stands.

    Raises:
        ExportError: onnxruntime refuses the graph or the samples.
    """
    ort: Any = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    names = [value.name for value in model.graph.output]
    try:
        found = large.session(model, options).run(names, dict(samples))
    except Exception as error:  # onnxruntime's own classes share no narrower base
        raise ExportError(
            f"onnxruntime cannot run the graph: {str(error).splitlines()[0][:300]}",
            fix="check the model with onnx.checker, and that the samples fit its inputs",
        ) from error
    return dict(zip(names, found, strict=True))


def _differs(before: Arrays, after: Arrays, allowed: float, model: ModelProto) -> str | None:
    """How outputs differ by more than is allowed; None where they do not."""
    if list(before) != list(after):
        return f"outputs {list(before)} became {list(after)}"
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    for name, first in before.items():
        second = after[name]
        if first.shape != second.shape or first.dtype != second.dtype:
            return f"output {name!r} was {first.dtype}{list(first.shape)} and is {second.dtype}{list(second.shape)}"
        if np.array_equal(first, second, equal_nan=first.dtype.kind == "f"):
            continue
        if first.dtype.kind != "f" and first.dtype.kind != "V":
            return f"output {name!r} differs in {int((first != second).sum())} of {first.size} values"
        change = relative_change(first, second)
        if allowed > 0 and change <= (max(allowed, ROUNDING_BORDER) if quantised else allowed):
            continue
        return f"output {name!r} moved by {change:.2g} of its size, and {allowed:.2g} is allowed"
    return None


def relative_change(before: NDArray[np.generic], after: NDArray[np.generic]) -> float:
    """|after - before| / |before| in the L2 norm over finite values; infinity where finiteness itself changed."""
    first, second = (np.asarray(values, np.float64).ravel() for values in (before, after))
    finite = np.isfinite(first)
    if not np.array_equal(finite, np.isfinite(second)) or not np.array_equal(first[~finite], second[~finite], True):
        return float("inf")
    norm = float(np.linalg.norm(first[finite]))
    change = float(np.linalg.norm(second[finite] - first[finite]))
    return change / norm if norm > 0 else (0.0 if change == 0 else float("inf"))
