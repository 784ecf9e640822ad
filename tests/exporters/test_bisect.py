"""A broken layer is found by name, whatever hides it; what rounding explains is not blamed."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper, parser

import profiles
from exporters import bisect, bisect_rounding, bisect_sides, graph, reproducer
from exporters.bisect_layers import batches, computed, fused_boundaries, layers
from exporters.bisect_sides import AS_WRITTEN, REWRITTEN, OnnxTensors, built_engine, generated_c
from exporters.errors import ExportError
from profiles.runners.cortex_m import toolchain

Array = NDArray[np.generic]

CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[batch, 4] x) => (float[batch, 3] y)
<float[4, 5] w1, float[5] b1, float[5, 3] w2, float s, int8 z>
{
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    first = MatMul(d, w1)
    biased = Add(first, b1)
    relu = Relu(biased)
    q2 = QuantizeLinear(relu, s, z)
    d2 = DequantizeLinear(q2, s, z)
    y = MatMul(d2, w2)
}
"""


def chain() -> ModelProto:
    model = parser.parse_model(CHAIN)
    rng = np.random.default_rng(0)
    for name, value in {
        "w1": rng.normal(size=(4, 5)),
        "b1": rng.normal(size=5),
        "w2": rng.normal(size=(5, 3)),
        "s": np.array(0.5),
    }.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), "z"))
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
        if node.op_type == "MatMul":
            node.metadata_props.add(key="module", value=f"body.{node.output[0]}")
    onnx.checker.check_model(model, full_check=True)
    return model


def samples(rows: int = 6) -> dict[str, Array]:
    return {"x": np.random.default_rng(1).normal(size=(rows, 4)).astype(np.float32) * 3}


def change(model: ModelProto, name: str, how: Callable[[Array], Array]) -> ModelProto:
    new = graph.copy(model)
    for tensor in new.graph.initializer:
        if tensor.name == name:
            value = graph.array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(how(value).astype(value.dtype), name))
    return new


def bumped(place: tuple[int, ...], by: float) -> Callable[[Array], Array]:
    def how(value: Array) -> Array:
        value[place] += by
        return value

    return how


def test_equal_models_blame_nothing() -> None:
    found = bisect.bisect(OnnxTensors(chain()), chain(), samples())
    assert found.first is None
    assert [one.verdict.score for one in found.layers] == [0.0] * 8
    assert "no layer of 8" in found.sentence()


def test_only_the_broken_layer_is_blamed_however_far_its_error_spreads() -> None:
    broken = change(chain(), "w1", bumped((2, 3), 2.0))
    found = bisect.bisect(OnnxTensors(chain()), broken, samples())
    assert [one.layer.node for one in found.layers if one.faulty] == ["node_first"]
    assert found.first is not None
    assert found.first.layer.module == "body.first"
    assert found.final["y"].max_abs > 0.1
    assert found.first.constants == ("w1 differs in 1 of 20 numbers, " + found.first.constants[0].split(", ", 1)[1],)


def test_a_fault_that_rounding_hides_is_found() -> None:
    broken = change(chain(), "w1", bumped((2, 3), 1e-4))
    found = bisect.bisect(OnnxTensors(chain()), broken, samples(4))
    assert found.final["y"].max_abs == 0.0, "no code changes, so the output is the same"
    assert found.first is not None
    assert found.first.layer.node == "node_first"


def test_histogram_and_worst_samples_of_the_layer_are_in_steps_of_its_quantiser() -> None:
    # biased is rounded with 0.5 behind the Relu: a bias that is 1.5 larger is three steps.
    found = bisect.bisect(OnnxTensors(chain()), change(chain(), "b1", lambda b: b + 1.5), samples())
    assert found.first is not None
    told = found.first.parity
    assert told is not None
    assert told.step == 0.5
    assert told.max_steps == pytest.approx(3.0, rel=1e-5)
    assert told.histogram.counts[told.histogram.edges.index(2.5)] == told.elements


