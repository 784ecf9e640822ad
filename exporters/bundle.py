"""The files that build and check an engine on another machine: model, script, golden arrays, manifest.

The same folder is what a user copies to a device, what is sent to a remote builder, and what a local build works in, so
all three check the same hashes and are judged by the same bounds.
"""

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

from onnx import ModelProto

from exporters import device, dla, engine_request, for_tensorrt, golden
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from exporters.passes import quantize_weights_in_graph
from profiles import atomic
from profiles.target import Target

CODE = Path(device.__file__).parent
SCRIPT = "build_engine.py"
MODEL = "model.onnx"
DLA_MODEL = "model_dla.onnx"
MANIFEST = "manifest.json"
FORMAT = 2

BOUNDS: Mapping[str, float] = {
    # Accumulation orders differ between runtimes, so a value near a rounding boundary may land one code further, and a
    # flip inside the network may add another at its output.
    "max_steps": 4.0,
    "within_one_step": 0.99,
    # A float output after int8 layers moves by what flips inside the network carry to it: measured 2e-3 of the spread
    # between torch and onnxruntime, ten times that is allowed.
    "mean_of_spread": 0.02,
    "top1_agreement": 0.98,
}

RUN = """#!/bin/sh
# Build the engine on this machine, check it, and write result.json. Arguments go to build_engine.py (--help).
set -eu
cd "$(dirname "$0")"
exec python3 build_engine.py "$@"
"""

START = """#!/usr/bin/env python3
# Build a TensorRT engine from the files beside this one, on the machine that will run it, and check it there.
#
#     python3 build_engine.py                 build model.engine (or keep one that fits), check it, write result.json
#     python3 build_engine.py --self-test     everything that needs no GPU
#     python3 build_engine.py --probe         what this machine has, as JSON
#
# Exit status: 0 done, 1 the engine was built but failed its check, 2 refused (the reason is printed), 3 the builder
# crashed, or exceeded its time or memory. Nothing but Python, numpy and this machine's TensorRT is used.

import sys

if sys.version_info < (3, 8):
    sys.stderr.write("refused: Python 3.8 or later is needed, this is %d.%d\\n" % sys.version_info[:2])
    sys.exit(2)
sys.dont_write_bytecode = True
from device.main import main  # noqa: E402

sys.exit(main())
"""

README = """# {name} for {device}

`./run.sh` builds `model.engine` on this machine with its own {library}, runs it on
{samples} and writes `result.json`: agreement with the expected outputs, latency, the engine's SHA-256, and
which layers run in int8. An engine that is there and fits this machine and model is kept.

- Needs: Python 3.8 or later, numpy, {library}, a GPU of compute capability {capability}.
- `./run.sh --self-test` checks the files and everything else that needs no GPU.
- `./run.sh --probe` says what this machine has and lacks.
- `./run.sh --any-device` builds for another GPU; that engine then runs only there.
- `./run.sh --rebuild` builds again where the engine that is there would do.
- `timing/` keeps kernel timings of this machine, so that a second build is faster; with `--only-cached-timings` it
  refuses to time anything anew and is repeatable.
- Every file is compared with `manifest.json` before anything is built. To be sure of the manifest as well, pass
  `--manifest-sha256` with the value that the run which made this bundle reported, or `--public-key` with the key of who
  signed it (`manifest.json.sig`; needs Python's cryptography, or openssl 3.0).
- Beside the engine lie `model.engine.json` (what it was built from and by, checked before it is used again),
  `build.log`, `layers.json` (the engine inspector's own report) and `layers.report.json` (one row for each layer).

Exit status: 0 built and within the bounds, 1 built but outside them, 2 refused (the reason is printed), 3 the builder
crashed or took too long or too much memory (`build.log` has its last words).

An engine runs with the TensorRT version and on the GPU model that built it. Start this again after an update of either.
This bundle's script follows NVIDIA's documents; the machine that made it had no such GPU and did not run it.
"""


