"""Engines ahead of time: built for real where TensorRT for RTX is installed, and refused with the node's name."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper

from exporters import for_tensorrt, onnx_to_rtx_engine, rtx_build, torch_to_onnx
from exporters.builder import BuildOptions, EngineOptions
from exporters.device import identity
from exporters.errors import ExportError
from profiles import atomic
from profiles.target import Target

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)


def test_can_run(a100: Target, orin: Target, x86: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert onnx_to_rtx_engine.can_run(a100) is None
    assert onnx_to_rtx_engine.can_run(orin) is None, "its check can be built"
    assert "compiles for 7.5, 8.0" in str(onnx_to_rtx_engine.can_run(x86))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "not installed" in str(onnx_to_rtx_engine.can_run(a100))


@needs_rtx
def test_an_int8_network_becomes_int8_kernels(int8_model, a100: Target, tmp_path: Path) -> None:
    found = onnx_to_rtx_engine.convert(int8_model.path, a100, tmp_path, options=BuildOptions())
    assert found.path == tmp_path / "model.engine"
    assert found.path.stat().st_size == found.facts["bytes"] > 10_000
    assert found.facts["capability"] == "8.0"
    assert found.facts["int8_share"] == 1.0
    assert found.facts["float_nodes"] == found.facts["missed_int8_nodes"] == []
    assert found.facts["heavy_kernels"] == found.facts["heavy_kernels_int8"] == 7
    assert found.facts["profile"] == {"input": [[1, 3, 16, 16], [8, 3, 16, 16], [64, 3, 16, 16]]}
    assert found.facts["inputs"] == {"input": "FLOAT"}
    log = (tmp_path / str(found.facts["log"])).read_text()
    assert "LayerType: correlation" in log
    assert str(tmp_path) not in log


@needs_rtx
def test_the_same_model_gives_the_same_bytes(int8_model, a100: Target, tmp_path: Path) -> None:
    options = BuildOptions()
    first = onnx_to_rtx_engine.convert(int8_model.path, a100, tmp_path / "a", options=options)
    if not first.facts["fixed_addresses"]:
        pytest.skip("this machine does not let a process turn address randomisation off")
    second = onnx_to_rtx_engine.convert(int8_model.path, a100, tmp_path / "a_longer_name", options=options)
    assert first.facts["reproducible"] is True
    assert first.path.read_bytes() == second.path.read_bytes()
    logs = [(found.path.parent / "model.build.log").read_text() for found in (first, second)]
    assert logs[0] == logs[1]


@needs_rtx
@pytest.mark.parametrize("capability", ["8.0", "8.6", "8.9", "12.0"])
def test_ahead_of_time_for_each_generation(int8_model, a100: Target, tmp_path: Path, capability: str) -> None:
    found = onnx_to_rtx_engine.convert(int8_model.path, a100, tmp_path, options=BuildOptions(capability=capability))
    assert found.facts["capabilities"] == [capability]
    assert found.facts["int8_share"] == 1.0
    record = identity.read(found.path)
    assert record["capabilities"] == ["SM" + capability.replace(".", "")]
    assert record["device"] is None
    assert identity.misfits(record, engine=found.path, onnx=atomic.sha256(int8_model.path)) == []


@needs_rtx
def test_one_engine_for_several_generations(int8_model, a100: Target, tmp_path: Path) -> None:
    options = BuildOptions(capabilities=("8.0", "8.6", "8.9", "12.0"), batches=(1, 1, 2))
    found = onnx_to_rtx_engine.convert(int8_model.path, a100, tmp_path, options=options)
    assert found.path.name == "model_sm80_sm86_sm89_sm120.engine"
    each = found.facts["per_capability"]
    assert {name: one["int8_share"] for name, one in each.items()} == dict.fromkeys(options.capabilities, 1.0)  # type: ignore[attr-defined]
    record = identity.read(found.path)
    for capability, fits in (("8.9", True), ("7.5", False)):
        device = {"name": "any", "capability": capability}
        assert (identity.misfits(record, engine=found.path, device=device) == []) is fits
    with pytest.raises(ExportError, match="name one twice"):
        onnx_to_rtx_engine.convert(int8_model.path, a100, tmp_path, options=BuildOptions(capabilities=("8.0", "8.0")))


POLYGRAPHY = """
import sys
import tensorrt_rtx as trt
from polygraphy.backend.trt import CreateConfig, Profile, engine_bytes_from_network, network_from_onnx_path
profile = Profile().add("input", (1, 3, 16, 16), (8, 3, 16, 16), (64, 3, 16, 16))
settings = CreateConfig(profiles=[profile], profiling_verbosity=trt.ProfilingVerbosity.DETAILED)
def config(builder, network):
    made = settings(builder, network)
    made.num_compute_capabilities = 1
    made.set_compute_capability(trt.ComputeCapability.SM80, 0)
    made.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 30)
    return made
