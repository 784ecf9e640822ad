"""The best figure this machine has: run where it can be, and otherwise why not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import profiles
from exporters.artifact import Artifact
from exporters.cost_here import cost_here, random_inputs, repeated
from exporters.errors import ExportError
from profiles.abilities import Ability, ability
from profiles.cost import Cost, LayerCost
from profiles.runners import on_cortex_m

needs_board = pytest.mark.skipif(on_cortex_m.available() is not None, reason=str(on_cortex_m.available()))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A product of (n, 8) and (8, 4)."""
    weight = numpy_helper.from_array(np.ones((8, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [weight],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def test_a_device_that_is_not_here_is_predicted_with_the_reason(model: Path) -> None:
    cost = cost_here(model, profiles.target("a100"), batch=4)
    assert cost.origin == "predicted"
    assert "on_tensorrt" in cost.notes[0]
    assert replace(cost, notes=()) == replace(profiles.profile(model, "a100", batch=4), notes=())


def test_a_batch_that_the_file_is_not_made_for_is_predicted(model: Path) -> None:
    pytest.importorskip("onnxruntime")
    proto = onnx.load(str(model))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(proto, str(model))
    target = profiles.target("x86")
    cost = cost_here(model, target, batch=8)
    assert (cost.origin, cost.batch) == ("predicted", 8)
    if ability(target).level == "measure":
        assert "not float32 (8, 8)" in cost.notes[0]


@needs_board
def test_a_batch_on_a_microcontroller_is_so_many_inferences(model: Path) -> None:
    target = profiles.target("hearing-aid")
    one, three = cost_here(model, target), cost_here(model, target, batch=3)
    assert (one.origin, three.origin) == ("emulated", "emulated")
    assert three.latency_ms == pytest.approx(3 * one.latency_ms)
    assert (one.macs, three.macs) == (32, 96)
    assert three.peak_activation_bytes == one.peak_activation_bytes


def test_inferences_in_a_row_add_time_and_energy_not_memory() -> None:
    layer = LayerCost("a", ("Gemm",), 10, 7, 5, 0.5, "compute", "int8")
    cost = Cost("t", "c", 1, "int8", 10, 7, 7, 9, 2.0, (1.0, 3.0), "emulated", 0.25, (0.125, 0.5), (layer,))
    many = repeated(cost, 4)
    assert (many.batch, many.macs, many.params, many.weight_bytes, many.peak_activation_bytes) == (4, 40, 7, 7, 9)
    assert (many.latency_ms, many.interval_ms) == (8.0, (4.0, 12.0))
    assert (many.energy_mj, many.energy_interval_mj) == (1.0, (0.5, 2.0))
    assert many.layers == (LayerCost("a", ("Gemm",), 40, 7, 20, 2.0, "compute", "int8"),)
    assert repeated(cost, 1) is cost


class Refusing:
    """A builder that can run and then refuses."""

    def can_run(self, *_: object, **__: object) -> None:
        return None

    def convert(self, *_: object, **__: object) -> Artifact:
        raise ExportError("the graph has a Loop", fix="take it out")


class Bundling(Refusing):
    """A builder whose artifact runs elsewhere."""

    def convert(self, model: Path, target: object, out: Path, **_: object) -> Artifact:
        return Artifact(out, "bundle", note="runs on the device")


class Building(Refusing):
    """A builder whose artifact is there."""

    def convert(self, model: Path, target: object, out: Path, **_: object) -> Artifact:
        (out / "model.engine").write_bytes(b"engine")
        return Artifact(out / "model.engine", "engine")


def test_the_first_builder_whose_artifact_runs_here_is_taken(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"one": Refusing(), "two": Bundling(), "three": Building()}
    target = replace(profiles.target("jetson"), builders=tuple(made))
    monkeypatch.setattr("exporters.cost_here.ability", lambda _: Ability("jetson", "measure", "on_tensorrt", {}))
    monkeypatch.setattr("exporters.cost_here.builder.load", made.__getitem__)
    seen: list[str] = []

    def run(path: Path, *_: object, **__: object) -> Cost:
        seen.append(path.name)
        assert path.read_bytes() == b"engine"
        return profiles.profile(model, "jetson")

    monkeypatch.setattr("exporters.cost_here.profiles.measure_cost", run)
    cost_here(model, target)
    assert seen == ["model.engine"]
    said = cost_here(model, replace(target, builders=("one", "two"))).notes[0]
    assert "Loop" in said
    assert "runs on the device" in said


def test_input_data_has_the_types_of_the_graph() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 5])
    i = helper.make_tensor_value_info("i", TensorProto.INT64, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"], axis=1)]
    graph = profiles.read(helper.make_model(helper.make_graph(nodes, "g", [x, i], [y])), 3)
    made = random_inputs(graph)
    assert (made["x"].shape, made["x"].dtype) == ((3, 5), np.float16)
    assert (made["i"].shape, made["i"].dtype) == ((3,), np.int64)
    assert np.all(made["x"] != 0)
    assert np.all(made["i"] >= 0)
