"""Exported files compute what the module computes, are small, clean and always the same."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxsim
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from exporters import check_onnx, graph, torch_to_onnx
from exporters.errors import ExportError
from profiles import atomic

# Sums of some hundred products in another order.
FLOAT_ROUNDING = 2e-6
REPOSITORY = Path(__file__).resolve().parents[2]


def convert(module: nn.Module, example: Tensor, out: Path, opset: int = 20, **more: object) -> None:
    torch_to_onnx.convert(
        module,
        (example,),
        out,
        opset=opset,
        input_names=["input"],
        output_names=["logits"],
        **{"metadata": {"classes": '["a"]'}, **more},  # type: ignore[arg-type]
    )


def test_float_network_gives_the_same_outputs_at_every_batch(float_model) -> None:
    np.testing.assert_allclose(float_model.onnx_outputs(), float_model.torch_outputs(), atol=FLOAT_ROUNDING)


def test_int8_network_gives_the_same_outputs(int8_model) -> None:
    # A value on a rounding boundary may land one code further and move a logit by a few hundredths of the spread.
    found, expected = int8_model.onnx_outputs(), int8_model.torch_outputs()
    assert np.abs(found - expected).mean() < 0.01 * expected.std()
    assert (found.argmax(1) == expected.argmax(1)).all()


@pytest.mark.parametrize("name", ["int8_model", "depthwise_model"])
def test_weights_are_stored_as_int8_behind_dequantize(name: str, request: pytest.FixtureRequest) -> None:
    model = onnx.load(request.getfixturevalue(name).path)
    makers, known = graph.producers(model.graph), graph.constants(model.graph)
    weighted = [node for node in model.graph.node if node.op_type in graph.WEIGHTED]
    assert len(weighted) == 7
    for node in weighted:
        maker = makers[node.input[1]]
        assert maker.op_type == "DequantizeLinear"
        assert known[maker.input[0]].data_type == TensorProto.INT8
        assert known[node.input[2]].data_type == TensorProto.FLOAT  # the bias
    assert {node.domain for node in model.graph.node} == {""}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert "ReduceMean" not in {node.op_type for node in model.graph.node}


def test_stored_weights_survive_a_constant_folder(int8_model) -> None:
    """What onnxsim may fold elsewhere must not turn stored codes back into float weights here."""
    model = onnx.load(int8_model.path)
    codes = {t.name: t.raw_data for t in model.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1}
    assert len(codes) == 7
    simplified, _ = onnxsim.simplify(model)
    kept = {t.raw_data for t in simplified.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1}
    assert kept == set(codes.values())


def test_facts_count_what_is_quantised(int8_model, float_model) -> None:
    assert (int8_model.facts["weighted_nodes"], int8_model.facts["weighted_nodes_int8"]) == (7, 7)
    assert (float_model.facts["weighted_nodes"], float_model.facts["weighted_nodes_int8"]) == (7, 0)
    assert int8_model.facts["bytes"] == int8_model.path.stat().st_size
    assert int8_model.facts["sha256"] == hashlib.sha256(int8_model.path.read_bytes()).hexdigest()


def test_nothing_of_the_machine_is_in_the_file(int8_model) -> None:
    data = int8_model.path.read_bytes()
    model = onnx.load(int8_model.path)
    assert model.doc_string == ""
    assert [entry.key for entry in model.metadata_props] == []
    for word in (str(REPOSITORY), sys.prefix, "site-packages", ".py", "stack_trace", "pkg.torch", "File "):
        assert word.encode() not in data, word


def test_metadata_is_stored_in_order(float_model, tmp_path: Path) -> None:
    metadata = {"preprocessing": "[0, 1]", "classes": '["a", "b"]'}
    torch_to_onnx.convert(
        float_model.module,
        (float_model.inputs,),
        tmp_path / "m.onnx",
        opset=20,
        input_names=["input"],
        output_names=["logits"],
        metadata=metadata,
    )
    props = onnx.load(tmp_path / "m.onnx").metadata_props
    assert [(p.key, p.value) for p in props] == sorted(metadata.items())


def test_module_names_stay_with_their_nodes(float_model) -> None:
    model = onnx.load(float_model.path)
    names = {p.value for node in model.graph.node for p in node.metadata_props if p.key == "module"}
    assert {"blocks.0", "blocks.1.second", "head"} & names


@pytest.mark.parametrize("opset", [13, 21])
def test_opset_is_the_one_asked_for(opset: int, int8_model, tmp_path: Path, run_onnx) -> None:
    convert(int8_model.module, int8_model.inputs, tmp_path / "m.onnx", opset)
    model = onnx.load(tmp_path / "m.onnx")
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version <= 10
    found = run_onnx(model, {"input": int8_model.inputs.numpy()})[0]
    np.testing.assert_array_equal(found, int8_model.onnx_outputs())


def test_an_opset_that_cannot_be_had_is_refused(tmp_path: Path) -> None:
    class Bits(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.bitwise_not(x.int()).float()

    module = Bits()
    with pytest.raises(ExportError, match="opset 16 has no BitwiseNot"):
        convert(module, torch.randn(2, 4), tmp_path / "m.onnx", 16)
    with pytest.raises(ExportError, match="opset 11"):
        convert(module, torch.randn(2, 4), tmp_path / "m.onnx", 11)
    assert not (tmp_path / "m.onnx").exists()


def test_a_single_sample_still_gives_a_dynamic_batch(float_model, tmp_path: Path, run_onnx) -> None:
    convert(float_model.module, float_model.inputs[:1], tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert run_onnx(model, {"input": float_model.inputs.numpy()})[0].shape == (9, 3)


def test_a_static_batch_stays(float_model, tmp_path: Path) -> None:
    convert(float_model.module, float_model.inputs[:1], tmp_path / "m.onnx", dynamic_batch=False)
    model = onnx.load(tmp_path / "m.onnx")
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 16, 16]


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=0)


class Special(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


def test_an_output_without_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="first dimension of 'logits' is 4"):
        convert(Mean(), torch.randn(3, 4), tmp_path / "m.onnx")


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="bessel_j0"):
        convert(Special(), torch.randn(3, 4), tmp_path / "m.onnx")


def test_a_module_that_cannot_be_captured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="torch cannot export this module"):
        convert(Branch(), torch.randn(3, 4), tmp_path / "m.onnx")


def test_wrong_names_are_refused(float_model, tmp_path: Path) -> None:
    def attempt(inputs: list[str], outputs: list[str]) -> None:
        torch_to_onnx.convert(
            float_model.module,
            (float_model.inputs,),
            tmp_path / "m.onnx",
            opset=20,
            input_names=inputs,
            output_names=outputs,
            metadata={},
        )

    with pytest.raises(ExportError, match="1 example inputs, but 2"):
        attempt(["a", "b"], ["c"])
    with pytest.raises(ExportError, match="not all different"):
        attempt(["a"], ["a"])


def test_the_same_module_gives_the_same_bytes(int8_model, tmp_path: Path) -> None:
    convert(int8_model.module, int8_model.inputs, tmp_path / "m.onnx", metadata={})
    assert (tmp_path / "m.onnx").read_bytes() == int8_model.path.read_bytes()


PROGRAM = """
import sys
from pathlib import Path
import torch
from torch import nn
from exporters import torch_to_onnx
torch.manual_seed(0)
module = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                       nn.Flatten(), nn.Linear(8, 3)).eval()
torch_to_onnx.convert(module, (torch.randn(2, 3, 8, 8),), Path(sys.argv[1]), opset=20, input_names=["x"],
                      output_names=["y"], metadata={"b": "1", "a": "2"})