def write(
    model: Path,
    target: Target,
    folder: Path,
    options: BuildOptions,
    *,
    package: str = "tensorrt",
    capabilities: tuple[str, ...] = (),
) -> str:
    """Write a bundle as `folder`, whole or not at all; a bundle that is there is replaced.

    Args:
        package: the library that builds there, "tensorrt" or "tensorrt_rtx".
        capabilities: what a build ahead of time is for.

    Returns:
        SHA-256 of its manifest.json, which fixes every byte of the bundle.

    Raises:
        ExportError: the model cannot be used for TensorRT, or the golden arrays do not fit it.
    """
    graph = for_tensorrt.prepare(model)
    weighted, _ = for_tensorrt.weighted_nodes(graph)
    if options.engine.dla_core is not None:
        graph = dla.fix_batch(graph, options.batches[1])
    names = [value.name for value in graph.graph.input]
    outputs = [value.name for value in graph.graph.output]
    _check_golden(options, names, outputs)
    wanted = engine_request.request(graph, options, capabilities)
    files: dict[str, bytes] = {
        MODEL: _bytes(quantize_weights_in_graph.apply(graph) if target.runtime_version.startswith("8.") else graph),
        SCRIPT: START.encode(),
        "run.sh": RUN.encode(),
        **code(),
    }
    if options.engine.dla_core is not None:
        files[DLA_MODEL] = _bytes(dla.strip(graph).model)
    smallest, typical, largest = _batches(graph, wanted["profiles"])
    request = {
        "format": FORMAT,
        "package": package,
        "target": target.name,
        "device": target.device,
        "compute_capability": options.capability or target.compute_capability,
        "engine": wanted,
        "one_batch_size": smallest > 1,
        "largest_batch": largest,
        "latency_batches": sorted({smallest, typical}),
        "inputs": names,
        "outputs": outputs,
        "output_step": options.output_step,
        "bounds": dict(BOUNDS),
        "weighted_nodes": weighted,
        "onnx_sha256": atomic.sha256(model),
    }
    rows = len(next(iter(options.golden_inputs.values()))) if options.golden_inputs else 0
    readme = README.format(
        name=options.name or "A compressed model",
        device=target.device,
        library="TensorRT for RTX" if package == "tensorrt_rtx" else "TensorRT 8.5 to 11.x",
        samples=f"{rows} real samples" if rows else "nothing (it has no samples)",
        capability=request["compute_capability"],
    )
    files["bundle.json"] = (json.dumps(request, indent=1, sort_keys=True) + "\n").encode()
    files["README.md"] = readme.encode()
    if rows:
        files["golden_inputs.npz"] = golden.npz_bytes(options.golden_inputs)
        files["golden_outputs.npz"] = golden.npz_bytes(options.golden_outputs)
    listed = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in sorted(files.items())
    }
    manifest = (json.dumps({"format": FORMAT, "files": listed}, indent=1, sort_keys=True) + "\n").encode()
    _write_folder(folder, {**files, MANIFEST: manifest})
    return hashlib.sha256(manifest).hexdigest()


def code() -> dict[str, bytes]:
    """The builder's own files, by the names that they have in a bundle."""
    return {f"{CODE.name}/{path.name}": path.read_bytes() for path in sorted(CODE.glob("*.py"))}


def write_script(folder: Path) -> None:
    """Only the script and its files, for asking a machine what it has."""
    (folder / CODE.name).mkdir(parents=True, exist_ok=True)
    for name, content in {SCRIPT: START.encode(), **code()}.items():
        (folder / name).write_bytes(content)


def packed(folder: Path) -> bytes:
    """Every file of a bundle as one ZIP archive, which `python3 -m zipfile -e` unpacks on a device."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return stream.getvalue()


def _bytes(model: ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def _batches(model: ModelProto, profiles: list[for_tensorrt.Profile]) -> tuple[int, int, int]:
    """Smallest, typical and largest batch of the first profile, or the only one of a model without dynamic shapes."""
    first = model.graph.input[0]
    if profiles and first.name in profiles[0]:
        small, middle, large = (shape[0] if shape else 1 for shape in profiles[0][first.name])
        return small, middle, large
    dims = first.type.tensor_type.shape.dim
    size = int(dims[0].dim_value) if len(dims) else 1
    return size, size, size


def _check_golden(options: BuildOptions, inputs: list[str], outputs: list[str]) -> None:
    given, expected = options.golden_inputs, options.golden_outputs
    if not given and not expected:
        return
    if set(given) != set(inputs) or set(expected) != set(outputs):
        raise ExportError(
            f"golden arrays are named {sorted(given)} -> {sorted(expected)}, the model's tensors {inputs} -> {outputs}",
            fix="name them as the model does",
        )
    rows = {name: len(array) if array.ndim else 0 for name, array in (*given.items(), *expected.items())}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise ExportError(f"golden arrays have different numbers of samples: {rows}", fix="pass all of one batch")


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}{atomic.TEMPORARY_MARK}{os.getpid()}")
    old = folder.with_name(f".{folder.name}{atomic.TEMPORARY_MARK}{os.getpid()}-old")
    try:
        fresh.mkdir()
        (fresh / CODE.name).mkdir()
        for name, content in files.items():
            atomic.write_bytes(fresh / name, content)
        (fresh / "run.sh").chmod(0o755)
        (fresh / SCRIPT).chmod(0o755)
        if folder.exists():
            os.replace(folder, old)
        atomic.rename_new_folder(fresh, folder)
    finally:
        for leftover in (fresh, old):
            if leftover.is_dir():
                shutil.rmtree(leftover)
