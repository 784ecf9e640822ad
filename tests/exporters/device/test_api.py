"""What a release is said to have is held against the names recorded from its public sources."""

import json
from pathlib import Path

import pytest

from exporters.device import api, plan
from exporters.device.files import RefusedError

SURFACES = Path(__file__).parents[1] / "fakes" / "surfaces"
RELEASES = ("8.5", "8.6", "10.3", "10.7", "10.16", "11.1")


def names(release: str) -> dict[str, list[str]]:
    text = (SURFACES / f"tensorrt_{release.replace('.', '_')}.json").read_text()
    found: dict[str, list[str]] = json.loads(text)["names"]
    return found


@pytest.mark.parametrize("release", RELEASES)
def test_the_table_agrees_with_the_recorded_names(release: str) -> None:
    there, rules = names(release), api.api_of(release)
    for flag in rules.network_flags:
        assert flag in there["NetworkDefinitionCreationFlag"]
    if not rules.network_flags:
        assert "EXPLICIT_BATCH" not in there["NetworkDefinitionCreationFlag"]
    assert rules.precision_flags == ("STRONGLY_TYPED" not in there["NetworkDefinitionCreationFlag"])
    assert rules.node_names == ("node_name" in there["ParserError"])
    assert rules.node_metadata == ("metadata" in there["ILayer"])
    assert rules.progress == ("progress_monitor" in there["IBuilderConfig"])
    assert set(rules.hardware_levels) == set(there.get("HardwareCompatibilityLevel", ())) - {"NONE"}
    assert rules.version_compatible == ("VERSION_COMPATIBLE" in there["BuilderFlag"])
    assert rules.strip_weights == ("STRIP_PLAN" in there["BuilderFlag"])
    assert rules.cache_miss_flag == ("ERROR_ON_TIMING_CACHE_MISS" in there["BuilderFlag"])
    assert rules.optimisation_level == ("builder_optimization_level" in there["IBuilderConfig"])
    if rules.dla_by_calibration:
        assert "read_calibration_cache" in there["IInt8EntropyCalibrator2"]
        assert "int8_calibrator" in there["IBuilderConfig"]
    if rules.precision_flags or rules.dla_by_calibration:
        assert {"INT8", "FP16"} <= set(there["BuilderFlag"])
    if rules.instance_norm_flag:
        assert "NATIVE_INSTANCENORM" in there["OnnxParserFlag"]


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_has_what_all_are_asked_for(release: str) -> None:
    there = names(release)
    for kind, members in {
        "ICudaEngine": ("num_io_tensors", "get_tensor_name", "get_tensor_profile_shape", "num_optimization_profiles"),
        "IExecutionContext": ("execute_async_v3", "set_input_shape", "set_optimization_profile_async"),
        "IBuilderConfig": ("set_memory_pool_limit", "DLA_core", "default_device_type", "can_run_on_DLA"),
        "Builder": ("build_serialized_network", "create_optimization_profile"),
        "Runtime": ("deserialize_cuda_engine", "DLA_core"),
        "EngineInspector": ("get_engine_information",),
        "ProfilingVerbosity": ("DETAILED",),
        "BuilderFlag": ("TF32", "GPU_FALLBACK"),
    }.items():
        assert set(members) <= set(there[kind]), kind


def test_11_lost_what_the_table_says_it_lost() -> None:
    gone = names("11.1")
    assert "IInt8EntropyCalibrator2" not in gone
    assert {"INT8", "FP16"}.isdisjoint(gone["BuilderFlag"])
    assert "ADJUST_FOR_DLA" in gone["OnnxParserFlag"]


@pytest.mark.parametrize(
    ("version", "by_calibration", "by_graph"),
    [
        ("8.5.2", True, False),
        ("10.3.0.30", True, False),
        ("10.7.0", True, False),
        ("10.8.0", False, False),
        ("11.0.0", False, False),
        ("11.4.0", False, False),
        ("11.4.1.106", False, True),
        ("11.5.0", False, True),
    ],
)
def test_how_each_release_uses_a_dla(version: str, by_calibration: bool, by_graph: bool) -> None:
    rules = api.api_of(version)
    assert (rules.dla_by_calibration, rules.dla_by_graph) == (by_calibration, by_graph)


@pytest.mark.parametrize(
    ("version", "header"), [("8.5.2", "TRT-8502"), ("8.6.1", "TRT-8601"), ("10.14.1", "TRT-101401")]
)
def test_a_calibration_cache_as_tensorrt_writes_it(version: str, header: str) -> None:
    """Scale 2.0 ** -7 is the float32 with bits 3c000000; 4000889d is 2.008338... in onnxruntime's description."""
    cache = plan.calibration_cache(api.api_of(version), {"b": 2.0**-7, "a": 2.0083382})
    assert cache.decode().splitlines() == [f"{header}-EntropyCalibration2", "a: 4000889d", "b: 3c000000"]


@pytest.mark.parametrize("version", ["8.4.3", "7.2", "12.0", "ten", ""])
def test_versions_that_are_refused(version: str) -> None:
    with pytest.raises(RefusedError):
        api.api_of(version)
    with pytest.raises(RefusedError):
        api.api_of("2.0.0", api.RTX)


def test_no_file_asks_what_a_module_has() -> None:
    """Decisions are by version number: an attribute that is missing says nothing about why."""
    for path in sorted(Path(api.__file__).parent.glob("*.py")):
        assert "hasattr" not in path.read_text(), path.name
        assert "getattr(trt" not in path.read_text() or path.name == "plan.py", path.name
