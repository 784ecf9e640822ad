"""D1 to D12: whether a node runs on the deep-learning accelerator of an Orin or Xavier.

The table is NVIDIA's; nothing here has been run on a DLA. Rows that the page states and nobody here could open again
(pooling windows, resize, softmax) are marked in their rule's source.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from exporters import graph
from exporters.lint.codes import code_type
from exporters.lint.finding import ALL, DLA_PAGE, TENSORRT, Finding, Hit, Rule
from exporters.lint.view import QUANTIZERS, View, moves, numbers, ordinary
from exporters.passes.strip_traces import module_name

BATCH, SIZE = 4096, 8192
LOADABLES = 16  # per core
_SHAPES_ONLY = frozenset({"Shape", "Constant", "ConstantOfShape"})
_ACTIVATIONS = frozenset({"Relu", "Sigmoid", "Tanh", "Clip", "LeakyRelu"})
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Max", "Min", "Div", "Pow", "Sum"})
_COMPARISONS = frozenset({"Equal", "Greater", "Less"})
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_TAKEN = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "Concat", "PRelu", "BatchNormalization", "Reshape", "Flatten", "Slice", "Softmax",
     "Resize", "Transpose", "Cast", "Identity", "ReduceMean", "Squeeze", "Unsqueeze", "Split"}
) | _ACTIVATIONS | _ELEMENTWISE | _COMPARISONS | _POOLS  # fmt: skip


@dataclass(frozen=True)
class OnDla:
    """Where one node runs."""

    node: str
    module: str
    operator: str
    runs: bool  # on the DLA; else it falls back to the GPU
    rules: tuple[str, ...]  # that it breaks
    why: str


def has_dla(view: View) -> bool:
    """Whether the target's module has one."""
    return view.device.dla_tops > 0


def _version(view: View) -> tuple[int, int, int] | None:
    try:
        parts = [int(part) for part in view.device.version.split(".")]
    except ValueError:
        return None
    return (*parts, 0, 0, 0)[:3] if parts else None  # type: ignore[return-value]


def _there(view: View) -> Iterator[Hit]:
    if not has_dla(view):
        yield Hit(None, f"{view.device.name or 'the target'} has no DLA", "leave --dla out")
        return
    version = _version(view)
    if version is not None and (10, 7, 0) < version < (11, 4, 1) and version[:2] != (10, 7):
        yield Hit(
            None,
            f"TensorRT {view.device.version} has no DLA: 10.7 is the last that has, until 11.4.1",
            "build with TensorRT 10.7 or earlier, or with 11.4.1 on an AGX Orin",
        )
    elif version is not None and version >= (11, 4, 1) and "agx_orin" not in view.device.name:
        yield Hit(None, f"TensorRT {view.device.version} has the DLA of AGX Orin only", "build with TensorRT 10.7")


def _explicit(view: View) -> Iterator[Hit]:
    version = _version(view)
    if version is not None and version < (11, 0, 0):
        first = next(view.quantizers(), None)
        if first is not None:
            yield Hit(
                first,
                f"Q/DQ in the graph are not how TensorRT {view.device.version} takes int8 for a DLA",
                "strip Q/DQ into a calibration cache (NVIDIA-AI-IOT/cuDLA-samples, export), or use TensorRT 11.4.1 "
                "with ADJUST_FOR_DLA",
            )


def _static(view: View) -> Iterator[Hit]:
    for name in view.inputs:
        shape = view.shape(name)
        if shape is None or any(not isinstance(size, int) for size in shape):
            yield Hit(
                None,
                f"input {name!r} is dynamic: {list(shape) if shape is not None else 'unknown'}; a DLA wants one batch "
                "size per loadable",
                "export with dynamic_batch=False",
            )


def _sizes(view: View) -> Iterator[Hit]:
    for node in _computing(view):
        for name in (*node.input, *node.output):
            shape = view.shape(name) if name and name not in view.fixed else None
            known = [size if isinstance(size, int) else 1 for size in shape or ()]
            batch = 1
            for size in known[:-3]:
                batch *= size
            if batch > BATCH or any(size > SIZE for size in known[-3:]):
                yield Hit(
                    node,
                    f"{name} is {known}: batches go up to {BATCH}, other sizes to {SIZE}",
                    "split it, or let it run on the GPU",
                )
                break


