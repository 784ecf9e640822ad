"""Profiles, DLA forms and weights for TensorRT 8: what is asked of a device is what was meant."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

from exporters import dla, engine_request, for_tensorrt, profile_shapes
from exporters.builder import BuildOptions, EngineOptions
from exporters.errors import ExportError
from exporters.passes import drop_unused, fold_weight_quantizers, quantize_weights_in_graph
from tools.remote_loopback import small_network


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    return for_tensorrt.prepare(small_network(tmp_path_factory.mktemp("m") / "m.onnx"))


@pytest.fixture(scope="module")
def text() -> ModelProto:
    """Two inputs (batch, length) -> (batch, length)."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "length"]) for name in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "g", ends[:2], ends[2:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def outputs(model: ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found


def test_one_profile_from_batches(small: ModelProto) -> None:
    assert profile_shapes.profiles(small, BuildOptions(batches=(1, 2, 4))) == [
        {"x": [[1, 3, 16, 16], [2, 3, 16, 16], [4, 3, 16, 16]]}
    ]


def test_a_dynamic_length_is_given_by_the_dimensions_name(text: ModelProto) -> None:
    options = BuildOptions(batches=(1, 2, 4), dims={"length": (16, 64, 512)})
    same = [[1, 16], [2, 64], [4, 512]]
    assert profile_shapes.profiles(text, options) == [{"a": same, "b": same}]
    with pytest.raises(ExportError, match="has no dimension 'size'; its dynamic ones are batch, length"):
        profile_shapes.profiles(text, BuildOptions(dims={"size": (1, 2, 3)}))
    with pytest.raises(ExportError, match=r"dimension 1 of input 'a' \(length\) has no sizes") as caught:
        profile_shapes.profiles(text, BuildOptions(dims={"batch": (1, 2, 3)}))
    assert "--dim length=" in caught.value.fix


def test_several_profiles_are_checked_against_the_model(text: ModelProto) -> None:
    short, long = ((1, 16), (1, 32), (8, 64)), ((1, 64), (1, 128), (2, 512))
    found = profile_shapes.profiles(text, BuildOptions(profiles=({"a": short, "b": short}, {"a": long, "b": long})))
    assert [one["a"][2] for one in found] == [[8, 64], [2, 512]]
    for wrong, said in (
        ({"a": short}, "the dynamic ones are a, b"),
        ({"a": short, "b": ((2, 16), (1, 32), (8, 64))}, "does not fit input 'b'"),
        ({"a": short, "b": ((1,), (1,), (1,))}, "does not fit input 'b'"),
    ):
        with pytest.raises(ExportError, match=said):
            profile_shapes.profiles(text, BuildOptions(profiles=(wrong,)))


def test_a_model_without_dynamic_shapes_has_none(small: ModelProto) -> None:
    assert profile_shapes.profiles(dla.fix_batch(small, 2), BuildOptions()) == []


def test_stripped_for_a_dla_it_is_the_float_graph_with_the_same_scales(small: ModelProto) -> None:
    stripped = dla.strip(small)
    onnx.checker.check_model(stripped.model, full_check=True)
    assert not [n for n in stripped.model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert stripped.scales == {name: float(np.float32(0.05)) for name in ("x", "r0", "flat")}
    x = np.random.default_rng(1).standard_normal((4, 3, 16, 16)).astype(np.float32)
    float_y, int8_y = outputs(stripped.model, x), outputs(small, x)
    head = next(onnx.numpy_helper.to_array(t) for t in stripped.model.graph.initializer if t.dims == [4, 32])
    half_a_step = 0.025 * np.abs(head).sum(axis=1).max()  # what rounding at the head's input alone may do to an output
    assert 0 < np.abs(float_y - int8_y).max() < half_a_step, "the rounding of activations, and nothing else"
    weights = {t.name for t in stripped.model.graph.initializer if t.data_type == TensorProto.INT8}
    assert not weights


def test_a_dla_wants_fixed_shapes(small: ModelProto, text: ModelProto) -> None:
    fixed = dla.fix_batch(small, 4)
    assert [d.dim_value for d in fixed.graph.input[0].type.tensor_type.shape.dim] == [4, 3, 16, 16]
    x = np.ones((4, 3, 16, 16), np.float32)
    np.testing.assert_array_equal(outputs(fixed, x), outputs(small, x))
    with pytest.raises(ExportError, match=r"dimension 1 of 'a' is dynamic \(length\)"):
        dla.fix_batch(text, 4)
    with pytest.raises(ExportError, match="takes batches of 1 to 4096"):
        dla.fix_batch(small, 5000)


def test_what_is_asked_for_a_dla(small: ModelProto) -> None:
    options = BuildOptions(engine=EngineOptions(dla_core=1, gpu_fallback=True))
    asked = engine_request.request(dla.fix_batch(small, 1), options)
    assert asked["profiles"] == []
    assert asked["dla"]["core"] == 1
    assert set(asked["dla"]["scales"]) == {"x", "r0", "flat"}
    with pytest.raises(ExportError, match="a DLA wants static shapes"):
        engine_request.request(small, options)


def test_what_the_graph_holds_is_told_to_weakly_typed_releases(small: ModelProto, text: ModelProto) -> None:
    assert (
        engine_request.request(small, BuildOptions())["int8"],
        engine_request.request(text, BuildOptions(dims={"length": (1, 2, 3)}))["int8"],
    ) == (True, False)
    half = onnx.ModelProto()
    half.CopyFrom(text)
    half.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert engine_request.request(half, BuildOptions(dims={"length": (1, 2, 3)}))["fp16"] is True


def test_weights_for_8_are_floats_behind_their_quantizer_with_the_same_bits(small: ModelProto) -> None:
    eight = quantize_weights_in_graph.apply(small)
    onnx.checker.check_model(eight, full_check=True)
    zeros = {node.input[2] for node in eight.graph.node if node.op_type.endswith("Linear") and len(node.input) > 2}
    assert not [t.name for t in eight.graph.initializer if t.data_type == TensorProto.INT8 and t.name not in zeros]
    x = np.random.default_rng(2).standard_normal((4, 3, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(outputs(eight, x), outputs(small, x))
    back = drop_unused.apply(fold_weight_quantizers.apply(eight))  # the way back gives the same codes
    stored = [
        sorted(onnx.numpy_helper.to_array(t).tobytes() for t in m.graph.initializer if len(t.dims) > 1)
        for m in (back, small)
    ]
    assert stored[0] == stored[1]
    np.testing.assert_array_equal(outputs(back, x), outputs(small, x))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hardware": "all"}, "is unknown"),
        ({"optimisation_level": 6}, "not 0 to 5"),
        ({"gpu_fallback": True}, "without a DLA"),
        ({"workspace_mib": 0}, "too little"),
    ],
)
def test_options_are_checked(values: dict, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        EngineOptions(**values)
    with pytest.raises(ExportError, match="sizes 3, 2, 1 of dimension 'n'"):
        BuildOptions(dims={"n": (3, 2, 1)})


def test_paths_are_not_part_of_what_is_asked(small: ModelProto, tmp_path: Path) -> None:
    plain = engine_request.request(small, BuildOptions())
    cached = engine_request.request(small, BuildOptions(engine=EngineOptions(timing_cache=tmp_path)))
    assert plain == cached
