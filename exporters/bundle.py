"""The files that build and check an engine on another machine: model, script, golden arrays, manifest.

The same folder is what a user copies to a device, what is sent to a remote builder, and what a local build works in, so
all three check the same hashes and are judged by the same bounds.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from exporters import for_tensorrt, golden
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles import atomic
from profiles.target import Target

SCRIPT = Path(__file__).with_name("build_engine.py")
MODEL = "model.onnx"
MANIFEST = "manifest.json"
FORMAT = 1

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

README = """# {name} for {device}

`./run.sh` builds `model.engine` on this machine with its own TensorRT ({versions}), runs it on
{samples} and writes `result.json`: agreement with the expected outputs, latency, the engine's SHA-256, and
which layers run in int8.

- Needs: Python 3.10 or later, numpy, TensorRT {versions}, a GPU of compute capability {capability}.
- `./run.sh --self-test` checks the files and everything else that needs no GPU.
- `./run.sh --probe` says what this machine has and lacks.
- `./run.sh --any-device` builds for another GPU; that engine then runs only there.
- `./run.sh --timing-cache cache.bin` makes a second build faster and repeatable.
- Every file is compared with `manifest.json` before anything is built. To be sure of the manifest as well, pass
  `--manifest-sha256` with the value that the run which made this bundle reported.

Exit status: 0 built and within the bounds, 1 built but outside them, 2 refused (the reason is printed), 3 the builder
crashed or took too long (`build.log` has its last words).

An engine runs with the TensorRT version and on the GPU model that built it. Build again after an update of either.
This bundle's script follows NVIDIA's documents; the machine that made it had no such GPU and did not run it.
"""


def write(model: Path, target: Target, folder: Path, options: BuildOptions) -> str:
    """Write a bundle as `folder`, whole or not at all; a bundle that is there is replaced.

    Returns:
        SHA-256 of its manifest.json, which fixes every byte of the bundle.

    Raises:
        ExportError: the model cannot be used for TensorRT, or the golden arrays do not fit it.
    """
    graph = for_tensorrt.prepare(model)
    names = [value.name for value in graph.graph.input]
    outputs = [value.name for value in graph.graph.output]
    _check_golden(options, names, outputs)
    weighted, _ = for_tensorrt.weighted_nodes(graph)
    data = graph.SerializeToString(deterministic=True)
    request = {
        "format": FORMAT,
        "target": target.name,
        "device": target.device,
        "compute_capability": options.capability or target.compute_capability,
        "profile": for_tensorrt.profile(graph, options.batches, options.shapes),
        "batches": list(options.batches),
        "latency_batches": sorted({options.batches[0], options.batches[1]}),
        "inputs": names,
        "outputs": outputs,
        "output_step": options.output_step,
        "bounds": dict(BOUNDS),
        "weighted_nodes": weighted,
        "onnx_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    rows = len(next(iter(options.golden_inputs.values()))) if options.golden_inputs else 0
    readme = README.format(
        name=options.name or "A compressed model",
        device=target.device,
        versions="10.3 to 11.x",
        samples=f"{rows} real samples" if rows else "nothing (it has no samples)",
        capability=request["compute_capability"],
    )
    files: dict[str, bytes] = {
        MODEL: bytes(data),
        "build_engine.py": SCRIPT.read_bytes(),
        "run.sh": RUN.encode(),
        "bundle.json": (json.dumps(request, indent=1, sort_keys=True) + "\n").encode(),
        "README.md": readme.encode(),
    }
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
        for name, content in files.items():
            atomic.write_bytes(fresh / name, content)
        (fresh / "run.sh").chmod(0o755)
        (fresh / "build_engine.py").chmod(0o755)
        if folder.exists():
            os.replace(folder, old)
        os.replace(fresh, folder)
    finally:
        for leftover in (fresh, old):
            if leftover.is_dir():
                shutil.rmtree(leftover)