def _precision(view: View) -> Iterator[Hit]:
    for node in _computing(view):
        for name in node.input[:1]:
            if name in view.fixed or not name or moves(node):
                continue
            maker = view.makers.get(name)
            if view.type(name) == TensorProto.FLOAT and (maker is None or maker.op_type != "DequantizeLinear"):
                behind = view.readers.get(node.output[0], [])
                if not _in_int8_chain(view, node, behind):
                    yield Hit(node, "it computes in float32; a DLA has float16 and int8", "cast it to float16")


def _in_int8_chain(view: View, node: NodeProto, behind: Iterable[NodeProto]) -> bool:
    """An activation or add between an int8 convolution and the next QuantizeLinear joins it."""
    if node.op_type not in _ACTIVATIONS | _ELEMENTWISE | {"BatchNormalization"}:
        return False
    start = view.before(node.input[0], _ACTIVATIONS | _ELEMENTWISE | {"BatchNormalization"})
    return start in view.quantised or any(reader.op_type == "QuantizeLinear" for reader in behind)


def _convolution(view: View) -> Iterator[Hit]:
    for node in _computing(view):
        if node.op_type not in ("Conv", "Gemm"):
            continue
        shape = view.shape(node.input[1])
        if shape is None or not all(isinstance(size, int) for size in shape):
            continue
        sizes = [int(size) for size in shape]
        said = []
        if node.op_type == "Conv":
            if len(sizes) != 4:
                said.append(f"it is {len(sizes) - 2}-D, a DLA has 2-D ones")
            if any(not 1 <= size <= 32 for size in sizes[2:]):
                said.append(f"kernel {sizes[2:]} is outside 1 to 32")
            strides = numbers(node, "strides", [1])
            if any(not 1 <= stride <= 8 for stride in strides):
                said.append(f"stride {strides} is outside 1 to 8")
            sizes = [sizes[0], sizes[1] * graph.attribute(node, "group", 1)]
        if any(not 1 <= size <= SIZE for size in sizes[:2]):
            said.append(f"channels {sizes[:2]} are outside 1 to {SIZE}")
        if said:
            yield Hit(node, "; ".join(said), "change the student's layer, or let it run on the GPU")


def _deconvolution(view: View) -> Iterator[Hit]:
    for node in _computing(view):
        if node.op_type != "ConvTranspose":
            continue
        shape = view.shape(node.input[1])
        said = [] if shape is None or len(shape) == 4 else [f"it is {len(shape) - 2}-D"]
        if graph.attribute(node, "group", 1) != 1:
            said.append("it has groups")
        if any(value != 1 for value in numbers(node, "dilations", [1])):
            said.append("it is dilated")
        if any(value != 0 for value in numbers(node, "pads", [0])):
            said.append("its padding is not 0")
        if said:
            yield Hit(node, "; ".join(said), "transposed convolutions without groups, dilation and padding run there")


def _concat(view: View) -> Iterator[Hit]:
    for node in _computing(view):
        if node.op_type != "Concat":
            continue
        shapes = [shape for name in node.input if (shape := view.shape(name)) is not None]
        rank = len(shapes[0]) if shapes else 4
        axis = graph.attribute(node, "axis", 1) % max(rank, 1)
        if axis != 1:
            yield Hit(node, f"it joins along axis {axis}; a DLA joins channels (axis 1)", "join channels")


def _elementwise(view: View) -> Iterator[Hit]:
    for node in _computing(view):
        if node.op_type == "PRelu" and len(node.input) > 1 and node.input[1] not in view.fixed:
            yield Hit(node, "the slope is computed; a DLA wants a constant", "use a constant slope")
        if node.op_type in _COMPARISONS:
            readers = view.readers.get(node.output[0], [])
            if not readers or any(reader.op_type != "Cast" for reader in readers):
                yield Hit(node, "a comparison must be cast right away", "cast its result to float16 or int8")
        if node.op_type == "Clip" and any(name in view.inputs for name in node.input[1:]):
            yield Hit(node, "its bounds are computed", "use constant bounds")


