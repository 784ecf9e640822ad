"""The tool that kills searches: it kills inside the search, and sees one that ends before."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from compress.evaluations import Evaluation, open_evaluations
from compress.records import folder_name
from compress.store import BEGUN
from tools import kill_search, small_search


def stand_in(out: Path, code: str) -> list[str]:
    """A process that begins its search after a moment."""
    folder = out / folder_name("select")
    begin = (
        f"import os, pathlib, time; time.sleep(0.1); f = pathlib.Path({str(folder)!r}); os.makedirs(f, exist_ok=True)"
    )
    return [sys.executable, "-c", f"{begin}; (f / {BEGUN!r}).write_text('x'); {code}"]


def test_kills_after_the_search_has_begun(tmp_path: Path) -> None:
    with open_evaluations(tmp_path / small_search.FILE) as evaluations:
        evaluations.put("k", Evaluation(0.5, 1.0, 0, 1.0, "a", "b", "here"))
    line = kill_search.one(stand_in(tmp_path, "time.sleep(60)"), tmp_path, 0.05)
    began = small_search.begun(tmp_path)
    assert began is not None
    assert line == "0.05 s after the search began, 1 evaluations finished"
    again = kill_search.one(stand_in(tmp_path, "time.sleep(60)"), tmp_path, 0.0)
    assert again is not None
    assert small_search.begun(tmp_path) != began, "not before it had begun once more"


def test_sees_a_search_that_ended_before_its_moment(tmp_path: Path) -> None:
    assert kill_search.one(stand_in(tmp_path, "pass"), tmp_path, 30.0) is None
    assert kill_search.one([sys.executable, "-c", "pass"], tmp_path, None) is None


def test_a_search_that_fails_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with status 3"):
        kill_search.one([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, 30.0)


def test_a_worker_without_its_driver_is_found() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)", "compress.workers.child"]
    start = f"from subprocess import DEVNULL, Popen; print(Popen({command!r}, stdout=DEVNULL, stderr=DEVNULL).pid)"
    driver = subprocess.run([sys.executable, "-c", start], capture_output=True, text=True, check=True)
    orphan = psutil.Process(int(driver.stdout))
    deadline = time.monotonic() + 10
    while orphan.ppid() != 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        if orphan.ppid() != 1:
            pytest.skip("here orphans go to another process than the first")
        assert kill_search.is_worker(orphan)
        assert not kill_search.is_worker(psutil.Process())
    finally:
        orphan.send_signal(signal.SIGKILL)
