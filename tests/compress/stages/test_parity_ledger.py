"""The ledger over batches, the gates that it feeds, and what is said where one fails."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser
from torch import nn

from compress.contracts.batch import Batch
from compress.recipe import VerifyPart
from compress.stages import diagnose, gates, ledger
from exporters import torch_to_onnx
from exporters.bisect_sides import AS_WRITTEN, OnnxTensors
from exporters.errors import ExportError


class Split:
    """600 samples of two numbers, the label 0 or 1."""

    def __init__(self) -> None:
        self.inputs = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
        self.largest_batch = 0

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, index: torch.Tensor) -> Batch:
        self.largest_batch = max(self.largest_batch, len(index))
        chosen = self.inputs[index]
        return Batch((chosen,), chosen.argmax(1), index)


class Two(nn.Module):
    """Two outputs, the second scaled."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, self.gain * x


@pytest.fixture
def job() -> Any:
    task = SimpleNamespace(
        output_names=("logits", "other"),
        input_names=("x",),
        metric="accuracy",
        metric_unit="%",
        kind="classification",
        directions=(),
        score=lambda outputs, labels: (outputs.argmax(1) == labels).float(),
        total=lambda sums, count: float(sums.sum()) / count,
    )
    return SimpleNamespace(task=task, splits=SimpleNamespace(test=Split()), recipe=SimpleNamespace(verify=VerifyPart()))


def test_every_output_is_compared_batch_by_batch(job: Any) -> None:
    sides = [ledger.torch_side(job, "first", Two(1.0)), ledger.torch_side(job, "second", Two(1.5))]
    pair = ledger.Pair("first", "second", "build")
    accuracy, entries = ledger.keep(job, sides, [pair], {"logits": 0.1, "other": 0.1})
    assert accuracy == {"first": 1.0, "second": 1.0}
    assert job.splits.test.largest_batch == ledger.BATCH
    found = entries[0].outputs
    assert found["logits"].max_steps == 0.0
    largest = float(job.splits.test.inputs.abs().max())
    assert found["other"].max_abs == pytest.approx(largest / 2, rel=1e-6)
    assert found["other"].elements == 1200
    rows = entries[0].rows({"logits": 2.0})
    assert [(row["output"], row["explained_steps"]) for row in rows] == [("logits", 2.0), ("other", None)]
    assert rows[1]["worst"][0]["sample"] == int(job.splits.test.inputs.abs().max(1).values.argmax())
    made = gates.parity_gates(job, entries[0], accuracy)
    failed = [(gate.name, gate.artifact) for gate in made if not gate.passed]
    assert failed == [("share within one step", "second, output other"), ("mean change", "second, output other")]


def test_the_bounds_are_the_recipes_and_information_has_none(job: Any) -> None:
    sides = [ledger.torch_side(job, "first", Two(1.0))]
    _, entries = ledger.keep(job, sides, [ledger.Pair("first", "first", "export")], {"logits": 0.1})
    bounds = {gate.name: gate.bound for gate in gates.parity_gates(job, entries[0], {"first": 1.0})}
    assert bounds == {"change of accuracy": 0.002, "top-1 agreement": 0.99, "share within one step": 0.999}
    silent = replace(entries[0], pair=ledger.Pair("first", "first", None))
    assert gates.parity_gates(job, silent, {"first": 1.0}) == []


@pytest.mark.parametrize("kind", ["embedding", "regression"])
def test_the_largest_output_says_nothing_where_there_are_no_classes(job: Any, kind: str) -> None:
    job.task.kind = kind
    sides = [ledger.torch_side(job, "first", Two(1.0))]
    _, entries = ledger.keep(job, sides, [ledger.Pair("first", "first", "export")], {"logits": 0.1})
    names = [gate.name for gate in gates.parity_gates(job, entries[0], {"first": 1.0})]
    assert names == ["change of accuracy", "share within one step"]


def encoder(last: float) -> onnx.ModelProto:
    """Two numbers -> a unit vector of 16 through two quantised products; `last` is the scale of the second's codes."""
    made = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        small (float[batch, 2] x) => (float[batch, 16] logits) {
          h = MatMul(x, a)  hq = QuantizeLinear(h, s, z)  hd = DequantizeLinear(hq, s, z)
          g = MatMul(hd, b)  gq = QuantizeLinear(g, s, z)  gd = DequantizeLinear(gq, t, z)
          k = Add(gd, c)  n = ReduceL2 <axes = [1]> (k)  logits = Div(k, n) }""")
    draw = np.random.default_rng(0).standard_normal
    constants = {
        "a": draw((2, 16)), "b": draw((16, 16)) / 4, "c": draw(16), "s": np.array(0.03), "t": np.array(0.03 * last)
    }  # fmt: skip
    made.graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items())
    made.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.int8), "z"))
    return made


def compared(job: Any, difference: float, last: float) -> list[gates.Gate]:
    """Gates of the encoder beside one whose inputs a runtime's rounding moved by `difference`, and with that scale."""
    sides = []
    for name, gain, scale in (("first", 1.0, 1.0), ("second", 1.0 + difference, last)):
        tensors = OnnxTensors(encoder(scale))

        def answer(batch: Batch, tensors: OnnxTensors = tensors, gain: float = gain) -> ledger.Outputs:
            return dict(tensors.compute(["logits"], {"x": gain * batch.inputs[0].numpy()}))

        sides.append(ledger.Side(name, answer))
    _, entries = ledger.keep(job, sides, [ledger.Pair("first", "second", "build")], {"logits": 0.5 / ledger.LEVELS})
    return gates.parity_gates(job, entries[0], {"first": 1.0, "second": 1.0})


