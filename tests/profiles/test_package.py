"""The package as a device sees it: no torch, nothing heavy, nothing above it."""

import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

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
