"""One rule for all experiments: a difference that seeds do not tell from none is undecided, and holds by its mean alone
where its specification's criterion is of the mean."""

from collections import defaultdict

import pytest

from compress import catalog
from compress.contracts.experiment import Experiment, Finding, Holds, Results

SHOWN: Holds = "undecided"
MEAN: Holds = "by mean alone"
CITESEER = "CiteSeer accuracy, %"
DICE = "foreground Dice, %"
CUT = "asymmetric, 64 of 384"
CCC = "CCC with the true attributes"
CASES = [
    ("bidirectional_copy_paste", "bidirectional copy-paste", DICE, 3.0, "beats the mean teacher", SHOWN),
    ("bidirectional_copy_paste", "bidirectional copy-paste", DICE, 3.0, "beats labels alone", SHOWN),
    ("ff_g2m", "GLNN", CITESEER, 10.0, "CiteSeer: GLNN - labels alone", MEAN),
    ("ff_g2m", "FF-G2M", CITESEER, 1.0, "CiteSeer: FF-G2M >= its teacher", MEAN),
    ("ff_g2m", "FF-G2M", CITESEER, 1.0, "CiteSeer: FF-G2M >= GLNN", MEAN),
    ("ff_g2m", "FF-G2M", CITESEER, 1.0, "CiteSeer: FF-G2M above its low", SHOWN),
    ("kd_fidelity", "200 pictures, 50,000 unseen", "agreement on test, %", 2.0, "teacher of 200: unseen", SHOWN),
    ("kd_fidelity", "5,000 pictures, 50,000 unseen", "agreement on test, %", 0.3, "teacher of 5,000: unseen", SHOWN),
    ("kd_fidelity", "5,000 pictures, its own", "on its data, %", 0.4, "teacher of 5,000: and do not", SHOWN),
    ("kd_fidelity", "5,000 pictures, its own", "control, %", -4.0, "5,000 pictures, its own: agreement", SHOWN),
    ("kd_fidelity", "5,000 pictures, its own", "on its data, %", -2.5, "98 - agreement", SHOWN),
    ("leaf", "aligned to a teacher with ordered axes", CUT, 0.1, "with 64 of 384", SHOWN),
    ("ofa_kd", "OFA, g = 1.5", "accuracy (%)", 0.5, "exceeds labels", SHOWN),
    ("ofa_kd", "OFA, g = 1.5", "accuracy (%)", 0.5, "the paper's claim", SHOWN),
    ("ofa_kd", "CNN with CNN, stage 1", "CKA", 0.2, "stage 1 of two CNNs", SHOWN),
    ("pld", "ListMLE", "accuracy, %", -3.0, "PLD - ListMLE", SHOWN),
    ("pld", "PLD, temperature 4", "accuracy, %", -1.0, "at temperature 1 - at 4", SHOWN),
    ("tgeo_kd", "learned", "ratio, wrong label", 0.2, "ratio of wrong labels", MEAN),
    ("tgeo_kd", "learned", "ratio, wrong teacher", -0.1, "ratio of ordinary", MEAN),
    ("tgeo_kd", "learned", "accuracy, %", 0.4, "learned - fixed 0.5", SHOWN),
    ("tgeo_kd", "learned", "accuracy, %", 0.4, "learned - by the teacher", SHOWN),
    ("wav2small", "teacher's labels", CCC, 0.03, "in the mean", MEAN),
    ("wav2small", "teacher's labels, 1,000 clips more", CCC, 0.03, "1,000 clips more - none", SHOWN),
]


def judged(name: str, arm: str, column: str, gap: float, spread: float, criterion: str) -> Finding:
    """The criterion where all arms are equal but one, which differs by `gap` in the mean of the seeds.

    Args:
        spread: from one seed to the next, as a factor of the gap.
    """
    experiment: Experiment = catalog.load("compress.experiments", name).EXPERIMENT
    base = 98.0 if "98" in criterion else 50.0
    seeds = range(experiment.seeds)
    middle = (experiment.seeds - 1) / 2
    figures: defaultdict[str, defaultdict[str, tuple[float, ...]]] = defaultdict(
        lambda: defaultdict(lambda: (base,) * experiment.seeds)
    )
    figures[arm][column] = tuple(base + gap * (1 + spread * (seed - middle)) for seed in seeds)
    (found,) = [f for f in experiment.judge(Results(tuple(seeds), figures)) if criterion in f.criterion]
    return found


@pytest.mark.parametrize(("name", "arm", "column", "gap", "criterion", "weak"), CASES)
def test_what_a_mean_alone_comes_to(name: str, arm: str, column: str, gap: float, criterion: str, weak: Holds) -> None:
    # From seed to seed a fifth of the gap: t is above 8. Twice the gap: t is below 1, of 0.87 at most with three seeds.
    assert judged(name, arm, column, gap, 0.2, criterion).holds == "yes"
    assert judged(name, arm, column, gap, 2.0, criterion).holds == weak
    assert judged(name, arm, column, -gap, 0.2, criterion).holds == "no"


def test_standard_errors_decide_where_the_criterion_names_them() -> None:
    # Six seeds: the deviation is 1.87 spreads, and the standard error 0.76: t is 1.97 and 2.02.
    for spread, holds in ((0.664, "no"), (0.648, "yes")):
        assert judged("pld", "labels", "accuracy, %", -1.0, spread, "PLD - labels").holds == holds


def test_equal_within_half_a_point_is_shown_or_undecided() -> None:
    for gap, spread, holds in ((0.1, 0.2, "yes"), (0.4, 0.5, "undecided"), (0.6, 0.1, "no")):
        assert judged("ofa_kd", "KD (temperature 1)", "accuracy (%)", gap, spread, "differ by").holds == holds
