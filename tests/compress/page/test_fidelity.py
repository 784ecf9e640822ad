"""What a reader is told of copies: figures with intervals, bounds that are proposed, what was not measured."""

import copy
import re
from typing import Any

from compress.page import diagnostics, fidelity


def words(html: str | None) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html or ""))


def test_every_pair_has_its_figures_and_what_the_accuracies_alone_allow(content: dict[str, Any]) -> None:
    said = words(fidelity.copies(content))
    assert "float student teacher 95.12 % 94.72 to 95.52 % 84.07 % to 99.35 % 0.0821" in said
    assert "at least 98 % agreement and at most 0.02 nats: ✓ kept" in said
    assert "agreement 97.31 % (96.91 to 97.71 %), KL 0.0521 nats, 20 k examples" in said
    assert "+4.12 points" in said
    assert "teacher 92.36 % 0.2311 2.13 %" in said


def test_what_was_not_measured_is_not_shown(content: dict[str, Any]) -> None:
    assert fidelity.copies({}) is None
    assert fidelity.copies({"verify": {"fidelity": {}}}) is None
    less = copy.deepcopy(content)
    found = less["verify"]["fidelity"]
    del found["fidelity_gap"]
    found["distillation"] = {"why": "the data strategy <gave> nothing"}
    found["shipped"]["kept"] = False
    html = fidelity.copies(less)
    assert "&lt;gave&gt;" in (html or "")
    assert "✗ not kept" in words(html)
    assert "control" not in words(html)


def test_a_teacher_that_contradicts_the_labels_is_warned_of(content: dict[str, Any]) -> None:
    assert "contradicts" not in words(diagnostics.diagnostics(content))
    content["verify"]["diagnostics"]["true_class"]["true_class_probability"] = 0.29
    assert "The teacher contradicts the labels" in words(diagnostics.diagnostics(content))


def test_recalls_are_shares_as_the_metric_is_and_coefficients_are_not() -> None:
    figures = {
        "embedding_space": {"cosine, mean": 0.6912, "recall@10, asymmetric, 8 bits": 0.8651},
        "concordance": {"student and teacher": 0.9123},
    }
    said = words(diagnostics.diagnostics({"verify": {"diagnostics": figures}}))
    assert "cosine, mean 0.6912" in said
    assert "recall@10, asymmetric, 8 bits 86.51 %" in said
    assert "student and teacher 0.9123" in said
