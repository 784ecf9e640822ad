"""Operators that only pick or move elements between space and channels: nearest Resize, DepthToSpace, SpaceToDepth."""

import numpy as np

from exporters.c.context import Context
from exporters.c.graph import Node
from exporters.c.program import Index
from exporters.errors import ExportError


def nearest(context: Context, node: Node, index: Index) -> Index:
    """Which element each element of a nearest-neighbour Resize is (ONNX operator Resize)."""
    mode = node.attributes.get("mode", b"nearest").decode()
    if mode != "nearest":
        raise ExportError(
            f"{node.describe()} resizes by {mode!r} interpolation; there is a kernel for 'nearest'",
            fix="use nearest-neighbour upsampling and a convolution in the model",
        )
    shape = context.graph.shape(node.outputs[0], node)
    scales: list[float] = [out / size for out, size in zip(shape, index.shape, strict=True)]
    given = context.optional(node, 2)
    if given is not None and np.size(context.constant(node, 2, "scales")) == len(shape):
        scales = [float(scale) for scale in context.constant(node, 2, "scales").reshape(-1)]
    coordinates = node.attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = node.attributes.get("nearest_mode", b"round_prefer_floor").decode()
    for axis, (out, size, scale) in enumerate(zip(shape, index.shape, scales, strict=True)):
        if out == size and scale == 1:
            continue
        at = np.arange(out, dtype=np.float32)
        factor = np.float32(scale)
        if coordinates == "asymmetric":
            place = at / factor
        elif coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and out > 1):
            place = (at + np.float32(0.5)) / factor - np.float32(0.5)
        elif coordinates == "pytorch_half_pixel":
            place = np.zeros(1, np.float32)
        elif coordinates == "align_corners":
            place = at * np.float32((size - 1) / (out - 1)) if out > 1 else np.zeros(1, np.float32)
        else:
            raise ExportError(f"{node.describe()} places elements by {coordinates!r}", fix="use 'asymmetric'")
        rounded = {
            "floor": np.floor(place),
            "ceil": np.ceil(place),
            "round_prefer_floor": np.ceil(place - np.float32(0.5)),
            "round_prefer_ceil": np.floor(place + np.float32(0.5)),
        }[rounding]
        index = np.take(index, np.clip(rounded, 0, size - 1).astype(np.int64), axis=axis)
    return index


def blocks(context: Context, node: Node, index: Index) -> Index:
    """Which element each element of a DepthToSpace or SpaceToDepth is."""
    size = int(node.attributes["blocksize"])
    batch, channels, height, width = index.shape
    if node.op == "SpaceToDepth":
        parts = index.reshape(batch, channels, height // size, size, width // size, size)
        return parts.transpose(0, 3, 5, 1, 2, 4).reshape(context.graph.shape(node.outputs[0], node))
    if node.attributes.get("mode", b"DCR") == b"CRD":
        parts = index.reshape(batch, channels // size**2, size, size, height, width).transpose(0, 1, 4, 2, 5, 3)
    else:
        parts = index.reshape(batch, size, size, channels // size**2, height, width).transpose(0, 3, 4, 1, 5, 2)
    return parts.reshape(context.graph.shape(node.outputs[0], node))
