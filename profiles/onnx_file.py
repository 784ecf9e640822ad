"""An ONNX file as a ModelProto without its large tensors: counting needs their shapes only.

The file is walked in protobuf's wire format (https://protobuf.dev/programming-guides/encoding/) and the bytes of large
stored tensors are skipped, so a file of a gigabyte is read in milliseconds. Files with external data are never opened;
the names of those files are checked all the same, because whoever runs the model afterwards opens them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, BinaryIO

from profiles.errors import ProfileError
from profiles.graph import BITS
from profiles.onnx_nodes import check_text, dtype_of

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

SMALL = 1 << 16  # bytes; smaller files are parsed whole, smaller tensors are kept with their values
LARGEST_PARSED = 1 << 28  # bytes of everything but tensors; above it a file is not a model

# Field numbers of onnx.proto and the wire types of protobuf.
_LARGE_PARTS = {  # fields that may hold tensors
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph"},
}
_MOST_FIELDS = 400_000
_DEEPEST = 100  # messages inside of each other
_TENSOR_DATA = {4: 4, 9: 1, 10: 8, 5: 0, 6: 0, 7: 0, 11: 0}  # field -> bytes of one number; 0: it varies
_EXTERNAL = 1  # TensorProto.data_location
_SEVERAL_PER_VALUE = frozenset({14, 15})  # complex numbers
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Loaded:
    """A model, and where it came from."""

    proto: "ModelProto"
    folder: Path | None  # of the file; external data must lie inside
    skipped: frozenset[str]  # stored tensors whose values were left in the file


def load(model: "str | Path | ModelProto") -> Loaded:
    """Read a file, or take a ModelProto as it is.

    Raises:
        ProfileError: there is no such file, it cannot be read, or it is not an ONNX model.
    """
    import onnx

    if isinstance(model, onnx.ModelProto):
        return Loaded(model, None, frozenset())
    path = Path(model)
    try:
        if not path.is_file():
            what = f"{path} is a folder, not a file" if path.is_dir() else f"there is no file {path}"
            raise ProfileError(what, fix="pass the path of an ONNX file")
        with path.open("rb", buffering=1 << 16) as stream:
            size = os.fstat(stream.fileno()).st_size
            data, skipped = (stream.read(), frozenset[str]()) if size <= SMALL else _without_tensors(stream, size)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ProfileError(f"{path} cannot be read: {error}", fix="pass the path of a readable ONNX file") from error
    except _CutShortError as error:
        raise _not_a_model(path, str(error)) from error
    return Loaded(_parsed(data, path), path.parent, skipped)


def _parsed(data: bytes, path: Path) -> "ModelProto":
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_a_model(path, "its bytes do not parse") from error
    return proto


def _not_a_model(path: Path, why: str) -> ProfileError:
    return ProfileError(f"{path} is not an ONNX model, or it is cut short ({why})", fix="export it again")


class _CutShortError(Exception):
    """The bytes end inside of a field, or are no protobuf."""


def _without_tensors(stream: BinaryIO, size: int) -> tuple[bytes, frozenset[str]]:
    """The serialised model with the values of large tensors left out, and the names of those."""
    skipped: set[str] = set()
    return _smaller(stream, 0, size, "model", skipped, 0), frozenset(skipped)


def _smaller(stream: BinaryIO, start: int, stop: int, message: str, skipped: set[str], depth: int) -> bytes:
    """A message of more than `SMALL` bytes with those of its large parts that are tensors left out."""
    if message == "tensor":
        return _tensor_without_data(stream, start, stop, skipped)
    if depth > _DEEPEST:
        raise _CutShortError("graphs inside of graphs without end")
    inside = _LARGE_PARTS[message]
    parts: list[bytes] = []
    pending, kept = start, 0  # from `pending` on, bytes are to be copied as they are
    for count, (number, wire, begin, body, end) in enumerate(_fields(stream, start, stop)):
        if count > _MOST_FIELDS:
            raise _CutShortError(f"a {message} of more than {_MOST_FIELDS} parts")
        kind = inside.get(number)
        if kind is None or wire != _LENGTH or end - body <= SMALL:
            continue
        part = _smaller(stream, body, end, kind, skipped, depth + 1)
        kept += begin - pending + len(part)
        _check_size(kept)
        parts += [_bytes(stream, pending, begin), _header(number, len(part)), part]
        pending = end
    _check_size(kept + stop - pending)
    parts.append(_bytes(stream, pending, stop))
    return b"".join(parts)


def _tensor_without_data(stream: BinaryIO, start: int, stop: int, skipped: set[str]) -> bytes:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
    from onnx import TensorProto

    parts: list[bytes] = []
    stored: dict[int, int] = {}
    for count, (number, wire, begin, body, end) in enumerate(_fields(stream, start, stop)):
        if count > _MOST_FIELDS:
            raise _CutShortError(f"a tensor of more than {_MOST_FIELDS} parts")
        if number in _TENSOR_DATA and (wire == _LENGTH or stored.get(number)):
            stored[number] = stored.get(number, 0) + end - body
        else:
            _check_size(end - begin)
            parts.append(_bytes(stream, begin, end))
    data = b"".join(parts)
    tensor = TensorProto()
    try:
        tensor.ParseFromString(data)
        skipped.add(tensor.name)
    except (DecodeError, UnicodeDecodeError) as error:
        raise _CutShortError("a stored tensor does not parse") from error
    for number, length in stored.items():
        if _TENSOR_DATA[number] and tensor.data_location != _EXTERNAL:
            expected = raw_bytes(tensor) if number == 9 else prod(tensor.dims) * _TENSOR_DATA[number]
            _check_length(tensor, length, expected)
    return data


def _fields(stream: BinaryIO, position: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Number, wire type, start, start of the content and end of each field between two positions."""
    while position < stop:
        stream.seek(position)
        head = stream.read(min(20, stop - position))  # two varints of at most ten bytes
        key, used = _varint(head, 0)
        number, wire = key >> 3, key & 7
        if wire == _LENGTH:
            length, used = _varint(head, used)
        elif wire == _VARINT:
            length = _varint(head, used)[1] - used
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise _CutShortError(f"wire type {wire} at byte {position}")
        body = position + used
        end = body + length
        if end > stop or not number:
            raise _CutShortError(f"a field at byte {position} ends at {end}, behind the end at {stop}")
        yield number, wire, position, body, end
        position = end


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for index in range(at, min(len(data), at + 10)):
        byte = data[index]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, index + 1
        shift += 7
    raise _CutShortError("a number without an end")


