"""Everything that differs between releases of TensorRT, decided by the version's number and in this file alone.

Sources: the binding sources and headers of github.com/NVIDIA/TensorRT at 8.5.2, 8.6.1, 10.3, 10.7, 10.16 and 11.1 (the
names are recorded beside the tests), the release notes, "Migrating from TensorRT 10.x to 11.x", "Working with DLA".
11.2 to 11.4 have no public sources: they are taken to be as 11.1, with DLA again from 11.4.1 on as the documents say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .files import RefusedError

OLDEST = (8, 5)
NEWEST_MAJOR = 11
RTX = "tensorrt_rtx"
PACKAGES = ("tensorrt", RTX)
LAST_DLA_BEFORE_11 = (10, 7)
FIRST_DLA_OF_11 = (11, 4, 1)
DATA_TYPES = {  # names of trt.DataType -> numpy's; trt.nptype of 8.x fails with numpy 1.24 and later
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Api:
    """How to drive one release.

    Attributes:
        version: (major, minor, patch).
        network_flags: names in NetworkDefinitionCreationFlag that make the graph's own types and batch binding.
        precision_flags: INT8 (and FP16) must be set beside Q/DQ, for the network is weakly typed.
        node_names: a parser's error names the node; before 10 it only counts it.
        node_metadata: layers name the ONNX nodes that they compute; before 8.6 only their own names tell.
        progress: the builder reports phases and steps.
        hardware_levels: names in HardwareCompatibilityLevel beside NONE.
        version_compatible: engines can be built for later releases.
        instance_norm_flag: the parser must be told to use native instance normalisation in such engines.
        strip_weights: engines can leave their weights out.
        cache_miss_flag: the builder can refuse to time a kernel that the timing cache does not know.
        optimisation_level: the builder's effort can be set.
        dla_by_calibration: DLA takes its int8 scales from a calibration cache and a graph without Q/DQ.
        dla_by_graph: DLA takes the Q/DQ graph, which the parser adjusts for it.
        type_key: where the engine inspector's JSON names a tensor's type; before 11 it is joined with the format.
        ahead_of_time: builds for named compute capabilities and needs no GPU.
    """

    package: str
    version: tuple[int, int, int]
    network_flags: tuple[str, ...]
    precision_flags: bool
    node_names: bool
    node_metadata: bool
    progress: bool
    hardware_levels: tuple[str, ...]
    version_compatible: bool
    instance_norm_flag: bool
    strip_weights: bool
    cache_miss_flag: bool
    optimisation_level: bool
    dla_by_calibration: bool
    dla_by_graph: bool
    type_key: str
    ahead_of_time: bool

    @property
    def calibration_header(self) -> str:
        """First line of a calibration cache that this release accepts; another release's is ignored by it."""
        major, minor, patch = self.version
        number = major * 1000 + minor * 100 + patch if major < 10 else major * 10000 + minor * 100 + patch
        return f"TRT-{number}-EntropyCalibration2"


def parsed(version: str) -> tuple[int, int, int]:
    """ "10.3.0.30" -> (10, 3, 0).

    Raises:
        RefusedError: it is not a version.
    """
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if match is None:
        raise RefusedError(f"TensorRT calls its version {version!r}; expected something like 10.3.0")
    return int(match[1]), int(match[2]), int(match[3] or 0)


def api_of(version: str, package: str = "tensorrt") -> Api:
    """Rules of a release such as "8.5.2.2", "10.3.0.30" or "11.4.1".

    Raises:
        RefusedError: too old, too new to know, or not a version.
    """
    number = parsed(version)
    release = number[:2]
    if package == RTX:
        return _rtx(version, number)
    if release < OLDEST:
        raise RefusedError(
            f"TensorRT {version} is too old: 8.5 (JetPack 5.1) is the first whose engines are run by tensor names; "
            "update JetPack, or install 8.5 or later"
        )
    if release[0] > NEWEST_MAJOR:
        raise RefusedError(
            f"TensorRT {version} is newer than this script knows (up to {NEWEST_MAJOR}.x); export the bundle again"
        )
    weak, strong_by_flag = release[0] < 10, release[0] == 10
    network_flags: tuple[str, ...] = ()
    if weak:
        network_flags = ("EXPLICIT_BATCH",)
    elif strong_by_flag:
        network_flags = ("STRONGLY_TYPED",)
    levels: tuple[str, ...] = ()
    if release >= (10, 9):  # recorded at 10.9; absent at 10.8
        levels = ("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY")
    elif release >= (8, 6):
        levels = ("AMPERE_PLUS",)
    return Api(
        package="tensorrt",
        version=number,
        network_flags=network_flags,
        precision_flags=weak,
        node_names=release >= (10, 0),
        node_metadata=release >= (8, 6),
        progress=release >= (10, 0),
        hardware_levels=levels,
        version_compatible=release >= (8, 6),
        instance_norm_flag=(8, 6) <= release < (10, 0),
        strip_weights=release >= (10, 0),
        cache_miss_flag=release >= (10, 0),
        optimisation_level=release >= (8, 6),
        dla_by_calibration=release <= LAST_DLA_BEFORE_11,
        dla_by_graph=number >= FIRST_DLA_OF_11,
        type_key="Datatype" if release[0] >= 11 else "Format/Datatype",
        ahead_of_time=False,
    )


def _rtx(version: str, number: tuple[int, int, int]) -> Api:
    if number[0] != 1:
        raise RefusedError(f"TensorRT for RTX {version} is not known; 1.x is; export the bundle again")
    return Api(
        package=RTX,
        version=number,
        network_flags=("STRONGLY_TYPED",),
        precision_flags=False,
        node_names=True,
        node_metadata=True,
        progress=True,
        hardware_levels=(),  # it names the capabilities instead
        version_compatible=False,
        instance_norm_flag=False,
        strip_weights=False,
        cache_miss_flag=False,
        optimisation_level=False,
        dla_by_calibration=False,
        dla_by_graph=False,
        type_key="Datatype",
        ahead_of_time=True,
    )
