"""A torch module as a neutral graph, traced on the meta device: no arithmetic, no export.

The module's own forward runs once under a dispatch mode with parameters that have shapes and no data. A module that
asks for values (`tensor.item()`, control flow on data) cannot run so; it is then run once on its real parameters and
the example itself.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from profiles.errors import ProfileError
from profiles.graph import FLOATS, Edge, Graph, Kind, Op, Weight, conv_macs, edge, fft_macs, recurrent_macs
from profiles.torch_kinds import BATCHNORMS, BINARY, FACTORIES, KINDS, UNARY, UNARY_IN_PLACE

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def read(module: "nn.Module", example: "Tensor | Sequence[Tensor] | Mapping[str, Tensor]", batch: int = 1) -> Graph:
    """Trace a module for one batch size.

    Args:
        module: left as it is; its training flags are restored.
        example: what its forward takes: one tensor, several, or keyword arguments. Only shapes and types are used;
            the first dimension of each becomes `batch`.

    Raises:
        ProfileError: the module's forward fails on such inputs.
    """
    import torch

    positional, keywords = _resized(example, batch)
    with torch.no_grad(), _inference(module):
        try:
            return _trace(
                module, [_shell(item) for item in positional], {k: _shell(v) for k, v in keywords.items()}, batch
            )
        except (RuntimeError, NotImplementedError, ValueError):
            pass  # it needs values: try with some
        try:
            return _trace(module, positional, keywords, batch)
        except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError) as error:
            shapes = ", ".join(str(tuple(item.shape)) for item in (*positional, *keywords.values()))
            raise ProfileError(
                f"{type(module).__name__} fails on inputs of shape {shapes}: {str(error).splitlines()[0]}",
                fix="pass example inputs that its forward takes, with the batch in the first dimension",
            ) from error


@contextmanager
def _inference(module: "nn.Module") -> Iterator[None]:
    """Evaluation mode for a while, set on the flags themselves: `eval()` may be overridden or refused."""
    training = [child for child in module.modules() if child.training]
    for child in training:
        child.training = False
    try:
        yield
    finally:
        for child in training:
            child.training = True


def _trace(module: "nn.Module", inputs: "list[Tensor]", keywords: "dict[str, Tensor]", batch: int) -> Graph:
    given = [*inputs, *keywords.values()]
    if not any(item.is_meta for item in given):
        stored = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        trace = _Trace({tensor: name for name, tensor in stored.items()}, given)
        with trace.recording(module):
            return trace.graph(module(*inputs, **keywords), batch)
    with _without_data(module) as shells:
        trace = _Trace(shells, given)
        with trace.recording(module):
            return trace.graph(module(*inputs, **keywords), batch)


@contextmanager
def _without_data(module: "nn.Module") -> "Iterator[dict[Tensor, str]]":
    """The module's parameters and buffers replaced by shells on the meta device, which have a shape and no data.

    `torch.func.functional_call` does the same and takes longer than the whole trace of a small network.
    """
    names: dict[Tensor, str] = {}
    shells: dict[int, Tensor] = {}  # of the real tensor: shared tensors share their shell
    replaced: list[tuple[dict[str, Tensor | None], str, Tensor]] = []
    try:
        for prefix, child in module.named_modules():
            for table in (child._parameters, child._buffers):
                for key, real in table.items():
                    if real is None:
                        continue
                    shell = shells.get(id(real))
                    if shell is None:
                        shell = shells[id(real)] = _shell(real)
                        names[shell] = f"{prefix}.{key}" if prefix else key
                    replaced.append((table, key, real))
                    table[key] = shell
        yield names
    finally:
        for table, key, real in replaced:
            table[key] = real


def _resized(example: Any, batch: int) -> "tuple[list[Tensor], dict[str, Tensor]]":
    import torch

    if batch < 1:
        raise ProfileError(f"batch is {batch}", fix="pass a batch of at least 1")
    if isinstance(example, torch.Tensor):
        example = [example]
    if isinstance(example, Mapping):
        return [], {key: _with_batch(value, batch) for key, value in example.items()}
    if isinstance(example, Sequence) and all(isinstance(item, torch.Tensor) for item in example):
        return [_with_batch(item, batch) for item in example], {}
    raise ProfileError(
        f"the example of a torch module is a {type(example).__name__}",
        fix="pass example=tensor, a tuple of tensors, or a dictionary of keyword tensors",
    )


def _with_batch(item: "Tensor", batch: int) -> "Tensor":
    if item.dim() == 0 or item.shape[0] == batch:
        return item
    return item.new_zeros((batch, *item.shape[1:]))


def _shell(item: "Tensor") -> "Tensor":
    import torch

    return torch.empty_like(item, device="meta")


class _Trace:
    """What a forward does, operator by operator. Tensors are held until the end, so an id names one tensor."""

    def __init__(self, stored: "Mapping[Tensor, str]", inputs: "Sequence[Tensor]") -> None:
        self._held: list[Any] = [*stored, *inputs]
        self._constants: dict[int, tuple[Weight, ...]] = {
            id(tensor): () if tensor.dim() == 0 else (Weight(name, tensor.numel(), _dtype(tensor)),)
            for tensor, name in stored.items()
        }
        self._names: dict[int, str] = {}
        self._edges: dict[str, Edge] = {}
        self._ops: list[Op] = []
        self._uncounted: Counter[str] = Counter()
        self._muted = False
        self._inputs = tuple(self._new_edge(item) for item in inputs)

    def recording(self, module: "nn.Module") -> "Any":
        """A context in which every operator that runs is recorded."""
        from contextlib import ExitStack

        from torch import nn
        from torch.overrides import TorchFunctionMode
        from torch.utils._python_dispatch import TorchDispatchMode

        trace = self

        class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
            def __torch_dispatch__(
                self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
            ) -> Any:
                result = trace.shortcut(func, args) if not kwargs else None
                if result is None:
                    result = func(*args, **(kwargs or {}))
                trace.record(func, args, kwargs or {}, result)
                return result

        class Recurrent(TorchFunctionMode):
            """A recurrent layer as one operator; below this level it is one operator per time step and gate."""

            def __torch_function__(
                self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
            ) -> Any:
                gates = GATES.get(getattr(func, "__name__", ""))
                if gates is None or trace._muted:
                    return func(*args, **(kwargs or {}))
                trace._muted = True
                try:
                    result = func(*args, **(kwargs or {}))
                finally:
                    trace._muted = False
                trace.record_recurrent(func.__name__, gates, args, result)
                return result

        stack = ExitStack()
        if any(isinstance(child, nn.RNNBase) for child in module.modules()):
            stack.enter_context(Recurrent())
        stack.enter_context(Dispatch())  # type: ignore[no-untyped-call]
        return stack

    def graph(self, result: Any, batch: int) -> Graph:
        """What was recorded, with the tensors in `result` (however nested) as outputs."""
        outputs = tuple(dict.fromkeys(self._names[id(item)] for item in _tensors(result) if id(item) in self._names))
        return Graph(tuple(self._ops), self._edges, self._inputs, outputs, batch, dict(self._uncounted))

    def shortcut(self, func: Any, args: tuple[Any, ...]) -> Any:
        """The result of a frequent operator on the meta device, where torch's own way to its shape is slow."""
        import torch

        first = args[0] if args else None
        if not isinstance(first, torch.Tensor) or not first.is_meta:
            return None
        name = _name(func)
        if name == "convolution" and not args[6] and first.shape[1] == args[1].shape[1] * args[8]:
            return first.new_empty(_conv_shape(first.shape, args[1].shape, *args[3:6]))
        if name in BATCHNORMS:
            none = first.new_empty(0)
            return (torch.empty_like(first), none, none, none)[: len(func._schema.returns)]
        if name in UNARY:
            return torch.empty_like(first)
        if name in BINARY:
            other = args[1]
            same = isinstance(other, torch.Tensor) and other.shape == first.shape and other.dtype == first.dtype
            return torch.empty_like(first) if same else None
        return first if name in UNARY_IN_PLACE else None

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note one operator."""
        if self._muted:
            self._held.append(result)
            return
        name = _name(func)
        taken = _tensors((args, tuple(kwargs.values())) if kwargs else args)
        made = _tensors(result)
        self._held.append(result)
        flowing = [item for item in taken if id(item) not in self._constants]
        if not flowing or name in FACTORIES or not made:
            sources = tuple(dict.fromkeys(w for item in taken for w in self._constants.get(id(item), ())))
            for item in made:
                self._constants[id(item)] = () if name in FACTORIES else sources
            return
        inputs = tuple(dict.fromkeys(self._edge_of(item) for item in flowing))
        weights = tuple(dict.fromkeys(w for item in taken for w in self._constants.get(id(item), ())))
        kind, macs, depth, groups, channels = self._counted(func, name, args, made, flowing)
        if kind == "view" and name != "as_strided" and self._edges[inputs[0]].elements != made[0].numel():
            kind = "copy"
        elif kind == "copy" and len(made) == 1 and name in ("slice", "expand", "select"):
            kind = "view" if self._edges[inputs[0]].elements == made[0].numel() else "copy"
        if kind in ("conv", "conv_transpose", "gemm"):
            weights = _with_bias(name, args, weights)
        elif kind not in ("matmul", "recurrent"):
            weights = tuple(item for item in weights if item.dtype in FLOATS)
        if kind == "batchnorm":
            made = made[:1]  # saved statistics are for training
        outputs = tuple(self._new_edge(item) for item in made if item.numel() or item.dim())
        window, strides = _steps(name, args)
        self._ops.append(
            Op(
                f"{name}_{len(self._ops)}",
                name,
                kind,
                inputs,
                outputs,
                macs,
                weights,
                depth,
                groups,
                channels,
                window=window,
                strides=strides,
            )
        )

    def record_recurrent(self, name: str, gates: int, args: tuple[Any, ...], result: Any) -> None:
        """Note one call of torch.lstm, torch.gru or torch.rnn_* on a padded batch."""
        source, parameters = args[0], args[2]
        batch_first, layers, bidirectional = bool(args[-1]), int(args[4]), bool(args[-2])
        self._held.append(result)
        rows, steps = (source.shape[0], source.shape[1]) if batch_first else (source.shape[1], source.shape[0])
        directions = 2 if bidirectional else 1
        hidden = int(parameters[1].shape[1])
        macs = sum(
            recurrent_macs(
                gates, steps, rows, source.shape[2] if layer == 0 else hidden * directions, hidden, directions
            )
            for layer in range(layers)
        )
        weights = tuple(
            Weight(w.name, w.elements, w.dtype, bias=item.dim() == 1)
            for item in parameters
            for w in self._constants.get(id(item), ())
        )
        flowing = [item for item in (source, *_tensors(args[1])) if id(item) not in self._constants]
        inputs = tuple(self._edge_of(item) for item in flowing)
        outputs = tuple(self._new_edge(item) for item in _tensors(result))
        self._ops.append(
            Op(
                f"{name}_{len(self._ops)}",
                name,
                "recurrent",
                inputs,
                outputs,
                macs,
                weights,
                source.shape[2] + hidden,
                1,
                hidden,
            )
        )

    def _counted(
        self, func: Any, name: str, args: tuple[Any, ...], made: "Sequence[Tensor]", flowing: "Sequence[Tensor]"
    ) -> tuple[Kind, int, int, int, int]:
        out = made[0]
        if name in ("convolution", "_convolution"):
            source, weight, transposed, groups = args[0], args[1], bool(args[6]), int(args[8])
            if transposed:
                channels = weight.shape[1] * groups
                macs, depth = conv_macs(source.numel(), channels, groups, weight.shape[2:])
                return "conv_transpose", macs, depth, groups, channels
            macs, depth = conv_macs(out.numel(), weight.shape[1] * groups, groups, weight.shape[2:])
            return "conv", macs, depth, groups, out.shape[1]
        if name in MATMULS:
            left = args[MATMULS[name]]
            right = args[MATMULS[name] + 1]
            depth = left.shape[-1]
            fixed = id(left) in self._constants or id(right) in self._constants
            return "gemm" if fixed else "matmul", out.numel() * depth, depth, 1, out.shape[-1] if out.dim() else 1
        if name in ("_fft_r2c", "_fft_c2c", "_fft_c2r"):
            axes = [int(axis) for axis in args[1]]
            shape = args[0].shape if name != "_fft_c2r" else out.shape
            points = prod(shape[axis] for axis in axes)
            return "fft", fft_macs(prod(shape) // max(points, 1), points, real=name != "_fft_c2c"), points, 1, 0
        if name in ATTENTIONS:
            query, key, value = args[0], args[1], args[2]
            scores = prod(query.shape[:-1]) * key.shape[-2]
            return "matmul", scores * (query.shape[-1] + value.shape[-1]), query.shape[-1], 1, 0
        kind = self._plain_kind(func, name)
        if kind == "other":
            self._uncounted[name] += 1
        return kind, 0, 0, 1, 0

    @staticmethod
    def _plain_kind(func: Any, name: str) -> Kind:
        known = KINDS.get(name)
        if known is not None:
            return known
        import torch

        if torch.Tag.pointwise in func.tags:
            return "pointwise"
        if "quantize" in name:
            return "view"  # fake quantisation: values on a grid, the same tensor to whoever counts
        if name.startswith(("upsample", "grid_sampler")):
            return "resize"
        return "view" if func.is_view else "other"

    def _edge_of(self, item: "Tensor") -> str:
        return self._names.get(id(item)) or self._new_edge(item)

    def _new_edge(self, item: "Tensor") -> str:
        name = f"t{len(self._edges)}"
        self._edges[name] = edge(name, item.shape, _dtype(item))
        self._names[id(item)] = name
        self._held.append(item)
        return name


GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
MATMULS = {"mm": 0, "bmm": 0, "matmul": 0, "linear": 0, "addmm": 1, "baddbmm": 1, "_int_mm": 0, "mv": 0, "dot": 0}
ATTENTIONS = frozenset(
    [
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_fused_attention_overrideable",
        "scaled_dot_product_attention",
    ]
)


def _steps(name: str, args: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Extent per axis of the window that a convolution slides over its input, and its strides."""
    if name not in ("convolution", "_convolution"):
        return (), ()
    window = tuple(args[1].shape[2:])
    strides = tuple(args[3])
    return window, strides * (len(window) if len(strides) == 1 else 1)


