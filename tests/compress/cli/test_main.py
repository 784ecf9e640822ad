"""What a user types, and what comes back."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from compress.cli.main import main


def test_help_names_every_command() -> None:
    found = subprocess.run([sys.executable, "-m", "compress", "--help"], capture_output=True, text=True, check=True)
    commands = ["pipeline", "distill", "quantize", "export", "build", "verify", "report", "init", "list", "doctor"]
    assert [name for name in commands if name not in found.stdout] == []


@pytest.mark.parametrize("kind", ["methods", "targets", "tasks", "spaces", "selectors", "recipes"])
def test_every_listed_name_has_a_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[kind]
    assert found
    assert all(line for line in found.values())


@pytest.mark.parametrize(
    ("arguments", "what", "fix"),
    [
        (["pipeline", "--target", "jetsn", "--quiet"], "jetsn", "jetson"),
        (["pipeline", "--task", "digit"], "there are", "digits"),
        (["pipeline", "--budget", "latency=3"], "latency_ms", "--budget"),
        (["pipeline", "--method", "hinton"], "vanilla_kd", ""),
        (["pipeline", "none.toml"], "none.toml", "compress init"),
        (["pipeline", "--until", "sleep"], "sleep", "--help"),
        (["pipelin"], "pipelin", "--help"),
        (["verify", "nowhere"], "is not a run", "compress pipeline"),
    ],
)
def test_wrong_words_get_one_message_and_exit_code_2(
    arguments: list[str],
    what: str,
    fix: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert what in said
    assert fix in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.json"))


def test_errors_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "--target", "jetsn", "--json", "--quiet"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert "jetsn" in error["what"]
    assert error["fix"]


def test_init_writes_a_project_that_loads_and_keeps_an_existing_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from compress.recipe import load

    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert load(tmp_path / "project.toml").task.name == "digits"
    (tmp_path / "project.toml").write_text("mine")
    assert main(["init"]) == 2
    assert (tmp_path / "project.toml").read_text() == "mine"


def test_a_full_disk_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the operating system says it: from the write of any file of the run."""

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("profiles.atomic.os.fsync", full)
    assert main(["pipeline", "--quiet", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "the disk is full" in said
    assert "Traceback" not in said
    assert [path for path in (tmp_path / "run").iterdir() if path.name != ".lock"] == []  # nothing under a final name


def test_ctrl_c_inside_code_run_by_exec_ends_with_130(tmp_path: Path) -> None:
    """CPython would end the process by SIGINT here, as it did once while dataclasses were being made."""
    task = tmp_path / "task.py"
    task.write_text("exec('import os, signal; os.kill(os.getpid(), signal.SIGINT)\\nwhile True: pass')\n")
    command = ["pipeline", "--task", str(task), "--data", str(tmp_path), "--quiet", "--out", str(tmp_path / "run")]
    found = subprocess.run(
        [sys.executable, "-m", "compress.cli.main", *command],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert found.returncode == 130, found.stderr
    assert "interrupted" in found.stderr
    assert "Traceback" not in found.stderr
