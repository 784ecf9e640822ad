"""Which operators a runtime runs in one kernel: the rules, by family, without any sizes.

What is grouped here is what the runtimes of the three families do with a clean inference graph. All: batch
normalisation goes into the weights before it; activations and other pointwise operators run at the end of the kernel
that makes their input; Q/DQ pairs become the number format of an edge; views share a buffer. GPUs and x86: the addition
of a skip branch runs there too (generated C for a Cortex-M adds in a second pass). GPUs alone: the rules below that say
so. They are those of TensorRT's documentation and of the kernels that TensorRT-RTX 1.7.1 lists when it builds the
networks of tools/architectures (tools/count_kernels.py compares).

A grouping depends on the graph's structure alone, so that networks which differ in widths share one; the few questions
about sizes that a rule asks are kept in `Grouping.asked`, and whoever takes a grouping up again has to ask them again.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain

from profiles.cost import Precision
from profiles.graph import HEAVY, Graph, Kind, Op

MICROCONTROLLERS = frozenset({"cortex-m", "ethos-u", "riscv-cluster"})
FUSED_SKIP = frozenset({"nvidia-gpu", "x86-cpu"})
LAYOUTS = frozenset({"transpose", "permute", "t", "select", "unbind", "split", "slice", "split_with_sizes", "gather"})
CONCATENATIONS = frozenset({"concat", "cat", "qlinearconcat"})
FOLDS_INTO = frozenset({"conv", "conv_transpose", "gemm"})
COMMUTES = frozenset({"maxpool", "transpose", "slice", "split", "depthtospace", "spacetodepth"})  # with rounding
LOGARITHMS = frozenset({"log", "log2", "log10", "log1p"})
GENERATED: frozenset[Kind] = frozenset({"copy", "reduce", "norm", "softmax"})  # kernels that TensorRT writes itself
REACH = 12  # operators that a pointwise region may have between a tensor and where its branches meet again
_JOINING: frozenset[Kind] = frozenset({"pointwise", "batchnorm", "quantize", "norm", "copy", "reduce"})
_ENDS = HEAVY | {"pointwise", "batchnorm", "norm", "pool", "reduce", "softmax", "resize"}


@dataclass(slots=True)
class Group:
    """The operators of one kernel, as indices into the graph's; edges by name."""

    core: int
    ops: list[int]
    reads: tuple[str, ...]
    ends_at: tuple[str, ...]
    counted: tuple[int, ...]  # whose multiply-accumulates are the kernel's
    vector: list[int]  # pointwise operators at its end
    folded: int = -1  # a batch normalisation that became a scale of the weights and a bias


@dataclass(frozen=True, slots=True)
class Grouping:
    """Kernels of a graph, before sizes."""

    groups: tuple[Group, ...]
    shows: Mapping[str, str]  # a view -> the edge whose bytes it shows; both have the same number of elements
    parts: Mapping[str, str]  # an edge -> the concatenation that it is a part of
    asked: tuple[list[str], list[str], list[bool]]  # whether an edge of the first has as many elements as of the second
    coded: frozenset[str]  # hold int8 codes where the graph has floats that are rounded later
    float_edges: frozenset[str]  # stay in floats when int8 is asked for
    float_ops: frozenset[int]
    used: frozenset[str]  # edges that somebody reads, outputs of the network among them

    def shown(self, name: str) -> str:
        """The edge that holds the bytes of this one."""
        while (source := self.shows.get(name)) is not None:
            name = source
        return name

    def buffer(self, name: str) -> str:
        """The edge that names the buffer of this one: a part of a concatenation lies in the whole."""
        name = self.shown(name)
        while (whole := self.parts.get(name)) is not None:
            name = self.shown(whole)
        return name


