"""An engine by TensorRT itself (10.3 to 11.x), on this machine's GPU or on another's by ssh.

What differs between versions is in `build_engine.py`, the script that also goes into deploy bundles: a local build, a
remote one and one by hand on the device are the same files and the same code. Written after NVIDIA's documents and
headers; no machine of the authors could run it, and the engine's own check (`facts["passed"]`) says whether it worked.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from exporters import build_engine, bundle, child
from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from exporters.remote import Machine, missing_tools
from profiles import atomic
from profiles.target import Target

MEMORY_BYTES = 24 << 30
OTHER_SECONDS = 300.0  # added to a build's limit for copying, loading and checking
MEASURE = ("--measure-seconds", "2")  # per batch size


def can_run(target: Target, *, remote: str | None = None) -> str | None:
    """None where TensorRT and a GPU of the target's compute capability are here (or on `remote`); else what lacks."""
    if target.runtime != "tensorrt":
        return f"{target.name} runs {target.runtime}, not TensorRT"
    if remote is not None:
        return _lacks_remote(target, Machine(remote))
    if importlib.util.find_spec("tensorrt") is None:
        return "TensorRT is not installed here (it is part of JetPack; elsewhere pip install 'compress[tensorrt]')"
    with tempfile.TemporaryDirectory(prefix="probe-") as name:
        # Importing tensorrt and asking the driver may end a process, so another one does it.
        outcome = child.run(
            [sys.executable, str(bundle.SCRIPT), "--probe"], folder=Path(name), seconds=60, memory_bytes=MEMORY_BYTES
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
        out: folder; `<name>`, `<stem>.build.log` and `<stem>.result.json` appear there.
        options: remote, golden arrays (for the check), output_step, batches, shapes, name, seconds.

    Returns:
        The engine. facts: all of result.json: TensorRT's version, GPU, driver, parity, latency, int8_share,
        engine_sha256, passed (None without golden arrays). reproducible is False: TensorRT chooses kernels by timing.

    Raises:
        ExportError: something is missing, the parser refuses, the builder crashes or exceeds its time.
    """
    missing = can_run(target, remote=options.remote)
    if missing is not None:
        raise ExportError(
            missing,
            fix="write a deploy bundle (builder onnx_to_deploy_bundle) and run it on the device, "
            "or name a machine that has both with --remote user@host",
        )
    name = options.name or "model.engine"
    with tempfile.TemporaryDirectory(prefix="engine-") as scratch:
        folder = Path(scratch) / bundle.MODEL.split(".")[0]
        manifest = bundle.write(model, target, folder, options)
        if options.remote is None:
            status, said = _build_here(folder, manifest, options)
        else:
            status, said = _build_there(Machine(options.remote), folder, manifest, options)
        if not (folder / "result.json").is_file() or not (folder / "model.engine").is_file():
            raise ExportError(_why(status, said), fix="the text names the node or what is missing; see the build log")
        result: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
        engine = (folder / "model.engine").read_bytes()
        if build_engine.digest(folder / "model.engine") != result["engine_sha256"]:
            raise ExportError("the engine that came back is not the one that was checked", fix="build again")
        stem = Path(name).stem
        atomic.write_text(out / f"{stem}.build.log", _text(folder / "build.log"))
        atomic.write_text(out / f"{stem}.result.json", json.dumps(result, indent=1, sort_keys=True) + "\n")
        atomic.write_bytes(out / name, engine)
    device = result["machine"]["device"]
    return Artifact(
        path=out / name,
        kind="engine",
        purpose=options.purpose,
        note=f"runs with TensorRT {result['tensorrt']} on {device['name']} only",
        facts={**result, "bytes": len(engine), "reproducible": False, "remote": options.remote},
    )


def _build_here(folder: Path, manifest: str, options: BuildOptions) -> tuple[int, str]:
    command = [sys.executable, str(folder / "build_engine.py"), *_arguments(manifest, options)]
    limit = options.seconds + OTHER_SECONDS
    outcome = child.run(command, folder=folder, seconds=limit, memory_bytes=MEMORY_BYTES)
    why = outcome.why()
    if why is not None and (outcome.ended != "by itself" or outcome.code < 0):
        raise ExportError(
            f"building the engine {why}; it last said: {_last_line(_text(folder / 'build.log')) or 'nothing'}",
            fix="look for the node named there in the ONNX file; a smaller largest batch needs less memory",
        )
    return outcome.code, outcome.text


def _build_there(machine: Machine, folder: Path, manifest: str, options: BuildOptions) -> tuple[int, str]:
    limit = options.seconds + OTHER_SECONDS
    with machine.scratch() as there:
        machine.send(sorted(folder.iterdir()), there, seconds=limit)
        done = machine.run(["python3", f"{there}/build_engine.py", *_arguments(manifest, options)], seconds=limit)
        if done.returncode in (0, 1):
            for name in ("model.engine", "result.json", "build.log"):
                machine.fetch(f"{there}/{name}", folder / name, seconds=limit)
        return done.returncode, done.stdout + done.stderr


def _arguments(manifest: str, options: BuildOptions) -> list[str]:
    return ["--manifest-sha256", manifest, "--seconds", f"{options.seconds:g}", *MEASURE]


def _lacks_remote(target: Target, machine: Machine) -> str | None:
    missing = missing_tools()
    if missing is not None:
        return missing
    try:
        with machine.scratch() as there:
            machine.send([bundle.SCRIPT], there, seconds=60)
            done = machine.run(["python3", f"{there}/{bundle.SCRIPT.name}", "--probe"], seconds=120)
    except ExportError as error:
        return error.what
    if done.returncode != 0:
        return f"python3 on {machine.host} cannot run the builder: {_last_line(done.stderr)}"
    return _lacks(target, done.stdout, machine.host)


def _lacks(target: Target, told: str, where: str) -> str | None:
    try:
        found = json.loads(_last_line(told))
    except ValueError:
        return f"{where} gave no answer about its TensorRT: {_last_line(told)}"
    if found["missing"]:
        return f"{where} lacks " + "; ".join(found["missing"])
    capability = found["device"]["capability"]
    if target.compute_capability and capability != target.compute_capability:
        return (
            f"target {target.name!r} is compute capability {target.compute_capability}, "
            f"the GPU of {where} ({found['device']['name']}) is {capability}"
        )
    return None


def _why(status: int, said: str) -> str:
    words = {2: "was refused", 3: "crashed or took too long"}.get(status, f"ended with status {status}")
    return f"building the engine {words}: {_last_line(said).removeprefix('refused: ')}"


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:2000] if lines else "nothing"
