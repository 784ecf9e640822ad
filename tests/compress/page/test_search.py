"""The search's section: what it says of cost, trust and history, and that it draws what the summary holds."""

import re
from types import ModuleType
from typing import Any

import pytest

from compress.page import choice, fronts, search


@pytest.fixture
def told(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["selection"]["search"]
    return found


def words(content: dict[str, Any]) -> str:
    """The section's text without its plot."""
    html = re.sub(r"<script.*?</script>", "", str(search.searched(content)), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_cpu_time_changes_its_unit_at_a_tenth_of_an_hour() -> None:
    assert search.cpu_time(None) == "–"
    assert search.cpu_time(359.0) == "359 CPU s"
    assert search.cpu_time(360.0) == "0.1 CPU h"
    assert search.cpu_time(7200.0) == "2 CPU h"
    assert search.cpu_time(36.0, beside=7200.0) == "0.01 CPU h"  # what is compared has one unit
    assert search.cpu_time(36.0, beside=7.0) == "36 CPU s"


def test_the_cost_and_how_it_was_obtained(content: dict[str, Any], told: dict[str, Any]) -> None:
    told["cost"] = {
        "trials": 12,
        "trainings": 2.5,
        "cpu_s": 1800.0,
        "of_remembered_s": 36.0,
        "of_costing_s": 20.0,
        "of_scoring_s": 5.0,
        "charges_predicted": False,
        "exhaustive": {
            "students": 100,
            "cpu_s": 90000.0,
            "low_s": 72000.0,
            "high_s": 108000.0,
            "measured": 2,
            "predicted": 98,
        },
        "times_less": 50.0,
        "times_less_trainings": 40.0,
    }
    text = words(content)
    assert "this search 0.5 CPU h 2.5 full trainings in 12 trials measured" in text
    assert "training all 100 that fit 25 CPU h 20 CPU h to 30 CPU h predicted" in text
    assert "less than training all 50× 40× in full trainings predicted" in text
    assert "looks without training 25 CPU s costing 20 CPU s, scores 5 CPU s measured" in text
    assert "36 CPU s of it was remembered" in text
    assert "2 were done; the other 98 are predicted" in text
    assert "was not timed" not in text
    everything = told["cost"]["exhaustive"]
    everything |= {"measured": 100, "predicted": 0, "low_s": 90000.0, "high_s": 90000.0}
    told["cost"]["charges_predicted"] = True
    text = words(content)
    assert "training all 100 that fit 25 CPU h measured" in text
    assert "this search 0.5 CPU h 2.5 full trainings in 12 trials predicted" in text
    assert "was not timed" in text


def test_what_is_unknown_is_not_invented(content: dict[str, Any], told: dict[str, Any]) -> None:
    told["cost"]["exhaustive"] |= {"cpu_s": None, "low_s": None, "high_s": None}
    told["cost"] |= {"times_less": None}
    text = words(content)
    assert re.search(r"training all \d+ that fit – less than training all – ", text)


def test_trust_by_hand(content: dict[str, Any], told: dict[str, Any]) -> None:
    def row(name: str, count: int, low: float, high: float) -> dict[str, Any]:
        estimate = {"value": (low + high) / 2, "low": low, "high": high}
        given = {"parameters": estimate, "latency": None}
        return {"name": name, "count": count, "kendall": estimate, "spearman": estimate, "given": given, "loss": 0.0123}

    lines = [row("good", 9, 0.1, 0.5), row("size", 9, -0.2, 0.4), row("bad", 9, -0.6, -0.2)]
    lines.append({"name": "new", "count": 4, "kendall": None, "spearman": None, "given": {}, "loss": None})
    told["foretold"] = {"share": 0.5, "students": 9, "few": 5, "rows": lines}
    text = words(content)
    good = "+0.30 +0.10 to +0.50"
    assert f"good 9 {good} {good} {good} undefined −1.23 points yes" in text
    assert "size 9 +0.10 −0.20 to +0.40" in text
    assert text.count("not shown") == 1
    assert "−0.40 −0.60 to −0.20 undefined −1.23 points the opposite" in text
    few = "too few to say"
    assert f"new 4 {few} {few} {few} {few} – {few}" in text
    assert "against the accuracy after 50 % of the training, the longest that 9 students had" in text


def test_the_history_has_every_trial(content: dict[str, Any], told: dict[str, Any]) -> None:
    figure = search._history(told, "accuracy")
    assert figure is not None
    by_name = {trace["name"]: trace for trace in figure.traces}
    assert list(by_name) == ["best so far", "after 10 %", "after 30 %", "after 100 %", "chosen"]
    points = told["progress"]
    assert sum(len(by_name[f"after {share} %"]["x"]) for share in (10, 30, 100)) == len(points)
    best = by_name["best so far"]
    assert best["y"] == sorted(best["y"])
    assert best["x"][-1] == points[-1]["trainings"]
    (line,) = figure.layout["shapes"]  # the second round begins where the first one's last trial ended
    assert line["x0"] == points[-2]["trainings"]
    assert line["label"]["text"] == "round 2"


def test_diverged_trials_are_not_drawn(told: dict[str, Any]) -> None:
    told["progress"][0] |= {"score": None, "best": None}
    figure = search._history(told, "accuracy")
    assert figure is not None
    assert sum(len(trace["x"]) for trace in figure.traces if trace["name"].startswith("after")) == 26
    told["progress"] = []
    assert search._history(told, "accuracy") is None


def test_rounds_tell_what_was_built_and_learned(content: dict[str, Any]) -> None:
    text = words(content)
    assert "diswot: 240" in text
    assert "26 (6 remembered)" in text
    assert "5.9 ms measured, 4.4 ms predicted: missed, latency is above the budget" in text
    assert (
        "From round 2 on the predicted latency is multiplied by 1.34, from 1 built artifact: 5.9 ms were measured, "
        "4.4 ms predicted." in text
    )
    assert "ratio 4.25, trusted True" in text  # the selector's notes


def test_runs_without_a_search_say_so(content: dict[str, Any]) -> None:
    del content["selection"]["search"]
    assert search.searched(content) is None
    assert choice.chosen(content) is not None


def test_the_choice_is_explained_by_its_neighbours(content: dict[str, Any], told: dict[str, Any]) -> None:
    told["why"] = "It is one of 3 <of> 4."
    assert "It is one of 3 &lt;of&gt; 4." in str(choice.chosen(content))


def test_the_score_is_drawn_against_each_cost(content: dict[str, Any], maker: ModuleType) -> None:
    every = content["selection"]["candidates"]
    figure = fronts.pareto(content)
    assert figure is not None
    assert list(figure.choices) == ["latency", "memory", "MACs"]  # the energy is not known
    for name, change in figure.choices.items():
        assert len(change["traces"]) == len(figure.traces)
        for trace, new in zip(figure.traces, change["traces"], strict=True):
            if trace["name"] != "Pareto front":
                assert len(new["x"]) == len(trace["x"])
        front = next(n for n, trace in enumerate(figure.traces) if trace["name"] == "Pareto front")
        line = change["traces"][front]
        assert line["x"] == sorted(line["x"])
        assert line["y"] == sorted(line["y"])
        marks = [n for n, trace in enumerate(figure.traces) if trace["name"].endswith("(validation)")]
        assert all(change["traces"][n]["error_x"]["visible"] is (name == "latency") for n in marks)
    for row in every:
        row["energy_mj"] = 0.1
    with_energy = fronts.pareto(content)
    assert with_energy is not None
    assert list(with_energy.choices) == ["latency", "memory", "MACs", "energy"]


def test_full_trainings_are_told_from_short_ones(content: dict[str, Any]) -> None:
    trained = [row for row in content["selection"]["candidates"] if row["score"] is not None and not row["chosen"]]
    trained[0]["fidelity"] = 1.0
    figure = fronts.pareto(content)
    assert figure is not None
    counts = {trace["name"]: (len(trace["x"]), trace["marker"]["symbol"]) for trace in figure.traces[1:]}
    assert counts["trained fully (validation)"] == (1, "circle")
    assert counts["trained briefly (validation)"] == (len(trained) - 1, "circle-open")


def test_a_rejected_student_is_not_on_the_front(content: dict[str, Any]) -> None:
    selection = content["selection"]
    selection["front"] = []
    best = max((row for row in selection["candidates"] if row["score"] is not None), key=lambda row: row["score"])
    for reason, there in ((None, True), ("was built and missed", False)):
        best["rejected"] = reason
        figure = fronts.pareto(content)
        assert figure is not None
        assert (100 * best["score"] in figure.traces[0]["y"]) is there
