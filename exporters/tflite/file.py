"""Tensors and operators of a TensorFlow Lite model, and their bytes as a FlatBuffer.

Source of the layout: TensorFlow's schema (tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3): numbers of table
fields, operators and option tables. Only the part that int8 networks need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError

VERSION = 3
TYPES: Mapping[str, int] = MappingProxyType({"float32": 0, "int32": 2, "int8": 9})
OPERATORS: Mapping[str, int] = MappingProxyType(
    {
        "ADD": 0,
        "AVERAGE_POOL_2D": 1,
        "CONCATENATION": 2,
        "CONV_2D": 3,
        "DEPTHWISE_CONV_2D": 4,
        "FULLY_CONNECTED": 9,
        "MAX_POOL_2D": 17,
        "MUL": 18,
        "RESHAPE": 22,
        "PAD": 34,
        "MEAN": 40,
        "QUANTIZE": 114,
    }
)
# Operator -> number of its options in the union, and the fields that are written: name -> (slot, kind).
_BYTE, _INT, _BOOL = "Int8", "Int32", "Bool"
OPTIONS: Mapping[str, tuple[int, Mapping[str, tuple[int, str]]]] = MappingProxyType(
    {
        "CONV_2D": (
            1,
            {
                "padding": (0, _BYTE),
                "stride_w": (1, _INT),
                "stride_h": (2, _INT),
                "activation": (3, _BYTE),
                "dilation_w": (4, _INT),
                "dilation_h": (5, _INT),
            },
        ),
        "DEPTHWISE_CONV_2D": (
            2,
            {
                "padding": (0, _BYTE),
                "stride_w": (1, _INT),
                "stride_h": (2, _INT),
                "depth_multiplier": (3, _INT),
                "activation": (4, _BYTE),
                "dilation_w": (5, _INT),
                "dilation_h": (6, _INT),
            },
        ),
        "AVERAGE_POOL_2D": (5, _POOL := {
            "padding": (0, _BYTE),
            "stride_w": (1, _INT),
            "stride_h": (2, _INT),
            "filter_w": (3, _INT),
            "filter_h": (4, _INT),
            "activation": (5, _BYTE),
        }),
        "MAX_POOL_2D": (5, _POOL),
        "FULLY_CONNECTED": (8, {"activation": (0, _BYTE)}),
        "CONCATENATION": (10, {"axis": (0, _INT), "activation": (1, _BYTE)}),
        "ADD": (11, {"activation": (0, _BYTE)}),
        "RESHAPE": (17, {}),
        "MUL": (21, {"activation": (0, _BYTE)}),
        "PAD": (22, {}),
        "MEAN": (27, {"keep_dims": (0, _BOOL)}),
    }
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor; with `data` a constant. Scales: one, or one per slice of `axis`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero: int = 0
    axis: int = 0
    data: NDArray[Any] | None = None


@dataclass(frozen=True)
class Operator:
    """One operator with its options by name."""

    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, int]


def to_bytes(operators: Sequence[Operator], inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bytes:
    """The file of a model with one subgraph.

    Raises:
        ExportError: the flatbuffers package is missing.
    """
    try:
        import flatbuffers  # type: ignore[import-untyped]
    except ImportError as error:
        raise ExportError(
            "writing TensorFlow Lite files needs flatbuffers, which is not installed", fix="pip install flatbuffers"
        ) from error
    builder = flatbuffers.Builder(1 << 16)
    tensors: list[Tensor] = []
    place: dict[int, int] = {}
    for tensor in (*inputs, *(t for op in operators for t in (*op.inputs, *op.outputs)), *outputs):
        if id(tensor) not in place:
            place[id(tensor)] = len(tensors)
            tensors.append(tensor)
    kinds = list(dict.fromkeys(op.kind for op in operators))
    stored = [tensor for tensor in tensors if tensor.data is not None]
    buffers = [_table(builder, {})]  # the first is empty by convention
    buffers += [_table(builder, {0: _bytes(builder, tensor.data)}) for tensor in stored]
    number = {id(tensor): at + 1 for at, tensor in enumerate(stored)}
    listed = [_tensor(builder, tensor, number.get(id(tensor), 0)) for tensor in tensors]
    codes = [
        _table(builder, {0: ("Int8", OPERATORS[kind]), 2: ("Int32", _version(kind)), 3: ("Int32", OPERATORS[kind])})
        for kind in kinds
    ]
    written = [_operator(builder, op, kinds.index(op.kind), place) for op in operators]
    subgraph = _table(
        builder,
        {
            0: _tables(builder, listed),
            1: _integers(builder, [place[id(tensor)] for tensor in inputs], 4),
            2: _integers(builder, [place[id(tensor)] for tensor in outputs], 4),
            3: _tables(builder, written),
            4: builder.CreateString("main"),
        },
    )
    model = _table(
        builder,
        {
            0: ("Uint32", VERSION),
            1: _tables(builder, codes),
            2: _tables(builder, [subgraph]),
            3: builder.CreateString("int8 network"),
            4: _tables(builder, buffers),
        },
    )
    builder.Finish(model, file_identifier=b"TFL3")
    return bytes(builder.Output())


def _version(kind: str) -> int:
    """The first version of each operator that takes int8."""
    return {"DEPTHWISE_CONV_2D": 3, "CONV_2D": 3, "FULLY_CONNECTED": 4, "RESHAPE": 1, "QUANTIZE": 1}.get(kind, 2)


def _table(builder: Any, fields: Mapping[int, int | tuple[str, int]]) -> int:
    """A table of (slot -> offset, or (scalar kind, value)); None-free."""
    builder.StartObject(max(fields, default=-1) + 1)
    for slot, value in fields.items():
        if isinstance(value, tuple):
            kind, number = value
            # A default of another value than the number forces the field to be written.
            getattr(builder, f"Prepend{kind}Slot")(slot, number, not number if kind == "Bool" else number + 1)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return int(builder.EndObject())


def _tables(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _integers(builder: Any, values: Sequence[int], size: int) -> int:
    return int(builder.CreateNumpyVector(np.asarray(values, dtype=np.int32 if size == 4 else np.int64)))


def _bytes(builder: Any, data: NDArray[Any] | None) -> int:
    flat = np.frombuffer(np.ascontiguousarray(data).tobytes(), dtype=np.uint8)
    builder.StartVector(1, len(flat), 16)
    builder.head = builder.head - len(flat)
    builder.Bytes[builder.head : builder.head + len(flat)] = flat.tobytes()
    return int(builder.EndVector())


def _tensor(builder: Any, tensor: Tensor, buffer: int) -> int:
    fields: dict[int, int | tuple[str, int]] = {
        0: _integers(builder, tensor.shape, 4),
        1: ("Int8", TYPES[tensor.dtype]),
        2: ("Uint32", buffer) if buffer else ("Uint32", 0),
        3: builder.CreateString(tensor.name),
    }
    if tensor.scales:
        zeros = [tensor.zero] * len(tensor.scales)
        fields[4] = _table(
            builder,
            {
                2: int(builder.CreateNumpyVector(np.asarray(tensor.scales, dtype=np.float32))),
                3: _integers(builder, zeros, 8),
                6: ("Int32", tensor.axis),
            },
        )
    return _table(builder, fields)


def _operator(builder: Any, op: Operator, opcode: int, place: Mapping[int, int]) -> int:
    fields: dict[int, int | tuple[str, int]] = {
        0: ("Uint32", opcode),
        1: _integers(builder, [place[id(tensor)] for tensor in op.inputs], 4),
        2: _integers(builder, [place[id(tensor)] for tensor in op.outputs], 4),
    }
    if op.kind in OPTIONS:
        number, slots = OPTIONS[op.kind]
        fields[3] = ("Uint8", number)
        fields[4] = _table(builder, {slots[name][0]: (slots[name][1], value) for name, value in op.options.items()})
    return _table(builder, fields)
