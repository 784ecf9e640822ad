"""A whole search as plain data: what happened, what it cost, which cheap scores foretold the dear ones, the Pareto
front and where the choice lies on it. Pure functions; the report draws what they return.

How a search tells its story: make one `events.Event` per happening, in order, and at the end of each round

    summary = summarise(candidates, events, chosen=choice.identity, metric="accuracy", seed=0, selector="halving",
                        training=6.0, earlier=summary_of_the_round_before)

where `candidates` are all that the round knows (`Selection.ranked`, with their `rejected` and `proxies`). What comes
back is JSON, is kept as the select stage's `search.json`, and is all that the next round has to pass on.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from compress.contracts.metric import read_metric
from compress.contracts.selector import Candidate
from compress.selection import events as happened
from compress.selection import foretelling, spending
from compress.selection.events import Built, Charged, Chose, Costed, Event, Recalibrated, Scored, Trained
from compress.selection.pareto import pareto_front
from compress.selection.ranking import capacity

Row = dict[str, Any]
OBJECTIVES = (("latency_ms", "latency"), ("energy_mj", "energy"), ("memory_bytes", "memory"))


def summarise(
    candidates: Sequence[Candidate],
    events: Sequence[Event],
    *,
    chosen: str | None,
    metric: str,
    metric_unit: str = "%",
    seed: int,
    selector: str = "",
    training: float | None = None,
    tie: float = 0.0,
    earlier: Mapping[str, Any] | None = None,
) -> Row:
    """All of the search up to now.

    Args:
        candidates: every candidate of the last round, the rejected ones among them.
        events: of the last round, in the order in which they happened.
        chosen: identity of the choice; None while there is none.
        metric: name of the score, for people.
        metric_unit: of the score, "%" for a fraction or "" (`Task.metric_unit`).
        seed: of the search; the bootstrap draws from it.
        selector: its name.
        training: full trainings that the selector was allowed.
        tie: difference of two scores that the validation data cannot tell apart, such as one of its examples.
        earlier: what this function returned for the rounds before.

    Returns:
        Plain data without NaN: "rounds", "students" (those that an event names), "events", "progress", "cost",
        "foretold", "front", "chosen", "why".
    """
    story = [happened.from_json(item) for item in (earlier or {}).get("events", ())] + list(events)
    students = _students(candidates, story, (earlier or {}).get("students", {}))
    for identity, row in students.items():
        row["fate"] = fate(identity, row, story, chosen)
    front = pareto(students)
    affordable = {candidate.identity: candidate.cost.macs for candidate in candidates if candidate.rejected is None}
    affordable |= {i: row["macs"] for i, row in students.items() if row["scores"]}
    return {
        "format": 1,
        "metric": metric,
        "metric_unit": metric_unit,
        "selector": selector,
        "seed": seed,
        "allowed": training,
        "tie": tie,
        "rounds": rounds(story),
        "students": students,
        "events": [happened.to_json(event) for event in story],
        "progress": progress(story),
        "cost": spending.account(story, affordable, {i: row["macs"] for i, row in students.items()}, seed=seed),
        "foretold": foretelling.table(students, seed=seed),
        "front": front,
        "chosen": chosen,
        "why": place_on_the_front(students, front, chosen, tie, metric_unit),
    }


def with_artifact(summary: Mapping[str, Any], built: Built) -> Row:
    """The same search once its choice was built and costed on the target: fates, rounds and front tell of it.

    Raises:
        ValueError: the summary knows no such student.
    """
    story = [*map(happened.from_json, summary["events"]), built]
    students = _students((), story, summary["students"])
    for identity, row in students.items():
        row["fate"] = fate(identity, row, story, summary["chosen"])
    front = pareto(students)
    return dict(summary) | {
        "rounds": rounds(story),
        "students": students,
        "events": [happened.to_json(event) for event in story],
        "front": front,
        "why": place_on_the_front(students, front, summary["chosen"], summary["tie"], summary.get("metric_unit", "%")),
    }


def figures(candidate: Candidate) -> Row:
    """What a report says of one student."""
    cost = candidate.cost
    return {
        "space": candidate.space,
        "plan": candidate.plan.to_json(),
        "macs": cost.macs,
        "params": cost.params,
        "weight_bytes": cost.weight_bytes,
        "peak_activation_bytes": cost.peak_activation_bytes,
        "memory_bytes": cost.weight_bytes + cost.peak_activation_bytes,
        "latency_ms": cost.latency_ms,
        "interval_ms": list(cost.interval_ms),
        "origin": cost.origin,
        "energy_mj": cost.energy_mj,
        "capacity": capacity(cost),
        "rejected": candidate.rejected,
        "proxies": {name: value for name, value in candidate.proxies.items() if math.isfinite(value)},
    }


def scores_by_share(story: Sequence[Event]) -> dict[str, dict[float, float]]:
    """Student -> share of the training -> mean score over its seeds; a diverged seed makes the mean NaN."""
    each: dict[tuple[str, float], dict[int, float]] = defaultdict(dict)
    for event in story:
        if isinstance(event, Trained):
            each[event.identity, event.share][event.seed] = event.score
    found: dict[str, dict[float, float]] = defaultdict(dict)
    for (identity, share), seeds in each.items():
        found[identity][share] = sum(seeds.values()) / len(seeds)
    return dict(found)


def fate(identity: str, row: Row, story: Sequence[Event], chosen: str | None) -> str:
    """How far a student came, as words that end a line: "chosen", "stopped after 12.5 %", "finished", ..."""
    built = [event for event in story if isinstance(event, Built) and event.identity == identity]
    if built and not built[-1].met:
        return f"built and missed: {built[-1].why}" if built[-1].why else "built and missed"
    if identity == chosen:
        return "chosen"
    if row["rejected"] is not None:
        return f"rejected: {row['rejected']}"
    if not row["scores"]:
        return "not trained"
    share = max(entry["share"] for entry in row["scores"])
    if next(entry["score"] for entry in row["scores"] if entry["share"] == share) is None:
        return f"diverged within {100 * share:g} %"
    return "finished" if share >= happened.FULL else f"stopped after {100 * share:g} %"


def rounds(story: Sequence[Event]) -> list[Row]:
    """One row per round: how many were costed, scored without training and trained, what was built and learned."""
    rows = []
    for number in sorted({event.round for event in story}):
        own = [event for event in story if event.round == number]
        costed = [event for event in own if isinstance(event, Costed)]
        trained = [event for event in own if isinstance(event, Trained)]
        rows.append(
            {
                "round": number,
                "costed": sum(event.count for event in costed),
                "rejected": sum(event.rejected for event in costed),
                "scored": {event.name: event.count for event in own if isinstance(event, Scored)},
                "trials": len(trained),
                "remembered": sum(event.remembered for event in trained),
                "students": len({event.identity for event in trained}),
                "trainings": sum(event.share for event in own if isinstance(event, Trained | Charged)),
                "built": [happened.to_json(event) for event in own if isinstance(event, Built)],
                "learned": [happened.to_json(event) for event in own if isinstance(event, Recalibrated)],
                "chosen": next((event.identity for event in reversed(own) if isinstance(event, Chose)), None),
                "why": next((event.why for event in reversed(own) if isinstance(event, Chose)), ""),
            }
        )
    return rows


def progress(story: Sequence[Event]) -> list[Row]:
    """Every trial as a point: training spent when it ended, its score, and the best score until then.

    A trial that is repeated in a later round is told once. `trainings` counts what the selector charged as well.
    """
    points: list[Row] = []
    told: set[tuple[str, float, int]] = set()
    trainings, best = 0.0, -math.inf
    for event in story:
        if isinstance(event, Charged):
            trainings += event.share
        if not isinstance(event, Trained) or event.trial in told:
            continue
        told.add(event.trial)
        trainings += event.share
        best = max(best, event.score) if event.score == event.score else best
        points.append(
            {
                "trainings": trainings,
                "identity": event.identity,
                "share": event.share,
                "seed": event.seed,
                "score": _number(event.score),
                "best": best if math.isfinite(best) else None,
                "round": event.round,
                "remembered": event.remembered,
            }
        )
    return points


def pareto(students: Mapping[str, Row]) -> Row:
    """Who is beaten by nobody in score, latency, energy and memory, as far as these are known of all.

    Every student stands with the score of its longest training. Where those differ in length, `mixed` says so: a
    student that was trained less may still rise.

    Returns:
        "objectives"; "members"; "fastest": those on the front of score and latency alone, the fastest first.
    """
    ready = {
        identity: row
        for identity, row in students.items()
        if row["score"] is not None and row["rejected"] is None and not row["fate"].startswith("built and missed")
    }
    names = [(key, name) for key, name in OBJECTIVES if ready and all(row[key] is not None for row in ready.values())]
    order = sorted(ready, key=lambda identity: (ready[identity]["latency_ms"], -ready[identity]["score"], identity))
    every = pareto_front([(-ready[i]["score"], *(ready[i][key] for key, _ in names)) for i in order])
    two = pareto_front([(-ready[i]["score"], ready[i]["latency_ms"]) for i in order])
    return {
        "objectives": ["score", *(name for _, name in names)],
        "members": [order[place] for place in every],
        "fastest": [order[place] for place in two],
        "mixed": len({row["fidelity"] for row in ready.values()}) > 1,
    }


def place_on_the_front(
    students: Mapping[str, Row], front: Row, chosen: str | None, tie: float = 0.0, unit: str = "%"
) -> str:
    """Where the choice lies on the front of score and latency: its neighbours and what they would give and take."""
    if chosen is None or chosen not in students or students[chosen]["score"] is None:
        return ""
    row, line, metric = students[chosen], front["fastest"], read_metric({"metric_unit": unit})
    tried = sum(other["score"] is not None for other in students.values())
    if chosen not in line:
        better = [students[i] for i in line if _beats(students[i], row)]
        if not better:
            return ""
        best = max(better, key=lambda other: other["score"])
        gap = best["score"] - row["score"]
        ahead = f"a student of {best['latency_ms']:.3g} ms scores {metric.gap(gap)} more"
        beaten = f"It is not on the front of {len(line)}: {ahead}"
        if gap <= tie * (1 + 1e-9):
            return f"{beaten}, which the validation data cannot tell apart; of such students the cheaper one is taken."
        shares = f"{100 * best['fidelity']:g} % of the training; the choice had {100 * row['fidelity']:g} %."
        return f"{beaten} after {shares}"
    place = line.index(chosen)
    said = [f"It is one of {len(line)} of {tried} trained students that no other beats in both score and latency"]
    if place + 1 < len(line):
        slower = students[line[place + 1]]
        said.append(
            f"the next slower one scores {metric.gap(slower['score'] - row['score'])} more for "
            f"{slower['latency_ms'] - row['latency_ms']:.3g} ms more"
        )
    else:
        said.append("none scores higher")
    if place:
        faster = students[line[place - 1]]
        said.append(
            f"the next faster one saves {row['latency_ms'] - faster['latency_ms']:.3g} ms and loses "
            f"{metric.gap(row['score'] - faster['score'])}"
        )
    else:
        said.append("none is faster")
    return "; ".join(said) + "."


def _students(candidates: Sequence[Candidate], story: Sequence[Event], before: Mapping[str, Any]) -> dict[str, Row]:
    """The students that an event names, in the order of their first event, with all that is known of them."""
    known = {candidate.identity: candidate for candidate in candidates}
    scores = scores_by_share(story)
    rows: dict[str, Row] = {}
    for event in story:
        if not isinstance(event, Trained | Built | Chose) or event.identity in rows:
            continue
        if event.identity in known:
            rows[event.identity] = figures(known[event.identity])
        elif event.identity in before:
            rows[event.identity] = dict(before[event.identity])
        else:
            raise ValueError(f"{type(event).__name__} of {event.identity}, which is no candidate")
        own = sorted(scores.get(event.identity, {}).items())
        last = next(((share, score) for share, score in reversed(own) if score == score), (0.0, None))
        rows[event.identity] |= {
            "scores": [{"share": share, "score": _number(score)} for share, score in own],
            "score": last[1],
            "fidelity": last[0],
        }
    for event in story:
        if isinstance(event, Built):
            rows[event.identity] |= {
                "latency_ms": event.latency_ms,
                "interval_ms": list(event.interval_ms),
                "origin": event.origin,
                "built_score": event.score,
            }
    return rows


def _beats(one: Row, other: Row) -> bool:
    better = one["score"] >= other["score"] and one["latency_ms"] <= other["latency_ms"]
    return bool(better and (one["score"] > other["score"] or one["latency_ms"] < other["latency_ms"]))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
