"""Fronts by latency and by multiply-accumulates: a table worked by hand, and the rules against trying everything."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import search_fronts
from search_fronts import At, Students, across, choices, differences, front, loss, read, swept

# name: multiply-accumulates, latency, score. F is fast for its work, B is slow; D is beaten by C in everything.
BY_HAND = {
    "A": (10, 1.0, 0.50),
    "B": (20, 4.0, 0.60),
    "C": (30, 2.0, 0.70),
    "D": (40, 3.0, 0.65),
    "E": (50, 4.0, 0.80),
    "F": (60, 2.5, 0.75),
}


def table(rows: dict[str, tuple[float, float, float]] = BY_HAND, other: str = "hearing_aid") -> dict[str, Any]:
    """Two targets: latencies as given, and in proportion to the work. Two seeds, 0.01 around the score."""

    def cost(macs: float, latency_ms: float) -> dict[str, Any]:
        interval = [0.8 * latency_ms, 1.5 * latency_ms]
        return {"macs": macs, "latency_ms": latency_ms, "interval_ms": interval, "origin": "predicted"}

    return {
        "students": [
            {
                "space": "s",
                "plan": {"name": name},
                "identity": name,
                "costs": {"jetson": cost(macs, latency), other: cost(macs, macs / 10)},
                "scores": {
                    "1.0": {
                        str(seed): {"val": score + step, "test": score - 0.1 + step, "cpu_s": 1.0}
                        for seed, step in enumerate((-0.01, 0.01))
                    }
                },
            }
            for name, (macs, latency, score) in rows.items()
        ]
    }


def drawn(rng: np.random.Generator, count: int = 30) -> Students:
    latency, macs, val = rng.lognormal(0, 1, count), rng.lognormal(0, 1, count), rng.integers(0, 12, count) / 12
    names = tuple(map(str, range(count)))
    return Students(names, latency, latency, latency, macs, val, val + rng.normal(0, 0.01, count), "predicted")


def letters(places: list[int]) -> str:
    return "".join("ABCDEF"[place] for place in places)


def test_a_table_is_read() -> None:
    students = read(table(), "jetson", "1.0")
    assert students.names[0] == "s: name A"
    assert students.val == pytest.approx([0.5, 0.6, 0.7, 0.65, 0.8, 0.75])  # means over seeds
    assert students.test == pytest.approx(students.val - 0.1)
    assert (students.low_ms[2], students.high_ms[2]) == (1.6, 3.0)
    with pytest.raises(search_fronts.TableError, match="costed on 'a100'; the table has the targets hearing_aid, jet"):
        read(table(), "a100", "1.0")
    with pytest.raises(search_fronts.TableError, match=r"and the shares 1\.0"):
        read(table(), "jetson", "0.5")


def test_fronts_and_choices_by_hand() -> None:
    students = read(table(), "jetson", "1.0")
    assert letters(front(students.latency_ms, students.val)) == "ACFE"
    assert letters(front(students.macs, students.val)) == "ABCE"
    found = choices(students, np.array([0.5, 1.0, 2.0, 3.0, 4.0]))
    assert [(at.profiler, at.kindly) for at in found] == [(None, None), (0, 0), (2, 2), (5, 2), (4, 4)]
    assert differences(students, found) == pytest.approx([0, 0, 0.05, 0])


def test_work_that_foretells_latency_loses_nothing() -> None:
    students = read(table(), "hearing_aid", "1.0")
    budgets = swept(students)
    found = choices(students, budgets)
    assert [at.profiler for at in found] == [at.kindly for at in found] == [at.fitted for at in found]
    none = loss(students, budgets, resamples=20)
    assert (none.mean, none.low, none.high, none.worst, none.none) == (0, 0, 0, 0, 0)


def test_the_fitted_budget_can_be_over_the_latency() -> None:
    """Latency 1 at work 1, 2 at 2, 4 at 4, and 9 at 3: the fit puts work 3 where no latency of 9 is expected."""
    rows = {"A": (1, 1.0, 0.5), "B": (2, 2.0, 0.6), "C": (4, 4.0, 0.7), "D": (3, 9.0, 0.9)}
    students = read(table(rows), "jetson", "1.0")
    slope, level = search_fronts.power_law(students.macs, students.latency_ms)
    budget = float(np.exp(level + slope * np.log(3.0))) * 1.0001
    (at,) = choices(students, np.array([budget]))
    assert at.fitted == 3
    assert students.latency_ms[3] > budget
    assert at.profiler == 2


@pytest.mark.parametrize("seed", range(8))
def test_the_choices_equal_trying_every_budget(seed: int) -> None:
    students = drawn(np.random.default_rng(seed))

    def best(admitted: list[int], cost: Any) -> int:
        return min(admitted, key=lambda place: (-students.val[place], cost[place]))

    for at in choices(students, swept(students)):
        within = [p for p in range(30) if students.latency_ms[p] <= at.budget_ms]
        assert at.profiler == best(within, students.latency_ms)
        by_work = {
            best([p for p in range(30) if students.macs[p] <= most], students.macs) for most in students.macs.tolist()
        }
        kind = [p for p in by_work if p in within]
        assert at.kindly == (best(kind, students.macs) if kind else None)
        if at.kindly is not None:
            assert students.val[at.profiler] >= students.val[at.kindly]


def test_the_sweep_spans_the_front_or_its_better_part() -> None:
    students = read(table(), "jetson", "1.0")
    assert swept(students, count=3) == pytest.approx([1.0, 2.0, 4.0])
    assert swept(students, within=0.06, count=2) == pytest.approx([2.5, 4.0])  # from F on
    assert choices(students, swept(students))[0].profiler == 0  # who costs the budget is within it


def test_the_loss_counts_where_no_student_is_found() -> None:
    """The fastest is not on the front of work: kindly or not, small budgets admit nobody."""
    students = read(table({"A": (10, 3.0, 0.5), "B": (20, 1.0, 0.4), "C": (30, 4.0, 0.6)}), "jetson", "1.0")
    found = loss(students, np.array([1.0, 2.0, 3.0, 4.0]), resamples=50)
    assert (found.none, found.mean, found.worst, found.budgets) == (2, 0.0, 0.0, 4)
    with pytest.raises(search_fronts.TableError, match="no student is within"):
        loss(students, np.array([1.0, 2.0]))


def test_the_interval_repeats_and_holds_the_loss() -> None:
    students = read(table(), "jetson", "1.0")
    budgets = swept(students)
    found = loss(students, budgets, seed=3)
    assert found == loss(students, budgets, seed=3)
    assert found.low <= found.mean <= found.high
    lost = differences(students, choices(students, budgets))
    assert (found.mean, found.worst) == (pytest.approx(float(np.mean(lost))), pytest.approx(0.05))


def test_targets_that_agree_and_that_do_not() -> None:
    jetson, aid = read(table(), "jetson", "1.0"), read(table(), "hearing_aid", "1.0")
    assert across(jetson, jetson) == {"differ": 0.0, "over": 0.0, "loss": 0.0}
    found = across(jetson, aid, count=2)  # the ends of the sweeps: A and E on both
    assert (found["differ"], found["over"]) == (0.0, 0.0)
    found = across(jetson, aid, count=3)  # between them C for 2 ms there, A for sqrt(5) ms here
    assert found["differ"] == pytest.approx(1 / 3)
    assert found["over"] == pytest.approx(1 / 3)  # C takes 3 ms here


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out, page = tmp_path / "table.json", tmp_path / "out.json", tmp_path / "page.html"
    file.write_text(json.dumps(table()))
    assert search_fronts.main([str(file), "--json", str(out), "--html", str(page)]) == 0
    text = capsys.readouterr().out
    assert "jetson: 6 students, latency predicted" in text
    assert "chosen for jetson, run on hearing_aid: another student at" in text
    data = json.loads(out.read_text())
    assert [row["student"] for row in data["targets"]["jetson"]["fronts"]["latency"]] == [
        f"s: name {name}" for name in "ACFE"
    ]
    assert data["targets"]["hearing_aid"]["loss_points"]["mean"] == 0.0
    html = page.read_text()
    assert 'id="plot-jetson"' in html
    assert 'id="plot-hearing_aid"' in html
    assert search_fronts.main([str(file), "--target", "a100"]) == 2
    assert "the table has the targets" in capsys.readouterr().err


def test_nothing_found_is_none() -> None:
    assert choices(read(table(), "jetson", "1.0"), np.array([0.1]))[0] == At(0.1, None, None, None)
