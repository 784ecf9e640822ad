"""A folder that builds the engine on the device itself: copy it there, start run.sh.

An engine runs only where it was built, and no x86 machine builds one for a Jetson. The folder holds everything that
the device needs beside its own TensorRT, and the means to prove there that the engine computes what was trained.
"""

from pathlib import Path

from exporters import bundle
from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from exporters.remote import Machine
from profiles.target import Target

NAME = "bundle"


def can_run(target: Target, *, remote: str | Machine | None = None) -> str | None:
    """None for every TensorRT target: writing the folder needs nothing but the model."""
    if remote is not None:
        return "a bundle is written on this machine; copy it to the device yourself"
    if target.runtime != "tensorrt":
        return f"{target.name} runs {target.runtime}, and a bundle builds a TensorRT engine"
    return None


def convert(model: Path, target: Target, out: Path, *, options: BuildOptions) -> Artifact:
    """Write `out/bundle` (or `out/<options.name>`).

    Args:
        model: the exported ONNX file.
        target: names the device and its compute capability, which the script checks.
        out: folder below which the bundle's folder appears whole; one that is there is replaced.
        options: golden_inputs and golden_outputs (needed), output_step, batches, shapes.

    Returns:
        The folder. The same model, target and options give the same bytes in every file.

    Raises:
        ExportError: no golden samples, or the model breaks one of TensorRT's rules.
    """
    missing = can_run(target)
    if missing is not None:
        raise ExportError(missing, fix="name another builder for this target")
    if not options.golden_inputs or not options.golden_outputs:
        raise ExportError(
            "a bundle needs golden inputs and outputs: without them the device cannot check its engine",
            fix="pass a few real samples and what onnxruntime gives for them",
        )
    folder = out / (options.name or NAME)
    manifest = bundle.write(model, target, folder, options)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return Artifact(
        path=folder,
        kind="bundle",
        purpose=options.purpose,
        note=f"copy to {target.device} and start run.sh; not run on the device here",
        facts={
            "manifest_sha256": manifest,
            "files": [path.relative_to(folder).as_posix() for path in files],
            "bytes": sum(path.stat().st_size for path in files),
            "samples": len(next(iter(options.golden_inputs.values()))),
            "reproducible": True,
        },
    )
