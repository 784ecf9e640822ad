"""The folder is the registry."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compress import catalog
from compress.errors import RecipeError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder = tmp_path / "catalogued" / "methods"
    folder.mkdir(parents=True)
    (tmp_path / "catalogued" / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "soft_targets.py").write_text("METHOD = 'soft'\n")
    (folder / "broken.py").write_text("raise OSError('its own error')\n")
    (folder / "_private.py").write_text("raise RuntimeError('imported by listing')\n")
    (folder / "notes.txt").write_text("not a module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "catalogued.methods"
    for name in [name for name in sys.modules if name.split(".")[0] == "catalogued"]:
        del sys.modules[name]


def test_lists_files_without_importing_them(package: str) -> None:
    assert catalog.names(package) == ["broken", "soft_targets"]
    assert f"{package}.soft_targets" not in sys.modules


def test_loads_a_file_by_its_name(package: str) -> None:
    assert catalog.load(package, "soft_targets").METHOD == "soft"


def test_a_file_added_later_is_found(package: str) -> None:
    folder = Path(catalog.load(package, "soft_targets").__file__ or "").parent
    (folder / "newer.py").write_text("METHOD = 'new'\n")
    assert catalog.load(package, "newer").METHOD == "new"


def test_a_broken_file_raises_its_own_error(package: str) -> None:
    with pytest.raises(OSError, match="its own error"):
        catalog.load(package, "broken")


@pytest.mark.parametrize("name", ["soft-targets", "soft_target", "Soft_Targets"])
def test_a_wrong_name_is_answered_with_what_there_is_and_what_was_meant(package: str, name: str) -> None:
    with pytest.raises(RecipeError, match="there are broken, soft_targets") as refused:
        catalog.load(package, name)
    assert refused.value.fix == "did you mean soft_targets?"


@pytest.mark.parametrize("name", ["", "../errors", "catalogued", "_private", "soft_targets.METHOD"])
def test_a_name_that_is_no_file_is_refused(package: str, name: str) -> None:
    with pytest.raises(RecipeError, match="nothing called"):
        catalog.load(package, name)


def test_an_absent_package_is_our_bug() -> None:
    with pytest.raises(ModuleNotFoundError):
        catalog.names("compress.nothing_of_this_name")


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys; from compress import catalog; print(catalog.names('compress.tasks')); "
        "assert 'torch' not in sys.modules"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "digits" in listed
    assert "fashion_mnist" in listed
