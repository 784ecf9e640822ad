"""The story of a search worked out by hand, and what it may not do: lose a round, count a trial twice, write NaN."""

import dataclasses
import json
import math
import random
from typing import Any

import pytest

from compress.contracts.selector import Candidate, Outcome, Trial
from compress.selection import events as happened
from compress.selection import foretelling, spending
from compress.selection.events import Built, Charged, Chose, Costed, Event, Recalibrated, Scored, Trained
from compress.selection.history import summarise, with_artifact
from compress.selection.spending import Timed, constants, seconds_of, training_all
from profiles.cost import Cost


@dataclasses.dataclass(frozen=True)
class Number:
    value: int

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value}


def candidate(
    value: int,
    *,
    macs: int = 1000,
    params: int = 10,
    latency_ms: float = 1.0,
    rejected: str | None = None,
    **proxies: float,
) -> Candidate:
    interval = (0.8 * latency_ms, 1.2 * latency_ms)
    cost = Cost("t", "r", 1, "int8", macs, params, params, 100, latency_ms, interval, "predicted")
    return Candidate("a", Number(value), cost, rejected, proxies=proxies)


SMALL = candidate(0, macs=1000, latency_ms=1.0)
MIDDLE = candidate(1, macs=2000, latency_ms=2.0)
LARGE = candidate(2, macs=3000, latency_ms=3.0)
SLOW = candidate(3, macs=9000, latency_ms=9.0, rejected="latency 9 ms is over the budget of 4 ms by 5 ms")
OTHER = candidate(4, macs=4000, latency_ms=2.5)
ALL = (SMALL, MIDDLE, LARGE, SLOW, OTHER)

# Each trial takes 1 s, and 2 s per thousand multiply-accumulates of a full training.
STORY: tuple[Event, ...] = (
    Costed(1, 5, 1, cpu_s=2.0),
    Scored(1, "diswot", 4, cpu_s=1.0),
    Trained(1, SMALL.identity, 0.25, 0, 0.70, 1.5),
    Trained(1, MIDDLE.identity, 0.25, 0, 0.80, 2.0),
    Trained(1, LARGE.identity, 0.25, 0, math.nan, 2.5),
    Trained(1, MIDDLE.identity, 1.0, 0, 0.90, 5.0),
    Trained(1, MIDDLE.identity, 1.0, 1, 0.92, 5.0, remembered=True),
    Chose(1, MIDDLE.identity, "highest"),
)


def told(events: tuple[Event, ...] = STORY, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"chosen": MIDDLE.identity, "metric": "accuracy", "seed": 0} | changes
    return summarise(given.pop("candidates", ALL), events, **given)


def test_the_summary_is_json_without_nan_and_repeats() -> None:
    summary = told()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert told() == summary


def test_every_event_comes_back() -> None:
    events = (
        *STORY,
        Charged(1, 2.0, "supernet", None),
        Built(1, MIDDLE.identity, 2.4, (2.3, 2.5), "measured", 2.0, 0.89, False, "too slow"),
        Recalibrated(2, "latency", 1.2, 1, "measured 2.4 ms, predicted 2 ms"),
    )
    back = [happened.from_json(json.loads(json.dumps(happened.to_json(event)))) for event in events]
    assert [event for event in back if not _diverged(event)] == [event for event in events if not _diverged(event)]
    assert sum(map(_diverged, back)) == 1  # NaN does not equal itself
    with pytest.raises(ValueError, match="no event is called 'danced'; there are costed, "):
        happened.from_json({"kind": "danced"})


def _diverged(event: Event) -> bool:
    return isinstance(event, Trained) and math.isnan(event.score)


def test_a_trial_and_its_outcome_are_an_event() -> None:
    event = happened.trained(2, Trial(SMALL, 0.5, 1), Outcome(0.7, 3.0, True))
    assert event == Trained(2, SMALL.identity, 0.5, 1, 0.7, 3.0, True)


