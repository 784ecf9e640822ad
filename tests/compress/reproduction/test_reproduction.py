"""Statistics by hand, verdicts, and seeds that are not run twice."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from compress.contracts.experiment import Experiment, Figures, Finding, Results
from compress.errors import TaskError
from compress.progress import Quiet
from compress.reproduction import table
from compress.reproduction.paired import at_least, not_below, paired, shown
from compress.reproduction.run import FILE, reproduce
from compress.reproduction.verdict import verdict


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
        assert at_least(found, 0.2) == "undecided"
        assert not_below(found) == "undecided"

    def test_equal_differences(self) -> None:
        assert paired([2.0, 3.0], [1.0, 2.0]).p == 0.0
        assert paired([2.0, 3.0], [2.0, 3.0]).p == 1.0

    def test_unequal_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="cannot be paired"):
            paired([1.0], [1.0, 2.0])

    def test_bars(self) -> None:
        gap = paired([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
        assert (at_least(gap, 2.0), at_least(gap, 2.1)) == ("yes", "no")
        assert (at_least(gap, 1.0, errors=3.0), at_least(gap, 1.0, errors=4.0)) == ("yes", "no")
        assert (not_below(gap, 3.1), not_below(gap, 3.2)) == ("yes", "no")

    def test_a_mean_alone_shows_nothing(self) -> None:
        wide, narrow = paired([9.0, 1.0, 2.0], [0.0, 0.0, 0.0]), paired([4.1, 4.0, 3.9], [0.0, 0.0, 0.0])
        assert wide.mean == pytest.approx(narrow.mean)
        assert (shown(wide, 2.0), shown(narrow, 2.0)) == ("undecided", "yes")
        assert (shown(wide, 5.0), shown(paired([1.0], [0.0]), 0.5)) == ("no", "undecided")


def finding(holds: str, decides: bool = True) -> Finding:
    return Finding("a", "b", holds, decides)  # type: ignore[arg-type]


def test_verdicts() -> None:
    assert verdict([finding("yes"), finding("no", decides=False)]) == "reproduced"
    assert verdict([finding("yes"), finding("undecided")]) == "inconclusive"
    assert verdict([finding("undecided"), finding("no")]) == "not reproduced at this scale"
    with pytest.raises(ValueError, match="at least one"):
        verdict([finding("yes", decides=False)])


@pytest.fixture
def experiment() -> tuple[Experiment, list[int]]:
    ran: list[int] = []

    def run(data: Path | None, seed: int, say: Callable[[str], None]) -> Figures:
        ran.append(seed)
        return {"plain": {"accuracy, %": 80.0 + seed}, "ours": {"accuracy, %": 81.0 + 2 * seed, "steps": 7.0}}

    def judge(results: Results) -> list[Finding]:
        gap = paired(results.of("ours", "accuracy, %"), results.of("plain", "accuracy, %"))
        return [Finding("ours - plain >= 1", str(gap), at_least(gap, 1.0))]

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
    shown = table.markdown(done)
    assert "| plain | 81.00 +- 1.00 |  |  |" in shown
    assert "**holds**: ours - plain >= 1" in shown
