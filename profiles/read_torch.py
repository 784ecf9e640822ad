"""A torch module as a neutral graph, traced on the meta device: no arithmetic, no export.

The module's own forward runs once under a dispatch mode with parameters that have shapes and no data. A module that
asks for values (`tensor.item()`, control flow on data) cannot run so; it is then run once on its real parameters and
the example itself.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

from profiles.errors import ProfileError
from profiles.graph import FLOATS, Edge, Graph, Kind, Op, Span, Weight, conv_macs, edge, fft_macs, recurrent_macs
from profiles.torch_kinds import FACTORIES, KINDS

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    _Modules = Sequence[tuple[str, nn.Module]]
    _Stored = list[tuple[Tensor, str]]  # parameters and buffers with their names


def read(module: "nn.Module", example: "Tensor | Sequence[Tensor] | Mapping[str, Tensor]", batch: int = 1) -> Graph:
    """Trace a module for one batch size.

    Args:
        module: left as it is; its training flags are restored.
        example: what its forward takes: one tensor, several, or keyword arguments. Only shapes and types are used;
            the first dimension of each becomes `batch`.

    Raises:
        ProfileError: the module's forward fails on such inputs.
    """
    return read_spans(module, example, (), batch)[0]


def read_spans(
    module: "nn.Module",
    example: "Tensor | Sequence[Tensor] | Mapping[str, Tensor]",
    names: Sequence[str],
    batch: int = 1,
) -> tuple[Graph, dict[str, Span]]:
    """The same, and where in the graph some submodules are.

    Args:
        names: of submodules that run once, with one tensor going in and one coming out.

    Raises:
        ProfileError: as `read`.
    """
    import torch

    spans: dict[str, Span] = {}
    positional, keywords = _resized(example, batch)
    modules = list(module.named_modules())
    with torch.no_grad(), _inference(modules):
        try:
            shells = [_shell(item) for item in positional], {key: _shell(item) for key, item in keywords.items()}
            with _without_data(modules) as stored:
                return _trace(module, modules, stored, *shells, batch, names, spans), spans
        except (RuntimeError, NotImplementedError, ValueError):
            pass  # it needs values: try with some
        try:
            named = [*module.named_parameters(), *module.named_buffers()]
            stored = [(item, name) for name, item in named]
            return _trace(module, modules, stored, positional, keywords, batch, names, spans), spans
        except (RuntimeError, NotImplementedError, ValueError, TypeError, IndexError) as error:
            shapes = ", ".join(str(tuple(item.shape)) for item in (*positional, *keywords.values()))
            raise ProfileError(
                f"{type(module).__name__} fails on inputs of shape {shapes}: {_first_line(error)}",
                fix="pass example inputs that its forward takes, with the batch in the first dimension",
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def _inference(modules: "_Modules") -> Iterator[None]:
    """Evaluation mode for a while, set on the flags themselves: `eval()` may be overridden or refused.

    Fused kernels of whole encoder layers, which evaluation mode allows, are switched off: they hide their operators.
    """
    import torch

    training = [child for _, child in modules if child.training]
    fused = torch.backends.mha.get_fastpath_enabled()
    for child in training:
        child.training = False
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for child in training:
            child.training = True


def _trace(
    module: "nn.Module",
    modules: "_Modules",
    stored: "_Stored",
    inputs: "list[Tensor]",
    keywords: "dict[str, Tensor]",
    batch: int,
    names: Sequence[str],
    spans: dict[str, Span],
) -> Graph:
    trace = _Trace(stored, [*inputs, *keywords.values()])
    spans.clear()
    with trace.recording(modules), ExitStack() as watches:
        for name in names:
            watches.enter_context(trace.watching(name, module.get_submodule(name), spans))
        return trace.graph(module(*inputs, **keywords), batch)


@contextmanager
def _without_data(modules: "_Modules") -> "Iterator[_Stored]":
    """The modules' parameters and buffers replaced by shells on the meta device, which have a shape and no data.

    `torch.func.functional_call` does the same and takes longer than the whole trace of a small network.
    """
    stored: _Stored = []
    shells: dict[int, Tensor] = {}  # of the real tensor: shared tensors share their shell
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for prefix, child in modules:
            tables: tuple[dict[str, Any], ...] = (child._parameters, child._buffers)
            for table in tables:
                for key, real in table.items():
                    if real is None:
                        continue
                    shell = shells.get(id(real))
                    if shell is None:
                        shell = shells[id(real)] = _shell(real)
                        stored.append((shell, f"{prefix}.{key}" if prefix else key))
                    replaced.append((table, key, real))
                    table[key] = shell
        yield stored
    finally:
        for table, key, real in replaced:
            table[key] = real


def _resized(example: Any, batch: int) -> "tuple[list[Tensor], dict[str, Tensor]]":
    import torch

    if batch < 1:
        raise ProfileError(f"batch is {batch}", fix="pass a batch of at least 1")
    if isinstance(example, torch.Tensor):
        example = [example]
    if isinstance(example, Mapping) and all(isinstance(item, torch.Tensor) for item in example.values()):
        return [], dict(zip(example, _with_batch(list(example.values()), batch), strict=True))
    if isinstance(example, Sequence) and all(isinstance(item, torch.Tensor) for item in example):
        return _with_batch(example, batch), {}
    raise ProfileError(
        f"the example of a torch module is a {type(example).__name__}",
        fix="pass example=tensor, a tuple of tensors, or a dictionary of keyword tensors",
    )


def _with_batch(items: "Sequence[Tensor]", batch: int) -> "list[Tensor]":
    """The inputs with another batch: those that share the first one's first dimension get it, others keep theirs."""
    first = next((item.shape[0] for item in items if item.dim() > 0), batch)
    return [
        item.new_zeros((batch, *item.shape[1:])) if item.dim() and first != batch and item.shape[0] == first else item
        for item in items
    ]


