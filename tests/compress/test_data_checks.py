"""Data that does not fit its task is refused before anything trains."""

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Examples, Splits, TensorExamples
from compress.contracts.task import Task
from compress.data_checks import CHUNK, check_splits, check_task, data_folder, verified_files
from compress.errors import TaskError
from compress.frontends.unchanged import Unchanged

GOOD = b"the content"


class Tiny(Task):
    name = "tiny"
    labels = ("no", "yes")
    input_shape = (3,)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Linear(3, 2)


def examples(name: str, count: int = 4) -> TensorExamples:
    return TensorExamples(torch.rand(count, 3), torch.arange(count) % 2, name)


def splits(train: Examples | None = None) -> Splits:
    return Splits(train or examples("train"), examples("val"), examples("test"))


def test_good_data_pass() -> None:
    check_splits(Tiny(), splits())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "", "has no name"),
        ("labels", (), "has no labels"),
        ("labels", ["no", "yes"], "has no labels"),
        ("labels", (0, 1), "has no labels"),
        ("labels", ("yes", "no", "yes"), "the label 'yes' twice"),
        ("input_shape", 3, "has no input_shape: found 3"),
        ("input_shape", (3, -1), "has no input_shape"),
        ("input_shapes", ((3,), 4), "has input_shapes"),
        ("input_shapes", ((3,), (4,)), "2 input shapes and the input names"),
        ("input_names", ("one", "two"), "1 input shapes and the input names"),
        ("input_values", (5, 2), "1 inputs and the input_values"),
        ("input_values", (-1,), "1 inputs and the input_values"),
    ],
)
def test_a_task_must_describe_itself(monkeypatch: pytest.MonkeyPatch, field: str, value: object, message: str) -> None:
    monkeypatch.setattr(Tiny, field, value)
    with pytest.raises(TaskError, match=message):
        check_splits(Tiny(), splits())


def test_a_task_that_leaves_a_field_out_is_told() -> None:
    class Bare(Task):
        name = "bare"

        def load(self, data: Path | None) -> Splits:
            raise NotImplementedError

        def frontend(self) -> nn.Module:
            return nn.Identity()

        def teacher(self) -> nn.Module:
            return nn.Identity()

    with pytest.raises(TaskError, match="'bare' has no labels: found None"):
        check_task(Bare())


