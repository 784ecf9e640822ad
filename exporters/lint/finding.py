"""What a rule is, and what it finds."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from onnx import NodeProto

from exporters.lint.view import View
from exporters.passes.strip_traces import module_name

Level = Literal["refused", "wrong", "slow", "note"]
LEVELS: tuple[Level, ...] = ("refused", "wrong", "slow", "note")
"""refused: the target's compiler takes no such model, or crashes on it. wrong: it does, and outputs may be wrong.
slow: it runs, but not in the kernels that were meant. note: worth knowing."""

ALL = frozenset({"tensorrt", "onnxruntime", "c"})
TENSORRT = frozenset({"tensorrt"})


@dataclass(frozen=True)
class Hit:
    """What a rule's check yields: one breach.

    Args:
        node: where; None is the whole model.
        what: what stands there, one sentence without a full stop.
        fix: what to do about it.
        level: where it differs from the rule's own.
    """

    node: NodeProto | None
    what: str
    fix: str
    level: Level | None = None


@dataclass(frozen=True)
class Finding:
    """One breach of one rule."""

    rule: str  # its id, such as Q3
    level: Level
    node: str  # name in the ONNX graph; '' where it is the whole model
    module: str  # path of the torch module that the node came from; '' where the file does not say
    what: str
    fix: str

    def where(self) -> str:
        """Node and module, for a sentence; '' where it is the whole model."""
        if not self.node:
            return ""
        return f"{self.node} (module {self.module})" if self.module else self.node


@dataclass(frozen=True)
class Rule:
    """One rule of the table in docs/lint.md.

    Attributes:
        id: stable; Q: what a parser accepts, P: where Q/DQ must stand, D: DLA, C: export checklist.
        source: how it is known.
        level: of its findings, unless a finding says another.
        runtimes: `Target.runtime`s that it holds for.
        check: pure; yields each breach in graph order.
    """

    id: str
    title: str
    source: str
    level: Level
    runtimes: frozenset[str]
    check: Callable[[View], Iterable[Hit]]

    def find(self, view: View) -> Iterator[Finding]:
        """Its findings; none where it does not hold for the view's runtime."""
        if view.device.runtime not in self.runtimes:
            return
        for hit in self.check(view):
            yield Finding(
                rule=self.id,
                level=hit.level or self.level,
                node=hit.node.name if hit.node is not None else "",
                module=module_name(hit.node) if hit.node is not None else "",
                what=hit.what,
                fix=hit.fix,
            )


# Where the rules come from; a rule adds the page or the measurement.
HEADERS = "TensorRT 11.1 headers (NvInfer.h, NvOnnxParser.h)"
QUANTIZED_TYPES = 'TensorRT documentation, "Working with Quantized Types"'
BUILT = "built with TensorRT-RTX 1.7.1 for SM80"
ORT = "onnxruntime 1.31, optimised graphs of its CPU provider"
DLA_PAGE = 'TensorRT documentation, "Working with DLA", supported layers and restrictions'
