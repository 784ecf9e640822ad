import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from profiles import cores

CPUS = "sys/devices/system/cpu"


def machine(root: Path, siblings: dict[int, str], busy: dict[int, int] | None = None, **files: dict[int, int]) -> Path:
    """A /proc and a /sys; `files`: name of a file under each core's folder -> core -> content."""
    lines = ["cpu  0 0 0 0"]
    for core, group in siblings.items():
        folder = root / CPUS / f"cpu{core}" / "topology"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "thread_siblings_list").write_text(group + "\n")
        lines.append(f"cpu{core} {(busy or {}).get(core, 0)} 0 0 1000 0 0 0 0 0 0")
    for name, content in files.items():
        for core, value in content.items():
            path = root / CPUS / f"cpu{core}" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/stat").write_text("\n".join(lines) + "\nintr 5\n")
    return root


def nothing(seconds: float) -> None:
    """No other work happens."""


def working(root: Path, siblings: dict[int, str], busy: dict[int, int]) -> Callable[[float], None]:
    def wait(seconds: float) -> None:
        machine(root, siblings, busy)

    return wait


PAIRS = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}  # two physical cores with two threads each


def test_siblings_are_taken_last(tmp_path: Path) -> None:
    root = machine(tmp_path, PAIRS)
    assert cores.choose(1, [0, 1, 2, 3], root, nothing) == (3,)
    assert cores.choose(2, [0, 1, 2, 3], root, nothing) == (2, 3)  # one of each pair
    assert cores.choose(3, [0, 1, 2, 3], root, nothing) == (1, 2, 3)
    assert cores.choose(2, [0, 2], root, nothing) == (0, 2)  # no other is allowed


def test_the_other_halves_of_cores(tmp_path: Path) -> None:
    root = machine(tmp_path, {**PAIRS, 4: "4-7", 5: "4-7", 6: "4-7", 7: "4-7"})
    assert cores.beside([0], root) == (2,)
    assert cores.beside([0, 2], root) == ()
    assert cores.beside([4, 5], root) == (6, 7)
    assert cores.beside([99], root) == ()


def test_a_core_with_other_work_is_avoided(tmp_path: Path) -> None:
    alone = {0: "0", 1: "1"}
    root = machine(tmp_path, alone)
    assert cores.choose(1, [0, 1], root, working(root, alone, {1: 40})) == (0,)


def test_fast_cores_come_first(tmp_path: Path) -> None:
    alone = {core: str(core) for core in range(4)}
    root = machine(tmp_path, alone, cpu_capacity={0: 1024, 1: 1024, 2: 400, 3: 400})
    assert cores.choose(2, range(4), root, nothing) == (0, 1)
    clocked = machine(tmp_path / "b", alone, cpufreq__cpuinfo_max_freq={0: 5000, 1: 5200, 2: 3800, 3: 3800})
    assert cores.choose(1, range(4), clocked, nothing) == (1,)


def test_more_threads_than_cores_are_not_pinned(tmp_path: Path) -> None:
    assert cores.choose(3, [0, 1], machine(tmp_path, {0: "0", 1: "1"}), nothing) == ()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins")
def test_threads_are_pinned_and_let_go() -> None:
    before = os.sched_getaffinity(0)
    one = max(before)
    seen: list[set[int]] = []
    ready, finish = threading.Event(), threading.Event()

    def work() -> None:
        seen.append(os.sched_getaffinity(0))
        ready.set()
        finish.wait(10)
        seen.append(os.sched_getaffinity(0))

    with cores.pinned([one]) as on:
        assert on == (one,)
        assert os.sched_getaffinity(0) == {one}
        assert set(cores.usable()) == before  # what the machine has, not what is left of it
        thread = threading.Thread(target=work)
        thread.start()
        ready.wait(10)
    finish.set()
    thread.join()
    assert seen == [{one}, before]
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins")
def test_an_error_inside_lets_go_too_and_a_refusal_changes_nothing() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), cores.pinned([max(before)]):
        raise ZeroDivisionError
    with cores.pinned([99_999]) as on:
        assert on == ()
    with cores.pinned([]) as on:
        assert on == ()
    assert os.sched_getaffinity(0) == before