def prepared(graph: Graph, family: str) -> Graph:
    """The graph with what a runtime adds to it.

    GPUs run convolutions on channels-last tensors; an image that comes in ONNX's layout is brought into it first.
    """
    if family != "nvidia-gpu":
        return graph
    wanted = [
        name
        for name in graph.inputs
        if len(graph.edges[name].shape) >= 4 and any(op.kind == "conv" and name in op.inputs for op in graph.ops)
    ]
    if not wanted:
        return graph
    new = {name: f"{name}, channels last" for name in wanted}
    edges = dict(graph.edges)
    moves = []
    for name in wanted:
        edges[new[name]] = replace(graph.edges[name], name=new[name])
        moves.append(Op(f"reformat {name}", "Reformat", "copy", (name,), (new[name],)))
    ops = list(graph.ops)
    for index in [index for index, op in enumerate(ops) if op.kind == "conv"]:
        if not new.keys().isdisjoint(ops[index].inputs):
            ops[index] = replace(ops[index], inputs=tuple([new.get(name, name) for name in ops[index].inputs]))
    return replace(graph, ops=(*moves, *ops), edges=edges)


def group(graph: Graph, family: str, precision: Precision | None = None) -> Grouping:
    """Group a graph's operators into kernels.

    Args:
        graph: as `prepared` returns it.
        family: nvidia-gpu, cortex-m or x86-cpu.
        precision: run everything that can be in this precision; None runs each operator in what the graph says.
    """
    return _Grouper(graph, family, precision).grouping()


