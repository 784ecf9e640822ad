"""The command of a bundle: check the files and the machine, build in a child process, check the engine in another one.

Exit status: 0 done, 1 the engine was built but failed its check, 2 refused (the reason is printed), 3 the builder
crashed, or exceeded its time or memory.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import check, identity, plan, watch
from .api import PACKAGES, RTX, api_of
from .engine import Engine
from .files import RefusedError, check_manifest, digest, read_json, write_json, write_whole
from .gpu import Cuda, Device
from .signature import check_signature

ENGINE = "model.engine"
MEASURE_SECONDS = 2.0
MEMORY_MIB = 24 << 10
BUILT, CHECKED = ".built.json", ".checked.json"


def probe(package: str = "tensorrt") -> dict[str, Any]:
    """What this machine has: Python, TensorRT, numpy, GPU; each missing thing with its reason.

    TensorRT for RTX builds without a GPU, so there its absence stands under "no_gpu" and is not missing.
    """
    found: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine(), "missing": []}
    if importlib.util.find_spec("numpy") is None:
        found["missing"].append("numpy (pip install numpy)")
    if importlib.util.find_spec(package) is None:
        how = "part of JetPack; elsewhere pip install tensorrt" if package != RTX else "pip install tensorrt-rtx-cu13"
        found["missing"].append(f"{package} ({how})")
    else:
        try:
            found["tensorrt"] = str(importlib.import_module(package).__version__)
            api_of(found["tensorrt"], package)
        except ImportError as error:
            found["missing"].append(f"{package} (installed, but cannot be imported: {error})")
        except RefusedError as error:
            found["missing"].append(str(error))
    try:
        found["device"] = asdict(Cuda().describe())
    except (RefusedError, RuntimeError) as error:
        if package == RTX:
            found["no_gpu"] = str(error)
        else:
            found["missing"].append(str(error))
    return found


def power_mode() -> str | None:
    """Jetson's power mode, None elsewhere."""
    try:
        told = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return " ".join(told.stdout.split()) or None


def check_capability(device: Device, request: dict[str, Any], accept: bool) -> None:
    """Refuse a device of another compute capability than the target's."""
    wanted = request["compute_capability"]
    if wanted and device.capability != wanted and not accept:
        raise RefusedError(
            f"the bundle is for {request['device']} (compute capability {wanted}), but this GPU is {device.name} "
            f"({device.capability}); use that device, or pass --any-device for an engine that only this GPU runs"
        )


def timing_cache(folder: Path, machine: dict[str, Any]) -> Path:
    """File of this machine's kernel timings: one for each TensorRT release, GPU and driver, for no other can use it."""
    device = machine.get("device") or {"name": "no GPU", "capability": "", "driver": 0}
    words = f"{machine['tensorrt']} {device['name']} {device['capability']} {device['driver']}"
    return folder / f"timing-{re.sub(r'[^A-Za-z0-9.]+', '-', words).strip('-')}.cache"