def test_a_quantiser_of_another_scale_is_found() -> None:
    broken = graph.copy(chain())
    broken.graph.initializer.append(numpy_helper.from_array(np.float32(0.525), "s2"))
    node = next(node for node in broken.graph.node if node.output[0] == "q2")
    node.input[1] = "s2"
    found = bisect.bisect(OnnxTensors(chain()), broken, samples(64))
    assert found.first is not None
    assert found.first.layer.node == "node_q2"
    assert found.first.layer.module == "body.first", "of the nearest module before it"


def test_numbers_that_differ_without_effect_are_noted() -> None:
    inputs = samples()
    inputs["x"][:, 2] = 0.0
    found = bisect.bisect(OnnxTensors(chain()), change(chain(), "w1", bumped((2, 3), 2.0)), inputs)
    assert found.first is None
    assert "node_first: w1 differs in 1 of 20" in found.notes[0]


def test_nan_on_one_side_is_beyond_any_rounding() -> None:
    found = bisect.bisect(OnnxTensors(chain()), change(chain(), "b1", bumped((0,), math.nan)), samples())
    assert found.first is not None
    assert found.first.layer.node == "node_biased"
    assert math.isinf(found.first.verdict.score)


def test_memory_is_bounded_by_chunks_that_change_nothing() -> None:
    broken = change(chain(), "w2", bumped((0, 0), 1.0))
    at_once = bisect.bisect(OnnxTensors(chain()), broken, samples())
    in_parts = bisect.bisect(OnnxTensors(chain()), broken, samples(), limit_bytes=1)
    assert [one.verdict for one in in_parts.layers] == [one.verdict for one in at_once.layers]
    cuts = layers(chain(), computed(chain()))
    sizes = dict.fromkeys((*computed(chain()), "x"), 10)
    assert [len(chunk) for chunk in batches(cuts, sizes, 30)] == [2, 2, 2, 2]


def test_no_further_chunk_is_begun_after_the_time_is_up() -> None:
    found = bisect.bisect(OnnxTensors(chain()), chain(), samples(), limit_bytes=1, limit_s=0.0)
    assert len(found.layers) == 1
    assert "7 layers were left out" in found.notes[0]


def test_a_tensor_that_a_pass_gave_another_meaning_is_not_blamed() -> None:
    def model(fold: bool) -> ModelProto:
        scaled = (
            "first = MatMul(x, w)\n scaled = Identity(first)"
            if fold
            else "first = MatMul(x, w)\n scaled = Mul(first, g)"
        )
        text = f"""<ir_version: 8, opset_import: ["" : 17]>
            folded (float[batch, 4] x) => (float[batch, 4] y) {{ {scaled} y = Relu(scaled) }}"""
        made = parser.parse_model(text)
        weight = np.eye(4, dtype=np.float32) + 0.1
        gain = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
        made.graph.initializer.append(numpy_helper.from_array(weight * gain if fold else weight, "w"))
        if not fold:
            made.graph.initializer.append(numpy_helper.from_array(gain, "g"))
        if fold:  # the pass wrote the product under the same name, with an attribute of its own
            made.graph.node[0].op_type = "Gemm"
        return made

    assert bisect.bisect(OnnxTensors(model(False)), model(True), samples()).first is None


def test_models_that_share_nothing_are_refused() -> None:
    other = graph.copy(chain())
    for node in other.graph.node:
        node.output[0] += "_x"
        for index, name in enumerate(node.input):
            if name in computed(chain()):
                node.input[index] += "_x"
    other.graph.output[0].name += "_x"
    with pytest.raises(ExportError, match="share no tensor"):
        bisect.bisect(OnnxTensors(chain()), other, samples())


def test_fused_runtimes_are_cut_at_dequantised_activations_only() -> None:
    assert fused_boundaries(chain()) == {"d", "d2", "y"}


def test_one_code_beside_a_half_is_rounding_and_elsewhere_it_is_not() -> None:
    model = chain()
    layer = next(layer for layer in layers(model, computed(model)) if layer.output == "q2")
    value = np.array([[0.25, 0.3]], np.float32)  # 0.5 and 0.6 steps
    codes = np.array([[0, 1]], np.int8)
    tie = bisect_rounding.judge(model, layer, codes, np.array([[1, 1]], np.int8), {"relu": value}, None)
    wrong = bisect_rounding.judge(model, layer, codes, np.array([[0, 0]], np.int8), {"relu": value}, None)
    assert tie.score <= 1.0
    assert wrong.score > 1000.0


