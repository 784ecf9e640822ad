"""Run folders: resumed by content, locked, never half-written, nothing lost."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from compress.errors import RunError
from compress.manifest import MANIFEST, RUN, read_manifest
from compress.records import RECORD, digest, read_record
from compress.store import BEGUN, open_store, read_run
from profiles.atomic import TEMPORARY_MARK, sha256, write_text, writing


def one_file(text: str, calls: list[str] | None = None) -> Any:
    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        if calls is not None:
            calls.append(text)
        write_text(folder / "result.txt", text)
        return {"the result": folder / "result.txt"}, {"length": len(text)}

    return work


def test_a_finished_stage_is_not_done_again(tmp_path: Path) -> None:
    calls: list[str] = []
    for _ in range(2):
        with open_store(tmp_path / "run") as store:
            record = store.once("select", {"seed": "0"}, one_file("abc", calls))
            assert record.values == {"length": 3}
    assert calls == ["abc"]


def test_other_inputs_do_the_stage_again_and_keep_what_was_there(tmp_path: Path) -> None:
    with open_store(tmp_path / "run") as store:
        store.once("select", {"seed": "0"}, one_file("old"))
        store.once("select", {"seed": "1"}, one_file("new"))
    assert (tmp_path / "run/1_select/result.txt").read_text() == "new"
    assert (tmp_path / "run/previous/1_select-1/result.txt").read_text() == "old"
    assert set(read_manifest(tmp_path / "run")) == {"1_select/result.txt"}


def test_a_stage_that_was_finished_for_the_same_inputs_is_taken_back(tmp_path: Path) -> None:
    calls: list[str] = []
    with open_store(tmp_path / "run") as store:
        for text, seed in (("old", "0"), ("new", "1"), ("old", "0"), ("third", "2"), ("new", "1")):
            record = store.once("select", {"seed": seed}, one_file(text, calls))
            assert record.values == {"length": len(text)}
            assert (tmp_path / "run/1_select/result.txt").read_text() == text
            listed = read_manifest(tmp_path / "run")["1_select/result.txt"]
            assert (listed.size, listed.origin, listed.inputs) == (len(text), "select: the result", {"seed": seed})
        assert calls == ["old", "new", "third"]
        assert store.kept("select", {"seed": "1"}) == tmp_path / "run/1_select"
        aside = store.kept("select", {"seed": "2"})
        assert aside is not None
        assert (aside / "result.txt").read_text() == "third"
        assert store.kept("select", {"seed": "3"}) is None
        (aside / "result.txt").write_text("other")  # what was changed meanwhile is done again
        assert store.kept("select", {"seed": "2"}) is None
        store.once("select", {"seed": "2"}, one_file("third", calls))
        assert calls[3:] == ["third"]
    with open_store(tmp_path / "run", redo=frozenset({"select"})) as store:
        store.once("select", {"seed": "0"}, one_file("old", calls))
        assert calls[4:] == ["old"]


def test_a_changed_output_is_noticed(tmp_path: Path) -> None:
    calls: list[str] = []
    with open_store(tmp_path / "run") as store:
        store.once("select", {}, one_file("abc", calls))
        (tmp_path / "run/1_select/result.txt").write_text("abd")  # one flipped bit is enough
        store.once("select", {}, one_file("abc", calls))
    assert len(calls) == 2
    assert (tmp_path / "run/1_select/result.txt").read_text() == "abc"


def test_the_manifest_lists_hash_size_origin_and_inputs(tmp_path: Path) -> None:
    with open_store(tmp_path / "run") as store:
        store.once("select", {"seed": "7"}, one_file("abc"))
    entry = read_manifest(tmp_path / "run")["1_select/result.txt"]
    assert entry.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, "abc"
    assert (entry.size, entry.origin, entry.inputs) == (3, "select: the result", {"seed": "7"})


def test_an_interrupted_stage_finds_its_own_files_but_not_those_of_other_inputs(tmp_path: Path) -> None:
    def fails(folder: Path) -> Any:
        (folder / "checkpoint").write_text("half way")
        raise KeyboardInterrupt

    def resumes(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        return {}, {"found": (folder / "checkpoint").exists()}

    with open_store(tmp_path / "run") as store:
        with pytest.raises(KeyboardInterrupt):
            store.once("distill", {"seed": "0"}, fails)
        assert read_record(tmp_path / "run/2_distill") is None
        assert json.loads((tmp_path / "run/2_distill" / BEGUN).read_text())["key"]
        assert store.once("distill", {"seed": "0"}, resumes).values == {"found": True}
        with pytest.raises(KeyboardInterrupt):
            store.once("quantize", {"seed": "0"}, fails)
        assert store.once("quantize", {"seed": "1"}, resumes).values == {"found": False}
    assert (tmp_path / "run/previous/3_quantize-1/checkpoint").read_text() == "half way"


def test_two_runs_never_write_into_one_folder(tmp_path: Path) -> None:
    with open_store(tmp_path / "run"):
        code = f"from compress.store import open_store\nwith open_store({str(tmp_path / 'run')!r}): pass"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert found.returncode != 0
        assert f"another run (process {os.getpid()})" in found.stderr
    with open_store(tmp_path / "run"):
        pass  # free again


def test_a_killed_process_leaves_no_lock_and_its_leftovers_are_removed(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from compress.store import open_store
from profiles.atomic import writing
with open_store(Path({str(tmp_path / "run")!r})) as store:
    def work(folder):
        with writing(folder / "big.bin") as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    store.once("export", {{}}, work)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    left = [path.name for path in (tmp_path / "run/4_export").iterdir()]
    assert any(TEMPORARY_MARK in name for name in left)
    assert "big.bin" not in left
    with open_store(tmp_path / "run") as store:
        store.once("export", {}, one_file("abc"))
    assert sorted(path.name for path in (tmp_path / "run/4_export").iterdir()) == ["result.txt", RECORD]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match=r"thesis\.tex"), open_store(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        read_run(tmp_path)


@pytest.mark.parametrize("garbage", ["", "{", "[]", '{"stage": 1}', "\ufeff{}"])
def test_a_garbled_record_counts_as_none(tmp_path: Path, garbage: str) -> None:
    (tmp_path / RECORD).write_text(garbage)
    assert read_record(tmp_path) is None


def test_digest_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), writing(path) as temporary:
        1 / temporary.write_text("")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert sha256(path) == digest_of_text("old")


def digest_of_text(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def test_opening_a_run_lists_what_a_kill_left_unlisted(tmp_path: Path) -> None:
    calls: list[str] = []
    with open_store(tmp_path / "run") as store:
        write_text(tmp_path / "run" / RUN, "{}")
        store.once("select", {"seed": "0"}, one_file("abc", calls))
    whole = (tmp_path / "run" / MANIFEST).read_bytes()
    (tmp_path / "run" / MANIFEST).unlink()  # as if killed between the record and the manifest
    (tmp_path / "run/1_select" / BEGUN).write_text("{}")
    with open_store(tmp_path / "run") as store:
        store.once("select", {"seed": "0"}, one_file("abc", calls))
    assert (tmp_path / "run" / MANIFEST).read_bytes() == whole
    assert not (tmp_path / "run/1_select" / BEGUN).exists()
    assert calls == ["abc"]


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a//b", "a/./b", "", "a\\b", "a\0b", ".."])
def test_a_record_or_manifest_that_names_files_elsewhere_counts_as_none(tmp_path: Path, name: str) -> None:
    with open_store(tmp_path / "run") as store:
        store.once("select", {}, one_file("abc"))
    for path, where in ((tmp_path / "run/1_select" / RECORD, "outputs"), (tmp_path / "run" / MANIFEST, "artifacts")):
        content = json.loads(path.read_text())
        if where == "outputs":
            content[where] = {name: "0" * 64}
        else:
            content[where][0]["path"] = name
        path.write_text(json.dumps(content))
    assert read_record(tmp_path / "run/1_select") is None
    assert read_manifest(tmp_path / "run") == {}