def test_students_scores_and_fates() -> None:
    rows = told()["students"]
    assert list(rows) == [SMALL.identity, MIDDLE.identity, LARGE.identity]  # those that something happened to
    assert [row["fate"] for row in rows.values()] == ["stopped after 25 %", "chosen", "diverged within 25 %"]
    assert rows[MIDDLE.identity]["scores"] == [
        {"share": 0.25, "score": 0.80},
        {"share": 1.0, "score": pytest.approx(0.91)},  # the mean of two seeds
    ]
    assert (rows[MIDDLE.identity]["score"], rows[MIDDLE.identity]["fidelity"]) == (pytest.approx(0.91), 1.0)
    assert (rows[LARGE.identity]["score"], rows[LARGE.identity]["fidelity"]) == (None, 0.0)
    with pytest.raises(ValueError, match="which is no candidate"):
        told((Trained(1, "0" * 24, 1.0, 0, 0.5, 1.0),))


def test_rounds_and_progress_by_hand() -> None:
    summary = told()
    (row,) = summary["rounds"]
    counts = {key: row[key] for key in ("costed", "rejected", "scored", "trials", "remembered", "students")}
    assert counts == {
        "costed": 5,
        "rejected": 1,
        "scored": {"diswot": 4},
        "trials": 5,
        "remembered": 1,
        "students": 3,
    }
    assert row["trainings"] == pytest.approx(2.75)
    assert (row["chosen"], row["why"]) == (MIDDLE.identity, "highest")
    points = summary["progress"]
    assert [point["trainings"] for point in points] == [0.25, 0.5, 0.75, 1.75, 2.75]
    assert [point["best"] for point in points] == [0.70, 0.80, 0.80, 0.90, 0.92]
    assert points[2]["score"] is None


def test_cost_by_hand() -> None:
    cost = told()["cost"]
    assert cost["trials"] == 5
    assert cost["trainings"] == pytest.approx(2.75)
    assert cost["of_trials_s"] == pytest.approx(16.0)
    assert cost["of_remembered_s"] == pytest.approx(5.0)
    assert cost["cpu_s"] == pytest.approx(16.0 + 2.0 + 1.0)
    # Full trainings: 3, 5 (done), 7 and 9 s of the four that meet the budget.
    everything = cost["exhaustive"]
    assert everything["students"] == 4
    assert everything["cpu_s"] == pytest.approx(24.0)
    assert (everything["measured"], everything["predicted"]) == (1, 3)
    assert everything["low_s"] <= everything["cpu_s"] <= everything["high_s"]
    assert cost["times_less"] == pytest.approx(24 / 19)
    assert cost["times_less_trainings"] == pytest.approx(4 / 2.75)


def test_what_a_selector_trains_itself_is_counted() -> None:
    timed = told((*STORY, Charged(1, 2.0, "supernet", 8.0)))["cost"]
    assert timed["cpu_s"] == pytest.approx(19.0 + 8.0)
    assert timed["trainings"] == pytest.approx(4.75)
    assert not timed["charges_predicted"]
    untimed = told((*STORY, Charged(1, 2.0, "supernet")))["cost"]
    assert untimed["of_charges_s"] == pytest.approx(2.0 * 24 / 4)  # two trainings of the mean student
    assert untimed["charges_predicted"]


def test_the_constants_of_training_come_back() -> None:
    """1 s per trial, 4 s per training, 2 s per thousand multiply-accumulates of one."""
    trials = [Timed(macs, share, 1 + share * (4 + 2e-3 * macs)) for macs in (500, 4000) for share in (0.1, 0.5, 1.0)]
    assert constants(trials) == pytest.approx([1.0, 4.0, 2e-3])
    assert seconds_of(constants(trials), 10_000) == pytest.approx(25.0)
    total = training_all([7.0], [1000, 3000], trials, seed=0)
    assert total.cpu_s == pytest.approx(7.0 + 7.0 + 11.0)
    assert (total.low, total.high) == pytest.approx((25.0, 25.0))  # no error, no width
    assert (constants([Timed(1000, 0.5, 1.0)]) == [0.0, 0.0, 2e-3]).all()  # one alone: in proportion to its work
    # Time that falls with the work: no constant goes below zero.
    assert (constants([Timed(1000, 1.0, 5.0), Timed(2000, 1.0, 4.0), Timed(4000, 1.0, 3.0)]) >= 0).all()


def test_what_cannot_be_predicted_is_not() -> None:
    nothing = training_all([], [1000], [], seed=0)
    assert math.isnan(nothing.cpu_s)
    one = training_all([], [1000], [Timed(1000, 0.5, 1.0)], seed=0)
    assert one.cpu_s == pytest.approx(2.0)
    assert math.isnan(one.low)
    assert training_all([1.0, 2.0], [], [], seed=0) == spending.Total(3.0, 3.0, 3.0, 2, 0)
    with pytest.raises(ValueError, match="no trial took any time"):
        constants([Timed(1000, 1.0, 0.0)])
    assert told(())["cost"]["exhaustive"]["cpu_s"] is None