def test_every_layer_of_a_network_is_found_in_torch_and_in_onnx(int8_model, int8_proto: ModelProto) -> None:
    from compress.diagnosis.torch_tensors import TorchTensors

    inputs = {"input": int8_model.inputs[:4].numpy()}
    torch_side = TorchTensors(int8_model.module, (int8_model.inputs,), int8_proto)
    assert bisect.bisect(torch_side, int8_proto, inputs).first is None
    known, makers = graph.constants(int8_proto.graph), graph.producers(int8_proto.graph)
    weighted = [node for node in int8_proto.graph.node if node.op_type in graph.WEIGHTED]
    assert len(weighted) == 7
    for number, node in enumerate(weighted[::3]):
        stored = makers[node.input[1]].input[0]
        code = int(graph.array(known[stored]).ravel()[0])
        place = (0,) * len(known[stored].dims)
        broken = change(int8_proto, stored, bumped(place, -3 if code > 0 else 3))
        found = bisect.bisect(torch_side if number % 2 else OnnxTensors(int8_proto), broken, inputs)
        assert found.first is not None, node.name
        assert (found.first.layer.node, sum(one.faulty for one in found.layers)) == (node.name, 1)
        assert found.first.layer.module


def test_float8_codes_are_compared_by_what_they_stand_for(make_network, quantise, inputs, tmp_path: Path) -> None:
    """Numpy has no such type, so that the codes themselves can be shown on neither side."""
    from compress.diagnosis.torch_tensors import TorchTensors
    from exporters import torch_to_onnx

    module = quantise(make_network(False), inputs[:4], "tensorrt_fp8")
    names = {"input_names": ["input"], "output_names": ["logits"]}
    torch_to_onnx.convert(module, (inputs[:4],), tmp_path / "m.onnx", opset=20, metadata={}, **names)
    model = onnx.load(tmp_path / "m.onnx")
    torch_side, samples_here = TorchTensors(module, (inputs[:4],), model), {"input": inputs[:4].numpy()}
    found = bisect.bisect(torch_side, model, samples_here)
    assert found.first is None
    known = graph.constants(model.graph)
    bias = next(
        n.input[2] for n in model.graph.node if n.op_type == "Conv" and len(n.input) > 2 and n.input[2] in known
    )
    broken = change(model, bias, lambda values: values + 3.0)
    assert bisect.bisect(torch_side, broken, samples_here).first is not None


def test_the_reproducer_runs_alone(tmp_path: Path) -> None:
    broken = change(chain(), "w1", bumped((2, 3), 2.0))
    found = bisect.bisect(OnnxTensors(chain()), broken, samples())
    assert found.first is not None
    files = reproducer.write(tmp_path / "r", OnnxTensors(chain()), broken, found.first, samples(), AS_WRITTEN)
    assert {path.name for path in files} == {"layer.onnx", "inputs.npz", "expected.npz", "rerun.py", "finding.json"}
    layer = onnx.load(tmp_path / "r" / "layer.onnx")
    assert [node.op_type for node in layer.graph.node] == ["MatMul"]
    assert json.loads((tmp_path / "r" / "finding.json").read_text())["module"] == "body.first"

    def rerun() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "rerun.py"], cwd=tmp_path / "r", capture_output=True, text=True)

    shown = rerun()
    assert shown.returncode == 1, shown.stderr
    assert "largest error" in shown.stdout
    mended = change(layer, "w1", bumped((2, 3), -2.0))
    onnx.save(mended, tmp_path / "r" / "layer.onnx")
    assert rerun().returncode == 0


def test_onnxruntimes_own_rewrites_are_judged_too(depthwise_model) -> None:
    model = onnx.load(depthwise_model.path)
    inputs = {"input": depthwise_model.inputs.numpy()}
    assert bisect.bisect(OnnxTensors(model), model, inputs, runtime=REWRITTEN).first is None


