"""torch's table of operators is read once, and what one export adds to it is not in the next."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporters import operators_once, torch_to_onnx


def registration() -> Any:
    return importlib.import_module("torch.onnx._internal.exporter._registration")


def test_a_copy_of_the_kept_table_is_what_torch_reads() -> None:
    registry = registration().ONNXRegistry
    original = registry.__dict__["from_torchlib"]
    expected = registry.from_torchlib(opset_version=20)
    with operators_once.kept():
        tables = [registry.from_torchlib(opset_version=20) for _ in range(2)]
    assert registry.__dict__["from_torchlib"] is original
    for table in tables:
        assert table.opset_version == expected.opset_version
        assert list(table.functions) == list(expected.functions)
        for operator, ways in expected.functions.items():
            found = table.functions[operator]
            assert [(way.onnx_function, way.is_custom, way.is_complex) for way in found] == [
                (way.onnx_function, way.is_custom, way.is_complex) for way in ways
            ]
    target = torch.ops.aten.relu.default
    before = len(tables[1].get_decomps(target))
    tables[0].register_op(target, lambda x: x)
    assert len(tables[0].get_decomps(target)) == before + 1
    assert len(tables[1].get_decomps(target)) == before
    with operators_once.kept():
        assert len(registry.from_torchlib(opset_version=20).get_decomps(target)) == before


def test_operators_that_are_registered_later_are_in_the_next_table() -> None:
    registry = registration().ONNXRegistry
    with operators_once.kept():
        first = registry.from_torchlib(opset_version=20)
        with torch.library._scoped_library("compress_test_late", "DEF") as library:
            library.define("late(Tensor x) -> Tensor")
            again = registry.from_torchlib(opset_version=20)
    ways = [table.functions["aten::relu"][0] for table in (first, again)]
    assert ways[0] is not ways[1]  # read again


def test_another_opset_has_a_table_of_its_own() -> None:
    registry = registration().ONNXRegistry
    with operators_once.kept():
        assert [registry.from_torchlib(opset_version=opset).opset_version for opset in (18, 23)] == [18, 23]


def test_files_are_the_same_to_the_byte_where_torch_keeps_its_table_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)).eval()

    def written(name: str) -> bytes:
        torch_to_onnx.convert(
            network, (torch.zeros(2, 1, 6, 6),), tmp_path / name, opset=20, input_names=("input",),
            output_names=("output",), metadata={},
        )  # fmt: skip
        return (tmp_path / name).read_bytes()

    kept = written("kept.onnx")
    monkeypatch.setattr(operators_once, "_PLACE", "torch.onnx.no_such_module")
    assert written("read.onnx") == kept