def _pools(view: View) -> Iterator[Hit]:
    for node in _computing(view):
        if node.op_type in ("MaxPool", "AveragePool"):
            kernel = numbers(node, "kernel_shape", [1])
            if len(kernel) != 2 or any(not 1 <= size <= 8 for size in kernel):
                yield Hit(node, f"window {kernel}: 2-D ones of 1 to 8 run there", "use a smaller window")
            elif any(not 1 <= stride <= 16 for stride in numbers(node, "strides", [1])):
                yield Hit(node, "stride is outside 1 to 16", "use a smaller stride")


def _operators(view: View) -> Iterator[Hit]:
    for node in _computing(view):
        if not ordinary(node) or node.op_type not in _TAKEN:
            fix = "write it as Gemm or a 1x1 Conv" if node.op_type == "MatMul" else "let it run on the GPU"
            yield Hit(node, f"a DLA has no {node.op_type}", fix)


def _computing(view: View) -> Iterator[NodeProto]:
    """Nodes that run: no quantisers, nothing that is folded."""
    for node in view.nodes:
        if node.op_type in QUANTIZERS or node.op_type in _SHAPES_ONLY:
            continue
        if node.output and node.output[0] in view.fixed:
            continue
        yield node


def _asymmetric(view: View) -> Iterator[Hit]:
    for node in view.quantizers():
        zero = view.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if zero is not None and zero.astype("f8").any() and code_type(view, node) != TensorProto.UINT8:
            yield Hit(node, "asymmetric int8; a DLA 3.16 of an Orin takes asymmetric uint8 only", "use zero point 0")


def verdicts(view: View, found: Iterable[Finding]) -> tuple[OnDla, ...]:
    """Each computing node, in graph order, with the restrictions that it breaks itself.

    What holds for the whole model (D1, D2) is not repeated at each node.
    """
    broken: dict[str, list[Finding]] = {}
    for finding in found:
        if finding.rule.startswith("D") and finding.node:
            broken.setdefault(finding.node, []).append(finding)
    rows = []
    for node in _computing(view):
        mine = broken.get(node.name, [])
        rows.append(
            OnDla(
                node.name,
                module_name(node),
                node.op_type,
                not mine,
                tuple(dict.fromkeys(finding.rule for finding in mine)),
                "; ".join(finding.what for finding in mine),
            )
        )
    return tuple(rows)


def loadables(rows: Iterable[OnDla]) -> int:
    """Runs of neighbouring nodes on the DLA: each becomes a loadable of its own."""
    count, inside = 0, False
    for row in rows:
        count += row.runs and not inside
        inside = row.runs
    return count


def _rule(
    number: int,
    title: str,
    check: Callable[[View], Iterable[Hit]],
    source: str = "",
    level: str = "slow",
    runtimes: frozenset[str] = TENSORRT,
) -> Rule:
    return Rule(f"D{number}", title, source or DLA_PAGE, level, runtimes, check)  # type: ignore[arg-type]


RULES = (
    _rule(1, "The module has a DLA, and this TensorRT can use it", _there,
          'TensorRT documentation, "Working with DLA" of 10.7, 11.1 and 11.4.1', "refused", ALL),
    _rule(2, "Shapes are static: one batch size per loadable", _static, level="refused"),
    _rule(3, f"Batches up to {BATCH}, other sizes up to {SIZE}", _sizes),
    _rule(4, "float16 or int8, no float32", _precision),
    _rule(5, f"Convolution and Gemm: 2-D, kernel 1 to 32, stride 1 to 8, channels 1 to {SIZE}", _convolution),
    _rule(6, "Transposed convolution: 2-D, no groups, no dilation, padding 0", _deconvolution),
    _rule(7, "Concat joins channels", _concat),
    _rule(8, "PRelu and Clip have constant slopes and bounds; comparisons are cast at once", _elementwise),
    _rule(9, "Pooling windows of 1 to 8, strides of 1 to 16", _pools, f"{DLA_PAGE} (8.x; not opened again)"),
    _rule(10, "Operators that a DLA has", _operators, f"{DLA_PAGE}; Softmax and Resize with further limits"),
    _rule(11, "Explicit Q/DQ need TensorRT 11", _explicit,
          'TensorRT documentation, "Strongly Typed Networks for DLA"; NVIDIA-AI-IOT/cuDLA-samples'),
    _rule(12, "Asymmetric codes are uint8", _asymmetric, '"ONNX Parser Flags for DLA"'),
)  # fmt: skip
