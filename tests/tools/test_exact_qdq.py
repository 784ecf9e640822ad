"""The float64 reference of a Q/DQ graph: equal to the fake quantiser in every code, on ties too."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.qat.fake_quantize import round_to_grid
from tools import exact_qdq

# One scale per summand and one for the sum. 78 a - 90 b and 102 a - 57 b lie on halves of the third to within float32.
SCALES = (0.00831687357276678, 0.020999882370233536, 0.027893777936697006)


def residual(path: Path) -> None:
    """Write x[:, 0] + x[:, 1] with a pair around every value."""
    nodes, stored = [], [numpy_helper.from_array(np.array(0, np.int8), "zero")]

    def pair(name: str, scale: float) -> str:
        stored.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}_scale"))
        nodes.append(helper.make_node("QuantizeLinear", [name, f"{name}_scale", "zero"], [f"{name}_codes"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_codes", f"{name}_scale", "zero"], [f"{name}_q"]))
        return f"{name}_q"

    nodes.append(helper.make_node("Split", ["input"], ["one", "other"], axis=1, num_outputs=2))
    nodes.append(helper.make_node("Add", [pair("one", SCALES[0]), pair("other", SCALES[1])], ["sum"]))
    last = pair("sum", SCALES[2])
    nodes.append(helper.make_node("Identity", [last], ["output"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)


def test_all_sums_of_two_codes_get_the_code_that_the_fake_quantiser_gives_them(tmp_path: Path) -> None:
    residual(tmp_path / "sum.onnx")
    codes = np.stack(np.meshgrid(np.arange(-128, 128), np.arange(-128, 128)), -1).reshape(-1, 2)
    features = (codes * np.array(SCALES[:2])).astype(np.float32)
    parts = torch.from_numpy(features).double()

    def rounded(x: torch.Tensor, scale: float) -> torch.Tensor:
        return round_to_grid(x, float(np.float32(scale)), 0, -128, 127)

    expected = rounded(rounded(parts[:, :1], SCALES[0]) + rounded(parts[:, 1:], SCALES[1]), SCALES[2])
    found = exact_qdq.answers(tmp_path / "sum.onnx", features)
    np.testing.assert_array_equal(np.rint(found / SCALES[2]), np.rint(expected.numpy() / SCALES[2]))
    # What was given is on the grid, so that no code but that of the sum was in question.
    np.testing.assert_array_equal(np.rint(features / np.array(SCALES[:2], np.float32)), codes)
