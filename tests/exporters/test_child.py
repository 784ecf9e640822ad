"""Children are limited, ended with everything that they started, and described when they fail."""

import os
import sys
import time
from pathlib import Path

import pytest

from exporters import child

GIB = 1 << 30


def run(program: str, folder: Path, seconds: float = 30.0, memory: int = GIB) -> child.Outcome:
    return child.run([sys.executable, "-c", program], folder=folder, seconds=seconds, memory_bytes=memory)


def test_a_good_child(tmp_path: Path) -> None:
    found = run("print('hello')", tmp_path)
    assert found.why() is None
    assert found.text == "hello\n"


def test_an_exit_status(tmp_path: Path) -> None:
    assert run("raise SystemExit(3)", tmp_path).why() == "ended with status 3"


def test_a_crash(tmp_path: Path) -> None:
    assert run("import os; os.abort()", tmp_path).why() == "crashed (SIGABRT)"


def test_the_memory_limit(tmp_path: Path) -> None:
    found = run("import time; x = b'x' * (300 << 20); time.sleep(60)", tmp_path, memory=150 << 20)
    assert "memory limit" in str(found.why())
    assert found.peak_bytes > 150 << 20


def test_the_time_limit_ends_grandchildren_too(tmp_path: Path) -> None:
    program = (
        "import subprocess, time; p = subprocess.Popen(['sleep', '60']); "
        "open('pid', 'w').write(str(p.pid)); open('ready', 'w').close(); time.sleep(60)"
    )
    found = run(program, tmp_path, seconds=3.0)
    assert "time limit" in str(found.why())
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        if _gone(pid):
            return
        time.sleep(0.05)
    raise AssertionError("the grandchild is still running")


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address randomisation is asked for on Linux only")
def test_addresses_are_fixed_in_a_child_that_asks(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from exporters import child\nprint(child.fix_addresses(), hex(id(object())))\n")
    texts = set()
    for _ in range(2):
        found = child.run(
            [sys.executable, str(program)],
            folder=tmp_path,
            seconds=30,
            memory_bytes=GIB,
            environment=child.plain_environment(),
        )
        texts.add(found.text)
    if "False" in "".join(texts):
        pytest.skip("this machine does not let a process turn address randomisation off")
    assert len(texts) == 1
    assert "True" in texts.pop()


def test_the_environment_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    found = child.plain_environment(EXTRA="1")
    assert "SECRET_TOKEN" not in found
    assert found["EXTRA"] == "1"
    assert found["PYTHONHASHSEED"] == "0"
    assert found["PATH"] == os.environ["PATH"]


def test_what_a_child_says_is_handed_on_and_silence_is_filled(tmp_path: Path) -> None:
    said: list[str] = []
    program = "import sys, time; print('one', flush=True); time.sleep(1.0); print('two'); sys.stdout.write('half')"
    found = child.run(
        [sys.executable, "-c", program], folder=tmp_path, seconds=30, memory_bytes=GIB, progress=said.append, every=0.3
    )
    assert found.why() is None
    between = [line for line in said if line not in ("one", "two")]
    assert said.index("one") < said.index(between[-1]) < said.index("two")
    assert between
    assert all(line.endswith("MiB") for line in between)
