"""What every run's report says of its copies: pairs, bounds that a recipe sets, the data as the student sees them."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compress import catalog
from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.method import Method
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.contracts.strategy import DataStrategy
from compress.contracts.task import Task
from compress.contracts.teacher import Teacher
from compress.errors import RecipeError
from compress.lesson import look
from compress.objectives.soft_targets import SoftTargets
from compress.progress import Quiet
from compress.recipe import DistillPart, VerifyPart
from compress.stages import ledger
from compress.stages.fidelity import TEACHER, Watch
from compress.teachers.frozen import FrozenTeacher

CLASSES, COUNT = 3, 10


class Toy(Task):
    """Rows of three numbers, which are their own logits."""

    name = "toy"
    labels = ("a", "b", "c")
    input_shape = (3,)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Identity()


class Doubled(DataStrategy):
    """Shows every example twice as large."""

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0}

    @property
    def deterministic(self) -> bool:
        return False

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        return {name: batch.with_inputs(2 * batch.inputs[0]) for name, batch in batches.items()}


def rows(seed: int) -> TensorExamples:
    inputs = torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(seed))
    return TensorExamples(inputs, torch.arange(COUNT) % CLASSES, f"rows {seed}")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(CLASSES, CLASSES), nn.Dropout(0.5), nn.BatchNorm1d(CLASSES))


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run whose method shows every example doubled."""
    method = Method("a test", {"soft_targets": SoftTargets}, strategy=Doubled)
    real = catalog.load
    monkeypatch.setattr(catalog, "load", lambda p, n: SimpleNamespace(METHOD=method) if n == "doubled" else real(p, n))
    teacher = FrozenTeacher(network(1), fingerprint="teacher")
    return SimpleNamespace(
        task=Toy(),
        splits=Splits(rows(0), rows(1), rows(2)),
        recipe=SimpleNamespace(verify=VerifyPart(), distill=DistillPart(method="doubled", batch_size=4), seed=0),
        teacher=SimpleNamespace(teacher=teacher, tapped=None, network=None),
        progress=Quiet(),
        store=None,
    )


def outputs(batch: Batch, *, steps: float) -> ledger.Outputs:
    """The student's answers, rounded to `steps`."""
    values = batch.inputs[0].numpy()
    return {"logits": np.round(values / steps) * steps if steps else values}


def watched(job: Any, *, steps: float = 0.0) -> Watch:
    pairs = [
        ledger.Pair("float", "fake", None),
        ledger.Pair("fake", "ONNX", "export"),
        ledger.Pair("ONNX", "e", "build"),
    ]
    watch = Watch(job, "float", "e", pairs)
    for index in torch.arange(COUNT).split(4):
        batch = job.splits.test.batch(index)
        sides = {"float": 0.0, "fake": steps, "ONNX": steps, "e": steps}
        watch.look(batch, {name: outputs(batch, steps=step) for name, step in sides.items()})
    return watch


def test_every_copy_is_held_to_the_float_student_and_builds_to_the_file(job: Any) -> None:
    found = watched(job, steps=0.5).found(network(2))
    pairs = {(row["copy"], row["reference"]): row for row in found["pairs"]}
    assert list(pairs) == [
        ("float", TEACHER),
        ("e", TEACHER),
        ("fake", "float"),
        ("ONNX", "float"),
        ("e", "float"),
        ("e", "ONNX"),
    ]
    assert (pairs["e", "ONNX"]["agreement"], pairs["e", "ONNX"]["kl"]) == (1.0, 0.0)
    said, rounded = (
        torch.from_numpy(outputs(job.splits.test.batch(torch.arange(COUNT)), steps=s)["logits"]) for s in (0, 0.5)
    )
    agreed = (said.argmax(1) == rounded.argmax(1)).float().mean().item()
    assert pairs["e", "float"]["agreement"] == pytest.approx(agreed)
    low, high = pairs["e", "float"]["agreement_interval"]
    assert low < agreed < high or (low < agreed == 1.0)
    expected = nn.functional.kl_div(rounded.log_softmax(1), said.softmax(1), reduction="batchmean").item()
    assert pairs["e", "float"]["kl"] == pytest.approx(expected, rel=1e-5)
    assert found["shipped"] == {
        "artifact": "e",
        "agreement": 0.98,
        "kl": 0.02,
        "kept": agreed >= 0.98 and expected <= 0.02,
    }
    assert set(found["calibration"]) == {"float", "fake", "ONNX", "e", TEACHER}
    assert "fidelity_gap" not in found


def test_both_bounds_hold_what_ships(job: Any) -> None:
    """An artifact with the student's classes and thrice its logits agrees everywhere, and is far from it."""
    watch = Watch(job, "float", "e", [ledger.Pair("float", "e", "build")])
    batch = job.splits.test.batch(torch.arange(COUNT))
    said = outputs(batch, steps=0.0)
    watch.look(batch, {"float": said, "e": {"logits": 3 * said["logits"]}})
    found = watch.found(network(2))
    (pair,) = (row for row in found["pairs"] if (row["copy"], row["reference"]) == ("e", "float"))
    assert pair["agreement"] == 1.0
    assert pair["kl"] > 0.02
    assert found["shipped"]["kept"] is False


