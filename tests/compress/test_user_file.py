"""Files of a user, by their path."""

import sys
from pathlib import Path

import pytest

from compress.errors import RecipeError, TaskError, TeacherError
from compress.user_file import load_user_file


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def test_gives_what_the_file_defines(tmp_path: Path) -> None:
    assert load_user_file(write(tmp_path, "task.py", "TASK = 7\n"), "TASK") == 7


def test_the_file_may_import_its_neighbour_and_the_search_path_is_as_before(tmp_path: Path) -> None:
    write(tmp_path, "neighbour_a.py", "VALUE = 3\n")
    before = list(sys.path)
    assert load_user_file(write(tmp_path, "task.py", "import neighbour_a\nTASK = neighbour_a.VALUE\n"), "TASK") == 3
    assert sys.path == before


def test_neighbours_of_one_name_in_two_folders_do_not_mix(tmp_path: Path) -> None:
    for number in (1, 2, 1):
        folder = tmp_path / str(number)
        write(folder, "neighbour_b.py", f"VALUE = {number}\n")
        path = write(folder, "teacher.py", "from neighbour_b import VALUE\n\ndef build():\n    return VALUE\n")
        build = load_user_file(path, "build")
        assert callable(build)
        assert build() == number


def test_files_of_one_name_keep_their_own_module(tmp_path: Path) -> None:
    text = "class Task: pass\nTASK = Task()\n"
    one = load_user_file(write(tmp_path / "one", "task.py", text), "TASK")
    two = load_user_file(write(tmp_path / "two", "task.py", text), "TASK")
    assert type(one).__module__ != type(two).__module__
    assert sys.modules[type(one).__module__].TASK is one  # tracing and pickling look classes up there


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path, "task.py", "TASK = 1\n")
    assert load_user_file(path, "TASK") == 1
    path.write_text("TASK = 'two'\n")
    assert load_user_file(path, "TASK") == "two"


def test_dataclasses_of_the_file_work(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass\nclass Numbers:\n    rate: int = 5\n\nTASK = Numbers()\n"
    )
    assert load_user_file(write(tmp_path, "task.py", text), "TASK").rate == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize(("wanted", "kind"), [("TASK", TaskError), ("build", TeacherError), ("SPACE", RecipeError)])
def test_an_absent_file_is_named(tmp_path: Path, wanted: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="there is no file"):
        load_user_file(tmp_path / "nothing.py", wanted)


def test_a_misspelt_file_is_guessed(tmp_path: Path) -> None:
    write(tmp_path, "teacher.py", "")
    with pytest.raises(TeacherError) as refused:
        load_user_file(tmp_path / "techer.py", "build")
    assert refused.value.fix == "did you mean teacher.py?"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="is a folder"):
        load_user_file(tmp_path, "TASK")


def test_weights_in_the_place_of_code_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="not a Python file"):
        load_user_file(write(tmp_path, "teacher.pt", "x"), "build")


def test_a_syntax_error_says_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "task.py", "x = 1\nTASK = (\n")
    with pytest.raises(TaskError, match=r"task\.py, line 2: '\(' was never closed"):
        load_user_file(path, "TASK")


def test_a_failing_file_says_the_line_and_the_error(tmp_path: Path) -> None:
    path = write(tmp_path, "task.py", "x = 1\n\nTASK = x / 0\n")
    with pytest.raises(TaskError, match=r"task\.py, line 3: ZeroDivisionError"):
        load_user_file(path, "TASK")
    assert not [
        name for name in sys.modules if name.startswith("user_task_") and sys.modules[name].__file__ == str(path)
    ]


def test_an_absent_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="line 1: ModuleNotFoundError") as refused:
        load_user_file(write(tmp_path, "teacher.py", "import no_such_library_here\n"), "build")
    assert "install no_such_library_here" in refused.value.fix


def test_an_error_for_the_user_passes_through(tmp_path: Path) -> None:
    text = "from compress.errors import TaskError\nraise TaskError('mine', fix='this')\n"
    with pytest.raises(TaskError, match=r"^mine"):
        load_user_file(write(tmp_path, "task.py", text), "TASK")


def test_a_file_without_what_is_wanted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="does not define TASK") as refused:
        load_user_file(write(tmp_path, "task.py", "task = 1\n"), "TASK")
    assert refused.value.fix == "did you mean task?"
    with pytest.raises(TeacherError, match="does not define build") as refused:
        load_user_file(write(tmp_path, "teacher.py", "network = 1\n"), "build")
    assert "def build()" in refused.value.fix
