"""The file of evaluations: kept through kills, shared, and refused where it cannot be used."""

import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from compress import evaluations as module
from compress.errors import RunError
from compress.evaluations import Evaluation, key_of, open_evaluations
from compress.liveness import birth_of, place_of_this

ROOT = Path(__file__).resolve().parents[2]
FOUND = Evaluation(
    0.875,
    0.25,
    3,
    12.5,
    "2026-01-01T10:00:00+00:00",
    "2026-01-01T10:00:20+00:00",
    "lab",
    "c0ffee",
    {"curve": [0.1, 0.2]},
)


def writer(file: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.compress.writer_of_evaluations", str(file), name, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    """The keys that it said were written."""
    assert process.stdin is not None
    assert process.stdout is not None
    lines = process.stdout.read().split("\n")[:-1]  # what stands after the last end of line was cut
    process.stdin.close()
    process.stdout.close()
    process.wait()
    return [line for line in lines if line not in ("open", "waiting")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "evaluations.db"


def test_what_was_put_comes_back(file: Path) -> None:
    with open_evaluations(file) as evaluations:
        assert evaluations.get("k") is None
        assert evaluations.put("k", FOUND)
    with open_evaluations(file) as evaluations:
        assert evaluations.get("k") == FOUND
        assert list(evaluations.rows()) == [("k", FOUND)]
    assert [path.name for path in file.parent.iterdir()] == ["evaluations.db"]  # one file


def test_a_diverged_training_is_remembered(file: Path) -> None:
    with open_evaluations(file) as evaluations:
        evaluations.put("k", Evaluation(math.nan, 1.0, 0, 1.0, "a", "b", "here"))
        evaluations.put("i", Evaluation(-math.inf, 1.0, 0, 1.0, "a", "b", "here"))
        found, worst = evaluations.get("k"), evaluations.get("i")
    assert found is not None
    assert math.isnan(found.score)
    assert worst is not None
    assert worst.score == -math.inf


def test_the_first_result_stays_and_the_second_is_counted(file: Path) -> None:
    with open_evaluations(file) as evaluations:
        evaluations.put("k", FOUND)
        assert not evaluations.put("k", Evaluation(0.1, 0.25, 3, 1.0, "a", "b", "here"))
        assert evaluations.get("k") == FOUND
        assert evaluations.counts().again == 1


def test_what_was_forgotten_may_be_evaluated_again(file: Path) -> None:
    with open_evaluations(file) as evaluations:
        evaluations.put_all({"k": FOUND, "j": FOUND})
        assert evaluations.forget(["k", "unknown"]) == 1
        assert evaluations.forget([]) == 0
        assert evaluations.get("k") is None
        assert evaluations.claim_all(["k", "j"]) == {"k"}
        assert evaluations.put("k", FOUND)
        assert evaluations.counts().again == 0


def test_a_key_changes_with_everything_that_decides_the_result() -> None:
    given = {"data": "d", "teacher": "t", "recipe": "r"}
    base = key_of(candidate="c", given=given, share=0.5, seed=0)
    others = [
        key_of(candidate="C", given=given, share=0.5, seed=0),
        key_of(candidate="c", given={**given, "data": "D"}, share=0.5, seed=0),
        key_of(candidate="c", given={**given, "recipe": "R"}, share=0.5, seed=0),
        key_of(candidate="c", given=given, share=0.25, seed=0),
        key_of(candidate="c", given=given, share=0.5, seed=1),
    ]
    assert len({base, *others}) == 6
    assert base == key_of(seed=0, share=0.5, given=dict(reversed(given.items())), candidate="c")
    assert key_of(candidate="c", given=given, share=1, seed=0) == key_of(candidate="c", given=given, share=1.0, seed=0)


def test_a_key_is_the_hash_of_its_text() -> None:
    expected = "4b9fa3c73b5db260"  # printf '[1,"c",{"data":"d"},0.5,7]' | sha256sum
    assert key_of(candidate="c", given={"data": "d"}, share=0.5, seed=7).startswith(expected)


def test_rows_of_one_candidate_in_the_order_of_finishing(file: Path) -> None:
    with open_evaluations(file) as evaluations:
        for number in range(5):
            evaluations.put(
                f"k{9 - number}", Evaluation(number, 1.0, 0, 1.0, "a", "b", "here", ["even", "odd"][number % 2])
            )
        assert [key for key, _ in evaluations.rows()] == ["k9", "k8", "k7", "k6", "k5"]
        assert [key for key, _ in evaluations.rows(candidate="odd")] == ["k8", "k6"]


def test_pages_end_nowhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    with open_evaluations(file) as evaluations:
        for number in range(4):
            evaluations.put(f"k{number}", FOUND)
        found = evaluations.rows()
        seen = [next(found)[0]]
        evaluations.put("k4", FOUND)  # while somebody reads
        seen += [key for key, _ in found]
    assert seen == ["k0", "k1", "k2", "k3", "k4"]


class TestClaims:
    def test_one_of_two_gets_it(self, file: Path) -> None:
        with open_evaluations(file) as mine, open_evaluations(file) as theirs:
            assert mine.claim("k")
            assert not theirs.claim("k")
            assert not mine.claim("k")
            mine.put("k", FOUND)
            assert not theirs.claim("k")
            assert theirs.counts() == module.Counts(finished=1, running=0, claimed=1, taken_over=0, again=0)

    def test_many_at_once(self, file: Path) -> None:
        with open_evaluations(file) as mine, open_evaluations(file) as theirs:
            mine.put("a", FOUND)
            assert mine.claim_all(["a", "b", "c", "b"]) == {"b", "c"}
            assert theirs.claim_all(["a", "b", "c", "d"]) == {"d"}

    def test_given_back(self, file: Path) -> None:
        with open_evaluations(file) as mine, open_evaluations(file) as theirs:
            mine.claim("k")
            theirs.release(["k"])  # not theirs to give
            assert not theirs.claim("k")
            mine.release(["k"])
            assert theirs.claim("k")

    def test_closing_gives_back(self, file: Path) -> None:
        with open_evaluations(file) as theirs:
            with open_evaluations(file) as mine:
                mine.claim("k")
            assert theirs.claim("k")
            assert theirs.counts().taken_over == 0

    def test_of_a_killed_process_are_taken_over_at_once(self, file: Path) -> None:
        process = writer(file, "k", 1)
        try:
            deadline = time.monotonic() + 30
            with open_evaluations(file) as evaluations:
                while evaluations.counts().claimed < 2 and time.monotonic() < deadline:
                    time.sleep(0.02)
                assert not evaluations.claim("held"), "its owner is alive"
                process.kill()
                while not birth_gone(process.pid):
                    time.sleep(0.005)
                assert evaluations.claim("held")
                assert evaluations.counts().taken_over == 1
        finally:
            process.kill()
            finish(process)

    def test_left_behind_in_this_process_are_taken_over(self, file: Path) -> None:
        lost = open_evaluations(file)
        lost.claim("k")
        module._open_owners.discard(lost._owner)  # as after an exec, which keeps the number of the process
        with open_evaluations(file) as evaluations:
            assert evaluations.claim("k")
        lost.close()

    def test_of_another_host_last_as_long_as_its_heart_beats(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 1000.0
        with open_evaluations(file) as mine:
            other = sqlite3.connect(file, isolation_level=None)
            other.execute("INSERT INTO owners VALUES ('o', 'another boot', 1, '5', 0)")
            other.execute("INSERT INTO claims VALUES ('k', 'o')")
            monkeypatch.setattr(module.time, "monotonic", lambda: now)
            assert not mine.claim("k")
            now += 119
            assert not mine.claim("k")
            other.execute("UPDATE owners SET beat = 1")
            now += 119
            assert not mine.claim("k"), "it beat in between"
            now += 121
            assert mine.claim("k")
            other.close()

    def test_a_heart_beats(self, file: Path) -> None:
        with open_evaluations(file, lease_s=0.08) as mine:
            mine.claim("k")
            time.sleep(0.5)
            (beat,) = sqlite3.connect(file).execute("SELECT beat FROM owners").fetchone()
        assert beat >= 3

    def test_eight_threads_and_two_files_share_out_every_key_once(self, file: Path) -> None:
        granted: list[str] = []

        def work(seed: int) -> None:
            keys = [f"k{number}" for number in range(30)]
            random.Random(seed).shuffle(keys)
            opened = (one, two)[seed % 2]
            granted.extend(key for key in keys if opened.claim(key))

        with open_evaluations(file) as one, open_evaluations(file) as two:
            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted(granted) == sorted(f"k{number}" for number in range(30))


def birth_gone(pid: int) -> bool:
    return birth_of(pid) == ""


def test_births_tell_processes_apart() -> None:
    assert birth_of(os.getpid()) == birth_of(os.getpid()) != birth_of(1)
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.005)
    assert birth_of(process.pid) == "", "it has ended, though nobody has asked for its status"
    process.wait()
    assert birth_of(process.pid) == ""
    assert place_of_this() == place_of_this()


def test_two_processes_killed_at_random_moments_lose_nothing_that_they_said_was_written(file: Path) -> None:
    rng = random.Random(0)
    said: list[str] = []
    for round_ in range(3):
        pair = [writer(file, f"{round_}.{name}.", 100_000) for name in "ab"]
        for process in pair:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
        for process in pair:
            time.sleep(rng.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
        for process in pair:
            said += finish(process)
        with open_evaluations(file) as evaluations:
            kept = {key: found for key, found in evaluations.rows()}
            assert set(said) <= set(kept)
            assert len(kept) - len(said) <= 2 * (round_ + 1), "at most the one being said when killed"
            assert evaluations.counts().again == 0
    assert said
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_write_that_was_cut_at_any_page_is_rolled_back(file: Path, tmp_path: Path) -> None:
    """Copies of the file and its journal in the middle of a commit are what a kill leaves."""
    with open_evaluations(file) as evaluations:
        evaluations.put("before", FOUND)
    torn = tmp_path / "torn"
    torn.mkdir()
    whole, changed = file.read_bytes(), 0
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")  # so that pages go to the file before the commit
    connection.execute("BEGIN IMMEDIATE")
    for number in range(40):
        row = module._row(f"cut{number}", Evaluation(1.0, 1.0, 0, 1.0, "a", "b", "here", extra={"text": "x" * 4000}))
        connection.execute(f"INSERT INTO evaluations ({module.COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        for path in file.parent.iterdir():
            shutil.copy(path, torn)
        assert (torn / "evaluations.db-journal").exists()
        changed += (torn / "evaluations.db").read_bytes() != whole
        with open_evaluations(torn / "evaluations.db") as found:
            assert [key for key, _ in found.rows()] == ["before"]
    assert changed > 30, "the file itself was written to in the middle of the commit"
    connection.execute("ROLLBACK")
    connection.close()


class TestRefusals:
    def test_a_damaged_file(self, file: Path) -> None:
        with open_evaluations(file) as evaluations:
            for number in range(200):
                if number % 50 == 0:
                    evaluations.put(f"k{number}", Evaluation(1.0, 1.0, 0, 1.0, "a", "b", "h", extra={"t": "x" * 9000}))
        data = bytearray(file.read_bytes())
        data[4096:20000] = b"\x55" * (20000 - 4096)
        file.write_bytes(data)
        with pytest.raises(RunError, match=r"evaluations\.db is damaged") as refusal, open_evaluations(file) as found:
            list(found.rows())
        assert "move it away" in refusal.value.fix

    def test_something_else(self, tmp_path: Path) -> None:
        text = tmp_path / "notes.txt"
        text.write_text("this is not a database\n" * 100)
        with pytest.raises(RunError, match="is damaged, or is something else"):
            open_evaluations(text)
        assert text.read_text().startswith("this is not")

    def test_a_database_of_another_program_which_stays_as_it_was(self, tmp_path: Path) -> None:
        path = tmp_path / "other.db"
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (a)")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(RunError, match="database of another program"):
            open_evaluations(path)
        assert path.read_bytes() == before

    def test_a_file_of_another_version(self, file: Path) -> None:
        open_evaluations(file).close()
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        with pytest.raises(RunError, match="has format 99, and this version of compress writes format 1"):
            open_evaluations(file)

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("")
        with pytest.raises(RunError, match="cannot be written") as refusal:
            open_evaluations(tmp_path / "plain" / "evaluations.db")
        assert refusal.value.fix
        with pytest.raises(RunError, match="cannot be written"):
            open_evaluations(tmp_path)  # a folder

    def test_a_file_that_may_only_be_read(self, file: Path) -> None:
        with open_evaluations(file) as evaluations:
            evaluations._connection.execute("PRAGMA query_only = 1")  # as SQLite says it for any such file
            with pytest.raises(RunError, match="cannot be written"):
                evaluations.put("k", FOUND)

    def test_a_full_disk_and_going_on_when_there_is_room(self, file: Path) -> None:
        with open_evaluations(file) as evaluations:
            evaluations.put("k", FOUND)
            evaluations._connection.execute("PRAGMA max_page_count = 10")
            big = Evaluation(1.0, 1.0, 0, 1.0, "a", "b", "here", extra={"text": "x" * 200_000})
            with pytest.raises(RunError, match="the disk is full") as refusal:
                evaluations.put("big", big)
            assert "goes on" in refusal.value.fix
            evaluations._connection.execute("PRAGMA max_page_count = 1000000")
            assert evaluations.get("big") is None
            assert evaluations.put("big", big)
            assert evaluations.get("k") == FOUND

    def test_a_file_that_somebody_keeps_locked(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with open_evaluations(file) as evaluations:
            evaluations._connection.execute("PRAGMA busy_timeout = 50")
            holder = sqlite3.connect(file, isolation_level=None)
            holder.execute("BEGIN EXCLUSIVE")
            with pytest.raises(RunError, match="locked by another process"):
                evaluations.put("k", FOUND)
            holder.close()

    def test_a_fork(self, file: Path) -> None:
        with open_evaluations(file) as evaluations:
            evaluations._pid += 1
            with pytest.raises(RuntimeError, match=r"does not cross fork"):
                evaluations.get("k")
            evaluations._pid -= 1
