"""A black box through onnxruntime."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits
from compress.contracts.task import Task
from compress.errors import TaskError, TeacherError
from compress.teachers.onnx import OnnxTeacher, free_lengths

WEIGHT = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=np.float32)


class Tiny(Task):
    name = "tiny"
    labels = ("no", "yes")
    input_shape = (3,)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> torch.nn.Module:
        return torch.nn.Identity()

    def teacher(self) -> torch.nn.Module:
        return torch.nn.Linear(3, 2)


def write(
    path: Path,
    *,
    batch: int | str = "batch",
    inputs: int = 3,
    kind: int = TensorProto.FLOAT,
    output: str = "logits",
    weight: np.ndarray = WEIGHT,
) -> Path:
    outputs = weight.shape[1]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], [output]), helper.make_node("Neg", [output], ["negative"])],
        "teacher",
        [helper.make_tensor_value_info("x", kind, [batch, inputs])],
        [
            helper.make_tensor_value_info("negative", kind, [batch, outputs]),
            helper.make_tensor_value_info(output, kind, [batch, outputs]),
        ],
        [numpy_helper.from_array(weight.astype(helper.tensor_dtype_to_np_dtype(kind)), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


def batch(size: int) -> Batch:
    return Batch((torch.arange(3.0 * size).view(size, 3),), None, torch.arange(size))


def expected(size: int) -> torch.Tensor:
    return batch(size).inputs[0] @ torch.from_numpy(WEIGHT)


def test_the_output_is_the_one_called_like_the_tasks(tmp_path: Path) -> None:
    answer = OnnxTeacher(write(tmp_path / "t.onnx"), Tiny()).observe(batch(5))
    torch.testing.assert_close(answer.output, expected(5))
    torch.testing.assert_close(answer.others["negative"], -expected(5))
    assert not answer.taps


def test_without_that_name_it_is_the_first(tmp_path: Path) -> None:
    answer = OnnxTeacher(write(tmp_path / "t.onnx", output="scores"), Tiny()).observe(batch(2))
    torch.testing.assert_close(answer.output, -expected(2))


@pytest.mark.parametrize("fixed", [1, 4])
@pytest.mark.parametrize("size", [1, 4, 6])
def test_a_fixed_batch_size_is_met(tmp_path: Path, fixed: int, size: int) -> None:
    answer = OnnxTeacher(write(tmp_path / "t.onnx", batch=fixed), Tiny()).observe(batch(size))
    torch.testing.assert_close(answer.output, expected(size))


def test_a_half_precision_file_answers_in_float32(tmp_path: Path) -> None:
    answer = OnnxTeacher(write(tmp_path / "t.onnx", kind=TensorProto.FLOAT16), Tiny()).observe(batch(2))
    assert answer.output.dtype == torch.float32
    torch.testing.assert_close(answer.output, expected(2))  # whole numbers below 2048 are exact in float16


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    one = OnnxTeacher(write(tmp_path / "a.onnx"), Tiny())
    same = OnnxTeacher(write(tmp_path / "b.onnx"), Tiny())
    other = OnnxTeacher(write(tmp_path / "c.onnx", weight=WEIGHT + 1), Tiny())
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.cacheable


def test_weights_beside_the_file_count_and_their_absence_is_named(tmp_path: Path) -> None:
    def external(value: float) -> str:
        path = write(tmp_path / "t.onnx", weight=np.full((3, 2), value, dtype=np.float32))
        (tmp_path / "t.bin").unlink(missing_ok=True)
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="t.bin", size_threshold=0)
        return OnnxTeacher(path, Tiny()).fingerprint

    assert external(1.0) != external(2.0)
    (tmp_path / "t.bin").unlink()
    with pytest.raises(TeacherError, match=r"keeps its weights in t\.bin, which is absent"):
        OnnxTeacher(tmp_path / "t.onnx", Tiny())


@pytest.mark.parametrize("keep", [0, 10, -3])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = write(tmp_path / "t.onnx")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TeacherError, match=r"t\.onnx"):
        OnnxTeacher(path, Tiny())


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.onnx"
    path.write_text("not a model\n")
    with pytest.raises(TeacherError, match="not a whole ONNX file"):
        OnnxTeacher(path, Tiny())
    with pytest.raises(TeacherError, match="there is no teacher file"):
        OnnxTeacher(tmp_path / "absent.onnx", Tiny())


def test_shapes_that_do_not_fit_the_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"takes examples of shape \(4\), task 'tiny' gives \(3\)"):
        OnnxTeacher(write(tmp_path / "a.onnx", inputs=4, weight=np.ones((4, 2), np.float32)), Tiny())
    with pytest.raises(TeacherError, match=r"'logits' has shape \(5\) per example, task 'tiny' has 2 labels"):
        OnnxTeacher(write(tmp_path / "b.onnx", weight=np.ones((3, 5), np.float32)), Tiny())


class Words(Tiny):
    """Token ids and their mask."""

    name = "words"
    input_names = ("ids", "mask")
    input_shapes = ((3,), (3,))
    input_values = (9, 2)


def two_inputs(path: Path, names: tuple[str, str], kinds: tuple[int, int], free: bool = False) -> Path:
    """The masked sum of the ids, twice: logits (B, 2)."""
    length: int | str = "length" if free else 3
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["ids" if "ids" in names else names[0]], ["a"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["mask" if "mask" in names else names[1]], ["b"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["a", "b"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "axis"], ["sum"], keepdims=1),
            helper.make_node("Concat", ["sum", "sum"], ["logits"], axis=1),
        ],
        "teacher",
        [helper.make_tensor_value_info(name, kind, ["batch", length]) for name, kind in zip(names, kinds, strict=True)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


WORDS = Batch((torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1, 1, 0], [1, 0, 0]])), None, torch.arange(2))
INT64, INT32 = TensorProto.INT64, TensorProto.INT32


@pytest.mark.parametrize("names", [("ids", "mask"), ("mask", "ids"), ("tokens", "there")])
def test_inputs_go_by_their_names_or_else_by_their_order(tmp_path: Path, names: tuple[str, str]) -> None:
    for kinds in ((INT64, INT64), (INT32, INT64)):
        teacher = OnnxTeacher(two_inputs(tmp_path / "t.onnx", names, kinds), Words())
        assert teacher.observe(WORDS).output.tolist() == [[3.0, 3.0], [4.0, 4.0]]


def test_lengths_that_the_file_leaves_free_are_the_tasks(tmp_path: Path) -> None:
    fixed = two_inputs(tmp_path / "fixed.onnx", ("mask", "ids"), (INT64, INT64))
    free = two_inputs(tmp_path / "free.onnx", ("mask", "ids"), (INT64, INT64), free=True)
    one = WORDS.part(0, 2)
    assert free_lengths(fixed, Words(), one) is None
    assert free_lengths(free, Words(), one) == {"mask": (1, 3), "ids": (1, 3)}
    assert OnnxTeacher(free, Words()).observe(WORDS).output.tolist() == [[3.0, 3.0], [4.0, 4.0]]


def test_a_file_of_integers_is_no_teacher_of_real_numbers(tmp_path: Path) -> None:
    class Numbers(Words):
        input_values = (0, 2)

    path = two_inputs(tmp_path / "t.onnx", ("ids", "mask"), (INT64, INT64))
    with pytest.raises(TeacherError, match=r"'ids' is tensor\(int64\), task 'words' gives real numbers"):
        OnnxTeacher(path, Numbers())


def test_each_input_must_fit(tmp_path: Path) -> None:
    class Longer(Words):
        input_shapes = ((3,), (4,))

    with pytest.raises(TeacherError, match=r"takes input 'mask' of shape \(3\), task 'words' gives \(4\)"):
        OnnxTeacher(two_inputs(tmp_path / "t.onnx", ("ids", "mask"), (INT64, INT64)), Longer())


class Hinted(Tiny):
    privileged = ("shift", "table")


def with_privileged(path: Path, names: tuple[str, ...], rows: int | str = "batch") -> Path:
    """x w + shift (a row for each example) + the sums of table's columns (one for all)."""
    kinds = {"x": [rows, 3], "shift": [rows, 2], "table": ["length", 2], "other": [rows, 2]}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["product"])]
    last = "product"
    for name in names[1:]:
        added = name
        if name == "table":
            nodes.append(helper.make_node("ReduceSum", ["table", "axis"], ["total"], keepdims=1))
            added = "total"
        nodes.append(helper.make_node("Add", [last, added], [f"with_{name}"]))
        last = f"with_{name}"
    nodes.append(helper.make_node("Identity", [last], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, kinds[name]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, 2])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.array([0], dtype=np.int64), "axis")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


