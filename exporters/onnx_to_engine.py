"""An engine by TensorRT itself (8.5 to 11.x), on this machine's GPU or on another's by ssh.

What differs between releases is in `exporters/device`, the files that also go into deploy bundles: a local build, a
remote one and one by hand on the device are the same files and the same code. Written after NVIDIA's documents and
headers; no machine of the authors could run it, and the engine's own check (`facts["passed"]`) says whether it worked.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

from exporters import bundle, bundle_run, child
from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from exporters.remote import Machine, machine_of, missing_tools
from profiles.target import Target

ENGINE = "model.engine"


def can_run(target: Target, *, remote: str | Machine | None = None) -> str | None:
    """None where TensorRT and a GPU of the target's compute capability are here (or on `remote`); else what lacks."""
    if target.runtime != "tensorrt":
        return f"{target.name} runs {target.runtime}, not TensorRT"
    if remote is not None:
        return _lacks_remote(target, machine_of(remote))
    if importlib.util.find_spec("tensorrt") is None:
        return "TensorRT is not installed here (it is part of JetPack; elsewhere pip install 'compress[tensorrt]')"
    with tempfile.TemporaryDirectory(prefix="probe-") as name:
        # Importing tensorrt and asking the driver may end a process, so another one does it.
        folder = Path(name)
        bundle.write_script(folder)
        outcome = child.run(
            [sys.executable, str(folder / bundle.SCRIPT), "--probe"],
            folder=folder,
            seconds=60,
            memory_bytes=bundle_run.MEMORY_BYTES,
        )
    why = outcome.why()
    if why is not None:
        return f"asking TensorRT for its version {why}"
    return _lacks(target, outcome.text, "this machine")


def convert(model: Path, target: Target, out: Path, *, options: BuildOptions) -> Artifact:
    """Build `model.engine` below `out` and check it on its GPU.

    Args:
        model: the exported ONNX file.
        target: its compute capability must be the GPU's.
        out: folder; `<name>`, `<name>.json` (what it was built from and by), `<stem>.build.log`, `<stem>.result.json`,
            `<stem>.layers.json` and `<stem>.layers.report.json` appear there.
        options: remote, golden arrays (for the check), output_step, batches, shapes, dims, profiles, name, seconds,
            engine, progress.

    Returns:
        The engine. facts: all of result.json: TensorRT's version, GPU, driver, parity, latency, int8_share,
        engine_sha256, passed (None without golden arrays). reproducible is False: TensorRT chooses kernels by timing.

    Raises:
        ExportError: something is missing, the parser refuses, the builder crashes or exceeds its time or memory.
    """
    missing = can_run(target, remote=options.remote)
    if missing is not None:
        raise ExportError(
            missing,
            fix="write a deploy bundle (builder onnx_to_deploy_bundle) and run it on the device, "
            "or name a machine that has both with --remote user@host",
        )
    with tempfile.TemporaryDirectory(prefix="engine-") as scratch:
        folder = Path(scratch) / "bundle"
        manifest = bundle.write(model, target, folder, options)
        result = bundle_run.run(folder, manifest, options)
        path = bundle_run.keep(folder, result, out, options.name or ENGINE)
    device = result["machine"]["device"]
    return Artifact(
        path=path,
        kind="engine",
        purpose=options.purpose,
        note=f"runs with TensorRT {result['tensorrt']} on {device['name']} only",
        facts={**result, "bytes": path.stat().st_size, "reproducible": False, "remote": bundle_run.where(options)},
    )


def _lacks_remote(target: Target, machine: Machine) -> str | None:
    missing = missing_tools()
    if missing is not None:
        return missing
    try:
        done = bundle_run.probe(machine, "tensorrt")
    except ExportError as error:
        return error.what
    if done.returncode != 0:
        return f"{machine.python} on {machine.host} cannot run the builder: {bundle_run.last_line(done.stderr)}"
    return _lacks(target, done.stdout, machine.host)


def _lacks(target: Target, told: str, where: str) -> str | None:
    try:
        found = json.loads(bundle_run.last_line(told))
    except ValueError:
        return f"{where} gave no answer about its TensorRT: {bundle_run.last_line(told)}"
    if found["missing"]:
        return f"{where} lacks " + "; ".join(found["missing"])
    capability = found["device"]["capability"]
    if target.compute_capability and capability != target.compute_capability:
        return (
            f"target {target.name!r} is compute capability {target.compute_capability}, "
            f"the GPU of {where} ({found['device']['name']}) is {capability}"
        )
    return None