def test_directions_are_judged_by_how_far_they_turn(job: Any) -> None:
    job.task.directions, job.task.kind = ("logits",), "embedding"
    found = compared(job, 1e-4, 1.0)  # codes that lie next to a half fall to the other side
    assert [gate.name for gate in found] == [
        "change of accuracy",
        "largest turn of a vector",
        "turn of vectors, root mean square",
    ]
    assert all(gate.passed for gate in found)
    assert 0.0 < found[1].value < found[1].bound == pytest.approx(0.902, abs=0.001)  # 2 asin(sqrt(16) / 254 / 2)
    assert found[2].bound == pytest.approx(0.2887 * found[1].bound, rel=1e-4)


@pytest.mark.parametrize("scale", [1.05, 1.5, 0.0])
def test_one_wrong_scale_fails_the_bounds_of_directions(job: Any, scale: float) -> None:
    job.task.directions, job.task.kind = ("logits",), "embedding"
    assert {gate.name for gate in compared(job, 0.0, scale) if not gate.passed} >= {"turn of vectors, root mean square"}


def test_what_is_no_direction_keeps_its_bounds(job: Any) -> None:
    job.task.kind = "embedding"
    names = [gate.name for gate in compared(job, 1e-4, 1.0)]
    assert names == ["change of accuracy", "share within one step", "mean change"]


def test_a_gate_says_what_was_at_fault() -> None:
    gate = gates.Gate("share within one step", "export", "ONNX", 0.5, 0.999, "", False, "measured", "module 'stem'")
    assert gate.sentence() == (
        "export: share within one step of ONNX is 0.5 (measured), below the bound of 0.999; module 'stem'"
    )


def test_the_samples_that_differ_most_are_looked_at(job: Any) -> None:
    worst = [SimpleNamespace(sample=577), SimpleNamespace(sample=3), SimpleNamespace(sample=577)]
    chosen = diagnose.samples(job, worst)["x"]  # type: ignore[arg-type]
    assert len(chosen) == diagnose.SAMPLES
    np.testing.assert_array_equal(chosen[-1], job.splits.test.inputs[577].numpy())


def model(gain: float) -> onnx.ModelProto:
    made = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        small (float[batch, 2] x) => (float[batch, 2] y) { h = MatMul(x, w)  y = Relu(h) }""")
    made.graph.initializer.append(numpy_helper.from_array(np.full((2, 2), gain, np.float32), "w"))
    made.graph.node[0].name = "node_h"
    made.graph.node[0].metadata_props.add(key="module", value="stem")
    return made


def test_the_layer_is_named_and_a_reproducer_is_left(tmp_path: Path) -> None:
    suspect = diagnose.Suspect("model.engine", OnnxTensors(model(1.0)), model(1.05), AS_WRITTEN)
    told = diagnose.diagnose(suspect, {"x": np.ones((3, 2), np.float32)}, tmp_path)
    assert told["first"]["module"] == "stem"
    assert "module 'stem', node 'node_h'" in told["sentence"]
    assert told["reproducer"] == "reproducer/model.engine"
    assert (tmp_path / "reproducer" / "model.engine" / "layer.onnx").is_file()


def test_a_bisect_that_cannot_run_says_so(tmp_path: Path) -> None:
    class Broken(OnnxTensors):
        def compute(self, names: Any, inputs: Any) -> Any:
            raise ExportError("it is gone", fix="bring it back")

    suspect = diagnose.Suspect("ONNX", Broken(model(1.0)), model(1.0), AS_WRITTEN)
    told = diagnose.diagnose(suspect, {"x": np.ones((3, 2), np.float32)}, tmp_path)
    assert told["sentence"] == "the layers could not be compared: it is gone"
    assert not list(tmp_path.iterdir())


def test_where_no_layer_of_the_file_is_at_fault_the_conversion_is_looked_at(job: Any, tmp_path: Path) -> None:
    class Small(nn.Module):
        def __init__(self, gain: float) -> None:
            super().__init__()
            self.stem = nn.Linear(2, 3)
            nn.init.constant_(self.stem.weight, gain)
            nn.init.constant_(self.stem.bias, 0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.stem(x)  # type: ignore[no-any-return]

    example = torch.randn(2, 2)
    path = tmp_path / "model.onnx"
    names = {"input_names": ["x"], "output_names": ["logits"]}
    torch_to_onnx.convert(Small(1.0).eval(), (example,), path, opset=20, metadata={}, **names)
    job.example = (example,)
    inputs = {"x": np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)}
    for gain, said in ((1.0, False), (1.1, True)):
        suspect = diagnose.exported(job, "ONNX", Small(gain).eval(), Small(1.0).eval(), path)
        told = diagnose.diagnose(suspect, inputs, tmp_path)
        assert told["first"] is None
        assert ("the conversion itself moves the output" in told["sentence"]) is said
