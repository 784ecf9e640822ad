"""The package as a device sees it: no torch, nothing heavy, nothing above it."""

import subprocess
import sys


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