def _shell(item: "Tensor") -> "Tensor":
    """A tensor of that shape without data; `empty_like` does the same through torch's reference code, which is slow."""
    import torch

    return torch.empty_strided(item.shape, item.stride(), dtype=item.dtype, device="meta")


class _Trace:
    """What a forward does, operator by operator. Tensors are held until the end, so an id names one tensor."""

    def __init__(self, stored: "_Stored", inputs: "Sequence[Tensor]") -> None:
        self._held: list[Any] = [stored, *inputs]
        self._constants: dict[int, tuple[Weight, ...]] = {
            id(tensor): () if tensor.dim() == 0 else (Weight(name, tensor.numel(), _dtype(tensor)),)
            for tensor, name in stored
        }
        self._names: dict[int, str] = {}
        self._edges: dict[str, Edge] = {}
        self._ops: list[Op] = []
        self._uncounted: Counter[str] = Counter()
        self.muted = False  # inside of an operator that is noted as a whole
        self._inputs = tuple(self._new_edge(item) for item in inputs)

    def recording(self, modules: "_Modules") -> ExitStack:
        """A context in which every operator that runs is recorded."""
        from torch import nn

        dispatch, recurrent = _modes()
        stack = ExitStack()
        if any(isinstance(child, nn.RNNBase) for _, child in modules):
            stack.enter_context(recurrent(self))
        stack.enter_context(dispatch(self))
        return stack

    @contextmanager
    def watching(self, name: str, module: "nn.Module", spans: dict[str, Span]) -> Iterator[None]:
        """A context in which the module's calls are noted in `spans`, the last one last."""
        before: list[tuple[int, str]] = []

        def enter(_module: Any, inputs: Any) -> None:
            before.append((len(self._ops), self._names.get(id(inputs[0]), "") if inputs else ""))

        def leave(_module: Any, _inputs: Any, output: Any) -> None:
            first, into = before.pop()
            spans[name] = Span(first, len(self._ops), into, self._names.get(id(output), ""))

        hooks = (module.register_forward_pre_hook(enter), module.register_forward_hook(leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def graph(self, result: Any, batch: int) -> Graph:
        """What was recorded, with the tensors in `result` (however nested) as outputs."""
        outputs = tuple(dict.fromkeys(self._names[id(item)] for item in _tensors(result) if id(item) in self._names))
        return Graph(tuple(self._ops), self._edges, self._inputs, outputs, batch, dict(self._uncounted))

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note one operator."""
        if self.muted:
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
        base = self._written_through(taken, made)
        if base is not None:
            made = [base]
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
            stored = FLOATS | _CODES if name == "embedding" else FLOATS  # other integers are places
            weights = tuple(item for item in weights if item.dtype in stored)
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

    def _written_through(self, taken: "Sequence[Tensor]", made: "Sequence[Tensor]") -> "Tensor | None":
        """The constant that a view belongs to, where an operator writes into it: `buffer[:, 0] = x` changes `buffer`.

        It is no constant from here on, nor is what an operator writes into directly.
        """
        if not taken or made[0] is not taken[0]:
            return None
        self._constants.pop(id(made[0]), None)
        base = made[0]._base
        return base if base is not None and self._constants.pop(id(base), None) is not None else None

    def record_recurrent(self, name: str, gates: int, args: tuple[Any, ...], result: Any) -> None:
        """Note one call of torch.lstm, torch.gru or torch.rnn_* on a padded or a packed batch."""
        packed = isinstance(args[3], list | tuple)  # (rows, inputs) of all steps one behind the other
        source, states, parameters = args[0], args[2 if packed else 1], args[3 if packed else 2]
        layers, bidirectional = int(args[5 if packed else 4]), bool(args[-1 if packed else -2])
        self._held.append(result)
        directions = 2 if bidirectional else 1
        hidden = int(parameters[0].shape[0]) // gates
        state = int(parameters[1].shape[1])  # smaller than `hidden` where the layer projects its state
        rows = source.numel() // source.shape[-1]  # steps times batch
        macs = 0
        for layer in range(layers):
            inputs = source.shape[-1] if layer == 0 else state * directions
            macs += recurrent_macs(gates, rows, 1, inputs + state - hidden, hidden, directions)
            macs += directions * rows * hidden * state if state != hidden else 0
        weights = tuple(
            Weight(w.name, w.elements, w.dtype, bias=item.dim() == 1)
            for item in parameters
            for w in self._constants.get(id(item), ())
        )
        flowing = [item for item in (source, *_tensors(states)) if id(item) not in self._constants]
        edges = tuple(self._edge_of(item) for item in flowing)
        outputs = tuple(self._new_edge(item) for item in _tensors(result))
        self._ops.append(
            Op(
                f"{name}_{len(self._ops)}",
                name,
                "recurrent",
                edges,
                outputs,
                macs,
                weights,
                source.shape[-1] + state,
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
        if name == "_cdist_forward":
            depth = args[0].shape[-1]
            return "matmul", out.numel() * depth, depth, 1, 0
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
MATMULS = {"mm": 0, "bmm": 0, "matmul": 0, "linear": 0, "addmm": 1, "baddbmm": 1, "_int_mm": 0, "_scaled_mm": 0,
           "_weight_int8pack_mm": 0, "mv": 0, "addmv": 1, "dot": 0, "vdot": 0}  # fmt: skip
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


_CODES = frozenset({"int8", "uint8"})  # of a table that is stored quantised


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


@cache
def _modes() -> tuple[Any, Any]:
    """The two contexts that see a forward's calls. torch is loaded when they are asked for."""
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        """Every operator of aten."""

        def __init__(self, trace: _Trace) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.trace = trace

        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # nothing is compiled here, and guarding against it takes a tenth of the time

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            result = _run(func, args, kwargs or {})
            self.trace.record(func, args, kwargs or {}, result)
            return result

    class Recurrent(TorchFunctionMode):
        """A recurrent layer as one operator; below this level it is one operator per time step and gate."""

        def __init__(self, trace: _Trace) -> None:
            super().__init__()
            self.trace = trace

        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            gates = GATES.get(getattr(func, "__name__", ""))
            if gates is None or self.trace.muted:
                return func(*args, **(kwargs or {}))
            self.trace.muted = True
            try:
                result = func(*args, **(kwargs or {}))
            finally:
                self.trace.muted = False
            self.trace.record_recurrent(func.__name__, gates, args, result)
            return result

    return Dispatch, Recurrent


_KNOWN_RESULTS: dict[Any, Any] = {}  # signature of a call on the meta device -> shapes of what it makes
_MOST_RESULTS = 8192


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator. On the meta device its result has only a shape, which is remembered from one call to the next:
    torch finds most shapes in Python, in many times what the rest of this reader takes.
    """
    if not _is_pure(func):
        return func(*args, **kwargs)
    signature = _signature((args, tuple(kwargs.items())) if kwargs else args)
    if signature is None:
        return func(*args, **kwargs)
    key = (func, signature)
    known = _KNOWN_RESULTS.get(key)
    if known is not None:
        return _rebuilt(known)
    result = func(*args, **kwargs)
    template = _template(result)
    if template is not None:
        if len(_KNOWN_RESULTS) >= _MOST_RESULTS:
            _KNOWN_RESULTS.clear()
        _KNOWN_RESULTS[key] = template
    return result


def _is_pure(func: Any) -> bool:
    """Whether an operator makes fresh tensors: no views, nothing in place."""
    known = _PURE.get(func)
    if known is None:
        schema = func._schema
        aliases = any(item.alias_info is not None for item in (*schema.arguments, *schema.returns))
        known = _PURE[func] = not aliases and not schema.is_mutable and _name(func) not in FACTORIES
    return known


_PURE: dict[Any, bool] = {}


def _signature(value: Any) -> Any:
    """What the shape of a call's result depends on; None where a tensor with data or an unknown type is among it."""
    import torch

    parts: list[Any] = []
    for item in value:
        if isinstance(item, torch.Tensor):
            if not item.is_meta:
                return None
            parts.append((item.shape, item.stride(), item.dtype))
        elif item is None or isinstance(item, str | torch.dtype | torch.layout | torch.device):
            parts.append(item)
        elif isinstance(item, bool | int | float):
            parts.append((type(item), item))  # 2 and 2.0 promote differently, and are equal
        elif isinstance(item, list | tuple):
            inner = _signature(item)
            if inner is None:
                return None
            parts.append(inner)
        else:
            return None
    return tuple(parts)


def _template(result: Any) -> Any:
    """Shapes, strides and types of a result; None where it is more than tensors on the meta device."""
    import torch

    if isinstance(result, torch.Tensor):
        return (result.shape, result.stride(), result.dtype) if result.is_meta else None
    if isinstance(result, list | tuple) and all(isinstance(item, torch.Tensor) and item.is_meta for item in result):
        return type(result), [(item.shape, item.stride(), item.dtype) for item in result]
    return None


def _rebuilt(template: Any) -> Any:
    import torch

    if len(template) == 3:
        return torch.empty_strided(template[0], template[1], dtype=template[2], device="meta")
    kind, items = template
    return kind(torch.empty_strided(*item[:2], dtype=item[2], device="meta") for item in items)


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
    if isinstance(value, dict):
        value = tuple(value.values())
    elif not isinstance(value, list | tuple):
        return _tensors(tuple(value.values())) if isinstance(value, Mapping) else []
    found: list[Tensor] = []
    for item in value:
        if isinstance(item, torch.Tensor):
            found.append(item)
        elif isinstance(item, list | tuple | Mapping):
            found += _tensors(item)
    return found


def _dtype(item: "Tensor") -> str:
    return _DTYPES.get(item.dtype) or _DTYPES.setdefault(item.dtype, str(item.dtype).split(".")[-1].split("_")[0])


_DTYPES: "dict[torch.dtype, str]" = {}
