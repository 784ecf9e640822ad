"""Models whose weights do not fit into one protobuf message (2 GiB): how they are inferred, run, and stored.

A small model is one file. A larger one keeps its large initializers in one data file beside it, named after it, and
nowhere else: whoever opens it (`check_onnx.load`) refuses data outside the model's folder.
"""

import hashlib
import importlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, helper

from profiles import atomic

ONE_FILE_BYTES = 2**31 - 1 - (64 << 20)  # protobuf's limit, less what a graph without weights may take
LARGE_TENSOR_BYTES = 1024  # smaller initializers (shapes, scales, axes) stay in the graph, where inference reads them
ALIGNMENT = 4096  # of each tensor in the data file, so that a runtime can map it
DATA_SUFFIX = ".data"


def bytes_of(model: ModelProto) -> int:
    """Size of the initializers' data, in bytes."""
    return sum(len(tensor.raw_data) or tensor.ByteSize() for tensor in model.graph.initializer)


def skeleton(model: ModelProto) -> ModelProto:
    """The model with its large initializers as inputs: enough for shape inference and for onnx's check of the graph.

    A model that fits into one message is handed back as it is.
    """
    if bytes_of(model) <= ONE_FILE_BYTES:
        return model
    placed = {tensor.name: (0, 0) for tensor in model.graph.initializer if _is_large(tensor)}
    bare = _light(model, placed, "")
    hollow = [tensor for tensor in bare.graph.initializer if tensor.name in placed]
    given = {value.name for value in bare.graph.input}
    for tensor in hollow:
        if tensor.name not in given:
            bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    kept = [tensor for tensor in bare.graph.initializer if tensor.name not in placed]
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(kept)
    return bare


def infer_shapes(model: ModelProto, **options: Any) -> ModelProto:
    """onnx's shape inference for a model of any size; of one too large for a message, large initializers come back as
    inputs."""
    return onnx.shape_inference.infer_shapes(skeleton(model), **options)


def session(model: ModelProto, options: Any) -> Any:
    """A session on the CPU for a model in memory, of any size."""
    ort: Any = importlib.import_module("onnxruntime")  # a device that only builds has none
    providers = ["CPUExecutionProvider"]
    if bytes_of(model) <= ONE_FILE_BYTES:
        return ort.InferenceSession(model.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        path = Path(folder) / "model.onnx"
        write(model, path)
        return ort.InferenceSession(str(path), options, providers=providers)


def data_path(path: Path) -> Path:
    """Where a model of this path keeps its data: `model.onnx` -> `model.onnx.data`."""
    return path.with_name(path.name + DATA_SUFFIX)


def write(model: ModelProto, path: Path, *, one_file_bytes: int = ONE_FILE_BYTES) -> dict[str, str]:
    """Write a model, whole or not at all, with its data beside it where it is too large for one file.

    The data file is complete under its name before the model's file appears, so a model that can be seen can be read.

    Args:
        model: not changed.
        path: the .onnx file.
        one_file_bytes: initializers of more bytes than this go to the data file.

    Returns:
        File name -> sha256, of the model and, where there is one, its data. The same model gives the same bytes.
    """
    path = Path(path)
    beside = data_path(path)
    if bytes_of(model) <= one_file_bytes:
        data = model.SerializeToString(deterministic=True)
        atomic.write_bytes(path, data)
        beside.unlink(missing_ok=True)
        return {path.name: hashlib.sha256(data).hexdigest()}
    digest = hashlib.sha256()
    placed: dict[str, tuple[int, int]] = {}
    with atomic.writing(beside) as temporary, open(temporary, "wb") as sink:
        for tensor in model.graph.initializer:
            if not _is_large(tensor):
                continue
            gap = b"\0" * (-sink.tell() % ALIGNMENT)
            sink.write(gap)
            digest.update(gap)
            placed[tensor.name] = (sink.tell(), len(tensor.raw_data))
            sink.write(tensor.raw_data)
            digest.update(tensor.raw_data)
        sink.flush()
        os.fsync(sink.fileno())
    data = _light(model, placed, beside.name).SerializeToString(deterministic=True)
    atomic.write_bytes(path, data)
    return {path.name: hashlib.sha256(data).hexdigest(), beside.name: digest.hexdigest()}


def _is_large(tensor: TensorProto) -> bool:
    return len(tensor.raw_data) >= LARGE_TENSOR_BYTES


def _light(model: ModelProto, placed: Mapping[str, tuple[int, int]], location: str) -> ModelProto:
    """A copy whose named initializers point to (offset, length) in a file; their data is never copied."""
    light = ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
    )
    light.opset_import.extend(model.opset_import)
    light.metadata_props.extend(model.metadata_props)
    light.functions.extend(model.functions)
    source, target = model.graph, light.graph
    target.name, target.doc_string = source.name, source.doc_string
    target.node.extend(source.node)
    target.input.extend(source.input)
    target.output.extend(source.output)
    target.value_info.extend(source.value_info)
    target.metadata_props.extend(source.metadata_props)
    for tensor in source.initializer:
        if tensor.name not in placed:
            target.initializer.add().CopyFrom(tensor)
            continue
        offset, length = placed[tensor.name]
        hollow = target.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        hollow.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
            hollow.external_data.add(key=key, value=value)
    return light
