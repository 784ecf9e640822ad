"""OFA's criteria on figures made up for them, and its bed's parts."""

import pytest
import torch

from compress.contracts.experiment import Finding, Results
from compress.experiments.ofa_kd import ACCURACY, CKA, EXPERIMENT, HINT, KD, LABELS, SHARP, alike, arms, features
from compress.reproduction import bed
from compress.reproduction.verdict import verdict


def judged(gain: float, near: float = 0.1, hint: float = -1.0, alike_by: float = 0.2, seeds: int = 3) -> list[Finding]:
    base = [80.0, 81.0, 82.0][:seeds]
    accuracies = {LABELS: 0.0, SHARP: gain, KD: gain - near, HINT: gain - hint}
    figures = {
        arm: {ACCURACY: tuple(value + more + 0.01 * n for n, value in enumerate(base))}
        for arm, more in accuracies.items()
    }
    figures[LABELS] = {ACCURACY: tuple(base)}
    for place in (1, 2, 3):
        figures[f"CNN with CNN, stage {place}"] = {CKA: (0.7 + alike_by,) * seeds}
        figures[f"CNN with mixer, stage {place}"] = {CKA: (0.7,) * seeds}
    for place in (1, 2, 3, 4):
        figures[f"mixer with mixer, stage {place}"] = {CKA: (0.7 + 0.04 * place,) * seeds}
    return list(EXPERIMENT.judge(Results(tuple(range(seeds)), figures)))


def holding(findings: list[Finding]) -> list[str]:
    return [finding.holds for finding in findings if finding.decides]


def test_the_pilots_figures_hold_but_for_the_papers_claim() -> None:
    assert holding(judged(0.78)) == ["yes", "yes", "yes", "yes", "yes", "no"]
    assert verdict(judged(0.78)) == "not reproduced at this scale"
    assert "against hint and KD" in judged(0.78)[-5].found


def test_a_gain_over_both_rivals_is_the_papers_claim() -> None:
    assert holding(judged(0.78, near=0.4, hint=0.3)) == ["yes"] * 6
    assert verdict(judged(0.78, near=0.4, hint=0.3)) == "reproduced"


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"gain": 0.3, "near": 0.1}, ["no", "yes", "yes", "yes", "yes"]),
        ({"gain": 0.78, "near": 0.6}, ["yes", "no", "yes", "yes", "yes"]),
        ({"gain": 0.78, "near": -0.6}, ["yes", "no", "yes", "yes", "yes"]),
        ({"gain": 0.78, "alike_by": 0.09}, ["yes", "yes", "no", "no", "no"]),
    ],
)
def test_each_criterion_can_fail(figures: dict[str, float], expected: list[str]) -> None:
    assert holding(judged(**figures))[:5] == expected


def test_one_seed_is_inconclusive() -> None:
    assert holding(judged(0.78, hint=0.3, seeds=1)) == ["undecided"] * 6
    assert verdict(judged(0.78, hint=0.3, seeds=1)) == "inconclusive"


def test_what_is_said_of_mixers_does_not_decide() -> None:
    told = [finding for finding in judged(0.78) if not finding.decides]
    assert [finding.holds for finding in told] == ["no", "no", "yes", "yes"]


def test_all_arms_hear_the_labels_and_differ_in_the_rest() -> None:
    made = {name: set(arm.objectives()) for name, arm in arms().items()}
    assert all("labels" in objectives for objectives in made.values())
    assert made[KD] == {"labels", "kd"}
    assert made[HINT] == {"labels", "kd", "features"}
    assert made[SHARP] == {"labels", "own", "branches"}
    assert arms()["OFA, g = 1.5, w = 0.25"].weights == {"branches": 0.25}


def test_a_network_is_like_itself_stage_by_stage() -> None:
    network = bed.cnn((4, 6, 8), 10).eval()
    pictures = bed.Pictures(torch.zeros(0), torch.zeros(0), torch.randn(2000, 1, 14, 14), torch.zeros(2000))
    seen = features(network, pictures.unseen, 3)
    assert [tuple(one.shape) for one in seen] == [(2000, 4), (2000, 6), (2000, 8)]
    figures = alike((seen, seen), ([seen[0]], [seen[0]]))
    assert all(abs(figures[f"CNN with CNN, stage {place}"][CKA] - 1) < 1e-9 for place in (1, 2, 3))
    assert abs(figures["CNN with mixer, stage 1"][CKA] - 1) < 1e-9
    assert figures["CNN with mixer, stage 3"][CKA] < 1
