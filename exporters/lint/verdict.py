"""What a compiler made of the model: shared by all runtimes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from exporters.lint.finding import Finding
from exporters.lint.view import Product, View
from exporters.passes.strip_traces import module_name

# Rules that explain why a product runs in float; the first that names it, or a pair of its, is the reason given.
_REASONS = ("Q5", "Q6", "P1", "P8", "P16", "P13", "P3", "P4", "P9")
FLOATS = frozenset({"float", "half", "bfloat16"})


@dataclass(frozen=True)
class NodeRun:
    """How one product of the graph runs.

    Attributes:
        type: of what its kernel reads: int8, fp8, half, float, ...
        intended: whether both of its inputs are quantised in the graph.
        rule: that explains it where it is intended and does not run in integers; '' where no rule does.
    """

    node: str
    module: str
    operator: str
    type: str
    intended: bool
    rule: str = ""
    why: str = ""

    @property
    def silent(self) -> bool:
        """Quantised in the graph, and float when it runs."""
        return self.intended and self.type in FLOATS


@dataclass(frozen=True)
class Padded:
    """A kernel that reads more channels than the graph has."""

    node: str
    module: str
    channels: int
    padded: int


@dataclass(frozen=True)
class Verdict:
    """A compiler's answer.

    Attributes:
        compiler: name and version.
        built_for: what it compiled for.
        accepted: False where parser or builder refuse.
        refusal: why not, with `refused_node` and `refused_module` where the compiler names them.
        runs: every product, in graph order; empty where nothing was built.
        requantise: kernels that only bring int8 tensors to other scales.
        padded: products whose channels are padded.
        notes: what a reader must know, such as that kernels are those of another device.
        facts: further figures of this compiler.
    """

    compiler: str
    built_for: str
    accepted: bool
    refusal: str = ""
    refused_node: str = ""
    refused_module: str = ""
    runs: tuple[NodeRun, ...] = ()
    requantise: tuple[str, ...] = ()
    padded: tuple[Padded, ...] = ()
    notes: tuple[str, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def types(self) -> dict[str, int]:
        """Type -> products that run in it, the most frequent first."""
        return dict(Counter(run.type for run in self.runs).most_common())

    def share(self, kind: str = "int8") -> float:
        """Products that run in `kind` / products; 0 where there are none."""
        return self.types.get(kind, 0) / len(self.runs) if self.runs else 0.0

    @property
    def intended(self) -> int:
        """Products that the graph quantises."""
        return sum(run.intended for run in self.runs)

    @property
    def silent(self) -> tuple[NodeRun, ...]:
        """Products that the graph quantises and that run in float."""
        return tuple(run for run in self.runs if run.silent)


def judge(view: View, findings: Iterable[Finding], types: dict[str, str], otherwise: str) -> tuple[NodeRun, ...]:
    """Every product with the type that it runs in and, where that is float and not meant to be, the rule it broke.

    Args:
        types: product -> type of what its kernel reads.
        otherwise: type of those that are not in `types`.
    """
    by_node: dict[str, list[Finding]] = {}
    for finding in findings:
        by_node.setdefault(finding.node, []).append(finding)
    rows = []
    for product in view.products:
        node = product.node
        kind = types.get(node.name, otherwise)
        rule, why = "", ""
        if kind in FLOATS:
            reason = _reason(view, product, by_node)
            if reason is not None:
                rule, why = reason.rule, reason.what
            elif product.quantised:
                why = "no rule says why: the compiler chose a float kernel"
            else:
                why = "float in the graph"
        rows.append(NodeRun(node.name, module_name(node), node.op_type, kind, product.quantised, rule, why))
    return tuple(rows)


def _reason(view: View, product: Product, by_node: dict[str, list[Finding]]) -> Finding | None:
    names = [product.node.name]
    for pair in (product.data_dq, product.weight_dq):
        if pair is not None:
            maker = view.makers.get(pair.input[0])
            names += [pair.name, *([maker.name] if maker is not None else [])]
    names += [reader.name for reader in view.readers.get(product.node.output[0], [])]
    found = [finding for name in names for finding in by_node.get(name, []) if finding.rule in _REASONS]
    found += [finding for finding in by_node.get("", []) if finding.rule == "P13" and product.quantised]
    return min(found, key=lambda finding: _REASONS.index(finding.rule), default=None)
