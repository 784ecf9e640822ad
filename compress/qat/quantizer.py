"""Where Q/DQ stand: the contract that a runtime's file fills, and the graph mechanics that all of them share.

A runtime's file ends in `RULES = Rules(...)`: the grid of activations and a function that marks one exported graph
through a `Placement`. Marks are torchao pt2e annotations: an edge (producer, consumer) or a node's output carries a
specification, and edges that look at one tensor share one scale.
"""

import importlib
import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from compress.errors import RecipeError
from compress.qat.fake_quantize import WEIGHT_CODE
from compress.qat.rounding import Rounding
from exporters.half.formats import HalfFormat
from exporters.rewrite import Pass

aten = torch.ops.aten

CONVOLUTIONS = frozenset(
    {aten.conv1d.default, aten.conv2d.default, aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.default}
)
LINEAR = aten.linear.default
WITHOUT_INT8 = {  # weighted operators that no runtime here runs in int8
    aten.conv_transpose1d.default: "transposed convolutions have no int8 kernel",
    aten.conv_transpose2d.input: "transposed convolutions have no int8 kernel",
    aten.gru.input: "recurrent layers have no int8 kernel",
    aten.lstm.input: "recurrent layers have no int8 kernel",
    aten.scaled_dot_product_attention.default: "attention is one operator here; write it as two matmuls",
}
LOOKUP = aten.embedding.default
PRODUCTS = frozenset({aten.matmul.default, aten.bmm.default, aten.mm.default})
BATCH_NORM = aten.batch_norm.default
DROPOUTS = frozenset({aten.dropout.default, aten.feature_dropout.default})
CLAMPS = frozenset({aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default})
CURVES = frozenset(
    {
        aten.hardswish.default,
        aten.hardsigmoid.default,
        aten.sigmoid.default,
        aten.tanh.default,
        aten.silu.default,
        aten.gelu.default,
        aten.leaky_relu.default,
        aten.elu.default,
    }
)
ADDS = frozenset({aten.add.Tensor, aten.sub.Tensor})
MULTIPLY = aten.mul.Tensor
CONCAT = aten.cat.default
MAX_POOLS = frozenset({aten.max_pool1d.default, aten.max_pool2d.default, aten.adaptive_max_pool2d.default})
AVERAGES = frozenset(
    {
        aten.avg_pool1d.default,
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool1d.default,
        aten.adaptive_avg_pool2d.default,
    }
)
MEAN = aten.mean.dim
MOVES = frozenset(  # operators that only move values, so that codes and scale stay as they are
    {
        aten.flatten.using_ints,
        aten.view.default,
        aten.reshape.default,
        aten.permute.default,
        aten.transpose.int,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.squeeze.default,
        aten.unsqueeze.default,
        aten.slice.Tensor,
        aten.select.int,
        aten.contiguous.default,
        aten.clone.default,
        aten.alias.default,
        aten.upsample_nearest1d.vec,
        aten.upsample_nearest2d.vec,
        aten.pixel_shuffle.default,
        aten.channel_shuffle.default,
    }
)


@dataclass(frozen=True)
class Site:
    """One operator with weights or a product, and whether it runs in integers."""

    node: str  # name in the exported graph
    module: str  # path in the student
    operator: str
    quantized: bool
    reason: str = ""  # why not, where it is float


@dataclass(frozen=True)
class Rules:
    """What one runtime family needs.

    Args:
        low_code, high_code: grid of activations.
        symmetric: zero point 0.
        mark: places the marks; returns the sites in graph order.
        ships: the number format of the layers that it marks, or of the whole network where it marks none: int8, fp8,
            int4, fp16, bf16, fp32.
        least_opset: of the ONNX that the format is written in.
        rounding: modules that round, where the grid is not the int8 one that recipes choose for.
        half: what everything that is not marked is written in; None leaves that to the target.
        fine_tunes: whether training with it can mend anything; what only rounds to 16 bits needs none.
        captured: rewrites of the captured student that this runtime alone wants, in place, before it is marked.
        passes: rewrites of the exported graph that this runtime alone wants, behind all others.
    """

    dtype: torch.dtype
    low_code: int
    high_code: int
    symmetric: bool
    mark: Callable[["Placement"], list[Site]]
    ships: str = "int8"
    least_opset: int = 13
    rounding: Rounding | None = None
    half: HalfFormat | None = None
    fine_tunes: bool = True
    captured: tuple[Callable[[GraphModule], None], ...] = ()
    passes: tuple[Pass, ...] = ()


