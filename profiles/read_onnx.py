"""An ONNX file as a neutral graph: shapes resolved for one batch size, Q/DQ pairs understood.

`onnx_file` reads the file, `onnx_walk` walks its operators with the rules in `onnx_shapes`, `onnx_values` and
`onnx_counters`. Nothing runs and nothing is allocated that a shape asks for: counting needs shapes only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.errors import ProfileError
from profiles.graph import Graph
from profiles.onnx_file import load
from profiles.onnx_nodes import Value, check_rank, check_text, dtype_of
from profiles.onnx_walk import Scope, Walk, numbers_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import ModelProto, ValueInfoProto

    Example = Mapping[str, Sequence[int] | NDArray[Any]]


class UnknownSizeError(ProfileError):
    """A dimension of an input is dynamic, and no example says how large it is.

    Attributes:
        name: of the input.
        dims: its dimensions, those that are not known by their names, or "?".
    """

    def __init__(self, what: str, fix: str, name: str, dims: Sequence[int | str]) -> None:
        super().__init__(what, fix=fix)
        self.name = name
        self.dims = tuple(dims)


def read(model: "str | Path | ModelProto", batch: int = 1, example: "Example | None" = None) -> Graph:
    """Read a model for one batch size.

    The batch dimension is the symbol whose name says so ("batch", "batch_size", ...), wherever it stands; where none
    does, the first dimension of the inputs. A static first dimension is replaced in every input that shares it.

    Args:
        model: a path, or a ModelProto (left unchanged).
        batch: >= 1.
        example: input name -> shape, or array, for inputs with dynamic dimensions beside the batch. The values of
            short integer arrays are used, for models whose sizes depend on them.

    Raises:
        UnknownSizeError: a dimension is dynamic, and the example does not say how large it is.
        ProfileError: the file is not a readable ONNX model, shapes contradict each other, or the example is of another
            input or size than the model has.
    """
    if not isinstance(batch, Integral) or batch < 1:
        raise ProfileError(f"batch is {batch}", fix="pass a whole number of at least 1")
    loaded = load(model)
    try:
        return _read(loaded.proto, batch, example or {}, loaded.folder, loaded.skipped)
    except (UnicodeDecodeError, RecursionError) as error:
        what = "a name that is not UTF-8" if isinstance(error, UnicodeDecodeError) else "graphs nested too deep"
        raise ProfileError(f"the ONNX model holds {what}", fix="export the model again") from error


def _read(proto: "ModelProto", batch: int, example: "Example", folder: Path | None, skipped: frozenset[str]) -> Graph:
    graph = proto.graph
    if not graph.node:
        raise ProfileError("the ONNX model holds no operators", fix="export it again")
    stored = {tensor.name for tensor in graph.initializer} | {item.values.name for item in graph.sparse_initializer}
    check_text(value.name for value in (*graph.input, *graph.initializer))
    given = [_input(value) for value in graph.input if value.name not in stored]
    for name in example:
        if name not in stored and all(name != item.name for item in given):
            raise ProfileError(
                f"the model has no input {name!r}; there are {', '.join(item.name for item in given) or 'none'}",
                fix="give examples of these alone",
            )
    symbols = _resolve(given, batch, example)
    walk = Walk(proto.functions, symbols, folder, skipped)
    scope = Scope()
    for item in given:
        if item.name in scope.values:
            raise ProfileError(f"two inputs are called {item.name!r}", fix="export the model again")
        scope.values[item.name] = value = walk.flowing(item.name, tuple(item.dims), item.dtype)
        array = example.get(item.name)
        value.data = _values(array, value)
    results = walk.graph(graph, scope)
    outputs = tuple(
        dict.fromkeys(
            value.name for value in results if value is not None and value.sources is None and value.shape is not None
        )
    )
    sink = walk.sink
    return Graph(
        tuple(sink.ops),
        sink.edges,
        tuple(item.name for item in given),
        outputs,
        batch,
        dict(sink.uncounted),
        walk.notes(),
        tuple(dict.fromkeys(sink.idle)),
    )


@dataclass
class _Input:
    """An input of the graph while its dimensions are resolved."""

    name: str
    dtype: str
    dims: list[int]  # -1: not known yet
    symbols: list[str]  # "": the dimension has no name


def _input(value: "ValueInfoProto") -> _Input:
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") not in ("tensor_type", None) or not kind.HasField("shape"):
        raise ProfileError(
            f"input {value.name!r} has no shape"
            if value.type.HasField("tensor_type")
            else f"input {value.name!r} is not a tensor",
            fix="export the model with tensors of known rank as inputs",
        )
    dims = kind.shape.dim
    check_text(dim.dim_param for dim in dims)
    check_rank([0] * len(dims), value.name)
    sizes = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else -1 for dim in dims]
    return _Input(value.name, dtype_of(kind.elem_type), sizes, [dim.dim_param for dim in dims])


def _resolve(inputs: Sequence[_Input], batch: int, example: "Example") -> dict[str, int]:
    """Fill in every dimension of the inputs; the sizes of the named ones.

    Raises:
        ProfileError: a dimension stays unknown, the example does not fit, or the model has no batch dimension and
            another batch than 1 is asked for.
    """
    shapes = {item.name: _example_shape(item, example) for item in inputs if item.name in example}
    known = _batch_symbols(inputs, batch)
    if not known:
        _replace_static_batch(inputs, batch)
    for item in inputs:
        for index, symbol in enumerate(item.symbols):
            shape = shapes.get(item.name)
            if symbol and symbol not in known and shape is not None:
                known[symbol] = shape[index]
    for item in inputs:
        shape = shapes.get(item.name)
        for index, symbol in enumerate(item.symbols):
            if symbol and symbol in known:
                item.dims[index] = known[symbol]
            elif item.dims[index] < 0 and shape is not None:
                item.dims[index] = shape[index]
            elif item.dims[index] < 0:
                dims = [
                    known.get(symbol, size) if size > 0 or symbol in known else symbol or "?"
                    for size, symbol in zip(item.dims, item.symbols, strict=True)
                ]
                raise UnknownSizeError(
                    f"dimension {index} of input {item.name!r} is dynamic ({symbol or 'unnamed'})",
                    f"pass example={{{item.name!r}: array}} with an array of a typical shape",
                    item.name,
                    dims,
                )
    return known


def _batch_symbols(inputs: Sequence[_Input], batch: int) -> dict[str, int]:
    """The names of the batch dimension: those that say so, else those that inputs begin with."""
    every = {symbol for item in inputs for symbol in item.symbols if symbol}
    named = {symbol for symbol in every if symbol.lower() in _BATCH_NAMES or symbol.lower().startswith("batch")}
    if not named:
        named = {item.symbols[0] for item in inputs if item.symbols and item.symbols[0]}
    known = dict.fromkeys(named, batch)
    for item in inputs:  # a first dimension without size and name
        if item.dims and item.dims[0] < 0 and not item.symbols[0]:
            item.dims[0] = batch
            known.setdefault("", batch)
    known_names = {symbol: size for symbol, size in known.items() if symbol}
    return known_names or ({"": batch} if "" in known else {})


_BATCH_NAMES = frozenset({"batch", "n", "bs", "bsz", "b", "nbatch", "n_batch", "num_batch"})


def _replace_static_batch(inputs: Sequence[_Input], batch: int) -> None:
    """Put the batch in the place of a static first dimension, in every input that shares it.

    Inputs whose first dimension is another one (the layers of a recurrent state, a sampling rate) keep it.
    """
    shared = [item for item in inputs if len(item.dims) > 1 or (item.dims and item.dtype not in ("int64", "int32"))]
    shared = shared or [item for item in inputs if item.dims]
    if not shared:
        if batch != 1:
            raise ProfileError(f"batch is {batch}, and no input has a batch dimension", fix="ask for a batch of 1")
        return
    static = shared[0].dims[0]
    for item in shared:
        if item.dims[0] == static:
            item.dims[0] = batch


def _example_shape(item: _Input, example: "Example") -> tuple[int, ...]:
    given = example[item.name]
    shape = tuple(int(size) for size in (given if isinstance(given, tuple | list) else _array(given).shape))
    if len(shape) != len(item.dims):
        raise ProfileError(
            f"the example of input {item.name!r} has {len(shape)} dimensions, the model's has {len(item.dims)}",
            fix="pass an example of the model's own shape",
        )
    for index, (size, fixed) in enumerate(zip(shape, item.dims, strict=True)):
        if index and fixed > 0 and size != fixed:  # the batch takes the place of the first
            raise ProfileError(
                f"the example of {item.name!r} has {size} in dimension {index}, and the model is made for {fixed}",
                fix="pass an example of the model's own shape, or export the model with dynamic sizes",
            )
    return shape


def _array(given: Any) -> "NDArray[Any]":
    import numpy as np

    return np.asarray(given)


def _values(given: Any, value: Value) -> "NDArray[Any] | None":
    """The example's numbers, where they are of the shape that is read and may be sizes."""
    if given is None or isinstance(given, tuple | list):
        return None
    array = _array(given)
    return numbers_of(array) if array.shape == value.shape and prod(array.shape) > 0 else None
