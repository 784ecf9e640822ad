"""Run a graph on samples and note what every tensor holds: its magnitude, and what half precision would lose."""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from exporters import graph, large
from exporters.errors import ExportError
from exporters.half.formats import HalfFormat

Arrays = Mapping[str, NDArray[np.generic]]
AT_ONCE = 256 << 20  # bytes of tensors that one run exposes, by their inferred shapes


@dataclass(frozen=True)
class Seen:
    """One tensor over all samples.

    Attributes:
        largest: largest magnitude among its finite values; 0 where it has none.
        lost: |x - half(x)| / |x| in the L2 norm over all finite values that the format can hold; 0 for a tensor of
            zeros. Rounding within the normal range costs at most 2^-11 (fp16) or 2^-8 (bf16); more is underflow.
        finite: False where a value was NaN.
    """

    largest: float
    lost: float
    finite: bool = True

    def joined(self, other: "Seen") -> "Seen":
        """What both say of one tensor, at its worst."""
        return Seen(max(self.largest, other.largest), max(self.lost, other.lost), finite=self.finite and other.finite)


def seen_in(values: NDArray[np.generic], half: HalfFormat) -> Seen:
    """What one array says. Infinities pass: both formats have them."""
    flat = np.asarray(values).astype(np.float32, copy=False).ravel()
    finite = flat[np.isfinite(flat)]
    if not finite.size:
        return Seen(0.0, 0.0, finite=not bool(np.isnan(flat).any()))
    largest = float(np.abs(finite).max())
    held = finite[np.abs(finite) <= half.largest]
    norm = float(np.linalg.norm(held.astype(np.float64)))
    error = float(np.linalg.norm((half.round(held).astype(np.float32) - held).astype(np.float64)))
    return Seen(largest, error / norm if norm > 0 else 0.0, finite=not bool(np.isnan(flat).any()))


def observe(model: ModelProto, samples: Iterable[Arrays], half: HalfFormat) -> dict[str, Seen]:
    """What each float tensor that a node computes, and each float input, holds over the samples.

    Args:
        model: float32 arithmetic (with Q/DQ pairs or without).
        samples: inputs by name; a few batches of real data. Each is run on its own, and only summaries are kept.
        half: the format that `lost` is about.

    Raises:
        ExportError: onnxruntime refuses the model or an input, or there is no sample.
    """
    given = [dict(sample) for sample in samples]
    if not given:
        raise ExportError("no sample to observe ranges on", fix="pass calibration inputs, one batch at least")
    found: dict[str, Seen] = {}

    def note(name: str, values: NDArray[np.generic]) -> None:
        if np.asarray(values).dtype == np.float32:
            seen = seen_in(values, half)
            found[name] = found[name].joined(seen) if name in found else seen

    for sample in given:
        for name, values in sample.items():
            note(name, values)
    for names in _portions(model):
        session = _session(_exposing(model, names))
        for sample in given:
            try:
                outputs = session.run(list(names), sample)
            except Exception as error:  # onnxruntime's own classes share no narrower base
                raise ExportError(
                    f"onnxruntime cannot run the model on a sample: {str(error).splitlines()[0]}",
                    fix="pass inputs of the model's own names, shapes and types",
                ) from error
            for name, values in zip(names, outputs, strict=True):
                note(name, values)
    return found


def _session(model: ModelProto) -> Any:
    ort: Any = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    # Without rewrites, so that every exposed tensor is the one that the graph names.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return large.session(model, options)
    except Exception as error:
        raise ExportError(
            f"onnxruntime refuses the model: {str(error).splitlines()[0]}", fix="check it with onnx.checker.check_model"
        ) from error


def _exposing(model: ModelProto, names: tuple[str, ...]) -> ModelProto:
    """The model with exactly these tensors as outputs."""
    twin = graph.copy(model)
    del twin.graph.output[:]
    twin.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    return twin


def _portions(model: ModelProto) -> list[tuple[str, ...]]:
    """The float tensors that nodes compute, in groups of a bounded size."""
    inferred = large.infer_shapes(model)
    types = {
        value.name: value.type.tensor_type
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    made = [name for node in model.graph.node for name in node.output if name in types]
    groups: list[list[str]] = [[]]
    held = 0
    for name in made:
        dims = types[name].shape.dim
        size = 4 * int(np.prod([dim.dim_value if dim.HasField("dim_value") else 8 for dim in dims], dtype=np.int64))
        if groups[-1] and held + size > AT_ONCE:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return [tuple(group) for group in groups if group]