class _Grouper:
    def __init__(self, graph: Graph, family: str, precision: Precision | None) -> None:
        self.graph = graph
        self.ops = graph.ops
        self.gpu = family == "nvidia-gpu"
        self.family = family
        self.shows: dict[str, str] = {}
        self.parts: dict[str, str] = {}
        self.made_by: dict[str, int] = {}  # edge -> index of its group
        self.groups: list[Group] = []
        self.asked: tuple[list[str], list[str], list[bool]] = ([], [], [])
        self.joined: set[int] = set()  # operators that a region took in before their turn
        readers = dict(Counter(chain(chain.from_iterable([op.inputs for op in self.ops]), graph.outputs)))
        self.used = frozenset(readers)
        self.readers = readers
        self.twins = self._rounded_twice() if self.gpu else {}
        self.front_end = _front_end(graph) if precision == "int8" else frozenset()

    def grouping(self) -> Grouping:
        joined, twins = self.joined, self.twins
        for index, op in enumerate(self.ops):
            if (joined and index in joined) or (twins and index in twins):
                if index not in joined:
                    self.shows[op.outputs[0]] = twins[index]
                continue
            kind = op.kind
            if kind == "conv":
                for name in op.outputs:
                    self.made_by[name] = len(self.groups)
                self.groups.append(Group(index, [index], op.inputs, op.outputs, (index,), []))
                continue
            if (kind == "pointwise" or kind == "batchnorm") and len(op.inputs) == 1 and self._ends(index, op):
                continue
            if (
                kind == "view"
                or kind == "dequantize"
                or (kind == "copy" and self.gpu and self._layout_of_a_product(op))
            ):
                self._alias(op)
            elif kind not in _JOINING or not self._join(index, op):
                self._start(index, op)
        coded: frozenset[str] = frozenset()
        if self.gpu:
            self._merge_attention()
            coded = self._rounded_early()
            self._write_concatenations_in_place()
        shows = self.shows
        for group in self.groups:
            if len(group.reads) != 1 or len(group.ends_at) != 1 or group.reads[0] in shows:
                self._settle(group)
        floats = frozenset(name for index in self.front_end for name in self.ops[index].inputs)
        return Grouping(
            tuple(self.groups), self.shows, self.parts, self.asked, coded, floats, self.front_end, self.used
        )

    # --- what the rules ask ---

    def _shown(self, name: str) -> str:
        shows = self.shows
        while (source := shows.get(name)) is not None:
            name = source
        return name

    def _same_size(self, first: str, second: str) -> bool:
        edges = self.graph.edges
        same = edges[first].elements == edges[second].elements
        ones, others, answers = self.asked
        ones.append(first)
        others.append(second)
        answers.append(same)
        return same

    def _maker(self, name: str) -> int:
        return self.made_by.get(self._shown(name), -1)

    def _made(self, index: int, kind: Kind) -> bool:
        return index >= 0 and self.ops[self.groups[index].core].kind == kind

    def _read_once(self, group: Group) -> bool:
        """Whether a kernel has one result and one reader of it."""
        return len(group.ends_at) == 1 and self.readers.get(self._shown(group.ends_at[0]), 0) == 1

    def _settle(self, group: Group) -> None:
        """Reads by the edge that holds the bytes, once each; nothing that stays inside; no result that nobody reads."""
        ends, reads = group.ends_at, group.reads
        if len(reads) == 1:
            if reads[0] in self.shows:
                group.reads = (self._shown(reads[0]),)
        else:
            inner = set(chain.from_iterable([self.ops[index].outputs for index in group.ops])).difference(ends)
            group.reads = tuple(dict.fromkeys([self._shown(name) for name in reads if name not in inner]))
        if len(ends) > 1:
            group.ends_at = tuple(name for name in ends if name in self.used) or ends[:1]

    # --- views ---

    def _alias(self, op: Op) -> None:
        if not op.inputs:
            return
        source = op.inputs[0]
        for name in op.outputs:
            self.shows[name] = source
        # The readers of the view read the buffer; the view itself does not.
        passed = sum(self.readers.get(name, 0) for name in op.outputs)
        root = self._shown(source)
        self.readers[root] = self.readers.get(root, 0) - 1 + passed

    def _layout_of_a_product(self, op: Op) -> bool:
        """A GPU runtime writes a product's result in the new layout at once instead of copying it."""
        if op.kind != "copy" or op.operator.lower() not in LAYOUTS or not op.inputs:
            return False
        index = self._maker(op.inputs[0])
        return index >= 0 and self.ops[self.groups[index].core].kind in ("gemm", "matmul")

    # --- kernels ---

    def _start(self, index: int, op: Op) -> None:
        group = Group(index, [index], op.inputs, op.outputs, (index,), [])
        if op.kind == "fft" and op.inputs:
            self._take_window(group, op)
        at = len(self.groups)
        self.groups.append(group)
        for name in op.outputs:
            self.made_by[name] = at

    def _take_window(self, group: Group, op: Op) -> None:
        """A transform multiplies by its window while it reads the signal."""
        index = self._maker(op.inputs[0])
        if index != len(self.groups) - 1 or not self._made(index, "pointwise"):
            return
        window = self.groups[index]
        if self._read_once(window):
            self.groups.pop()
            group.ops = [*window.ops, *group.ops]
            group.reads = window.reads

    def _join(self, index: int, op: Op) -> bool:
        """Run an operator at the end of the kernel that makes its input, where a runtime does."""
        kind = op.kind
        if kind == "norm":
            return self.family == "x86-cpu" and self._norm_of_a_sum(index, op)
        if kind == "copy" or kind == "reduce":
            if self.gpu:
                return kind == "copy" and self._copied_at_once(index, op)
            return self.family in MICROCONTROLLERS and self._stays_in_a_frame(index, op)
        if kind != "pointwise" and kind != "batchnorm" and kind != "quantize":
            return False
        if not op.inputs or len(op.outputs) != 1:
            return False
        makers = self.made_by
        inputs = op.inputs
        if len(inputs) == 1:
            root = self._shown(inputs[0])
            at = makers.get(root, -1)
            once = True
            roots = [root]
        else:
            roots = [self._shown(name) for name in inputs]
            at, root = max([(makers.get(name, -1), name) for name in roots])
            once = roots.count(root) == 1
        if at < 0:
            return False
        group = self.groups[at]
        if root not in group.ends_at:
            return False
        if not once or self.readers.get(root, 0) != 1:
            return self.gpu and kind == "pointwise" and self._gated(group, at, root, index)
        made = self.ops[group.core].kind
        generated = self.gpu and made in GENERATED
        if len(group.ends_at) > 1 and not generated:
            return False
        if made not in _ENDS and not generated:
            return False
        others = [name for name, seen in zip(op.inputs, roots, strict=True) if seen != root] if len(roots) > 1 else ()
        if others and made != "pointwise" and self.family not in FUSED_SKIP:
            return False
        light = made == "pointwise" or made == "batchnorm"
        if not light and made not in HEAVY and kind != "quantize" and not generated:
            return False
        out = op.outputs[0]
        if made != "pointwise" and not self._same_size(out, root):
            return False  # it broadcasts, which is not an epilogue
        if kind == "batchnorm" and made in FOLDS_INTO and len(group.ops) == 1:
            group.folded = index
        elif kind != "quantize":
            group.vector.append(index)
        self._extend(group, at, index, op, others)
        return True

    def _ends(self, index: int, op: Op) -> bool:
        """The most frequent case of `_join` by itself: one tensor, read once, that a convolution or product makes."""
        root = op.inputs[0]
        if root in self.shows:
            root = self._shown(root)
        at = self.made_by.get(root, -1)
        if at < 0 or self.readers[root] != 1 or len(op.outputs) != 1:
            return False
        group = self.groups[at]
        made = self.ops[group.core].kind
        if made not in HEAVY or group.ends_at != (root,):
            return False
        edges, out = self.graph.edges, op.outputs[0]
        first, second, answers = self.asked
        same = edges[out].elements == edges[root].elements
        first.append(out)
        second.append(root)
        answers.append(same)
        if not same:
            return False
        if op.kind == "batchnorm" and made in FOLDS_INTO and len(group.ops) == 1:
            group.folded = index
        else:
            group.vector.append(index)
        group.ops.append(index)
        group.ends_at = op.outputs
        self.made_by[out] = at
        return True

    def _extend(self, group: Group, at: int, index: int, op: Op, others: "list[str] | tuple[()]") -> None:
        group.ops.append(index)
        if others:
            group.reads = (*group.reads, *others)
        if len(group.ends_at) == 1:
            group.ends_at = op.outputs
        else:
            read = {self._shown(name) for name in op.inputs}
            group.ends_at = (*(name for name in group.ends_at if name not in read), *op.outputs)
        for name in op.outputs:
            self.made_by[name] = at

    def _norm_of_a_sum(self, index: int, op: Op) -> bool:
        """onnxruntime has one operator for a sum that only a layer normalisation reads: SkipLayerNormalization."""
        if op.operator != "LayerNormalization" or not op.inputs or len(op.outputs) != 1:
            return False
        root = self._shown(op.inputs[0])
        at = self.made_by.get(root, -1)
        if at < 0 or self.readers.get(root, 0) != 1:
            return False
        group = self.groups[at]
        last = self.ops[group.ops[-1]]
        if group.ends_at != (root,) or last.operator != "Add" or len(last.inputs) != 2:
            return False
        self._extend(group, at, index, op, ())
        return True

    def _stays_in_a_frame(self, index: int, op: Op) -> bool:
        """Generated C works on one frame's spectrum where it stands: powers, sums and layouts cost no second pass."""
        if len(op.inputs) != 1 or len(op.outputs) != 1:
            return False
        root = self._shown(op.inputs[0])
        at = self.made_by.get(root, -1)
        if not self._made(at, "fft") or self.readers.get(root, 0) != 1:
            return False
        self._extend(self.groups[at], at, index, op, ())
        return True

    # --- rules of GPU runtimes ---

    def _copied_at_once(self, index: int, op: Op) -> bool:
        """What only moves values runs with what makes them, where that is a generated kernel: one copy, not several.

        A channel shuffle (concatenate, transpose, split) is one kernel. A concatenation starts its own, because its
        inputs may be written in place.
        """
        if len(op.inputs) != 1 or op.operator.lower() in CONCATENATIONS:
            return False
        root = self._shown(op.inputs[0])
        at = self.made_by.get(root, -1)
        if at < 0 or self.readers.get(root, 0) != 1 or root not in self.groups[at].ends_at:
            return False
        if self.ops[self.groups[at].core].kind not in ("copy", "pointwise"):
            return False
        self._extend(self.groups[at], at, index, op, ())
        return True

    def _gated(self, group: Group, at: int, root: str, index: int) -> bool:
        """An activation that exporters write as several operators, x * sigmoid(x) for one, is an epilogue all the same.

        All readers of the tensor have to be pointwise, and their branches have to meet again in one tensor.
        """
        made = self.ops[group.core].kind
        if len(group.ends_at) > 1 or (made not in HEAVY and made != "pointwise" and made != "batchnorm"):
            return False
        inside = {root}
        members: list[int] = []
        waiting = {root: self.readers[root]}  # edges of the region -> readers that were not met yet
        others: list[str] = []
        for step in range(index, min(index + REACH, len(self.ops))):
            op = self.ops[step]
            seen = [self._shown(name) for name in op.inputs]
            met = [name for name in seen if name in inside]
            if not met or step in self.joined:
                continue
            if op.kind != "pointwise" or len(op.outputs) != 1 or not self._same_size(op.outputs[0], root):
                return False
            for name, shown in zip(op.inputs, seen, strict=True):
                if shown in inside:
                    waiting[shown] -= 1
                elif self.made_by.get(shown, -1) > at:
                    return False  # it would have to wait for a later kernel
                else:
                    others.append(name)
            members.append(step)
            out = op.outputs[0]
            if not any(waiting.values()):
                for item in members:
                    group.vector.append(item)
                    self._extend(group, at, item, self.ops[item], ())
                group.reads = (*group.reads, *others)
                self.joined.update(members)
                return True
            inside.add(out)
            waiting[out] = self.readers.get(out, 0)
            if not waiting[out]:
                return False
        return False

    def _merge_attention(self) -> None:
        """Product, softmax, product: one kernel, and the scores never leave the chip."""
        merged: set[int] = set()
        for group in self.groups:
            if self.ops[group.core].kind != "matmul" or len(group.reads) < 2:
                continue
            softmax = next((i for name in group.reads if self._made(i := self._maker(name), "softmax")), -1)
            if softmax < 0 or not self._read_once(self.groups[softmax]):
                continue
            scores = self._maker(self.groups[softmax].reads[0])
            if not self._made(scores, "matmul") or not self._read_once(self.groups[scores]):
                continue
            first, middle = self.groups[scores], self.groups[softmax]
            inner = {self._shown(name) for part in (first, middle) for name in part.ends_at}
            reads = [*first.reads, *middle.reads, *group.reads]
            group.reads = tuple([name for name in reads if self._shown(name) not in inner])
            group.ops = [*first.ops, *middle.ops, *group.ops]
            group.counted = (*first.counted, *group.counted)
            merged |= {scores, softmax}
        if merged:
            kept = [index for index in range(len(self.groups)) if index not in merged]
            new = {old: position for position, old in enumerate(kept)}
            self.groups = [self.groups[index] for index in kept]
            self.made_by = {name: new[at] for name, at in self.made_by.items() if at in new}

    def _rounded_twice(self) -> dict[int, str]:
        """Quantisers of one tensor are one: index of the second -> result of the first.

        A graph does not say scales; what is rounded twice has the same range, and exporters give it the same scale.
        """
        first: dict[str, str] = {}
        found: dict[int, str] = {}
        for index, op in enumerate(self.ops):
            if op.kind != "quantize" or len(op.inputs) != 1 or op.outputs[0] in self.graph.outputs:
                continue
            source, out = op.inputs[0], op.outputs[0]
            codes = first.setdefault(source, out)
            if codes != out and self.graph.edges[codes].dtype == self.graph.edges[out].dtype:
                found[index] = codes
                self.readers[source] -= 1
                self.readers[codes] = self.readers.get(codes, 0) + self.readers.get(out, 0)
        return found

    def _rounded_early(self) -> frozenset[str]:
        """Codes are made as early as they can be: rounding changes places with what only moves or compares values.

        Convolution, max pool, Q: the convolution writes codes and the pool reads them.
        """
        found: set[str] = set()
        for group in reversed(self.groups):
            core = self.ops[group.core]
            if len(group.reads) != 1 or core.operator.lower().rstrip("_") not in COMMUTES:
                continue
            rounds = any(self.ops[index].kind == "quantize" for index in group.ops)
            source = self._shown(group.reads[0])
            later = rounds or self._shown(group.ends_at[0]) in found
            if later and self.readers.get(source, 0) == 1 and self.made_by.get(source, -1) >= 0:
                found.add(source)
        return frozenset(found)

    def _write_concatenations_in_place(self) -> None:
        """Kernels write their results where the concatenation has them, so that nothing is left to copy.

        A tensor can lie in one concatenation only, and an input of the network lies where the caller put it.
        """
        gone: set[int] = set()
        given = {self._shown(name) for name in self.graph.inputs} | {self._shown(name) for name in self.graph.outputs}
        for at, group in enumerate(self.groups):
            op = self.ops[group.core]
            if op.kind != "copy" or len(group.ops) != 1 or op.operator.lower() not in CONCATENATIONS:
                continue
            taken = []
            for name in dict.fromkeys(group.reads):
                root = self._shown(name)
                maker = self.made_by.get(root, -1)
                free = maker >= 0 and root not in given and root not in self.parts and group.reads.count(name) == 1
                if free and self._same_size(name, root):
                    taken.append((name, root))
            if not taken or len(taken) < len(op.inputs):
                continue
            for _, root in taken:
                self.parts[root] = op.outputs[0]
            gone.add(at)
        if gone:
            self._drop(gone)

    def _drop(self, gone: set[int]) -> None:
        """Take away kernels that nothing is left of; their operator is that of the last kernel which writes a part."""
        for at in sorted(gone):
            group = self.groups[at]
            last = max(self.made_by[self._shown(name)] for name in group.reads)
            self.groups[last].ops.extend(group.ops)
        self.groups = [group for index, group in enumerate(self.groups) if index not in gone]


def _front_end(graph: Graph) -> frozenset[int]:
    """Operators of a spectral front-end: what a logarithm with a layer behind it is computed from.

    Powers of a spectrum span many decades, so nobody quantises them; codes begin behind the logarithm.
    """
    ops = graph.ops
    if LOGARITHMS.isdisjoint([name.lower() for name in {op.operator for op in ops}]):
        return frozenset()
    logarithms = [index for index, op in enumerate(ops) if op.operator.lower() in LOGARITHMS]
    behind: set[str] = set()  # edges that a logarithm leads to
    followed = False
    for op in ops[logarithms[0] :]:
        if op.operator.lower() in LOGARITHMS or not behind.isdisjoint(op.inputs):
            followed = followed or (op.kind in HEAVY and not behind.isdisjoint(op.inputs))
            behind.update(op.outputs)
    if not followed:  # the logarithm of a softmax at the end
        return frozenset()
    found: set[int] = set()
    wanted: set[str] = set()
    for index in range(logarithms[-1], -1, -1):
        op = ops[index]
        if op.operator.lower() in LOGARITHMS or not wanted.isdisjoint(op.outputs):
            found.add(index)
            wanted.update(op.inputs)
    return frozenset(found)
