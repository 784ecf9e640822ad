"""The smallest thing that shows a fault: one layer as an ONNX file, its inputs, what was expected, a script.

The folder needs numpy and onnxruntime (this project too, where a generated C is at fault) and nothing of the run that
it came from.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper

from exporters import golden
from exporters.bisect import Checked
from exporters.bisect_layers import Arrays, Layer, cut, entry
from exporters.bisect_sides import Runtime, Tensors, fixed
from profiles import atomic

SAMPLES = 4
LAYER, INPUTS, EXPECTED, SCRIPT, TOLD = "layer.onnx", "inputs.npz", "expected.npz", "rerun.py", "finding.json"

_SCRIPT = '''"""Run one layer and compare it with what was expected. {told}"""

import sys

import numpy as np
{imports}
with np.load("inputs.npz", allow_pickle=False) as stored:
    inputs = dict(stored)
with np.load("expected.npz", allow_pickle=False) as stored:
    expected = dict(stored)
{run}
error = max(float(np.abs(found[n].astype(float) - v.astype(float)).max()) for n, v in expected.items())
print(f"largest error {{error:.6g}}, bound {bound!r}")
sys.exit(error > {bound!r})
'''


def write(
    folder: Path,
    reference: Tensors,
    candidate: ModelProto,
    found: Checked,
    inputs: Arrays,
    runtime: Runtime,
) -> list[Path]:
    """Write layer.onnx, inputs.npz, expected.npz, rerun.py and finding.json.

    The inputs are the reference's tensors in front of the layer, of the few samples that differ most; rerun.py leaves
    with 1 as long as the error is larger than what rounding explains.

    Args:
        folder: made where it is missing.
        reference: computes the layer's inputs and what is expected of it.
        candidate: the model that the layer is cut from.
        found: a layer of a bisect of these two.
        inputs: of the model, as the bisect had them.
        runtime: what ran the candidate.

    Returns:
        The files.
    """
    layer = found.layer
    given = {value.name for value in candidate.graph.input}
    names = [*(name for name in layer.inputs if name not in given), layer.output]
    values = dict(inputs) | reference.compute(names, inputs)
    rows = _rows(found, {name: values[name] for name in (*layer.inputs, layer.output)})
    values = {name: values[name] if rows is None else values[name][rows] for name in (*layer.inputs, layer.output)}
    model = sub_graph(candidate, layer, values, requantise=runtime.fuses)
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(folder / LAYER, model.SerializeToString(deterministic=True))
    golden.write(folder / INPUTS, {entry(name): values[name] for name in layer.inputs})
    golden.write(folder / EXPECTED, {layer.output: values[layer.output]})
    atomic.write_text(folder / SCRIPT, _script(found, runtime))
    told = {
        "module": layer.module,
        "node": layer.node,
        "operators": list(layer.operators),
        "tensor": layer.output,
        "runtime": runtime.name,
        "sentence": found.sentence(),
        "samples": None if rows is None else [int(row) for row in rows],
    }
    atomic.write_text(folder / TOLD, json.dumps(told, indent=1) + "\n")
    return [folder / name for name in (LAYER, INPUTS, EXPECTED, SCRIPT, TOLD)]


def sub_graph(candidate: ModelProto, layer: Layer, values: Arrays, *, requantise: bool) -> ModelProto:
    """The layer alone, with the shapes of `values`; checked.

    Args:
        values: of what the layer reads.
        requantise: see `bisect_layers.cut`.
    """
    model = cut(candidate, [layer], values, requantise=requantise)
    del model.metadata_props[:]
    model.graph.name = "layer"
    shaped = fixed(model, {entry(name): values[name] for name in layer.inputs}, batch=None)
    for value in shaped.graph.input:  # any number of samples may be given later
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    kind = shaped.graph.output[0].type.tensor_type.elem_type
    free = helper.make_tensor_value_info(layer.output, kind, [None] * values[layer.output].ndim)
    del shaped.graph.output[:], shaped.graph.value_info[:]
    shaped.graph.output.append(free)
    onnx.checker.check_model(shaped)
    return shaped


def _rows(found: Checked, values: Mapping[str, NDArray[np.generic]]) -> NDArray[np.int64] | None:
    """The samples that differ most; None where a tensor has no batch in front."""
    sizes = {value.shape[0] if value.ndim else 0 for value in values.values()}
    if len(sizes) != 1 or found.parity is None or not found.parity.worst:
        return None
    return np.array(sorted(worst.sample for worst in found.parity.worst[:SAMPLES]), dtype=np.int64)


def _script(found: Checked, runtime: Runtime) -> str:
    error = 0.0 if found.parity is None else found.parity.max_abs
    bound = error / found.verdict.score if np.isfinite(found.verdict.score) and found.verdict.score > 0 else 0.0
    needs_ort = any("onnxruntime." in line for line in runtime.script)
    return _SCRIPT.format(
        told=f"{found.layer.node} by {runtime.name}.".replace('"""', ""),
        imports="import onnxruntime\n" if needs_ort else "",
        run="\n".join(runtime.script) or "found = {}  # this runtime cannot be started from here",
        bound=float(bound),
    )
