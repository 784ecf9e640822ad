"""A user's own Python file, named by its path: a task, or the network of a teacher."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from compress.catalog import suggestion
from compress.errors import RecipeError, TaskError, TeacherError
from profiles.errors import UserError

ERRORS: dict[str, type[UserError]] = {"TASK": TaskError, "build": TeacherError}
"""What a file is read for -> the error that its faults are."""

_neighbours: dict[str, Path] = {}
"""Modules that user files imported from their own folder, with the folder."""


def load_user_file(path: Path, wanted: str) -> object:
    """Run a Python file and return what it defines as `wanted`. It runs with the rights of whoever calls.

    While the file runs, and only then, its folder comes first in the search for modules, so it may import its
    neighbours at its top. Files of the same name in different folders do not get in each other's way; a second call
    runs the file anew.

    Args:
        path: the file; `~` is not expanded.
        wanted: `TASK` for a task, `build` for a teacher's network, or any other name.

    Raises:
        TaskError, TeacherError, RecipeError: (by `wanted`) there is no such file, it cannot be parsed, it fails, or it
            does not define `wanted`. An error of the file's own that is already a `UserError` passes through.
    """
    kind = ERRORS.get(wanted, RecipeError)
    path = Path(path)
    if not path.is_file():
        there = [file.name for file in sorted(path.parent.glob("*.py"))] if path.parent.is_dir() else []
        found = f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
        raise kind(found, fix=suggestion(path.name, there, otherwise=f"name a Python file that defines {wanted}"))
    if path.suffix != ".py":
        raise kind(f"{path} is not a Python file", fix=f"name a file that ends in .py and defines {wanted}")
    module = _run(path.resolve(), kind)
    if wanted not in vars(module):
        public = [name for name in vars(module) if not name.startswith("_")]
        example = "TASK = MyTask()" if wanted == "TASK" else f"def {wanted}(): ..."
        raise kind(
            f"{path} does not define {wanted}",
            fix=suggestion(wanted, public, otherwise=f"end the file with `{example}`"),
        )
    return vars(module)[wanted]


def _run(path: Path, kind: type[UserError]) -> ModuleType:
    name = f"user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise kind(f"{path} cannot be imported", fix="name a readable Python file")
    module = importlib.util.module_from_spec(spec)
    previous = sys.modules.get(name)
    # Registered before it runs and left there: dataclasses, pickling and tracing look their module up by name.
    sys.modules[name] = module
    try:
        with _importable(path.parent):
            spec.loader.exec_module(module)
    except BaseException as error:
        if previous is None:
            del sys.modules[name]
        else:
            sys.modules[name] = previous
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        raise _explained(error, path, kind) from error
    return module


def _explained(error: Exception, path: Path, kind: type[UserError]) -> UserError:
    if isinstance(error, SyntaxError):
        return kind(
            f"{error.filename or path}, line {error.lineno}: {error.msg}",
            fix="correct that line; Python cannot parse it",
        )
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    fix = "correct the file so that it can be imported"
    if isinstance(error, ModuleNotFoundError):
        fix = f"install {error.name}, or put {error.name}.py beside the file"
    return kind(f"{where}: {type(error).__name__}: {error}", fix=fix)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put `folder` first in the search for modules, without what another folder's neighbours left under its names."""
    for name, origin in list(_neighbours.items()):
        beside = (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()
        if origin != folder and beside:
            sys.modules.pop(name, None)
            del _neighbours[name]
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if "." not in name and file is not None and folder in Path(file).resolve().parents:
                _neighbours[name] = folder
