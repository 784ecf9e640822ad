"""The package as a device sees it: no torch, nothing heavy, nothing above it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import profiles


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "torch", "onnx", "onnxruntime", "numpy", "tensorrt", "compress", "exporters"
    code = f"import sys, profiles; profiles.target('jetson'); print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_predicting_from_a_file_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import onnx, profiles\n"
        "from onnx import helper, TensorProto\n"
        "x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ['n', 3]) for n in 'xy')\n"
        "model = helper.make_model(helper.make_graph([helper.make_node('Relu', ['x'], ['y'])], 'g', [x], [y]))\n"
        "print(profiles.profile(model, 'jetson').origin)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "predicted"


def test_a_target_of_ones_own_is_profiled_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "bench.toml").write_text('inherit = "a100"\n[latency]\nfixed_us = 5000.0\n')
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]))
    cost = profiles.profile(model, "bench", search=tmp_path)
    assert cost.target == "bench"
    assert cost.latency_ms > 5.0
    ((same,),) = profiles.compare([model], ["bench"], search=tmp_path)
    assert same == cost
    with pytest.raises(profiles.ProfileError, match="bench"):
        profiles.profile(model, "bench")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"batch": 1.5}, "batch is 1.5"),
        ({"batch": "1"}, "batch is 1"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"target": 5}, "the target is a int"),
        ({"example": {"zz": (1,)}}, "no input 'zz'; there are x"),
        ({"example": {"x": (1, 4)}}, "has 4 in dimension 1, and the model is made for 3"),
    ],
)
def test_wrong_arguments_are_told(words: dict[str, Any], said: str, small: Path) -> None:
    given: dict[str, Any] = {"target": "jetson"} | words
    if "example" in given:
        given["example"] = {name: np.zeros(shape, np.float32) for name, shape in given["example"].items()}
    with pytest.raises(profiles.ProfileError) as error:
        profiles.profile(small, **given)
    assert said in error.value.what


def test_one_model_or_target_is_no_list(small: Path) -> None:
    with pytest.raises(profiles.ProfileError, match="targets is one str, not a list"):
        profiles.compare([small], "jetson")
    with pytest.raises(profiles.ProfileError, match="models is one str, not a list"):
        profiles.compare(str(small), ["jetson"])


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    wide = saved(tmp_path / "wide.onnx", 3, 200_000)  # 2.4 MB of weights, 800 kB of results
    assert "does not fit hearing_aid: 2400000 bytes of flash for weights, and it has 524288" in fitting(wide)
    assert "does not fit hearing_aid: 800012 bytes of RAM for activations, and it has 262144" in fitting(wide)
    assert not fitting(saved(tmp_path / "narrow.onnx", 3, 4))


def fitting(model: Path) -> list[str]:
    return [note for note in profiles.profile(model, "hearing-aid").notes if "does not fit" in note]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return saved(tmp_path / "small.onnx", 3, 4)


def saved(path: Path, depth: int, width: int) -> Path:
    """x (batch, depth) times a matrix (depth, width)."""
    weight = numpy_helper.from_array(np.ones((depth, width), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path
