"""Write STFT with a constant window as a convolution with the rows of the discrete Fourier transform.

TensorRT has no STFT. A frame's spectrum is a product of the frame with a matrix, and framing with a step is a
convolution's stride: X[k] = sum_n window[n] x[n] exp(-2 pi i k n / N), ONNX operator STFT (opset 17).

Requires: a real signal of shape (batch, samples, 1) or (batch, samples), constant frame_step and frame_length, and a
constant window where there is one; no complex input.
Ensures: no STFT whose parameters are constants is left; outputs differ by float32 rounding of sums of `frame_length`
products only. The matrix is computed in float64 and rounded once.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters import graph
from exporters.errors import ExportError

LARGEST_CHANGE = 1e-4  # relative, of the outputs: the logarithm of a small power magnifies rounding


def apply(model: ModelProto) -> ModelProto:
    """A model without STFT.

    Raises:
        ExportError: an STFT's window or frame is computed in the graph, or its signal is complex.
    """
    if not any(node.op_type == "STFT" for node in model.graph.node):
        return model
    shapes = graph.shapes(model)
    model = graph.copy(model)
    main = model.graph
    known = graph.constants(main)
    nodes: list[NodeProto] = []
    for node in list(main.node):
        if node.op_type == "STFT" and node.domain in graph.STANDARD_DOMAINS:
            nodes.extend(_rewrite(main, node, known, shapes.get(node.input[0])))
        else:
            nodes.append(node)
    graph.replace_nodes(main, nodes)
    return model


def dft_filters(window: NDArray[np.float64], length: int, onesided: bool) -> NDArray[np.float32]:
    """Filters whose correlation with a frame gives its spectrum.

    Args:
        window: (length,).
        length: samples of a frame, the transform's size.
        onesided: only the length // 2 + 1 bins that a real signal determines.

    Returns:
        (2 * bins, 1, length): the real rows of all bins, then the imaginary ones.
    """
    bins = length // 2 + 1 if onesided else length
    # k * n modulo N keeps the angle exact for long frames.
    turns = (np.arange(bins)[:, None] * np.arange(length)[None, :]) % length
    angle = 2.0 * np.pi * turns / length
    rows = np.concatenate([np.cos(angle), -np.sin(angle)]) * window
    return rows[:, None, :].astype(np.float32)


def _rewrite(
    main: GraphProto, node: NodeProto, known: dict[str, TensorProto], shape: list[int | str] | None
) -> list[NodeProto]:
    inputs = [*node.input, "", "", ""][:4]
    for name, what in ((inputs[1], "frame step"), (inputs[2], "window"), (inputs[3], "frame length")):
        if name and name not in known:
            raise ExportError(
                f"the {what} of STFT {node.name!r} is computed in the graph",
                fix="make it a constant of the front-end module (a registered buffer or a Python number)",
            )
    if shape is None or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 1):
        raise ExportError(
            f"STFT {node.name!r} has an input of shape {shape}; only real signals can be rewritten",
            fix="pass the front-end a real signal of shape (batch, samples)",
        )
    step = int(graph.array(known[inputs[1]]).item())
    window = graph.array(known[inputs[2]]).astype(np.float64) if inputs[2] else None
    length = int(graph.array(known[inputs[3]]).item()) if inputs[3] else len(window if window is not None else ())
    if length <= 0 or (window is not None and window.shape != (length,)):
        raise ExportError(
            f"STFT {node.name!r} has a window of another length than its frames ({length})",
            fix="pad the window to the frame length in the front-end",
        )
    onesided = bool(graph.attribute(node, "onesided", 1))
    filters = dft_filters(np.ones(length) if window is None else window, length, onesided)
    bins = filters.shape[0] // 2
    stem = node.name or node.output[0]
    names = {part: graph.fresh_name(main, f"{stem}_{part}") for part in ("filters", "signal", "flat", "split")}
    main.initializer.append(numpy_helper.from_array(filters, names["filters"]))
    shape_name = graph.fresh_name(main, f"{stem}_shape")
    axes_name = graph.fresh_name(main, f"{stem}_axis")
    # (batch, 2 bins, frames) -> (batch, 2, bins, frames) -> (batch, frames, bins, 2); 0 copies a size, -1 is inferred.
    main.initializer.append(numpy_helper.from_array(np.array([0, 2, bins, -1], np.int64), shape_name))
    made = []
    if len(shape) == 3:
        made.append(
            helper.make_node("Transpose", [inputs[0]], [names["signal"]], name=f"{stem}/signal", perm=[0, 2, 1])
        )
    else:
        main.initializer.append(numpy_helper.from_array(np.array([1], np.int64), axes_name))
        made.append(helper.make_node("Unsqueeze", [inputs[0], axes_name], [names["signal"]], name=f"{stem}/signal"))
    made += [
        helper.make_node(
            "Conv",
            [names["signal"], names["filters"]],
            [names["flat"]],
            name=f"{stem}/dft",
            kernel_shape=[length],
            strides=[step],
        ),
        helper.make_node("Reshape", [names["flat"], shape_name], [names["split"]], name=f"{stem}/split"),
        helper.make_node("Transpose", [names["split"]], [node.output[0]], name=stem, perm=[0, 3, 2, 1]),
    ]
    for part in made:
        part.metadata_props.extend(node.metadata_props)
    return made
