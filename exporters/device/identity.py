"""What an engine was made from and by: written beside it, compared before it is loaded.

An engine runs with the TensorRT release, on the GPU and on the system that it was built with. Exceptions are those that
NVIDIA documents: version-compatible engines run with later minor releases and the next major one, hardware-compatible
ones on GPUs from Ampere on, or on those of the same compute capability.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from .api import RTX, parsed
from .files import RefusedError, digest, digest_of, read_json, write_json

FORMAT = 1
SUFFIX = ".json"
NEXT_MAJOR = {8: 10, 10: 11}  # there is no 9 that version compatibility speaks of


def path_of(engine: Path) -> Path:
    """model.engine -> model.engine.json."""
    return engine.with_name(engine.name + SUFFIX)


def settings(request: dict[str, Any]) -> str:
    """Hash of everything in a request that changes the engine."""
    plain = {name: value for name, value in request.items() if name not in ("timing_cache", "only_cached_timings")}
    return digest_of(plain)


def record(
    engine: Path,
    package: str,
    facts: dict[str, Any],
    device: dict[str, Any] | None,
    request: dict[str, Any],
    *,
    onnx: str,
    exported: str,
) -> dict[str, Any]:
    """Everything that must be the same for the engine to be used again.

    Args:
        onnx: SHA-256 of the model as TensorRT got it.
        exported: SHA-256 of the file that the model was made from.
    """
    return {
        "format": FORMAT,
        "package": package,
        "tensorrt": facts["tensorrt"],
        "device": device,  # None where it was built without one
        "capabilities": request.get("capabilities"),
        "system": platform.system(),
        "machine": platform.machine(),
        "flags": facts["flags"],
        "tf32": facts["tf32"],
        "hardware": request.get("hardware", "none"),
        "version_compatible": bool(request.get("version_compatible")),
        "profiles": request["profiles"],
        "dla": facts.get("dla"),
        "timing_cache_sha256": facts.get("timing_cache_sha256"),
        "settings": settings(request),
        "onnx_sha256": onnx,
        "exported_onnx_sha256": exported,
        "engine_sha256": digest(engine),
        "bytes": engine.stat().st_size,
    }


def write(engine: Path, content: dict[str, Any]) -> None:
    """Write the record beside the engine."""
    write_json(path_of(engine), content)


def read(engine: Path) -> dict[str, Any]:
    """The record beside an engine.

    Raises:
        RefusedError: there is none, or it is not one.
    """
    path = path_of(engine)
    if not path.is_file():
        raise RefusedError(f"{engine.name} has no {path.name} beside it, so nobody can say what it was built for")
    content = read_json(path)
    missing = [name for name in ("engine_sha256", "onnx_sha256", "tensorrt", "package") if name not in content]
    if content.get("format") != FORMAT or missing:
        raise RefusedError(f"{path.name} is no record of an engine (format {content.get('format')!r}); build it again")
    return content


def misfits(
    content: dict[str, Any],
    *,
    engine: Path | None = None,
    package: str | None = None,
    version: str | None = None,
    device: dict[str, Any] | None = None,
    request: dict[str, Any] | None = None,
    onnx: str | None = None,
) -> list[str]:
    """Why an engine must be built again before it is used here; empty where it fits. What is None is not compared.

    Args:
        content: its record.
        engine: the file.
        package, version: the TensorRT that would load it.
        device: "name" and "capability" of the GPU that would run it.
        request: what it would be built for today.
        onnx: SHA-256 of the model that it would be built from today: as it was exported, or as TensorRT gets it.
    """
    found = []
    if engine is not None and (engine.stat().st_size != content["bytes"] or digest(engine) != content["engine_sha256"]):
        found.append("the file is not the engine that was built (its SHA-256 differs)")
    if onnx is not None and onnx not in (content["onnx_sha256"], content.get("exported_onnx_sha256")):
        found.append("it was built from another ONNX file")
    if request is not None and settings(request) != content["settings"]:
        found.append("it was built with other settings")
    if package is not None and package != content["package"]:
        found.append(f"it was built by {content['package']}, here is {package}")
    elif version is not None and not _runs_with(content, version):
        found.append(f"it was built by {content['package']} {content['tensorrt']}, here is {version}")
    if device is not None:
        found += _other_device(content, device)
    here = (platform.system(), platform.machine())
    if version is not None and (content["system"], content["machine"]) != here:
        found.append(f"it was built on {content['system']} {content['machine']}, this is {' '.join(here)}")
    return found


def _runs_with(content: dict[str, Any], version: str) -> bool:
    if version == content["tensorrt"]:
        return True
    if not content["version_compatible"]:
        return False
    built, here = parsed(content["tensorrt"]), parsed(version)
    return (here[0] == built[0] and here >= built) or here[0] == NEXT_MAJOR.get(built[0])


def _other_device(content: dict[str, Any], device: dict[str, Any]) -> list[str]:
    capability = device["capability"]
    if content["package"] == RTX:
        names = content["capabilities"] or []
        if "SM" + capability.replace(".", "") in names or "CURRENT" in names:
            return []
        return [f"it was built for {', '.join(names)}, this GPU has compute capability {capability}"]
    built = content["device"]
    if built is None or (built["name"], built["capability"]) == (device["name"], capability):
        return []
    level = str(content["hardware"]).lower()
    if level == "ampere_plus" and int(capability.split(".")[0]) >= 8:
        return []
    if level == "same_compute_capability" and built["capability"] == capability:
        return []
    return [f"it was built on {built['name']} ({built['capability']}), this GPU is {device['name']} ({capability})"]