def test_an_empty_split_is_named() -> None:
    with pytest.raises(TaskError, match="split 'val' is empty"):
        check_splits(Tiny(), replace(splits(), val=examples("val", 0)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("position", [0, CHUNK + 5])
def test_a_value_that_is_not_finite_is_placed(value: float, position: int) -> None:
    made = examples("train", CHUNK + 10)
    made.inputs[position, 1] = value
    with pytest.raises(TaskError, match=f"split 'train': the example at position {position} holds NaN or infinity"):
        check_splits(Tiny(), splits(made))


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_out_of_range_is_placed(label: int) -> None:
    made = examples("train", CHUNK + 10)
    made.labels[CHUNK + 3] = label
    with pytest.raises(TaskError, match=f"position {CHUNK + 3} is {label}, and the task has classes 0 to 1"):
        check_splits(Tiny(), splits(made))


def test_labels_must_be_whole_numbers() -> None:
    made = TensorExamples(torch.rand(4, 3), torch.rand(4), "train")
    with pytest.raises(TaskError, match=r"labels are torch\.float32 of shape \(4,\)"):
        check_splits(Tiny(), splits(made))


def test_one_label_per_example() -> None:
    class Short:
        def __len__(self) -> int:
            return 4

        def batch(self, index: Tensor) -> Batch:
            return Batch((torch.rand(len(index), 3),), None, index)

        def fingerprint(self) -> str:
            return "short"

    with pytest.raises(TaskError, match="labels: none"):
        check_splits(Tiny(), splits(Short()))
    check_splits(Tiny(), replace(splits(), extras=(("unlabelled", Short()),)))


def test_another_shape_is_refused() -> None:
    made = TensorExamples(torch.rand(4, 5), torch.zeros(4, dtype=torch.int64), "train")
    with pytest.raises(TaskError, match=r"has shape \(5,\), the task's input_shape is \(3,\)"):
        check_splits(Tiny(), splits(made))


def test_inputs_must_be_float32() -> None:
    class Doubles:
        def __len__(self) -> int:
            return 4

        def batch(self, index: Tensor) -> Batch:
            return Batch((torch.rand(len(index), 3, dtype=torch.float64),), torch.zeros_like(index), index)

        def fingerprint(self) -> str:
            return "doubles"

    with pytest.raises(TaskError, match=r"float64, not torch\.float32"):
        check_splits(Tiny(), splits(Doubles()))


class Words(Tiny):
    """Token ids and their mask."""

    name = "words"
    input_names = ("ids", "mask")
    input_shapes = ((3,), (3,))
    input_values = (9, 2)

    def frontend(self) -> nn.Module:
        return Unchanged()


def words(name: str, *, top: int = 9, scale: float | None = None) -> TensorExamples:
    ids = torch.arange(12).reshape(4, 3) % top
    return TensorExamples((ids, torch.ones_like(ids)), torch.arange(4) % 2, name, scale)


def test_integers_stay_integers() -> None:
    check_splits(Words(), Splits(words("train"), words("val"), words("test")))
    batch = words("train").batch(torch.tensor([2, 0]))
    assert [tensor.dtype for tensor in batch.inputs] == [torch.int64, torch.int64]
    assert batch.inputs[0].tolist() == [[6, 7, 8], [0, 1, 2]]
    assert [(one.name, one.shape, one.dtype) for one in Words().inputs] == [
        ("ids", (3,), torch.int64),
        ("mask", (3,), torch.int64),
    ]
    assert [one.dtype for one in Tiny().inputs] == [torch.float32]


def test_inputs_and_labels_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths 4, 5, 4"):
        TensorExamples((torch.zeros(4, 3), torch.zeros(5, 3)), torch.zeros(4), "odd")


def test_tokens_that_do_not_fit_are_refused() -> None:
    def check(train: Examples) -> None:
        check_splits(Words(), Splits(train, words("val"), words("test")))

    with pytest.raises(TaskError, match=r"'ids' is torch\.float32, not torch\.int64") as refused:
        check(words("train", scale=1.0))
    assert "scale=None" in refused.value.fix
    with pytest.raises(TaskError, match="'ids' of the example at position 3 is not within 0 to 8"):
        check(words("train", top=12))
    with pytest.raises(TaskError, match="an example has 1 tensors, the task's inputs are ids, mask"):
        check(TensorExamples(torch.zeros(4, 3, dtype=torch.int64), torch.arange(4) % 2, "train", None))
    wide = torch.zeros(4, 5, dtype=torch.int64)
    with pytest.raises(TaskError, match=r"of input 'mask' has shape \(5,\)"):
        check(TensorExamples((wide[:, :3], wide), torch.arange(4) % 2, "train", None))


def test_a_front_end_that_takes_one_of_two_inputs_is_refused() -> None:
    class Half(Words):
        def frontend(self) -> nn.Module:
            return nn.Identity()

    with pytest.raises(TaskError, match="front-end does not take 2 inputs") as refused:
        check_splits(Half(), Splits(words("train"), words("val"), words("test")))
    assert "Unchanged" in refused.value.fix


def test_positions_must_be_answered_as_asked() -> None:
    class Shuffled:
        def __len__(self) -> int:
            return 4

        def batch(self, index: Tensor) -> Batch:
            return Batch((torch.rand(len(index), 3),), torch.zeros_like(index), index.flip(0))

        def fingerprint(self) -> str:
            return "shuffled"

    with pytest.raises(TaskError, match="other positions"):
        check_splits(Tiny(), splits(Shuffled()))


def test_the_test_split_must_not_be_the_training_data() -> None:
    made = examples("same")
    with pytest.raises(TaskError, match="train and test are the same data"):
        check_splits(Tiny(), Splits(made, examples("val"), made))


def test_a_front_end_that_gives_nan_is_refused() -> None:
    class Logarithm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.log(x)

    class Broken(Tiny):
        def frontend(self) -> nn.Module:
            return Logarithm()

    made = TensorExamples(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), "train")
    with pytest.raises(TaskError, match="front-end gives NaN or infinity"):
        check_splits(Broken(), splits(made))


def test_no_folder_says_what_is_wanted_and_from_where() -> None:
    with pytest.raises(TaskError, match="no folder was named") as refused:
        data_folder("tiny", None, ("a.gz", "b.gz"), "they are at example.org")
    assert "a.gz, b.gz" in refused.value.fix
    assert "they are at example.org" in refused.value.fix


def test_an_absent_folder_and_an_absent_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="does not exist"):
        data_folder("tiny", tmp_path / "no", ("a.gz",), "there")
    (tmp_path / "a.gz").touch()
    with pytest.raises(TaskError, match=r"lacks b\.gz"):
        data_folder("tiny", tmp_path, ("a.gz", "b.gz"), "there")
    with pytest.raises(TaskError, match="is not a folder"):
        data_folder("tiny", tmp_path / "a.gz", ("a.gz",), "there")


def test_a_folder_too_high_is_answered_with_the_one_below(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "a.gz").touch()
    with pytest.raises(TaskError) as refused:
        data_folder("tiny", tmp_path, ("a.gz",), "there")
    assert refused.value.fix == f"pass --data {tmp_path / 'tiny'}"


def test_a_changed_file_is_named_with_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(GOOD, mtime=0))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert verified_files("tiny", tmp_path, {"a.gz": digest}, "there") == {"a.gz": path}
    path.write_bytes(path.read_bytes()[:-1])
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(TaskError, match=rf"a\.gz is not the file .* sha256 {found}, expected {digest}"):
        verified_files("tiny", tmp_path, {"a.gz": digest}, "there")
