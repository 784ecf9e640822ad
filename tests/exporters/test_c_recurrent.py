"""GRU and LSTM in C: the same numbers as onnxruntime, from float and from int8 weights."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exporters import onnx_to_c
from exporters.errors import ExportError
from profiles.runners import on_cortex_m
from profiles.runners.cortex_m import toolchain
from profiles.target import target

Array = NDArray[Any]
STEPS, INPUTS, UNITS = 7, 5, 6
ONNXRUNTIME_TANH = 3e-6  # onnxruntime's rational approximations of tanh and the sigmoid, summed over the steps
needs_host = pytest.mark.skipif(toolchain.host_compiler() is None, reason="this machine has no C compiler")


def model(kind: str, path: Path, *, int8: bool = False, start: bool = False, **attributes: Any) -> Path:
    rng = np.random.default_rng(3)
    gates = {"GRU": 3, "LSTM": 4}[kind]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    nodes, stored = [helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2])], {}

    def weight(name: str, size: int) -> str:
        if not int8:
            stored[name] = rng.normal(0, 0.5, (directions, gates * UNITS, size)).astype(np.float32)
            return name
        stored[f"{name}_codes"] = rng.integers(-127, 128, (directions, gates * UNITS, size)).astype(np.int8)
        stored[f"{name}_scale"] = rng.uniform(0.002, 0.01, gates * UNITS).astype(np.float32)
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_codes", f"{name}_scale"], [name], axis=1))
        return name

    stored["b"] = rng.normal(0, 0.3, (directions, 2 * gates * UNITS)).astype(np.float32)
    inputs = ["steps", weight("w", INPUTS), weight("r", UNITS), "b", ""]
    if start:
        stored["h"] = rng.normal(0, 0.5, (directions, 1, UNITS)).astype(np.float32)
        inputs.append("h")
    outputs = ["every", "last", *(["cell"] if kind == "LSTM" else [])]
    nodes.append(helper.make_node(kind, inputs, outputs, hidden_size=UNITS, name="layer", **attributes))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, STEPS, INPUTS])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def close_to_onnxruntime(path: Path, folder: Path) -> Path:
    import onnxruntime

    made = onnx_to_c.sources(path, target("hearing-aid"), folder)
    x = np.random.default_rng(1).normal(size=(4, STEPS, INPUTS)).astype(np.float32)
    ours = on_cortex_m.run_on_host(made, {"x": x})
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    rows = [session.run(None, {"x": one[None]}) for one in x]
    for place, name in enumerate(names):
        theirs = np.stack([row[place].reshape(-1) for row in rows])
        np.testing.assert_allclose(ours[name].reshape(4, -1), theirs, atol=ONNXRUNTIME_TANH)
    return made


@needs_host
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("after", [0, 1])
def test_gru_equals_onnxruntime(direction: str, after: int, tmp_path: Path) -> None:
    path = model("GRU", tmp_path / "net.onnx", direction=direction, linear_before_reset=after, start=True)
    close_to_onnxruntime(path, tmp_path / "c")


@needs_host
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_lstm_equals_onnxruntime(direction: str, tmp_path: Path) -> None:
    close_to_onnxruntime(model("LSTM", tmp_path / "net.onnx", direction=direction), tmp_path / "c")


@needs_host
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_int8_weights_stay_int8(kind: str, tmp_path: Path) -> None:
    made = close_to_onnxruntime(model(kind, tmp_path / "net.onnx", int8=True), tmp_path / "c")
    gates = 3 if kind == "GRU" else 4
    source = (made / "model.c").read_text()
    assert f"static const int8_t model_data_0[{gates * UNITS * INPUTS}]" in source
    assert f"static const int8_t model_data_2[{gates * UNITS * UNITS}]" in source


def test_other_activations_are_refused(tmp_path: Path) -> None:
    path = model("GRU", tmp_path / "net.onnx", activations=["Relu", "Tanh"])
    with pytest.raises(ExportError, match="GRU node 'layer' has the activations relu, tanh"):
        onnx_to_c.sources(path, target("hearing-aid"), tmp_path / "c")


@pytest.mark.skipif(on_cortex_m.available() is not None, reason=str(on_cortex_m.available()))
def test_a_core_gives_the_bits_of_the_host(tmp_path: Path) -> None:
    made = onnx_to_c.sources(
        model("GRU", tmp_path / "net.onnx", int8=True, linear_before_reset=1), target("hearing-aid"), tmp_path / "c"
    )
    x = {"x": np.random.default_rng(2).normal(size=(2, STEPS, INPUTS)).astype(np.float32)}
    host = on_cortex_m.run_on_host(made, x)
    with on_cortex_m.load(made, "cortex-m4") as board:
        found = board.run(x)
    for name, value in host.items():
        np.testing.assert_array_equal(found[name], value)