def child_build(folder: Path, request: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Build in this process; the parent survives when TensorRT does not."""
    trt = importlib.import_module(request["package"])
    wanted = dict(request["engine"], timing_cache=arguments.timing_cache)
    if arguments.only_cached_timings:
        wanted["only_cached_timings"] = True
    api = api_of(trt.__version__, trt.__name__)
    name = "model.onnx"
    if wanted.get("dla") is not None and api.dla_by_calibration:
        name = "model_dla.onnx"
    with open(folder / "build.log", "w", encoding="utf-8") as log:
        try:
            made, facts = plan.build(trt, (folder / name).read_bytes(), wanted, log, watch.Reporter(folder).told)
        except RefusedError as error:
            write_json(folder / BUILT, {"refused": str(error)})
            return 2
    write_whole(folder / ENGINE, made)
    write_json(folder / BUILT, facts)
    return 0


def child_check(folder: Path, request: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Load and run the engine in this process, for that may crash, too."""
    trt = importlib.import_module(request["package"])
    try:
        model = (folder / "model.onnx").read_bytes()
        engine = Engine(trt, Cuda(), (folder / ENGINE).read_bytes(), request["engine"], model)
        api = api_of(trt.__version__, trt.__name__)
        found = check.run_checks(engine, api, request, folder, arguments.measure_seconds)
    except RefusedError as error:
        write_json(folder / CHECKED, {"refused": str(error)})
        return 2
    write_json(folder / CHECKED, found)
    return 0


def in_child(what: str, folder: Path, arguments: argparse.Namespace, cache: Path | None) -> tuple[int, str]:
    """Start this program again for one step; its status, and why it was stopped."""
    root = Path(__file__).resolve().parents[(__package__ or "").count(".") + 1]
    words = [sys.executable, "-B", "-m", f"{__package__}.main", "--child", what, "--folder", str(folder)]
    words += ["--measure-seconds", str(arguments.measure_seconds)]
    if cache is not None:
        words += ["--timing-cache", str(cache)]
    if arguments.only_cached_timings:
        words.append("--only-cached-timings")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    said = {"build": "building the engine", "check": "checking the engine"}[what]
    return watch.run(
        words, folder, said, arguments.seconds, arguments.memory_mib << 20, watch.say_aloud, arguments.every
    )


def taken(folder: Path, name: str) -> dict[str, Any]:
    """What a child left, removed; empty where it left nothing.

    Raises:
        RefusedError: the child refused.
    """
    path = folder / name
    if not path.is_file():
        return {}
    found = read_json(path)
    path.unlink()
    if "refused" in found:
        raise RefusedError(str(found["refused"]))
    return found


def kept(folder: Path, request: dict[str, Any], machine: dict[str, Any]) -> list[str]:
    """Why the engine that is there cannot be used as it is; ["there is none"] where that is so."""
    engine = folder / ENGINE
    if not engine.is_file() or not (folder / "result.json").is_file():
        return ["there is none"]
    try:
        content = identity.read(engine)
    except RefusedError as error:
        return [str(error)]
    return identity.misfits(
        content,
        engine=engine,
        package=request["package"],
        version=machine["tensorrt"],
        device=machine.get("device"),
        request=request["engine"],
        onnx=digest(folder / "model.onnx"),
    )


def check_origin(folder: Path, arguments: argparse.Namespace) -> str | None:
    """Refuse files that are not those that were exported, or signed; what checked the signature, where one is asked."""
    tool = None if arguments.public_key is None else check_signature(folder, arguments.public_key)
    check_manifest(folder, arguments.manifest_sha256)
    return tool


def main_build(folder: Path, arguments: argparse.Namespace) -> int:
    """Check the files and the machine, build and check in children, write result.json."""
    check_origin(folder, arguments)
    request = read_json(folder / "bundle.json")
    machine = probe(request["package"])
    if machine["missing"]:
        raise RefusedError("this machine lacks " + "; ".join(machine["missing"]))
    has_gpu = "device" in machine
    if has_gpu and request["package"] != RTX:
        check_capability(Device(**machine["device"]), request, arguments.any_device)
    reasons = ["asked for with --rebuild"] if arguments.rebuild else kept(folder, request, machine)
    if not reasons:
        watch.say_aloud("the engine that is here fits this machine and this model; --rebuild builds it again")
        return told(read_json(folder / "result.json"))
    watch.say_aloud(f"building the engine: {'; '.join(reasons)}")
    for stale in ("result.json", ENGINE, ENGINE + identity.SUFFIX, "layers.json", "layers.report.json", BUILT, CHECKED):
        if (folder / stale).exists():
            (folder / stale).unlink()
    cache = None
    if request["package"] != RTX and not arguments.no_timing_cache:
        place = Path(arguments.timing_cache).expanduser().resolve() if arguments.timing_cache else folder / "timing"
        place.mkdir(parents=True, exist_ok=True)
        cache = timing_cache(place, machine)
    status, stopped = in_child("build", folder, arguments, cache)
    built = taken(folder, BUILT)
    if stopped or status != 0 or not built:
        why = stopped or f"crashed (status {status})"
        print(f"the builder {why}; build.log has its last words", file=sys.stderr)
        return 3
    engine = folder / ENGINE
    onnx = digest(folder / "model.onnx")
    record = identity.record(
        engine,
        request["package"],
        built,
        machine.get("device"),
        request["engine"],
        onnx=onnx,
        exported=request["onnx_sha256"],
    )
    identity.write(engine, record)
    result = {
        **record,
        **built,
        "machine": machine,
        "power_mode": power_mode(),
        "target": request["target"],
    }
    if has_gpu:
        status, stopped = in_child("check", folder, arguments, None)
        checked = taken(folder, CHECKED)
        if stopped or status != 0 or not checked:
            engine.unlink()  # nobody should ship it
            print(f"the engine {stopped or f'crashed (status {status})'} while it was checked", file=sys.stderr)
            return 3
        result.update(checked)
    else:
        result.update(parity=None, latency={}, not_run=machine["no_gpu"])
    parity = result["parity"]
    result["passed"] = None if parity is None else all(entry["passed"] for entry in parity.values())
    write_json(folder / "result.json", result)
    return told(result)


def told(result: dict[str, Any]) -> int:
    """Print the short form; the exit status that follows from it."""
    short = {name: result.get(name) for name in ("passed", "engine_sha256", "int8_share", "latency", "not_run")}
    print(json.dumps({name: value for name, value in short.items() if value is not None or name == "passed"}, indent=1))
    return 1 if result["passed"] is False else 0


def main_self_test(folder: Path, arguments: argparse.Namespace) -> int:
    """Everything that needs no GPU: files, golden arrays, the judgement itself, TensorRT's version where it is."""
    signed = check_origin(folder, arguments)
    request = read_json(folder / "bundle.json")
    found: dict[str, Any] = {"manifest": "every file is the one that was exported"}
    if signed is not None:
        found["signature"] = f"holds (checked by {signed})"
    if (folder / "golden_outputs.npz").is_file():
        found["golden"] = check.self_test(folder, request)
    package = request["package"]
    if importlib.util.find_spec(package) is None:
        found["tensorrt"] = "not installed here"
    else:
        found["tensorrt"] = asdict(api_of(importlib.import_module(package).__version__, package))
    print(json.dumps(found, indent=1, sort_keys=True))
    return 0


def main(command_line: list[str] | None = None) -> int:
    """Run; see the text at the top."""
    parser = argparse.ArgumentParser(
        prog="build_engine.py", description="Build and check a TensorRT engine from this bundle."
    )
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--self-test", action="store_true", help="check everything that needs no GPU")
    parser.add_argument("--probe", action="store_true", help="print what this machine has, as JSON")
    parser.add_argument("--package", choices=PACKAGES, default="tensorrt", help="for --probe: which library")
    parser.add_argument("--any-device", action="store_true", help="build also where the compute capability differs")
    parser.add_argument("--rebuild", action="store_true", help="build also where the engine that is here fits")
    parser.add_argument(
        "--timing-cache", metavar="FOLDER", help="where kernel timings are kept (timing/ of the bundle)"
    )
    parser.add_argument("--no-timing-cache", action="store_true", help="keep no kernel timings")
    parser.add_argument(
        "--only-cached-timings", action="store_true", help="refuse to time a kernel anew: repeatable (10.0 or later)"
    )
    parser.add_argument("--manifest-sha256", help="SHA-256 that manifest.json must have")
    parser.add_argument("--public-key", type=Path, help="who must have signed manifest.json: an Ed25519 key, PEM")
    parser.add_argument("--seconds", type=float, default=1800.0, help="time limit of the build")
    parser.add_argument("--memory-mib", type=int, default=MEMORY_MIB, help="memory limit of the build")
    parser.add_argument("--every", type=float, default=watch.EVERY_SECONDS, help="seconds between lines of progress")
    parser.add_argument("--measure-seconds", type=float, default=MEASURE_SECONDS, help="per batch size")
    parser.add_argument("--child", choices=("build", "check"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(command_line)
    folder = arguments.folder.resolve()
    try:
        if arguments.probe:
            print(json.dumps(probe(arguments.package), sort_keys=True))
            return 0
        if arguments.child is not None:
            step = child_build if arguments.child == "build" else child_check
            return step(folder, read_json(folder / "bundle.json"), arguments)
        if arguments.self_test:
            return main_self_test(folder, arguments)
        return main_build(folder, arguments)
    except RefusedError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
