"""An ONNX graph as C by emx-onnx-cgen, for operators that `onnx_to_c` has no kernel for. Slower, and wider.

The generator is a program of its own (PyPI: emx-onnx-cgen), called as one; it keeps every tensor on the stack and turns
Q/DQ pairs into float code. The folder has the same files as one of `onnx_to_c`, so `profiles` runs it alike.
"""

import json
import math
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import onnx

import profiles
from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles.atomic import TEMPORARY_MARK, rename_new_folder, write_text
from profiles.runners.cortex_m import toolchain
from profiles.target import Target

PROGRAM = "emx-onnx-cgen"
FOLDER = "emx"
TIMEOUT_S = 120.0
_BYTES = {"float": 4, "int8_t": 1, "uint8_t": 1, "int16_t": 2, "int32_t": 4, "int64_t": 8, "bool": 1, "double": 8}
_CALL = re.compile(r"^ {4}(node(\d+)_\w+)\(", re.MULTILINE)
_ARRAY = re.compile(r"^ {4}(\w+) tmp\w*((?:\[\d+\])+);", re.MULTILINE)

_HEADER = """/* Sizes of a model that another generator wrote. */
#ifndef MODEL_H
#define MODEL_H
#define MODEL_INPUT_FLOATS {inputs}
#define MODEL_OUTPUT_FLOATS {outputs}
#define MODEL_ARENA_BYTES {arena}
#define MODEL_STEPS {steps}
void model_run(const float *in, float *out);
#define MODEL_CALL(in, out) model_run(in, out)
#endif
"""

_WRAPPER = """
#include "model.h"

void model_run(const float *in, float *out)
{{
    model({arguments});
    MODEL_STEP({steps});
}}
"""


def can_run(target: Target, *, remote: str | None = None) -> str | None:
    """Why no C can be made for `target` here; None where it can."""
    if remote is not None:
        return "C is generated on this machine; it needs no remote one"
    if target.family != "cortex-m":
        return f"C is generated for Cortex-M cores; {target.name} is {target.family}"
    if shutil.which(PROGRAM) is None:
        return f"{PROGRAM} is not installed: pip install {PROGRAM} (it may want an environment of its own)"
    return None


