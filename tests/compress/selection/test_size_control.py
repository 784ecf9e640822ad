"""The control's figures against the correlations themselves, and what is undefined."""

import json
import math
import random
from dataclasses import replace

import pytest

from compress.contracts.selector import Candidate, identity_of
from compress.selection.correlation import kendall, partial_spearman, spearman
from compress.selection.size_control import against_size
from profiles.cost import Cost


class Number(int):
    """A plan of one decision."""

    def to_json(self) -> dict[str, int]:
        return {"number": int(self)}


def student(number: int, score: float | None) -> Candidate:
    macs = 1000 * (number * number + 1)
    cost = Cost("t", "r", 1, "int8", macs, 100 + number, 1, 1, 1.0 / (number + 1), (0.0, 1.0), "predicted")
    return Candidate("a", Number(number), cost, None, score)


def test_figures_are_those_of_the_trained_students() -> None:
    rng = random.Random(0)
    tried = [student(number, rng.random()) for number in range(9)]
    score = {candidate.identity: rng.random() for candidate in tried}
    found = against_size(
        [*tried, student(50, None), student(51, math.nan), student(52, 0.5)],
        score | {identity_of("a", Number(52)): -math.inf},
    )
    cheap, truth = [score[c.identity] for c in tried], [c.score or 0.0 for c in tried]
    sizes = [c.cost.params for c in tried]
    assert found["students"] == 9
    assert found["spearman"] == pytest.approx(spearman(cheap, truth))
    assert found["kendall"] == pytest.approx(kendall(cheap, truth))
    assert found["given_parameters"] == pytest.approx(partial_spearman(cheap, truth, sizes))
    assert found["of_parameters"] == pytest.approx(spearman(sizes, truth))
    assert found["of_latency"] == pytest.approx(-found["of_parameters"])  # here the larger are the faster


def test_a_score_that_is_size_says_nothing_beyond_it() -> None:
    tried = [student(number, float(number % 4)) for number in range(8)]
    found = against_size(tried, {c.identity: float(c.cost.params) for c in tried})
    assert found["spearman"] == found["of_parameters"]
    assert found["given_parameters"] is None


def test_too_few_students_give_no_figures_and_it_is_plain_data() -> None:
    found = against_size([replace(student(1, 0.5))], {})
    assert found["students"] == 0
    assert all(value is None for name, value in found.items() if name != "students")
    json.dumps(found, allow_nan=False)
