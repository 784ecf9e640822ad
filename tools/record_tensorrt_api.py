"""Record the Python interface of TensorRT releases from the public sources of its bindings.

The builder's tests run it against modules that have exactly the names of one release (tests/exporters/fakes). Those
names come from here: the class, enumeration and function names in the binding sources (pybind11) of a release's tag in
a clone of https://github.com/NVIDIA/TensorRT. No code is kept, names only.

    git clone https://github.com/NVIDIA/TensorRT
    python tools/record_tensorrt_api.py TensorRT tests/exporters/fakes/surfaces
"""

import argparse
import json
import re
import subprocess
from pathlib import Path

TAGS = {
    "8.5": "8.5.2",
    "8.6": "v8.6.1",
    "10.3": "v10.3.0",
    "10.7": "v10.7.0",
    "10.16": "v10.16",
    "11.1": "v11.1",
}
SOURCES = (
    "infer/pyCore.cpp",
    "infer/pyGraph.cpp",
    "infer/pyInt8.cpp",
    "infer/pyFoundationalTypes.cpp",
    "parsers/pyOnnx.cpp",
)
CLASSES = frozenset(  # what the builder and the runner touch
    {
        "Builder",
        "BuilderFlag",
        "DataType",
        "DeviceType",
        "EngineInspector",
        "HardwareCompatibilityLevel",
        "IBuilderConfig",
        "ICudaEngine",
        "IExecutionContext",
        "ILayer",
        "ILogger",
        "INetworkDefinition",
        "IOptimizationProfile",
        "IInt8EntropyCalibrator2",
        "IProgressMonitor",
        "ITensor",
        "ITimingCache",
        "LayerInformationFormat",
        "Logger",
        "MemoryPoolType",
        "NetworkDefinitionCreationFlag",
        "OnnxParser",
        "OnnxParserFlag",
        "OnnxParserRefitter",
        "ParserError",
        "ProfilingVerbosity",
        "Refitter",
        "Runtime",
        "TensorIOMode",
    }
)
_DECLARED = re.compile(r'py::(?P<kind>class|enum)_<(?P<type>[^;"]*?)>\s*(?:\w+\s*)?[({]\s*m,\s*"(?P<name>\w+)"', re.S)
_MEMBER = re.compile(  # a chained call: it begins its line
    r'^\s*\.(?:def|def_property|def_property_readonly|def_readwrite|def_readonly|def_static|value)\(\s*"(\w+)"', re.M
)


def names_of(text: str) -> dict[str, list[str]]:
    """Class or enumeration -> names of its members, as one binding source declares them."""
    text = re.sub(r"//[^\n]*", "", text)
    found: dict[str, set[str]] = {}
    declared = list(_DECLARED.finditer(text))
    for index, match in enumerate(declared):
        end = declared[index + 1].start() if index + 1 < len(declared) else len(text)
        body = text[match.end() : end]
        found.setdefault(match["name"], set()).update(_MEMBER.findall(body))
    return {name: sorted(members) for name, members in found.items()}


def record(clone: Path, tag: str) -> dict[str, list[str]]:
    """The interface at one tag: class -> names, without what the builder does not touch."""
    found: dict[str, set[str]] = {}
    for source in SOURCES:
        shown = subprocess.run(
            ["git", "-C", str(clone), "show", f"{tag}:python/src/{source}"], capture_output=True, text=True, check=False
        )
        if shown.returncode == 0:  # 11 has no pyInt8.cpp
            for name, members in names_of(shown.stdout).items():
                found.setdefault(name, set()).update(members)
    return {name: sorted(found[name]) for name in sorted(CLASSES & set(found))}


def main() -> None:
    """Write one JSON file for each release."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clone", type=Path, help="a clone of github.com/NVIDIA/TensorRT, with its tags")
    parser.add_argument("out", type=Path, help="folder for the JSON files")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for version, tag in TAGS.items():
        content = {"source": f"github.com/NVIDIA/TensorRT at {tag}, python/src", "names": record(options.clone, tag)}
        path = options.out / f"tensorrt_{version.replace('.', '_')}.json"
        path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{path.name}: {len(content['names'])} classes")


if __name__ == "__main__":
    main()