def test_the_interval_of_the_total_holds_the_truth() -> None:
    """Trials with 10 % of noise foretell 40 other trainings; 12 searches, 90 % intervals."""
    held = 0
    for seed in range(12):
        rng = random.Random(seed)
        trials = [
            Timed(macs, share, (1 + share * (4 + 2e-3 * macs)) * math.exp(rng.gauss(0, 0.1)))
            for macs in (500, 1000, 2000, 4000)
            for share in (0.1, 0.3, 1.0)
        ]
        total = training_all([], [100 * n for n in range(1, 41)], trials, seed=seed)
        held += total.low <= sum(5 + 0.2 * n for n in range(1, 41)) <= total.high
    assert held >= 8  # 10.8 are expected; fewer than 8 have a chance below 1 %


def test_too_few_students_say_nothing() -> None:
    found = told()["foretold"]
    assert (found["share"], found["students"]) == (1.0, 1)  # no share has five students: the highest there is
    assert all(row["kendall"] is None and row["spearman"] is None for row in found["rows"])


def test_cheap_scores_against_the_dear_one() -> None:
    """Six students: params order them but for one pair; the proxy knows nothing; early scores know everything."""
    params = [10, 20, 30, 40, 50, 60]
    final = [0.70, 0.72, 0.74, 0.76, 0.80, 0.78]
    proxy = [3.0, 1.0, 2.0, 2.0, 3.0, 1.0]
    students = [
        candidate(n, params=p, macs=1000, latency_ms=float(7 - n), diswot=s)
        for n, (p, s) in enumerate(zip(params, proxy, strict=True))
    ]
    events = [Trained(1, c.identity, 0.25, 0, s - 0.2, 1.0) for c, s in zip(students, final, strict=True)]
    events += [Trained(1, c.identity, 0.5, 0, s, 2.0) for c, s in zip(students, final, strict=True)]
    events.append(Trained(1, students[4].identity, 1.0, 0, 0.83, 4.0))
    found = told(tuple(events), candidates=students, chosen=students[4].identity)["foretold"]
    assert (found["share"], found["students"]) == (0.5, 6)  # only one went further
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == [
        "parameters",
        "multiply-accumulates",
        "capacity",
        "latency",
        "diswot",
        "score after 25 % of the training",
    ]
    assert rows["parameters"]["kendall"]["value"] == pytest.approx(13 / 15)
    assert rows["parameters"]["spearman"]["value"] == pytest.approx(1 - 6 * 2 / (6 * 35))
    assert rows["parameters"]["given"]["parameters"] is None  # nothing is left of it
    assert rows["parameters"]["loss"] == pytest.approx(0.02)  # its favourite is the last one
    assert rows["multiply-accumulates"]["kendall"] is None  # all equal
    assert rows["multiply-accumulates"]["loss"] == pytest.approx(0.80 - sum(final) / 6)
    assert rows["latency"]["kendall"]["value"] == pytest.approx(-13 / 15)
    assert rows["diswot"]["loss"] == pytest.approx((0.10 + 0.0) / 2)  # two favourites
    early = rows["score after 25 % of the training"]
    assert early["kendall"] == {"value": 1.0, "low": pytest.approx(1.0), "high": pytest.approx(1.0)}
    assert early["given"]["parameters"]["value"] == pytest.approx(1.0)
    assert early["loss"] == 0.0


def test_an_undefined_score_leaves_its_student_out() -> None:
    truth = {str(n): float(n) for n in range(6)}
    cheap = {"x": {"0": math.nan} | {str(n): float(n) for n in range(1, 6)}}
    (row,) = foretelling.foretold(cheap, truth | {"9": math.nan}, {}, seed=0)
    assert row.count == 5
    assert row.kendall is not None
    assert row.kendall.value == 1.0


