"""ONNX operators and tensors as the reader sees them: attributes checked for their type, shapes as plain tuples."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from profiles.errors import ProfileError
from profiles.graph import Weight

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

STANDARD = frozenset({"", "ai.onnx"})
MICROSOFT = frozenset({"com.microsoft", "com.microsoft.nchwc"})
FEW = 1024  # numbers; longer tensors are not shapes, and their values are not followed
MOST_AXES = 64

# TensorProto.DataType, https://onnx.ai/onnx/api/classes.html#tensorproto. The names are those of `profiles.graph.BITS`.
_DTYPES: Mapping[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8", 18: "float8", 19: "float8", 20: "float8", 21: "uint4", 22: "int4", 23: "float4", 24: "float8",
    25: "uint2", 26: "int2",
}  # fmt: skip

Shape = tuple[int, ...]


class Contradiction(ValueError):  # noqa: N818
    """An operator's inputs and attributes do not fit each other."""


class Value:
    """A tensor, or a sequence of tensors, while the graph is read."""

    __slots__ = ("codes", "data", "dtype", "items", "name", "shape", "sources")

    def __init__(
        self,
        name: str,
        shape: Shape | None,
        dtype: str,
        sources: tuple[Weight, ...] | None = None,
        data: "NDArray[Any] | None" = None,
    ) -> None:
        self.name = name  # unique in the whole model
        self.shape = shape  # None: not known
        self.dtype = dtype
        self.sources = sources  # stored tensors that a constant is computed from; None: it flows
        self.data = data  # its numbers, where they are few and known
        self.codes = False  # holds int8 codes, or their dequantised values
        self.items: tuple[Value, ...] | None = None  # of a sequence


class Node:
    """One operator with its attributes by name."""

    __slots__ = ("attributes", "domain", "inputs", "name", "operator", "outputs", "overload")

    def __init__(self, proto: "NodeProto", bound: "Mapping[str, AttributeProto] | None" = None) -> None:
        self.operator = proto.op_type
        self.domain = proto.domain
        self.name = proto.name
        self.overload = proto.overload
        self.inputs: Sequence[str] = tuple(proto.input)
        self.outputs: Sequence[str] = tuple(proto.output)
        check_text((self.operator, self.domain, self.name, self.overload, *self.inputs, *self.outputs))
        self.attributes: dict[str, AttributeProto] = {item.name: item for item in proto.attribute}
        if bound is not None:
            self._bind(bound)

    def _bind(self, bound: "Mapping[str, AttributeProto]") -> None:
        """Put the attributes of the call in the place of references to them (inside of a function)."""
        for name, item in tuple(self.attributes.items()):
            if item.ref_attr_name:
                given = bound.get(item.ref_attr_name)
                if given is None:
                    del self.attributes[name]
                else:
                    self.attributes[name] = given

    @property
    def qualified(self) -> str:
        """The operator's name, with its domain where that is not a known one."""
        return (
            self.operator if self.domain in STANDARD or self.domain in MICROSOFT else f"{self.domain}.{self.operator}"
        )

    def integer(self, name: str, default: int) -> int:
        """An attribute that is one integer."""
        item = self.attributes.get(name)
        if item is None:
            return default
        self._expect(item, 2, "an integer")
        return int(item.i)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An attribute that is a list of integers; None where it is absent."""
        item = self.attributes.get(name)
        if item is None:
            return None
        self._expect(item, 7, "a list of integers")
        return tuple(item.ints)

    def floats(self, name: str) -> tuple[float, ...] | None:
        """An attribute that is a list of numbers; None where it is absent."""
        item = self.attributes.get(name)
        if item is None:
            return None
        self._expect(item, 6, "a list of numbers")
        return tuple(item.floats)

    def text(self, name: str, default: str) -> str:
        """An attribute that is a text."""
        item = self.attributes.get(name)
        if item is None:
            return default
        self._expect(item, 3, "a text")
        return bytes(item.s).decode("utf-8", "replace")

    def tensor(self, name: str) -> "TensorProto | None":
        """An attribute that is a tensor; None where it is absent."""
        item = self.attributes.get(name)
        if item is None:
            return None
        self._expect(item, 4, "a tensor")
        return item.t

    def graph(self, name: str) -> "GraphProto":
        """An attribute that is a graph; it has to be there."""
        item = self.attributes.get(name)
        if item is None:
            raise Contradiction(f"the graph {name!r} is missing")
        self._expect(item, 5, "a graph")
        return item.g

    def _expect(self, item: "AttributeProto", kind: int, what: str) -> None:
        if item.type not in (kind, 0):  # 0: files from before attributes had a type
            raise Contradiction(f"attribute {item.name!r} is not {what}")


def dtype_of(number: int) -> str:
    """The name of an ONNX type; "unknown" for a number that is none."""
    return _DTYPES.get(number, "unknown")


def check_text(names: Iterable[str]) -> None:
    """Refuse names that are not UTF-8; protobuf hands those over as bytes.

    Raises:
        ProfileError: one of them is no text.
    """
    try:
        "".join(names)
    except TypeError as error:
        raise ProfileError("the ONNX model holds a name that is not UTF-8", fix="export the model again") from error


def check_rank(shape: Sequence[int], name: str) -> None:
    """Refuse tensors with more axes than any runtime takes."""
    if len(shape) > MOST_AXES:
        raise ProfileError(f"tensor {name!r} has {len(shape)} axes", fix="export the model again")


def subgraphs(proto: "NodeProto") -> "Iterator[GraphProto]":
    """The graphs among an operator's attributes."""
    for item in proto.attribute:
        if item.type == 5:
            yield item.g
        elif item.type == 10:
            yield from item.graphs