def names() -> tuple[str, ...]:
    """The runtimes there are: the files of this folder that end in `RULES = Rules(...)`."""
    folder = Path(__file__).parent
    return tuple(sorted(path.stem for path in folder.glob("*.py") if "\nRULES = " in path.read_text("utf-8")))


def rules(name: str) -> Rules:
    """The rules of a runtime.

    Raises:
        RecipeError: there is none of this name.
    """
    if name not in names():
        raise RecipeError(
            f"no quantizer is called {name!r}; there are {', '.join(names())}",
            fix="set the target's quantizer to one of these, or add compress/qat/<name>.py",
        )
    found = importlib.import_module(f"compress.qat.{name}").RULES
    if not isinstance(found, Rules):
        raise TypeError(f"compress.qat.{name}.RULES is a {type(found).__name__}, not Rules")
    return found


class Placement:
    """The marks on one exported graph.

    Args:
        model: exported, in-place operators already replaced.
        grid: the runtime's rules.
        rounding: the modules that round.
        float_modules: paths in the student whose inside stays float.
    """

    def __init__(self, model: GraphModule, grid: Rules, rounding: Rounding, float_modules: tuple[str, ...]) -> None:
        rounding = grid.rounding or rounding
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self.nodes = [
            node
            for node in model.graph.nodes
            if node.op == "call_function" and not _inside(module_path(node), float_modules)
        ]
        self._activation = QuantizationSpec(
            dtype=grid.dtype,
            observer_or_fake_quant_ctr=rounding.activation,
            quant_min=grid.low_code,
            quant_max=grid.high_code,
            qscheme=torch.per_tensor_symmetric if grid.symmetric else torch.per_tensor_affine,
        )
        self._rounding = rounding
        self._first: dict[Node, tuple[Node, Node]] = {}  # tensor -> the first edge that quantises it

    def is_weight(self, value: object) -> bool:
        """Whether the argument is a parameter read straight from the module."""
        return isinstance(value, Node) and value.op == "get_attr" and str(value.target) in self._parameters

    def input(self, source: Node, consumer: Node) -> None:
        """Quantise `source` where `consumer` reads it; one scale for all such readers of one tensor.

        A tensor that was only moved or max-pooled on the way counts as the same tensor: its values are a subset.
        """
        while source.target in DROPOUTS:  # round before dropout: its 1 / (1 - p) would stretch the range
            source, consumer = source.all_input_nodes[0], source
        root = carried(source)
        if root in self._first and self._first[root] != (source, consumer):
            self.input_like(source, consumer, self._first[root])
        else:
            self._first[root] = (source, consumer)
            _annotation(consumer).input_qspec_map[source] = self._activation

    def input_like(self, source: Node, consumer: Node, like: "tuple[Node, Node]") -> None:
        """Quantise `source` where `consumer` reads it, with the scale of another edge."""
        _annotation(consumer).input_qspec_map[source] = SharedQuantizationSpec(like)

    def one_scale(self, sources: list[Node], consumer: Node) -> tuple[Node, Node]:
        """Quantise all inputs of `consumer`, and whatever else reads them, with one scale; returns its first edge."""
        self.input(sources[0], consumer)
        first = (sources[0], consumer)
        for source in sources[1:]:
            self.input_like(source, consumer, first)
            self._first.setdefault(carried(source), first)
        self._first.setdefault(consumer, first)
        return first

    def is_quantized(self, node: Node) -> bool:
        """Whether what `node` computes is marked."""
        while node.target in DROPOUTS:
            node = node.all_input_nodes[0]
        annotation = node.meta.get(Q_ANNOTATION_KEY)
        return annotation is not None and annotation.output_qspec is not None

    def weight(self, source: Node, consumer: Node, axis: int) -> None:
        """Quantise a parameter per channel along `axis`."""
        _annotation(consumer).input_qspec_map[source] = weight_spec(axis, self._rounding)

    def table(self, node: Node) -> "Site":
        """Store the table of a lookup in int8, one scale per column, so that scales are the same for all rows.

        A lookup multiplies nothing: its codes become numbers behind it, and only the file and its memory are smaller.
        """
        table = node.args[0]
        if not self.is_weight(table):
            return site(node, False, "its table is computed")
        assert isinstance(table, Node)
        if len(table.users) > 1:
            return site(node, False, "something else reads its table")
        self.weight(table, node, axis=1)
        return site(node, True)

    def output(self, node: Node) -> None:
        """Quantise what `node` computes, for all its readers."""
        _annotation(node).output_qspec = self._activation

    def output_like(self, node: Node, like: "tuple[Node, Node]") -> None:
        """Quantise what `node` computes with the scale of an edge."""
        _annotation(node).output_qspec = SharedQuantizationSpec(like)