plan = engine_bytes_from_network(network_from_onnx_path(sys.argv[1], strongly_typed=True), config=config)
print(len(bytes(plan)))
"""


@needs_rtx
@pytest.mark.skipif(importlib.util.find_spec("polygraphy") is None, reason="Polygraphy is not installed")
def test_polygraphy_builds_the_same_engine(int8_model, a100: Target, tmp_path: Path) -> None:
    """Its loaders are not used, since a device has none; what they make of the same graph is held against ours.

    The bytes differ where addresses do, so sizes are compared.
    """
    found = onnx_to_rtx_engine.convert(int8_model.path, a100, tmp_path, options=BuildOptions())
    graph = for_tensorrt.prepare(int8_model.path)
    (tmp_path / "graph.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    environment = {**os.environ, "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
    command = [sys.executable, "-c", POLYGRAPHY, str(tmp_path / "graph.onnx")]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout.split()[-1]) == found.facts["bytes"]


@needs_rtx
def test_what_this_compiler_lacks_is_refused_by_name(int8_model, a100: Target, tmp_path: Path) -> None:
    options = BuildOptions(engine=EngineOptions(version_compatible=True))
    with pytest.raises(ExportError, match=r"TensorRT for RTX 1\.\S+ has no version-compatible engines"):
        onnx_to_rtx_engine.convert(int8_model.path, a100, tmp_path, options=options)
    assert list(tmp_path.iterdir()) == []


@needs_rtx
def test_a_check_says_that_it_is_one(int8_model, orin: Target, tmp_path: Path) -> None:
    options = BuildOptions(purpose="check", batches=(1, 1, 4))
    found = onnx_to_rtx_engine.convert(int8_model.path, orin, tmp_path, options=options)
    assert found.path.name == "check_sm86.engine"
    assert found.purpose == "check"
    assert "does not run on JETSON (8.7)" in found.note
    with pytest.raises(ExportError, match=r"does not compile for 8\.7"):
        onnx_to_rtx_engine.convert(int8_model.path, orin, tmp_path, options=BuildOptions())


@needs_rtx
def test_a_float_network_has_no_int8(float_model, a100: Target, tmp_path: Path) -> None:
    found = onnx_to_rtx_engine.convert(float_model.path, a100, tmp_path, options=BuildOptions())
    assert found.facts["int8_share"] == 0.0
    assert len(found.facts["float_nodes"]) == 7  # type: ignore[arg-type]
    assert found.facts["missed_int8_nodes"] == []


@needs_rtx
def test_a_front_end_with_stft_is_rewritten(log_mel, a100: Target, tmp_path: Path) -> None:
    samples = torch.randn(2, 1600)
    torch_to_onnx.convert(
        log_mel().eval(),
        (samples,),
        tmp_path / "m.onnx",
        opset=18,
        input_names=["samples"],
        output_names=["energies"],
        metadata={},
    )
    found = onnx_to_rtx_engine.convert(tmp_path / "m.onnx", a100, tmp_path, options=BuildOptions())
    assert len(found.facts["float_nodes"]) == 2  # type: ignore[arg-type]  # the transform, and the filter bank


def broken(model: ModelProto, path: Path, scale: float | None = None, zero: int | None = None) -> Path:
    """The model with the first activation quantiser's scale or zero point replaced."""
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    for name, value in ((node.input[1], scale), (node.input[2], zero)):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        if value is not None:
            kind = numpy_helper.to_array(tensor).dtype
            tensor.CopyFrom(numpy_helper.from_array(np.array(value, kind), name))
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("scale", [0.0, float("inf"), -1.0])
def test_scales_that_tensorrt_refuses_or_gets_wrong(int8_proto: ModelProto, scale: float, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not positive and finite"):
        for_tensorrt.prepare(broken(int8_proto, tmp_path / "m.onnx", scale=scale))


def test_asymmetric_activations_are_refused(int8_proto: ModelProto, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="symmetric quantisation only"):
        for_tensorrt.prepare(broken(int8_proto, tmp_path / "m.onnx", zero=3))


def test_a_computed_scale_is_refused_before_it_ends_the_builder(int8_proto: ModelProto, tmp_path: Path) -> None:
    node = next(node for node in int8_proto.graph.node if node.op_type == "QuantizeLinear")
    int8_proto.graph.node.insert(0, helper.make_node("ReduceMax", ["input"], ["computed"], keepdims=0))
    node.input[1] = "computed"
    (tmp_path / "m.onnx").write_bytes(int8_proto.SerializeToString())
    with pytest.raises(ExportError, match="computed in the graph"):
        for_tensorrt.prepare(tmp_path / "m.onnx")


@needs_rtx
def test_the_parsers_refusal_names_the_node(a100: Target, tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 8, 9, 9])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 8, 7, 7])
    nodes = [helper.make_node("Relu", ["x"], ["a"])]
    nodes += [helper.make_node("MaxPool", ["a"], ["y"], name="dilated", kernel_shape=[2, 2], dilations=[2, 2])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="parser refuses node 'dilated'"):
        onnx_to_rtx_engine.convert(tmp_path / "m.onnx", a100, tmp_path / "out", options=BuildOptions())
    assert not (tmp_path / "out").exists(), "a refusal leaves nothing behind"