def _header(number: int, length: int) -> bytes:
    out = bytearray([number << 3 | _LENGTH])  # field numbers here are below 16
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out)


def _bytes(stream: BinaryIO, start: int, end: int) -> bytes:
    stream.seek(start)
    data = stream.read(end - start)
    if len(data) != end - start:
        raise _CutShortError("the file became shorter while it was read")
    return data


def _check_size(size: int) -> None:
    if size > LARGEST_PARSED:
        raise ProfileError(
            f"the model holds {size >> 20} MiB beside its stored tensors, which no network needs",
            fix="store weights as initializers, and large ones as external data",
        )


def raw_bytes(tensor: "TensorProto") -> int | None:
    """Bytes that a tensor's values take in `raw_data`; None for a type that has no such form."""
    bits = BITS.get(dtype_of(tensor.data_type))
    return None if bits is None else (prod(tensor.dims) * bits + 7) // 8


def check_tensor(tensor: "TensorProto", folder: Path | None, skipped: bool) -> bool:
    """Refuse a stored tensor whose dimensions, values or file cannot be right.

    Returns:
        Whether it has values, here or in another file.

    Raises:
        ProfileError: a negative dimension, fewer or more values than the dimensions say, or external data outside of
            the model's folder.
    """
    dims = tuple(tensor.dims)
    if any(dim < 0 for dim in dims):
        raise ProfileError(f"stored tensor {tensor.name!r} has the shape {dims}", fix="export the model again")
    if tensor.data_location == _EXTERNAL:
        _check_external(tensor, folder)
        return True
    if skipped:
        return True
    if tensor.HasField("raw_data"):
        expected = raw_bytes(tensor)
        # Reading `raw_data` copies it. Of a file, only short ones are left here; a large one in memory is trusted.
        if folder is not None or (expected is not None and expected <= SMALL):
            _check_length(tensor, len(tensor.raw_data), expected)
        return True
    elements = prod(dims)
    typed = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    held = max(map(len, (*typed, tensor.string_data)))
    whole = tensor.data_type not in _SEVERAL_PER_VALUE and BITS.get(dtype_of(tensor.data_type), 0) >= 8
    if held and whole:
        _check_length(tensor, held, elements, "values")
    return held > 0 or not elements


def _check_length(tensor: "TensorProto", length: int, expected: int | None, unit: str = "bytes") -> None:
    if expected is not None and length != expected:
        raise ProfileError(
            f"stored tensor {tensor.name!r} has the shape {tuple(tensor.dims)}, which takes {expected} {unit}, "
            f"and holds {length}",
            fix="the file is damaged: export it again",
        )


def _check_external(tensor: "TensorProto", folder: Path | None) -> None:
    check_text(text for item in tensor.external_data for text in (item.key, item.value))
    entries = {item.key: item.value for item in tensor.external_data}
    location = entries.get("location", "")
    parts = PurePosixPath(location.replace("\\", "/")).parts
    outside = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor != "" or ".." in parts
    if not location or "\0" in location or outside:
        raise _outside(tensor.name, location)
    for key in ("offset", "length"):
        if not entries.get(key, "0").isdecimal():
            raise ProfileError(
                f"the external data of tensor {tensor.name!r} has the {key} {entries[key]!r}", fix="export it again"
            )
    if folder is not None:
        # Only links are followed here; no file of that name has to exist, and none is opened.
        real = os.path.realpath(folder)
        if not os.path.realpath(os.path.join(real, location)).startswith(real.rstrip(os.sep) + os.sep):
            raise _outside(tensor.name, location)


def _outside(name: str, location: str) -> ProfileError:
    return ProfileError(
        f"the data of tensor {name!r} is in {location!r}, which is not a file inside the model's folder",
        fix="save the model again with its external data beside it",
    )
