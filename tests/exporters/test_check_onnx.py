"""Files that nobody should trust are refused with a sentence."""

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters import check_onnx
from exporters.errors import ExportError


def write(
    path: Path, nodes: list[onnx.NodeProto], tensors: list[TensorProto], opset: int = 18, domain: str = ""
) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], tensors), opset_imports=imports, ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def external(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "k")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def test_a_good_file_is_read(int8_model) -> None:
    assert len(check_onnx.load(int8_model.path).graph.node) > 10


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no ONNX file at"):
        check_onnx.load(tmp_path / "absent.onnx")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not a file"):
        check_onnx.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a model", b"\x00" * 100, b"\x08\x0a"])
def test_what_is_no_model(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ExportError):
        check_onnx.load(tmp_path / "m.onnx")


def test_truncated_and_garbled_files_never_escape(int8_model, tmp_path: Path) -> None:
    """Every cut is refused; a flipped byte is refused or leaves a valid model, and never another error."""
    data = int8_model.path.read_bytes()
    rng = random.Random(0)
    for _ in range(25):
        (tmp_path / "m.onnx").write_bytes(data[: rng.randrange(len(data))])
        with pytest.raises(ExportError):
            check_onnx.load(tmp_path / "m.onnx")
    for _ in range(25):
        garbled = bytearray(data)
        garbled[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "m.onnx").write_bytes(garbled)
        try:
            check_onnx.load(tmp_path / "m.onnx")
        except ExportError:
            continue


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "a/../../b.bin", "", "..\\b.bin"])
def test_external_data_outside_the_folder(location: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "k"], ["y"])], [external(location)])
    with pytest.raises(ExportError, match="outside its own folder"):
        check_onnx.load(path)


def test_external_data_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(np.ones(2, np.float32).tobytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "data.bin").symlink_to(tmp_path / "secret.bin")
    path = write(folder / "m.onnx", [helper.make_node("Add", ["x", "k"], ["y"])], [external("data.bin")])
    with pytest.raises(ExportError, match="outside its own folder"):
        check_onnx.load(path)


def test_external_data_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(np.array([1, 2], np.float32).tobytes())
    path = write(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "k"], ["y"])], [external("data.bin")])
    model = check_onnx.load(path)
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == [1.0, 2.0]


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "k"], ["y"])], [external("absent.bin")])
    with pytest.raises(ExportError, match="cannot be read"):
        check_onnx.load(path)


def test_operators_of_another_domain(tmp_path: Path) -> None:
    node = helper.make_node("FakeQuantize", ["x"], ["y"], domain="org.openvinotoolkit")
    path = write(tmp_path / "m.onnx", [node], [], domain="org.openvinotoolkit")
    with pytest.raises(ExportError, match=r"org\.openvinotoolkit::FakeQuantize"):
        check_onnx.load(path)


def test_operators_that_the_opset_does_not_have(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Gelu", ["x"], ["y"])], [], opset=18)
    with pytest.raises(ExportError, match="Gelu, which ONNX opset 18 does not have"):
        check_onnx.load(path)


def test_a_graph_that_does_not_fit_together(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", [helper.make_node("Relu", ["nobody"], ["y"])], [])
    with pytest.raises(ExportError, match="fails onnx's check"):
        check_onnx.load(path)