class PlacementQuantizer(Quantizer):
    """torchao's quantizer interface around one runtime's rules; keeps the sites that the rules reported."""

    def __init__(self, grid: Rules, rounding: Rounding, float_modules: tuple[str, ...]) -> None:
        super().__init__()
        self._grid = grid
        self._rounding = rounding
        self._float_modules = float_modules
        self.sites: list[Site] = []

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark the graph in place and return it."""
        self.sites = self._grid.mark(Placement(model, self._grid, self._rounding, self._float_modules))
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to check: the marks come from one place."""


def weight_spec(axis: int, rounding: Rounding) -> QuantizationSpec:
    """Symmetric int8 -127..127, one scale per channel along `axis`."""
    return QuantizationSpec(
        dtype=torch.int8,
        observer_or_fake_quant_ctr=rounding.weight,
        quant_min=-WEIGHT_CODE,
        quant_max=WEIGHT_CODE,
        qscheme=torch.per_channel_symmetric,
        ch_axis=axis,
    )


def module_path(node: Node) -> str:
    """Path of the module that the node comes from, "" where the graph does not say."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]) if paths else ""


def carried(node: Node) -> Node:
    """The node that computed this tensor's values: back over moves, max-pools and dropout."""
    while node.op == "call_function" and (
        node.target in MOVES or node.target in MAX_POOLS or node.target in DROPOUTS or node.target is operator.getitem
    ):
        node = node.all_input_nodes[0]
    return node


def tail(node: Node, wanted: frozenset[object]) -> Node:
    """The last node of the chain node -> batch norm -> one of `wanted`, each read by the next alone."""
    for step in (frozenset({BATCH_NORM}), wanted):
        reader = only_reader(node)
        if reader is not None and reader.target in step:
            node = reader
    return node


def only_reader(node: Node) -> Node | None:
    """The node's reader where it has exactly one."""
    readers = list(node.users)
    return readers[0] if len(readers) == 1 else None


def tensors(node: Node) -> list[Node]:
    """Arguments that are computed tensors or parameters, in order; those of a list argument too."""
    return list(node.all_input_nodes)


def is_depthwise(node: Node) -> bool:
    """A convolution with one input channel per group and more than one group."""
    weight = node.args[1]
    assert isinstance(weight, Node)
    shape = weight.meta["val"].shape
    groups = groups_of(node)
    return groups > 1 and shape[1] == 1


def groups_of(node: Node) -> int:
    """The groups of a convolution node."""
    return int(node.args[6]) if len(node.args) > 6 else int(node.kwargs.get("groups", 1))  # type: ignore[arg-type]


def is_spatial_mean(node: Node) -> bool:
    """mean over every dimension behind (batch, channel)."""
    if node.target is not MEAN:
        return False
    rank = node.all_input_nodes[0].meta["val"].dim()
    dims = node.args[1]
    assert isinstance(dims, list | tuple)
    return rank > 2 and sorted(int(dim) % rank for dim in dims) == list(range(2, rank))  # type: ignore[arg-type]


def site(node: Node, quantized: bool, reason: str = "") -> Site:
    """The record of one operator."""
    return Site(node.name, module_path(node), str(node.target).removeprefix("aten."), quantized, reason)


def _annotation(node: Node) -> QuantizationAnnotation:
    annotation = node.meta.setdefault(Q_ANNOTATION_KEY, QuantizationAnnotation(_annotated=True))
    assert isinstance(annotation, QuantizationAnnotation)
    return annotation


def _inside(path: str, modules: tuple[str, ...]) -> bool:
    return any(path == module or path.startswith(f"{module}.") for module in modules)