def test_nothing_fails_unless_the_recipe_asks(job: Any) -> None:
    assert watched(job, steps=5.0).gates() == []
    job.recipe.verify = VerifyPart(student_agreement=0.98, student_kl=0.02)
    agreed, near = watched(job, steps=5.0).gates()
    assert (agreed.name, agreed.artifact, agreed.passed) == ("agreement with the float student", "e", False)
    assert (near.name, near.unit, near.passed) == ("KL from the float student", "nats", False)
    assert all(gate.passed for gate in watched(job, steps=1e-4).gates())


def test_answers_that_are_no_class_logits_give_nothing(job: Any) -> None:
    job.recipe.verify = VerifyPart(student_agreement=0.98)
    job.splits = Splits(rows(0), rows(1), TensorExamples(torch.randn(COUNT, 3), torch.randn(COUNT), "regression"))
    watch = watched(job)
    assert watch.found(network(2)) == {}
    assert watch.gates() == []


def test_a_control_that_is_not_there_is_said(job: Any) -> None:
    job.recipe.verify = VerifyPart(control=Path("nowhere.onnx"))
    with pytest.raises(RecipeError, match=r"nowhere\.onnx"):
        watched(job)


def test_what_the_student_has_of_its_teacher_and_no_other(job: Any, tmp_path: Path) -> None:
    """The control answers with its inputs turned round, the float student with its inputs."""
    value = helper.make_tensor_value_info
    node = helper.make_node("Gather", ["input", "places"], ["logits"], axis=1)
    places = numpy_helper.from_array(np.array([2, 1, 0], dtype=np.int64), "places")
    ends = [value(name, TensorProto.FLOAT, ["N", CLASSES]) for name in ("input", "logits")]
    graph = helper.make_graph([node], "control", [ends[0]], [ends[1]], [places])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(tmp_path / "control.onnx"))
    job.recipe.verify = VerifyPart(control=tmp_path / "control.onnx")
    found = watched(job).found(network(2))
    inputs = job.splits.test.batch(torch.arange(COUNT)).inputs[0]
    taught = job.teacher.teacher.observe(job.splits.test.batch(torch.arange(COUNT))).output.argmax(1)
    own, other = ((said.argmax(1) == taught).float().mean().item() for said in (inputs, inputs.flip(1)))
    assert own != other
    assert found["fidelity_gap"] == pytest.approx(own - other)
    (row,) = (row for row in found["pairs"] if row["copy"] == "control student")
    assert (row["reference"], row["agreement"]) == (TEACHER, pytest.approx(other))


def test_distillation_data_are_looked_at_as_the_student_sees_them(job: Any) -> None:
    student, seen = network(2), []
    before = {key: value.clone() for key, value in student.state_dict().items()}

    def see(batch: Batch, ours: Signals, theirs: Signals) -> None:
        seen.append(batch.inputs[0] / 2)
        expected = student(batch.inputs[0])
        torch.testing.assert_close(ours.output, expected)  # in eval mode: no dropout, no batch statistics
        torch.testing.assert_close(theirs.output, job.teacher.teacher.observe(batch).output)

    look(job, student, see, 100)
    shown: Tensor = torch.cat(seen)
    order = lambda values: values[values[:, 0].argsort()]  # noqa: E731
    torch.testing.assert_close(order(shown), order(job.splits.train.batch(torch.arange(COUNT)).inputs[0]))
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    seen.clear()
    look(job, student, see, 4)
    assert sum(map(len, seen)) == 4


def test_the_verdict_comes_from_both_sets(job: Any) -> None:
    found = watched(job).found(network(1))
    assert found["distillation"]["examples"] == COUNT
    (taught,) = (row for row in found["pairs"] if (row["copy"], row["reference"]) == ("float", TEACHER))
    assert taught["agreement"] < 0.9 < found["distillation"]["agreement"] == 1.0  # of the teacher itself
    assert found["verdict"] == "identifiability"
    low, high = taught["kl_interval"]
    assert low == 0.0 or low + high == pytest.approx(2 * taught["kl"])
    assert low < taught["kl"] < high
    assert f"{100 * found['distillation']['agreement']:.1f} % of the distillation data" in found["sentence"]


def test_a_method_that_taps_is_looked_at_without_taps(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tapping(Objective):
        student_taps = ("absent",)

        def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
            raise NotImplementedError

    method = Method("a test", {"tapping": Tapping}, strategy=Doubled)
    monkeypatch.setattr(catalog, "load", lambda p, n: SimpleNamespace(METHOD=method))
    counted: list[int] = []
    look(job, network(2), lambda batch, ours, theirs: counted.append(len(batch)), 100)
    assert sum(counted) == COUNT
