"""A task of two integer inputs through every stage: ids and mask stay integers from the data to the shipped file."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from compress.cli.main import main
from compress.teachers.onnx import OnnxTeacher
from compress.training.evaluate import evaluate_teacher
from profiles.runners import on_onnxruntime
from tests.compress.tokens import LENGTH, TASK, WORDS

PROJECT = """
recipe = "default"
target = "{target}"
[task]
file = "{task}"
[budget]
accuracy_drop = 0.2
macs_reduction = 0.01
weight_reduction = 0.01
[select]
spaces = ["derived", "token_encoder", "mlp"]
candidates = 8
training = 0.4
finalists = 1
settings = {{ share = 0.34 }}
[distill]
epochs = 3
batch_size = 64
learning_rate = 1e-2
precision = "fp32"
[quantize]
epochs = 1
sensitivity_samples = 0
calibration_batches = 2
[verify]
within_one_step = 0.99
accuracy_change = 0.02
top1_agreement = 0.95
"""


def project(folder: Path, target: str) -> Path:
    path = folder / "tokens.toml"
    task = Path(__file__).resolve().parents[1] / "compress" / "tokens.py"
    path.write_text(PROJECT.format(target=target, task=task))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on this processor."""
    folder = tmp_path_factory.mktemp("tokens")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPRESS_CACHE", str(folder / "cache"))
        out = folder / "run"
        assert main(["pipeline", str(project(folder, "x86")), "--quiet", "--out", str(out)]) == 0
    return out


def test_spaces_that_take_no_tokens_say_so_and_the_others_are_searched(run: Path) -> None:
    found = json.loads((run / "1_select/candidates.json").read_text())
    assert {row["space"] for row in found["candidates"]} == {"token_encoder"}
    for name in ("derived", "mlp"):
        assert "take one tensor of real numbers" in found["absent_spaces"][name]
        assert f"({LENGTH},) int64" not in found["absent_spaces"][name]  # with the batch in front, as everywhere
        assert f", {LENGTH}) int64" in found["absent_spaces"][name]


def test_both_inputs_reach_the_exported_files_as_integers_with_a_free_batch(run: Path) -> None:
    for name in ("model.onnx", "float.onnx"):
        graph = onnx.load(run / "4_export" / name).graph
        assert [value.name for value in graph.input] == list(TASK.input_names)
        for value in graph.input:
            tensor = value.type.tensor_type
            assert tensor.elem_type == TensorProto.INT64
            assert (tensor.shape.dim[0].dim_param, tensor.shape.dim[1].dim_value) == ("batch", LENGTH)


def test_golden_inputs_are_real_texts_and_repeat_their_outputs(run: Path) -> None:
    with np.load(run / "4_export/golden.npz", allow_pickle=False) as golden:
        ids, mask = golden["input:input_ids"], golden["input:attention_mask"]
        assert ids.dtype == mask.dtype == np.int64
        assert ids.max() < WORDS
        assert set(np.unique(mask)) <= {0, 1}
        session = on_onnxruntime.load(run / "4_export/model.onnx")
        found = session.run({"input_ids": ids, "attention_mask": mask})["logits"]
        np.testing.assert_array_equal(found, golden["output:logits"])
        padded = ids.copy()
        padded[mask == 0] = WORDS - 1  # what stands behind the text is not looked at
        again = session.run({"input_ids": padded, "attention_mask": mask})["logits"]
        np.testing.assert_array_equal(again, found)


def test_every_artifact_agrees_and_its_cost_is_known(run: Path) -> None:
    checks = json.loads((run / "6_verify/checks.json").read_text())
    assert all(gate["passed"] for gate in checks["gates"])
    accuracy = checks["accuracy"]
    assert accuracy["teacher"] > 0.8
    assert accuracy["ONNX"] > 0.6  # of three classes, after three epochs
    assert checks["costs"]["teacher"]["macs"] == 16 * 32 + 32 * 3
    page = (run / "report.html").read_text()
    assert f"input_ids: {LENGTH} int64, attention_mask: {LENGTH} int64" in page


def test_the_float_file_is_a_black_box_teacher_whatever_the_order_of_its_inputs(run: Path, tmp_path: Path) -> None:
    model = onnx.load(run / "4_export/float.onnx")
    inputs = list(model.graph.input)
    del model.graph.input[:]
    model.graph.input.extend(reversed(inputs))
    onnx.save(model, tmp_path / "teacher.onnx")
    reached = evaluate_teacher(OnnxTeacher(tmp_path / "teacher.onnx", TASK), TASK.load(None).test, TASK)
    accuracy = json.loads((run / "6_verify/checks.json").read_text())["accuracy"]
    assert reached == pytest.approx(accuracy["float student"], abs=1e-6)


def test_a_target_that_takes_real_numbers_alone_says_so_before_anything_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pipeline", str(project(tmp_path, "hearing_aid")), "--quiet", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "'input_ids' of task 'families' holds integers" in said
    assert "hearing_aid takes float32 alone" in said
    assert "x86" in said
