"""What a run is made of, as a CycloneDX 1.6 bill of materials (ECMA-424).

It names the models and files that the run ships with their hashes, the teacher and data they come from, and the Python
packages that were loaded when it was made. The package `cyclonedx-python-lib` writes it.
"""

import importlib.util
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.errors import RunError
from compress.manifest import MANIFEST, Listed, read_manifest
from compress.records import read_json
from profiles.atomic import sha256

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

REPORT = "7_report/report.json"
MODELS = (".onnx", ".safetensors", ".engine", ".tflite")
SHIPPED = ("4_export/", "5_build/")
NAMESPACE = uuid.UUID("f1b2c0de-5bd1-5d0c-9d1e-6f2f1e0a7c11")  # of runs: a serial number follows from a manifest


def bill_of_materials(run: Path) -> str:
    """The run's components as CycloneDX JSON.

    The same for the same run: the serial number follows from the manifest, the time is that of the report.

    Raises:
        RunError: the run has no report yet, or the library is absent.
    """
    if importlib.util.find_spec("cyclonedx") is None:
        raise RunError("the package cyclonedx-python-lib is not installed", fix="pip install 'compress[sbom]'")
    report = read_json(run / REPORT)
    if report is None:
        raise RunError(f"{run} has no report yet, which says what it was made with", fix=f"compress report {run}")
    from cyclonedx.model.bom import Bom
    from cyclonedx.output.json import JsonV1Dot6

    provenance = _table(report.get("provenance"))
    bom = Bom(
        components=[*_files(read_manifest(run)), *_sources(provenance), *_packages(provenance)],
        serial_number=uuid.uuid5(NAMESPACE, sha256(run / MANIFEST)),
    )
    bom.metadata.timestamp = datetime.fromtimestamp((run / REPORT).stat().st_mtime, timezone.utc)
    bom.metadata.component = _product(run, report, provenance)
    bom.register_dependency(bom.metadata.component, bom.components)
    return json.dumps(json.loads(JsonV1Dot6(bom).output_as_string()), indent=1, sort_keys=True) + "\n"


def _product(run: Path, report: Mapping[str, Any], provenance: Mapping[str, Any]) -> "Component":
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    task, target = _table(report.get("task")), _table(report.get("target"))
    known = {
        "task": task.get("name"),
        "target": target.get("name"),
        "runtime": f"{target.get('runtime')} {target.get('runtime_version')}",
        "seed": provenance.get("seed"),
        "compress:git": provenance.get("git"),
        "python": provenance.get("python"),
        "platform": provenance.get("platform"),
    }
    return Component(
        name=str(report.get("name", run.name)),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=sha256(run / MANIFEST)[:16],
        bom_ref="run",
        properties=[Property(name=name, value=str(value)) for name, value in known.items() if value is not None],
    )


def _files(listed: Mapping[str, Listed]) -> Iterator["Component"]:
    """What is shipped, and every model on the way there."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    for name, row in listed.items():
        model = name.endswith(MODELS)
        if not model and (not name.startswith(SHIPPED) or "log" in row.origin):
            continue
        yield Component(
            name=name,
            type=ComponentType.MACHINE_LEARNING_MODEL if model else ComponentType.FILE,
            bom_ref=f"file:{name}",
            description=row.origin,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=row.sha256)],
            properties=[Property(name="bytes", value=str(row.size))],
        )


def _sources(provenance: Mapping[str, Any]) -> Iterator["Component"]:
    """Data, teacher and target, by the hashes that the run was made from."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    for name, value in sorted(_table(provenance.get("identities")).items()):
        known = re.fullmatch(r"[0-9a-f]{64}", str(value)) is not None
        yield Component(
            name=name,
            type=ComponentType.DATA,
            bom_ref=f"source:{name}",
            version=None if known else str(value),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=str(value))] if known else [],
        )


def _packages(provenance: Mapping[str, Any]) -> Iterator["Component"]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    for name, version in sorted(_table(provenance.get("environment")).items()):
        if name != "compress":
            yield Component(
                name=name,
                type=ComponentType.LIBRARY,
                version=str(version),
                bom_ref=f"pypi:{name}",
                purl=PackageURL("pypi", name=name, version=str(version)),
            )
    yield Component(
        name="compress", type=ComponentType.APPLICATION, version=str(provenance.get("compress")), bom_ref="compress"
    )


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
