"""Statistics by hand, verdicts, and seeds that are not run twice."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compress import catalog
from compress.contracts.experiment import Experiment, Figures, Finding, Results
from compress.errors import TaskError
from compress.progress import Quiet
from compress.reproduction import table
from compress.reproduction.paired import by_errors, by_mean, not_below, paired, shown, within
from compress.reproduction.run import FILE, judge_again, one_seed, reproduce
from compress.reproduction.verdict import said, verdict
from compress.workers.serial import Serial
from profiles.errors import UserError


class TestPaired:
    def test_by_hand(self) -> None:
        found = paired([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])  # 2, 3, 1: mean 2, deviation 1
        assert found.mean == pytest.approx(2.0)
        assert found.error == pytest.approx(1 / math.sqrt(3))
        assert found.interval == pytest.approx(
            (2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3))
        )  # t(2), 0.975
        assert found.p == pytest.approx(0.0741799)  # t = 3.4641, two degrees of freedom

    def test_one_seed_has_no_spread(self) -> None:
        found = paired([1.0], [0.5])
        assert math.isnan(found.error)
        for holds in (shown(found, 0.2), by_mean(found, 0.2), by_errors(found, 0.2, 2.0), not_below(found)):
            assert holds == "undecided"
        assert within(found, 1.0) == "undecided"

    def test_equal_differences(self) -> None:
        assert paired([2.0, 3.0], [1.0, 2.0]).p == 0.0
        assert paired([2.0, 3.0], [2.0, 3.0]).p == 1.0

    def test_unequal_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="cannot be paired"):
            paired([1.0], [1.0, 2.0])

    def test_standard_errors_that_a_criterion_names(self) -> None:
        gap = paired([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
        assert (by_errors(gap, 1.0, 3.0), by_errors(gap, 1.0, 4.0), by_errors(gap, 2.1, 0.0)) == ("yes", "no", "no")
        assert (not_below(gap, 3.1), not_below(gap, 3.2)) == ("yes", "no")

    def test_the_test_is_one_sided_at_five_percent(self) -> None:
        gap = paired([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])  # t = 3.4641; of two degrees of freedom 0.95 lies at 2.9200
        assert gap.tells_from(0.0)
        assert gap.tells_from(2.0 - 2.93 / math.sqrt(3))
        assert not gap.tells_from(2.0 - 2.91 / math.sqrt(3))
        assert not paired([1.0], [0.0]).tells_from(0.0)
        assert paired([2.0, 3.0], [1.0, 2.0]).tells_from(0.5)

    def test_a_mean_alone_shows_nothing_unless_the_criterion_is_of_the_mean(self) -> None:
        wide, narrow = paired([9.0, 1.0, 2.0], [0.0, 0.0, 0.0]), paired([4.1, 4.0, 3.9], [0.0, 0.0, 0.0])
        assert wide.mean == pytest.approx(narrow.mean)
        assert (shown(wide, 2.0), shown(narrow, 2.0)) == ("undecided", "yes")
        assert (by_mean(wide, 2.0), by_mean(narrow, 2.0)) == ("by mean alone", "yes")
        assert (shown(wide, 5.0), by_mean(wide, 5.0)) == ("no", "no")

    def test_a_bar_below_zero_allows_a_loss_that_seeds_must_exclude(self) -> None:
        loss = [-0.3, -0.1, -0.2]  # -0.2 +- 0.058
        gap = paired(loss, [0.0] * 3)
        assert (shown(gap, -0.4), shown(gap, -0.25), shown(gap, -0.1)) == ("yes", "undecided", "no")
        assert by_mean(gap, -0.25) == "by mean alone"

    def test_equal_within_a_bound(self) -> None:
        gap = paired([-0.3, -0.1, -0.2], [0.0] * 3)
        assert (within(gap, 0.5), within(gap, 0.3), within(gap, 0.1)) == ("yes", "undecided", "no")
        mirrored = paired([0.3, 0.1, 0.2], [0.0] * 3)
        assert (within(mirrored, 0.5), within(mirrored, 0.3), within(mirrored, 0.1)) == ("yes", "undecided", "no")


def finding(holds: str, decides: bool = True) -> Finding:
    return Finding("a", "b", holds, decides)  # type: ignore[arg-type]


def test_verdicts() -> None:
    assert verdict([finding("yes"), finding("no", decides=False)]) == "reproduced"
    assert verdict([finding("by mean alone")]) == "reproduced"
    assert verdict([finding("by mean alone"), finding("undecided")]) == "inconclusive"
    assert verdict([finding("undecided"), finding("no")]) == "not reproduced at this scale"
    with pytest.raises(ValueError, match="at least one"):
        verdict([finding("yes", decides=False)])


@pytest.fixture
def experiment() -> tuple[Experiment, list[int]]:
    ran: list[int] = []

    def run(data: Path | None, seed: int, say: Callable[[str], None]) -> Figures:
        ran.append(seed)
        say(f"seed {seed} runs")
        return {"plain": {"accuracy, %": 80.0 + seed}, "ours": {"accuracy, %": 81.0 + 2 * seed, "steps": 7.0}}

    def judge(results: Results) -> list[Finding]:
        gap = paired(results.of("ours", "accuracy, %"), results.of("plain", "accuracy, %"))
        return [Finding("ours - plain >= 1", str(gap), by_mean(gap, 1.0))]

    made = Experiment("a paper", "Ours is better.", "a bed", "", ("accuracy, %", "steps"), "plain", 3, run, judge)
    return made, ran


def test_results_are_written_and_finished_seeds_are_not_run_again(
    experiment: tuple[Experiment, list[int]], tmp_path: Path
) -> None:
    made, ran = experiment
    reproduce("x", made, None, tmp_path, Quiet(), seeds=1)
    done = reproduce("x", made, None, tmp_path, Quiet())
    assert ran == [0, 1, 2]
    assert done["verdict"] == "reproduced"
    written = json.loads((tmp_path / FILE).read_text())
    assert written == done
    assert written["figures"]["ours"]["accuracy, %"] == [81.0, 83.0, 85.0]
    assert written["verdict"] == "reproduced"
    reproduce("x", made, None, tmp_path, Quiet(), code="changed")
    assert ran == [0, 1, 2, 0, 1, 2]


def test_a_file_that_was_cut_off_is_begun_anew(experiment: tuple[Experiment, list[int]], tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"experiment": "x", "seeds": {"0"')
    reproduce("x", experiment[0], None, tmp_path, Quiet(), seeds=2)
    assert experiment[1] == [0, 1]


def test_one_seed_is_inconclusive(experiment: tuple[Experiment, list[int]], tmp_path: Path) -> None:
    assert reproduce("x", experiment[0], None, tmp_path, Quiet(), seeds=1)["verdict"] == "inconclusive"


def test_data_that_are_needed_are_asked_for(experiment: tuple[Experiment, list[int]], tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="fashion_mnist"):
        reproduce("x", replace(experiment[0], data="fashion_mnist"), None, tmp_path, Quiet())


def test_tables_have_mean_spread_and_the_paired_difference(
    experiment: tuple[Experiment, list[int]], tmp_path: Path
) -> None:
    done = reproduce("x", experiment[0], None, tmp_path, Quiet())
    said = table.text(done)
    assert "83.00 +- 2.00" in said
    assert "+2.00 +- 0.58 (s.e., 3 seeds, p 0.074)" in said
    assert "verdict: reproduced (3 seeds" in said
    told = table.markdown(done)
    assert "| plain | 81.00 +- 1.00 |  |  |" in told
    assert "**holds**: ours - plain >= 1" in told


def test_what_holds_by_its_mean_alone_is_said_in_the_table_and_with_the_verdict() -> None:
    weak: dict[str, Any] = {"criterion": "a >= 1", "found": "+2", "holds": "by mean alone", "decides": True}
    aside = {"criterion": "b", "found": "+1", "holds": "by mean alone", "decides": False}
    told: dict[str, Any] = {"verdict": "reproduced", "findings": [weak, weak | {"holds": "yes"}, aside]}
    assert said(told) == "reproduced, 1 of 2 criteria by mean alone"
    assert said(told | {"findings": [weak | {"holds": "yes"}, aside]}) == "reproduced"
    told |= {"experiment": "x", "claim": "", "source": "", "bed": "", "columns": ["c"], "reference": "r", "data": ""}
    told |= {"figures": {"r": {"c": [1.0]}}, "used": [0], "cpu_s": 1.0, "machine": {"machine": "m", "torch": "t"}}
    assert "holds by its mean alone  a >= 1: +2" in table.text(told)
    assert "verdict: reproduced, 1 of 2 criteria by mean alone (" in table.text(told)
    assert "- **holds by its mean alone**: a >= 1: +2." in table.markdown(told)
    assert "### x: reproduced, 1 of 2 criteria by mean alone" in table.markdown(told)


class Said(Quiet):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def by_name(experiment: tuple[Experiment, list[int]], monkeypatch: pytest.MonkeyPatch) -> tuple[Experiment, list[int]]:
    """Workers find the experiment as "x"."""
    found = {("compress.experiments", "x"): SimpleNamespace(EXPERIMENT=experiment[0])}
    monkeypatch.setattr(catalog, "load", lambda *place: found[place])
    return experiment


def test_workers_run_what_is_not_finished_and_say_what_this_process_would(
    by_name: tuple[Experiment, list[int]], tmp_path: Path
) -> None:
    made, ran = by_name
    here, there = Said(), Said()
    expected = reproduce("x", made, None, tmp_path / "here", here)
    reproduce("x", made, None, tmp_path / "there", Quiet(), seeds=1)
    with Serial() as workers:
        told = reproduce("x", made, None, tmp_path / "there", there, workers=workers)
    assert ran == [0, 1, 2, 0, 1, 2]
    assert there.lines == here.lines[1:] == ["seed 1 runs", "seed 2 runs"]
    timeless = {"cpu_s": 0, "seeds": 0, "machine": 0}
    assert told | timeless == expected | timeless
    assert told["machine"]["threads"] == 1
    assert json.loads((tmp_path / "there" / FILE).read_text())["seeds"].keys() == {"0", "1", "2"}


def test_a_seed_runs_on_one_thread_whatever_the_worker_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(data: Path | None, seed: int, say: Callable[[str], None]) -> Figures:
        return {"arm": {"threads": float(torch.get_num_threads())}}

    monkeypatch.setattr(catalog, "load", lambda *place: SimpleNamespace(EXPERIMENT=SimpleNamespace(run=run)))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert one_seed("x", None, 0)["figures"] == {"arm": {"threads": 1.0}}
    finally:
        torch.set_num_threads(before)


def test_a_seed_that_fails_in_a_worker_is_told_with_its_fix(
    by_name: tuple[Experiment, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: Path | None, seed: int, say: Callable[[str], None]) -> Figures:
        raise TaskError("no pictures", fix="fetch them")

    broken = SimpleNamespace(EXPERIMENT=replace(by_name[0], run=fail))
    monkeypatch.setattr(catalog, "load", lambda *place: broken)
    with Serial() as workers, pytest.raises(UserError, match="seed 0 of x: no pictures") as caught:
        reproduce("x", by_name[0], None, tmp_path, Quiet(), workers=workers)
    assert caught.value.fix == "fetch them"


def test_figures_are_judged_again_by_other_criteria_and_nothing_runs(
    experiment: tuple[Experiment, list[int]], tmp_path: Path
) -> None:
    made, ran = experiment
    first = reproduce("x", made, None, tmp_path / "a", Quiet(), code="old")

    def stricter(results: Results) -> list[Finding]:
        gap = paired(results.of("ours", "accuracy, %"), results.of("plain", "accuracy, %"))
        return [Finding("ours - plain >= 3", str(gap), shown(gap, 3.0))]

    told = judge_again("x", replace(made, judge=stricter), tmp_path / "a" / FILE, tmp_path / "b", "new")
    assert ran == [0, 1, 2]
    assert (first["verdict"], told["verdict"]) == ("reproduced", "not reproduced at this scale")
    assert (told["code"], told["judged_by"]) == ("old", "new")
    same = {"findings": 0, "verdict": 0, "judged_by": 0}
    assert told | same == first | same
    assert json.loads((tmp_path / "b" / FILE).read_text()) == told


def test_figures_that_cannot_be_judged_are_refused(experiment: tuple[Experiment, list[int]], tmp_path: Path) -> None:
    made, _ = experiment
    reproduce("x", made, None, tmp_path, Quiet())
    path = tmp_path / FILE

    def judge(results: Results) -> list[Finding]:
        return [Finding("", "", shown(paired(results.of("theirs", "steps"), results.of("ours", "steps"))))]

    for name, changed, source, message in (
        ("y", made, path, "is of x, not of y"),
        ("x", replace(made, bed="another"), path, "run on another bed: a bed"),
        ("x", replace(made, judge=judge), path, "no figures of 'theirs'"),
        ("x", made, tmp_path / "absent.json", "no results of a finished run"),
    ):
        with pytest.raises(UserError, match=message):
            judge_again(name, changed, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