def _with_bias(name: str, args: tuple[Any, ...], weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    """Mark the bias among an operator's weights: the third argument of a convolution, the first of addmm."""
    position = 0 if name in ("addmm", "baddbmm") else 2
    bias = args[position] if len(args) > position else None
    if bias is None or isinstance(bias, bool | int | float) or len(weights) < 2:
        return weights
    at = 0 if position == 0 else len(weights) - 1
    return tuple(
        Weight(item.name, item.elements, item.dtype, bias=True) if index == at else item
        for index, item in enumerate(weights)
    )


def _conv_shape(
    source: Sequence[int], weight: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Shape of a convolution's output; a single stride, padding or dilation holds for every axis."""
    axes = len(source) - 2
    strides, paddings, dilations = (
        list(item) * (axes if len(item) == 1 else 1) for item in (stride, padding, dilation)
    )
    shape = [source[0], weight[0]]
    for axis in range(axes):
        reach = dilations[axis] * (weight[axis + 2] - 1) + 1
        shape.append((source[axis + 2] + 2 * paddings[axis] - reach) // strides[axis] + 1)
    return shape


def _name(func: Any) -> str:
    """An operator's name without its namespace and overload."""
    known = _NAMES.get(func)
    if known is None:
        known = _NAMES[func] = str(func._schema.name).split("::")[-1]
    return known


_NAMES: dict[Any, str] = {}


def _tensors(value: Any) -> "list[Tensor]":
    """All tensors in nested sequences and mappings, in order."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    return []


def _dtype(item: "Tensor") -> str:
    return _DTYPES.get(item.dtype) or _DTYPES.setdefault(item.dtype, str(item.dtype).split(".")[-1].split("_")[0])


_DTYPES: "dict[torch.dtype, str]" = {}