def test_the_front_and_the_place_of_the_choice() -> None:
    events = (
        Trained(1, SMALL.identity, 1.0, 0, 0.85, 1.0),
        Trained(1, MIDDLE.identity, 1.0, 0, 0.90, 1.0),
        Trained(1, OTHER.identity, 1.0, 0, 0.89, 1.0),  # slower and worse than MIDDLE
        Trained(1, LARGE.identity, 1.0, 0, 0.91, 1.0),
    )
    summary = told(events)
    line = [SMALL.identity, MIDDLE.identity, LARGE.identity]
    assert summary["front"] == {
        "objectives": ["score", "latency", "memory"],  # the energy is not known
        "members": line,
        "fastest": line,
        "mixed": False,
    }
    assert summary["why"] == (
        "It is one of 3 of 4 trained students that no other beats in both score and latency; the next slower one "
        "scores 1.00 points more for 1 ms more; the next faster one saves 1 ms and loses 5.00 points."
    )
    assert "none scores higher; the next faster" in told(events, chosen=LARGE.identity)["why"]
    assert told(events, chosen=SMALL.identity)["why"].endswith("none is faster.")
    beaten = told(events, chosen=OTHER.identity)["why"]
    assert beaten.startswith("It is not on the front of 3: a student of 2 ms scores 1.00 points more")
    assert beaten.endswith("after 100 % of the training; the choice had 100 %.")
    tied = told(events, chosen=OTHER.identity, tie=0.01)["why"]
    assert "scores 1.00 points more, which the validation data cannot tell apart" in tied
    assert "apart" not in told(events, chosen=OTHER.identity, tie=0.009)["why"]
    light = dataclasses.replace(OTHER, cost=dataclasses.replace(OTHER.cost, weight_bytes=1))
    front = told(events, candidates=(SMALL, MIDDLE, LARGE, light))["front"]
    assert OTHER.identity in front["members"]  # nothing has as little memory
    assert OTHER.identity not in front["fastest"]


def test_a_round_that_missed_is_told_in_the_next() -> None:
    first = told(
        (
            *STORY,
            Built(1, MIDDLE.identity, 4.4, (4.3, 4.5), "measured", 2.0, 0.89, False, "latency is above the budget"),
        )
    )
    first = json.loads(json.dumps(first))
    factor = Recalibrated(2, "latency", 2.2, 1, "measured 4.4 ms, predicted 2 ms")
    events = (
        factor,
        Costed(2, 2, 1),
        Trained(2, SMALL.identity, 0.25, 0, 0.70, 1.5, remembered=True),  # as the first round had it
        Trained(2, SMALL.identity, 1.0, 0, 0.86, 3.0),
        Chose(2, SMALL.identity),
    )
    pool = (SMALL, dataclasses.replace(LARGE, rejected="over"))  # MIDDLE is no candidate any more
    second = told(events, candidates=pool, chosen=SMALL.identity, earlier=first)
    assert [row["round"] for row in second["rounds"]] == [1, 2]
    assert second["rounds"][1]["learned"] == [happened.to_json(factor)]
    assert second["rounds"][0]["built"][0]["met"] is False
    missed = second["students"][MIDDLE.identity]
    assert missed["fate"] == "built and missed: latency is above the budget"
    assert (missed["latency_ms"], missed["origin"]) == (4.4, "measured")
    assert MIDDLE.identity not in second["front"]["members"]
    assert second["cost"]["trials"] == 6  # the remembered one is the first round's
    assert second["cost"]["of_trials_s"] == pytest.approx(16.0 + 3.0)
    assert len(second["progress"]) == 6
    assert told((), candidates=pool, chosen=SMALL.identity, earlier=second)["events"] == second["events"]


def test_the_artifact_of_the_choice_ends_the_story() -> None:
    summary = told()
    built = Built(1, MIDDLE.identity, 2.5, (2.4, 2.6), "emulated", 2.0)
    ended = with_artifact(summary, built)
    assert (ended["students"][MIDDLE.identity]["latency_ms"], ended["students"][MIDDLE.identity]["origin"]) == (
        2.5,
        "emulated",
    )
    assert ended["students"][MIDDLE.identity]["fate"] == "chosen"
    assert ended["rounds"][0]["built"] == [happened.to_json(built)]
    assert ended["cost"] == summary["cost"]  # what training all would cost stays
    assert ended["foretold"] == summary["foretold"]
    assert summary == told()  # untouched
    with pytest.raises(ValueError, match="which is no candidate"):
        with_artifact(summary, dataclasses.replace(built, identity="0" * 24))