def convert(model: Path, target: Target, out: Path, *, options: BuildOptions | None = None) -> Artifact:
    """Write a folder `emx` below `out`: model.c, model.h, model.json.

    Args:
        model: ONNX with float32 inputs and outputs. Dynamic first dimensions become 1.
        target: of the family cortex-m.

    Raises:
        ExportError: the program is missing or refuses the graph (its own words are in the message), or an input or
            output is no float tensor of fixed size.
        ProfileError: the graph cannot be read.
    """
    missing = can_run(target)
    if missing is not None:
        raise ExportError(missing, fix=f"choose a Cortex-M target and install {PROGRAM}")
    out.mkdir(parents=True, exist_ok=True)
    final = out / ((options.name if options else None) or FOLDER)
    partial = Path(tempfile.mkdtemp(prefix=f".{final.name}{TEMPORARY_MARK}", dir=out))
    try:
        partial.chmod(0o755)
        facts = _write(Path(model), target, partial)
        if final.exists():
            shutil.rmtree(final)
        rename_new_folder(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    purpose = options.purpose if options else "artifact"
    note = f"by {PROGRAM}: quantised layers run in floats, every tensor is on the stack"
    return Artifact(final, "c-library", purpose, note, facts)


def _write(model: Path, target: Target, out: Path) -> dict[str, Any]:
    try:
        fixed = onnx.load(str(model))
    except Exception as error:  # onnx raises what protobuf and the file system raise
        raise ExportError(f"{model} cannot be read as an ONNX model: {error}", fix="pass an ONNX file") from error
    inputs = _sizes(fixed, [v for v in fixed.graph.input if v.name not in {t.name for t in fixed.graph.initializer}])
    with tempfile.TemporaryDirectory(prefix="emx-") as scratch:
        folder = Path(scratch)
        fixed = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
        outputs = _sizes(fixed, fixed.graph.output)
        onnx.save(fixed, str(folder / "model.onnx"))
        source = _generate(folder)
    calls = list(_CALL.finditer(source))
    numbers = iter(range(len(calls)))
    source = _CALL.sub(lambda found: f"    MODEL_STEP({next(numbers)});\n{found[0]}", source)
    marker = "#ifndef MODEL_STEP\n#define MODEL_STEP(number)\n#endif\n"
    arguments = [*_parts("in", inputs), *_parts("out", outputs)]
    arena = sum(
        _BYTES.get(kind, 8) * math.prod(map(int, re.findall(r"\d+", sizes))) for kind, sizes in _ARRAY.findall(source)
    )
    write_text(out / "model.c", marker + source + _WRAPPER.format(arguments=", ".join(arguments), steps=len(calls)))
    counts = {"inputs": _total(inputs), "outputs": _total(outputs), "arena": arena, "steps": len(calls)}
    write_text(out / "model.h", _HEADER.format(**counts))
    first = next(iter(inputs.values()), (1,))
    cost = profiles.profile(fixed, target, batch=first[0] if first else 1, layers=False)
    nodes = {position: node for position, node in enumerate(fixed.graph.node)}
    step = {"macs": 0, "outputs": 0, "weight_bytes": 0, "activation_bytes": 0, "precision": "fp32"}
    table = {
        "core": toolchain.core_of(target.hardware.core).name,
        "inputs": {name: math.prod(shape) for name, shape in inputs.items()},
        "outputs": {name: math.prod(shape) for name, shape in outputs.items()},
        "output_shapes": {name: list(shape[1:]) for name, shape in outputs.items()},
        "arena_bytes": arena,
        "weight_bytes": sum(len(tensor.raw_data) for tensor in fixed.graph.initializer),
        "macs": cost.macs,
        "params": cost.params,
        "fallback": [],
        "steps": [{"name": call[1], "ops": _operators(nodes, int(call[2])), **step} for call in calls],
    }
    write_text(out / "model.json", json.dumps(table, indent=1) + "\n")
    return {"core": table["core"], "arena_bytes": arena, "weight_bytes": table["weight_bytes"], "macs": cost.macs}


def _operators(nodes: dict[int, onnx.NodeProto], number: int) -> list[str]:
    return [nodes[number].op_type] if number in nodes else []


def _generate(folder: Path) -> str:
    command = [PROGRAM, "compile", "model.onnx", "emx.c", "--model-name", "model", "--large-weight-threshold", "0"]
    command += ["--large-temp-threshold", "0", "--restrict-arrays"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"{PROGRAM} did not finish within {TIMEOUT_S:g} s", fix="give it a smaller graph") from error
    if done.returncode or not (folder / "emx.c").exists():
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ExportError(
            f"{PROGRAM} refuses the graph: {said[-1].strip() if said else 'it said nothing'}",
            fix="replace the operator in the model",
        )
    return (folder / "emx.c").read_text(encoding="utf-8")


def _sizes(model: onnx.ModelProto, values: Any) -> dict[str, tuple[int, ...]]:
    """Shapes with a dynamic first dimension set to 1, in the model too."""
    shapes = {}
    for value in values:
        tensor = value.type.tensor_type
        if tensor.elem_type != onnx.TensorProto.FLOAT:
            raise ExportError(
                f"{value.name!r} is {onnx.TensorProto.DataType.Name(tensor.elem_type)}", fix="export float32 tensors"
            )
        dims = list(tensor.shape.dim)
        if dims and not dims[0].dim_value:
            dims[0].ClearField("dim_param")
            dims[0].dim_value = 1
        if any(dim.dim_value <= 0 for dim in dims):
            raise ExportError(
                f"{value.name!r} has no fixed size", fix="export with fixed sizes in every dimension but the batch"
            )
        shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return shapes


def _total(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _parts(array: str, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Arguments of the generated function: pointers into one array."""
    parts, at = [], 0
    for shape in shapes.values():
        parts.append(f"(void *)({array} + {at})")
        at += math.prod(shape)
    return parts
