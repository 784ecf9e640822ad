"""Open an ONNX file that may be truncated, hostile or made for another runtime."""

import re
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from exporters import graph, large
from exporters.errors import ExportError

LARGEST_BYTES = 2**31 - 1  # protobuf's limit
_FAILURES = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError)
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


def load(path: Path) -> ModelProto:
    """Read and check an ONNX file.

    Args:
        path: the file; tensors kept in files of their own must lie in its folder or below.

    Returns:
        A model of standard operators only, fully checked, with all its data inside.

    Raises:
        ExportError: there is no such file, it is not (a whole) ONNX file, its external data leaves the folder or is
            missing, it has operators of another domain or control flow, or it fails onnx's full check.
    """
    path = Path(path)
    model = _contents(path)
    _check_operators(model, path)
    try:
        onnx.checker.check_model(large.skeleton(model), full_check=True)
    # A garbled name makes onnx fail while it writes its own message (UnicodeDecodeError, a ValueError).
    except _FAILURES as error:
        raise ExportError(
            f"{path.name} fails onnx's check: {_sentence(error)}", fix="export the model again"
        ) from error
    return model


def read(path: Path) -> ModelProto:
    """Read an ONNX file of any operators, for whoever only looks at it.

    Args:
        path: as `load` takes it.

    Returns:
        A model with all its data inside, whose nodes are in order. Shapes and types may contradict each other, and
        operators may be of any domain.

    Raises:
        ExportError: there is no such file, it is not (a whole) ONNX file, its external data leaves the folder or is
            missing, or its nodes are not in order.
    """
    path = Path(path)
    model = _contents(path)
    _check_order(model, path)
    return model


def _check_order(model: ModelProto, path: Path) -> None:
    """Every tensor is made once, before it is read: what whoever follows a graph relies on."""
    there = {value.name for value in model.graph.input} | {tensor.name for tensor in model.graph.initializer}
    there |= {tensor.values.name for tensor in model.graph.sparse_initializer} | {""}
    for node in model.graph.node:
        missing = [name for name in node.input if name not in there]
        twice = [name for name in node.output if name and name in there]
        if missing or twice or not any(node.output):
            what = f"reads {missing[0]!r} before it is made" if missing else "makes nothing"
            what = f"makes {twice[0]!r} again" if twice else what
            raise ExportError(f"{path.name}: {node.op_type} node {node.name!r} {what}", fix="export the model again")
        there.update(node.output)


def _contents(path: Path) -> ModelProto:
    model = _read(path)
    _check_text(model, path)
    _check_external(model, path)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ExportError(
            f"external data of {path.name} cannot be read: {_sentence(error)}",
            fix="copy the data files beside the model, or save it as one file",
        ) from error
    return model


def _read(path: Path) -> ModelProto:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ExportError(f"no ONNX file at {path}", fix="run the export stage first, or correct the path") from error
    if not path.is_file():
        raise ExportError(f"{path} is not a file", fix="name the .onnx file itself")
    if size == 0 or size > LARGEST_BYTES:
        raise ExportError(f"{path.name} has {size} bytes, which no ONNX file has", fix="export the model again")
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ExportError(
            f"{path.name} is not an ONNX file, or only a part of one ({size} bytes)",
            fix="copy it again and compare its SHA-256 with the one recorded at export",
        ) from error
    if not model.graph.node or not model.opset_import or not model.graph.output:
        raise ExportError(f"{path.name} holds no ONNX graph", fix="export the model again")
    return model


def _check_text(model: ModelProto, path: Path) -> None:
    """Names must be text: protobuf hands out what is no UTF-8 as bytes, and every later lookup would trip over it."""
    names: list[object] = [entry.domain for entry in model.opset_import]
    for node in model.graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [item.name for item in node.attribute]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        names += [value.name, *[dim.dim_param for dim in value.type.tensor_type.shape.dim]]
    for tensor in _tensors(model):
        names += [tensor.name, *[entry.value for entry in tensor.external_data]]
    if not all(isinstance(name, str) for name in names):
        raise ExportError(
            f"{path.name} has names that are no text, so it is damaged",
            fix="copy it again and compare its SHA-256 with the one recorded at export",
        )


def _tensors(model: ModelProto) -> list[TensorProto]:
    found = list(model.graph.initializer)
    for node in model.graph.node:
        for item in node.attribute:
            if item.HasField("t"):
                found.append(item.t)
            found.extend(item.tensors)
    return found


def _check_external(model: ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        relative = PurePosixPath(location)
        parts = re.split(r"[/\\]", location)
        inside = (folder / relative).resolve().is_relative_to(folder)
        if not location or relative.is_absolute() or ".." in parts or not inside:
            raise ExportError(
                f"{path.name} keeps tensor {tensor.name!r} at {location!r}, outside its own folder",
                fix="do not use this file, or save it as one file where you trust it",
            )


def _check_operators(model: ModelProto, path: Path) -> None:
    opset = graph.opset(model)
    foreign, unknown = set(), set()
    for node in model.graph.node:
        if node.domain not in graph.STANDARD_DOMAINS:
            foreign.add(f"{node.domain}::{node.op_type}")
        elif node.op_type in CONTROL_FLOW:
            foreign.add(node.op_type)
        else:
            try:
                onnx.defs.get_schema(node.op_type, max_inclusive_version=opset)
            except (onnx.defs.SchemaError, ValueError):
                unknown.add(node.op_type)
    if foreign:
        raise ExportError(
            f"{path.name} uses {', '.join(sorted(foreign))}, which the targets' runtimes do not share",
            fix="export the model with standard operators and without control flow",
        )
    if unknown:
        raise ExportError(
            f"{path.name} uses {', '.join(sorted(unknown))}, which ONNX opset {opset} does not have",
            fix="export the model again, or with a later opset",
        )


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