"""


def test_another_process_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(REPOSITORY)}
    other = tmp_path / "another_folder"
    other.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(other / "m.onnx")]
    subprocess.run(command, check=True, env=environment, cwd=other, capture_output=True)
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "m.onnx")])
    exec(PROGRAM, {})
    assert (tmp_path / "m.onnx").read_bytes() == (other / "m.onnx").read_bytes()


@pytest.mark.parametrize(("window", "center"), [(256, False), (200, False), (200, True)])
def test_a_log_mel_front_end_keeps_the_standard_operator(
    window: int, center: bool, log_mel: Callable[..., nn.Module], tmp_path: Path, run_onnx
) -> None:
    module = log_mel(256, window, center).eval()
    samples = torch.randn(5, 1600, generator=torch.Generator().manual_seed(0))
    convert(module, samples[:1], tmp_path / "m.onnx", 17)
    model = onnx.load(tmp_path / "m.onnx")
    assert [node.op_type for node in model.graph.node].count("STFT") == 1
    for batch in (1, 5):
        found = run_onnx(model, {"input": samples[:batch].numpy()})[0]
        # Two implementations of the transform: float32 rounding of 256-term sums, seen through the logarithm.
        np.testing.assert_allclose(found, module(samples[:batch]).numpy(), atol=2e-4)


def test_large_weights_go_into_a_data_file_beside_the_model(tmp_path: Path) -> None:
    """With a threshold of 1 kB: the model's file is small, both hashes are told, and whoever opens it reads both."""
    module = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    x = torch.randn(3, 64)
    out = tmp_path / "model.onnx"
    arguments = {"opset": 18, "input_names": ["x"], "output_names": ["y"], "metadata": {}}
    made = torch_to_onnx.convert(module, (x,), out, one_file_bytes=1000, **arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert out.stat().st_size < 2500
    assert made.facts["files"] == {path.name: atomic.sha256(path) for path in tmp_path.iterdir()}
    session = onnxruntime.InferenceSession(str(out))
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], module(x).detach().numpy(), atol=1e-6)
    whole = check_onnx.load(out)
    assert {t.data_location for t in whole.graph.initializer} == {onnx.TensorProto.DEFAULT}
    again = torch_to_onnx.convert(module, (x,), tmp_path / "b" / "model.onnx", one_file_bytes=1000, **arguments)
    assert again.facts["files"] == made.facts["files"]
    small = torch_to_onnx.convert(module, (x,), out, **arguments)
    assert [path.name for path in sorted(tmp_path.glob("model*"))] == ["model.onnx"], "no data of another model stays"
    assert small.facts["bytes"] == out.stat().st_size
    (tmp_path / "b" / "model.onnx.data").unlink()
    with pytest.raises(ExportError, match="external data"):
        check_onnx.load(tmp_path / "b" / "model.onnx")
