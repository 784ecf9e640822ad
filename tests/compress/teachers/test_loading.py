"""A user's trained teacher from its files."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task
from compress.errors import TeacherError
from compress.teachers.frozen import FrozenTeacher
from compress.teachers.loading import CHUNK, check_teacher, load_network, put_weights, read_weights

CODE = "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))\n"


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.py"
    path.write_text(CODE)
    return path


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same(one: nn.Module, two: nn.Module) -> bool:
    ours, theirs = one.state_dict(), two.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_safetensors_round_trip(tmp_path: Path, code: Path) -> None:
    save_file(network().state_dict(), tmp_path / "t.safetensors")
    loaded = load_network(code, tmp_path / "t.safetensors")
    assert same(loaded, network())
    assert not loaded.training


@pytest.mark.parametrize("entry", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_pt_round_trip_as_training_scripts_save_it(tmp_path: Path, code: Path, entry: str | None, prefix: str) -> None:
    state = {f"{prefix}{name}": value for name, value in network().state_dict().items()}
    content = state if entry is None else {entry: state, "epoch": 7}
    assert same(load_network(code, saved(tmp_path / "t.pt", content)), network())


def test_without_weights_build_is_trusted(code: Path) -> None:
    assert isinstance(load_network(code, None), nn.Sequential)


def test_a_file_that_needs_pickle_is_refused_and_not_run(tmp_path: Path, code: Path) -> None:
    path = saved(tmp_path / "t.pt", network())  # the whole module
    with pytest.raises(TeacherError, match="pickle") as refused:
        load_network(code, path)
    assert "safetensors" in refused.value.fix


@pytest.mark.parametrize("name", ["t.safetensors", "t.pt"])
@pytest.mark.parametrize("keep", [0, 5, -20])
def test_a_truncated_file_is_refused(tmp_path: Path, code: Path, name: str, keep: int) -> None:
    path = tmp_path / name
    if name == "t.pt":
        saved(path, network().state_dict())
    else:
        save_file(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TeacherError, match="is not a whole"):
        load_network(code, path)


def test_an_absent_file_and_one_without_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="there is no weights file"):
        read_weights(tmp_path / "t.pt")
    with pytest.raises(TeacherError, match="holds no tensors"):
        read_weights(saved(tmp_path / "t.pt", {"epoch": 3}))
    with pytest.raises(TeacherError, match="holds a list"):
        read_weights(saved(tmp_path / "t.pt", [torch.ones(1)]))


def test_mismatches_are_named_in_one_sentence(tmp_path: Path) -> None:
    state = network().state_dict()
    state["2.weight"] = state.pop("1.bias")
    state["0.weight"] = torch.zeros(4, 5)
    with pytest.raises(TeacherError) as refused:
        put_weights(network(), state, tmp_path / "t.pt")
    assert refused.value.what == (
        f"{tmp_path / 't.pt'} does not fit the network of build(), which has 4 tensors: 1 missing (1.bias), "
        "1 unexpected (2.weight), 1 of another shape (0.weight is (4, 5) in the file and (4, 3) in the network)"
    )


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    state = network().state_dict()
    state["1.bias"][0] = float("nan")
    with pytest.raises(TeacherError, match=r"1\.bias holds NaN"):
        put_weights(network(), state, tmp_path / "t.pt")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("build = 3\n", "build is a int"),
        ("def build(width): ...\n", r"build\(\) wants width"),
        ("def build(): return 3\n", r"build\(\) gives a int"),
        ("def build(): raise OSError('no disk')\n", r"build\(\) fails: OSError: no disk"),
        ("def make(): ...\n", "does not define build"),
    ],
)
def test_a_build_that_cannot_be_used_is_refused(tmp_path: Path, code: str, message: str) -> None:
    path = tmp_path / "teacher.py"
    path.write_text(code)
    with pytest.raises(TeacherError, match=message):
        load_network(path, None)


def test_arguments_with_defaults_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "teacher.py"
    path.write_text("from torch import nn\n\ndef build(width=2, *more, **others):\n    return nn.Linear(3, width)\n")
    assert load_network(path, None)(torch.zeros(1, 3)).shape == (1, 2)


class Tiny(Task):
    name = "tiny"
    labels = ("no", "yes")
    input_shape = (3,)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return network()


class First(nn.Module):
    """Says that the first number is the first class's logit, and nothing else counts."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], torch.zeros(len(x))], dim=1)


def splits(val: Tensor) -> Splits:
    labels = torch.zeros(len(val), dtype=torch.int64)
    return Splits(*(TensorExamples(val, labels, name) for name in ("train", "val", "test")))


def check(module: nn.Module, val: Tensor) -> float:
    found = check_teacher(FrozenTeacher(module, fingerprint="f"), Tiny(), splits(val))
    assert (found.metric, found.split, found.examples) == ("accuracy", "val", len(val))
    return found.score


def test_says_the_accuracy_worked_by_hand() -> None:
    val = torch.ones(2 * CHUNK, 3)
    val[: CHUNK // 2] = -1.0
    assert check(First(), val) == 0.75


def test_an_answer_that_is_not_finite_names_its_batch() -> None:
    val = torch.ones(CHUNK + 9, 3)
    val[CHUNK + 4] = float("nan")
    with pytest.raises(TeacherError, match=rf"batch 1 of 'val' \(example {CHUNK + 4}\)"):
        check(First(), val)


def test_outputs_that_do_not_fit_the_labels_are_refused() -> None:
    with pytest.raises(TeacherError, match=r"shape \(4, 5\), task 'tiny' has 2 labels"):
        check(nn.Linear(3, 5), torch.ones(4, 3))
    with pytest.raises(TeacherError, match=r"shape \(4, 2, 1\)"):
        check(nn.Sequential(nn.Linear(3, 2), nn.Unflatten(1, (2, 1))), torch.ones(4, 3))


def test_a_teacher_of_other_inputs_is_refused() -> None:
    with pytest.raises(TeacherError, match=r"cannot take the inputs of task 'tiny', \(3,\) each"):
        check(nn.Linear(7, 2), torch.ones(4, 3))
