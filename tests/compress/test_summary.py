"""The last lines of a run, from its records alone."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from compress.records import RECORD, Record, folder_name
from compress.summary import summarize

COST = {"macs": 2e6, "weight_bytes": 1500, "latency_ms": 1.25, "interval_ms": [1.0, 1.5], "origin": "predicted"}


def verified(run: Path, **metric: str) -> None:
    values: dict[str, Any] = {
        "accuracy": {"teacher": 0.9123, "float student": 0.9, "ONNX": 0.8876},
        "final": "ONNX",
        "examples": 10_000,
        "gates": [{"passed": True}, {"passed": False}],
        "artifacts": [],
        "costs": dict.fromkeys(("teacher", "float student", "shipped student"), COST),
        **metric,
    }
    folder = run / folder_name("verify")
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(json.dumps(asdict(Record("verify", "key", {}, {}, values, 0.0))))


@pytest.mark.parametrize(
    ("metric", "column", "scores"),
    [
        ({"metric": "accuracy", "metric_unit": "%"}, "accuracy", ["91.23 %", "90.00 %", "88.76 %"]),
        ({"metric": "recall@10", "metric_unit": "%"}, "recall@10", ["91.23 %", "90.00 %", "88.76 %"]),
        ({"metric": "concordance", "metric_unit": ""}, "concordance", ["0.912", "0.900", "0.888"]),
    ],
)
def test_scores_stand_under_the_metric_s_name_in_its_unit(
    tmp_path: Path, metric: dict[str, str], column: str, scores: list[str]
) -> None:
    verified(tmp_path, **metric)
    found, text = summarize(tmp_path, "verify", ())
    header, *rows = text.splitlines()
    assert header.split() == [column, "MACs", "weights", "latency"]
    for row, score in zip(rows[:3], scores, strict=True):
        assert f"{score} 2.00 M 1.5 kB 1.25 ms predicted (1 to 1.5)" in " ".join(row.split())
    assert rows[3].startswith(f"{column} measured on 10,000 test examples, the shipped student's as ONNX;")
    assert rows[4] == "gates: 1 of 2 hold"
    assert found["accuracy"]["ONNX"] == 0.8876


@pytest.mark.parametrize("slower", [1.0, 1.5])
def test_a_student_that_is_slower_than_its_teacher_says_so(tmp_path: Path, slower: float) -> None:
    costs = {"teacher": COST, "float student": COST, "shipped student": COST | {"latency_ms": 1.25 * slower}}
    verified(tmp_path, metric="accuracy", metric_unit="%", costs=costs)  # type: ignore[arg-type]
    text = summarize(tmp_path, "verify", ())[1]
    told = (
        "note: the student is 1.5 times as slow as its teacher at batch 1 (predicted); --budget latency_ms=1.25 admits"
    )
    assert (told in text) == (slower > 1)