TOLD = Batch(
    (torch.eye(3),), None, torch.arange(3),
    {"shift": torch.tensor([[10.0, 0.0], [20.0, 0.0], [30.0, 0.0]])},
    {"table": torch.tensor([[0.0, 100.0], [0.0, 300.0]]).to_sparse()},
)  # fmt: skip


@pytest.mark.parametrize("rows", ["batch", 2])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("x",), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),  # a teacher need not take what it might
        (("x", "shift"), [[11.0, 2.0], [23.0, 4.0], [35.0, 6.0]]),
        (("x", "table", "shift"), [[11.0, 402.0], [23.0, 404.0], [35.0, 406.0]]),
    ],
)
def test_privileged_inputs_go_by_their_names(
    tmp_path: Path, names: tuple[str, ...], expected: list[list[float]], rows: int | str
) -> None:
    path = with_privileged(tmp_path / "t.onnx", names, rows)
    assert OnnxTeacher(path, Hinted()).observe(TOLD).output.tolist() == expected
    one = TOLD.part(0, 3)
    shapes = {"x": (1, 3), "shift": (1, 2), "table": (2, 2)}
    assert free_lengths(path, Hinted(), one) == (None if names == ("x",) else {name: shapes[name] for name in names})


def test_what_a_teacher_is_not_told_is_refused(tmp_path: Path) -> None:
    path = with_privileged(tmp_path / "t.onnx", ("x", "other"))
    said = r"takes x, other; task 'tiny' gives input, and for the teacher alone shift, table"
    with pytest.raises(TeacherError, match=said):
        OnnxTeacher(path, Hinted())
    with pytest.raises(TeacherError, match="takes x, shift; task 'tiny' gives input") as found:
        OnnxTeacher(with_privileged(tmp_path / "s.onnx", ("x", "shift")), Tiny())
    assert "only" in str(found.value.fix)
    teacher = OnnxTeacher(with_privileged(tmp_path / "u.onnx", ("x", "shift")), Hinted())
    with pytest.raises(TaskError, match="takes 'shift', which the student does not see"):
        teacher.observe(Batch(TOLD.inputs, None, TOLD.index))
    with pytest.raises(TeacherError, match=r"takes 'shift' of shape \(batch, 2\), and the stream '\?' gives \(n, 5\)"):
        teacher.observe(Batch(TOLD.inputs, None, TOLD.index, {"shift": torch.zeros(3, 5)}))
