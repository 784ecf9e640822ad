"""Start a bundle's command, here in a child process or on another machine by ssh, and take what it leaves.

The same files run in both places, and what comes back is believed only as far as its hashes agree.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from exporters import bundle, child
from exporters.builder import BuildOptions
from exporters.device import identity
from exporters.device.files import RefusedError
from exporters.errors import ExportError
from exporters.remote import Machine, machine_of
from profiles import atomic

MEMORY_BYTES = 24 << 30
OTHER_SECONDS = 300.0  # added to a build's limit for copying, loading and checking
TIMINGS = "~/.cache/compress/timings"  # of the user who builds, on the machine that builds
MEASURE = ("--measure-seconds", "2")  # per batch size
ENGINE = "model.engine"
LEFT = (  # what a build leaves, and under which ending it is kept beside the engine; the first three are always there
    ("result.json", ".result.json"),
    ("build.log", ".build.log"),
    (ENGINE + identity.SUFFIX, ""),
    ("layers.json", ".layers.json"),
    ("layers.report.json", ".layers.report.json"),
)
LARGEST_TEXT = 256 << 20  # bytes of a report that another machine may send


def run(folder: Path, manifest: str, options: BuildOptions) -> dict[str, Any]:
    """Build and check what is in the bundle `folder`, here or on `options.remote`; result.json.

    Raises:
        ExportError: the build was refused, crashed, or exceeded a limit, or what came back does not agree with itself.
    """
    if options.remote is None:
        status, said = _here(folder, manifest, options)
    else:
        status, said = _there(machine_of(options.remote), folder, manifest, options)
    if not (folder / "result.json").is_file() or not (folder / ENGINE).is_file():
        raise ExportError(_why(status, said), fix="the text names the node or what is missing; see the build log")
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text("utf-8"))
        record = identity.read(folder / ENGINE)
        wrong = identity.misfits(record, engine=folder / ENGINE, onnx=atomic.sha256(folder / bundle.MODEL))
    except (ValueError, RefusedError) as error:
        raise ExportError(f"the build's result cannot be read: {error}", fix="build again") from error
    if result.get("engine_sha256") != record["engine_sha256"]:
        wrong.append("result.json speaks of another engine")
    if wrong:
        raise ExportError(f"the engine that came back cannot be trusted: {'; '.join(wrong)}", fix="build again")
    return result


def keep(folder: Path, result: dict[str, Any], out: Path, name: str) -> Path:
    """Move the engine and what is told about it below `out`; the engine comes last, so that it is never alone."""
    out.mkdir(parents=True, exist_ok=True)
    stem = Path(name).stem
    for source, ending in LEFT:
        if (folder / source).is_file():
            goal = out / f"{stem}{ending}" if ending else identity.path_of(out / name)
            atomic.write_bytes(goal, (folder / source).read_bytes())
    atomic.write_bytes(out / name, (folder / ENGINE).read_bytes())
    return out / name


def where(options: BuildOptions) -> str | None:
    """The machine's name; None for this one."""
    return None if options.remote is None else machine_of(options.remote).host


def probe(machine: Machine, package: str) -> "subprocess.CompletedProcess[str]":
    """Ask a machine what it has: JSON on the last line of its standard output."""
    with tempfile.TemporaryDirectory(prefix="probe-") as name, machine.scratch() as there:
        folder = Path(name) / "script"
        bundle.write_script(folder)
        _send(machine, folder, there)
        return machine.run([machine.python, f"{there}/{bundle.SCRIPT}", "--probe", "--package", package], seconds=120)


def _here(folder: Path, manifest: str, options: BuildOptions) -> tuple[int, str]:
    command = [sys.executable, str(folder / bundle.SCRIPT), *_arguments(manifest, options)]
    outcome = child.run(
        command,
        folder=folder,
        seconds=options.seconds + OTHER_SECONDS,
        memory_bytes=MEMORY_BYTES,
        progress=options.progress,
    )
    why = outcome.why()
    if why is not None and (outcome.ended != "by itself" or outcome.code < 0):
        raise ExportError(
            f"building the engine {why}; it last said: {last_line(_text(folder / 'build.log'))}",
            fix="look for the node named there in the ONNX file; a smaller largest batch needs less memory",
        )
    return outcome.code, outcome.text


def _there(machine: Machine, folder: Path, manifest: str, options: BuildOptions) -> tuple[int, str]:
    limit = options.seconds + OTHER_SECONDS
    with machine.scratch() as there:
        _send(machine, folder, there, limit)
        command = [machine.python, f"{there}/{bundle.SCRIPT}", *_arguments(manifest, options)]
        done = machine.run(command, seconds=limit, told=options.progress)
        if done.returncode in (0, 1):
            present = machine.run(["ls", "-1", there], seconds=60).stdout.split()
            for name in (ENGINE, *(source for source, _ in LEFT)):
                if name in present:
                    machine.fetch(f"{there}/{name}", folder / name, seconds=limit)
                    if name != ENGINE and (folder / name).stat().st_size > LARGEST_TEXT:
                        raise ExportError(f"{machine.host} sent a {name} of unlikely size", fix="build again")
        return done.returncode, done.stdout + done.stderr


def _send(machine: Machine, folder: Path, there: str, seconds: float = 120.0) -> None:
    """Copy a folder's files as one archive and unpack it there."""
    with tempfile.TemporaryDirectory(prefix="send-") as name:
        archive = Path(name) / "sent.zip"
        archive.write_bytes(bundle.packed(folder))
        machine.send([archive], there, seconds=seconds)
    done = machine.run([machine.python, "-m", "zipfile", "-e", f"{there}/sent.zip", there], seconds=seconds)
    if done.returncode != 0:
        raise ExportError(
            f"{machine.python} on {machine.host} cannot unpack what was sent: {last_line(done.stderr)}",
            fix="name the Python there with --remote-python; it must be 3.8 or later",
        )


def _arguments(manifest: str, options: BuildOptions) -> list[str]:
    engine = options.engine
    words = ["--manifest-sha256", manifest, "--seconds", f"{options.seconds:g}", "--memory-mib", str(engine.memory_mib)]
    words += ["--timing-cache", str(engine.timing_cache or TIMINGS)]
    if engine.only_cached_timings:
        words.append("--only-cached-timings")
    return [*words, *MEASURE]


def _why(status: int, said: str) -> str:
    words = {2: "was refused", 3: "crashed or took too much"}.get(status, f"ended with status {status}")
    return f"building the engine {words}: {last_line(said).replace('refused: ', '')}"


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


def last_line(text: str) -> str:
    """The last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:2000] if lines else "nothing"