def test_a_crash_of_the_builder_is_told(
    int8_model, a100: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    program = (
        "import os, signal; open('build.log', 'w').write('VERBOSE node_bad'); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    monkeypatch.setattr(onnx_to_rtx_engine.child, "python", lambda module: ["python3", "-c", program])
    with pytest.raises(ExportError, match=r"crashed \(SIGSEGV\); it last said: VERBOSE node_bad"):
        onnx_to_rtx_engine.convert(int8_model.path, a100, tmp_path, options=BuildOptions())


def test_a_build_that_takes_too_long_is_ended(
    int8_model, a100: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(onnx_to_rtx_engine.child, "python", lambda module: ["sleep", "60"])
    with pytest.raises(ExportError, match="reached its time limit"):
        onnx_to_rtx_engine.convert(int8_model.path, a100, tmp_path, options=BuildOptions(seconds=0.2))


def test_profiles() -> None:
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "length", 4])
    fixed = helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, [2, 4])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", "length", 4])
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x, fixed], [y]))
    with pytest.raises(ExportError, match="dynamic dimensions besides the batch"):
        for_tensorrt.profile(model, (1, 2, 3), {})
    assert for_tensorrt.profile(model, (1, 2, 3), {"x": (7, 4)}) == {"x": [[1, 7, 4], [2, 7, 4], [3, 7, 4]]}


@needs_rtx
def test_the_child_uses_names_that_exist() -> None:
    """Every capability offered is one of the library's."""
    import tensorrt_rtx

    for capability in onnx_to_rtx_engine.CAPABILITIES:
        assert onnx_to_rtx_engine._sm(capability).upper() in tensorrt_rtx.ComputeCapability.__members__
    assert rtx_build.ENGINE == "model.engine"