@pytest.mark.skipif(toolchain.host_compiler() is None, reason="this machine has no C compiler")
def test_generated_c_is_compared_layer_by_layer() -> None:
    runtime = generated_c(profiles.target("hearing-aid"))
    sound = bisect.bisect(OnnxTensors(chain()), chain(), samples(), runtime=runtime)
    assert sound.first is None, sound.sentence()
    assert [one.layer.output for one in sound.layers] == ["d", "d2", "y"]
    broken = bisect.bisect(OnnxTensors(chain()), change(chain(), "w1", lambda w: -w), samples(), runtime=runtime)
    assert broken.first is not None
    assert broken.first.layer.node == "node_first"


def test_an_engine_is_built_from_the_cut_model_and_run() -> None:
    built: list[ModelProto] = []

    class Engine:
        def __init__(self, path: Path) -> None:
            self.path = path

        def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
            return bisect_sides.session(onnx.load(self.path), inputs, rewrite=False)

    def build(path: Path, folder: Path) -> Path:
        built.append(onnx.load(path))
        return path

    runtime = built_engine("an engine", build, Engine)
    broken = change(chain(), "w2", bumped((0, 0), 1.0))
    found = bisect.bisect(OnnxTensors(chain()), broken, samples(), runtime=runtime)
    assert found.first is not None
    assert found.first.layer.node == "node_y"
    assert {value.name for value in built[0].graph.output} == {"d", "d2", "y"}
    assert [node.op_type for node in built[0].graph.node if "d2" in node.output or "again" in node.output[0]]


def test_an_engine_keeps_the_quantisers_that_it_fuses() -> None:
    seen: list[list[str]] = []

    def build(path: Path, folder: Path) -> Path:
        seen.append([node.op_type for node in onnx.load(path).graph.node])
        return path

    class Engine:
        def __init__(self, path: Path) -> None:
            self.path = path

        def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
            return bisect_sides.session(onnx.load(self.path), inputs, rewrite=False)

    bisect.bisect(OnnxTensors(chain()), chain(), samples(), runtime=built_engine("an engine", build, Engine))
    assert seen[0].count("QuantizeLinear") == 4, "its own two, and one in front of each reader"


def test_a_fault_that_only_the_whole_has_is_found_by_beginnings() -> None:
    # Memory that two layers share: what the first leaves is spoilt as soon as the second quantiser runs behind it.
    def run(model: ModelProto, inputs: dict[str, Array]) -> dict[str, Array]:
        found = bisect_sides.session(model, inputs, rewrite=False)
        made = {name for node in model.graph.node for name in node.output}
        inside = "x" in {value.name for value in model.graph.input} and {"first", "q2"} <= made
        return {name: value + 3 if inside and value.dtype.kind == "f" else value for name, value in found.items()}

    runtime = bisect_sides.Runtime("shared memory", run, True, ())
    found = bisect.bisect(OnnxTensors(chain()), chain(), samples(), runtime=runtime)
    assert found.first is None
    assert "from 'd2'" in found.notes[0]
    assert "share" in found.notes[0]


def in_float() -> ModelProto:
    """The chain without its quantisers."""
    model = chain()
    kept = [node for node in model.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    graph.replace_nodes(model.graph, kept)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = {"d": "x", "d2": "relu"}.get(name, name)
    return model


def test_int8_against_float_is_judged_by_the_noise_of_its_steps() -> None:
    many = samples(400)
    sound = bisect.bisect(OnnxTensors(in_float()), chain(), many)
    scores = {one.layer.output: one.verdict.score for one in sound.layers}
    assert sound.first is None, scores
    # The error of uniform rounding: half of what is allowed, which is twice its root mean square.
    assert scores["first"] == pytest.approx(0.5, rel=0.15)
    clipped = chain()
    clipped.graph.initializer.append(numpy_helper.from_array(np.float32(0.02), "narrow"))  # +-2.5, of values up to 9
    for node in clipped.graph.node[:2]:
        node.input[1] = "narrow"
    found = bisect.bisect(OnnxTensors(in_float()), clipped, many)
    assert found.first is not None
    assert found.first.layer.node == "node_first"
    assert found.first.verdict.score > 10.0
