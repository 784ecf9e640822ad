"""Logit-space branches between a convolutional teacher and a mixer, and how alike features of the two families are.

Source: arXiv:2310.19444, figure 2 (CKA between families) and tables 1 to 3 (accuracy). Numbers of pictures
and epochs and the criteria are those of a pilot on Fashion-MNIST pooled to 14 x 14; how its networks of the CKA were
trained and the mixers' hidden widths (64 along tokens and channels here) are not known, and proposed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor, nn

from compress.contracts.examples import Examples, Splits
from compress.contracts.experiment import Experiment, Figures, Finding, Holds, Results
from compress.contracts.objective import Objective
from compress.contracts.stages import stage, stages
from compress.contracts.task import TrainingNumbers
from compress.diagnostics.cka import linear_cka, vectors
from compress.methods.ofa_kd import AdaptiveTargets, Branches
from compress.objectives.features import Features
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets
from compress.reproduction import bed
from compress.reproduction.paired import Paired, paired, shown, within
from compress.spaces.mixer import Plan, mixer_network
from compress.taps import Taps, observe
from compress.teachers.frozen import FrozenTeacher

CNN = (24, 48, 96)
MIXER = Plan(frames=False, patch=2, width=32, mixing=64, ratio=2, depth=4)
TEACHER = TrainingNumbers(epochs=8, batch_size=128, learning_rate=3e-3)
STUDENT = TrainingNumbers(epochs=8, batch_size=64, learning_rate=3e-3)
TAUGHT = 10_000  # pictures that teachers learn from
LEARNT = 2_000  # pictures that students learn from
LOOKED_AT = 2_000  # test pictures of the CKA
NEAR = 0.5  # points
FURTHER = 0.1
ACCURACY, CKA = "accuracy (%)", "CKA"
LABELS, KD, HINT = "labels", "KD (temperature 1)", "hint and KD"
OFA, SHARP, LIGHTER = "OFA, g = 1", "OFA, g = 1.5", "OFA, g = 1.5, w = 0.25"


def run(data: Path | None, seed: int, say: Callable[[str], None]) -> Figures:
    """One seed: a teacher, six students that begin alike, and a second network of each family for the CKA."""
    assert data is not None
    pictures = bed.pictures(data)
    order = torch.randperm(len(pictures.train), generator=torch.Generator().manual_seed(seed))
    few, many = order[:LEARNT], order[LEARNT : LEARNT + TAUGHT]
    # Nothing is chosen by validation; the loop scores two pictures at the end of each epoch.
    small = Splits(pictures.examples(few), pictures.examples(few[:2]), pictures.unseen)
    large = Splits(pictures.examples(many), pictures.examples(many[:2]), pictures.unseen)

    def cnn(number: int) -> nn.Module:
        return bed.taught(bed.seeded(1000 * number + seed, lambda: bed.cnn(CNN, 10)), large, TEACHER, seed)

    def mixer(number: int = 0) -> nn.Module:
        return bed.seeded(1000 * number + seed, lambda: mixer_network(MIXER, (1, 14, 14), 10))

    first, second = cnn(1), cnn(2)
    teacher = FrozenTeacher(first, taps=stages(1), fingerprint=f"cnn {seed}")
    figures = {"teacher": {ACCURACY: bed.accuracy(first, pictures.unseen)}}
    say(f"seed {seed}: the teacher has {figures['teacher'][ACCURACY]:.2f} %")
    for name, arm in arms().items():
        student = bed.taught(
            mixer(),
            small,
            STUDENT,
            seed,
            objectives=arm.objectives(),
            weights=arm.weights,
            teachers={"teacher": teacher},
        )
        figures[name] = {ACCURACY: bed.accuracy(student, pictures.unseen)}
        say(f"seed {seed}: {name} {figures[name][ACCURACY]:.2f} %")
    mixers = [bed.taught(mixer(number), large, replace(TEACHER, epochs=4), seed) for number in (1, 2)]
    some = pictures.unseen
    seen = [features(network, some, 3) for network in (first, second)]
    mixed = [features(network, some, 4) for network in mixers]
    return figures | alike(seen, mixed)


@dataclass(frozen=True)
class Arm:
    """What one student minimises."""

    objectives: Callable[[], dict[str, Objective]]
    weights: dict[str, float]


def arms() -> dict[str, Arm]:
    """By name; the first one hears no teacher."""

    def kd() -> dict[str, Objective]:
        return {"labels": Labels(), "kd": SoftTargets(temperature=1.0)}

    def hint() -> dict[str, Objective]:
        return kd() | {"features": Features(stage(4, 4), stage(1, 1))}

    def ofa(exponent: float) -> Callable[[], dict[str, Objective]]:
        return lambda: {"labels": Labels(), "own": AdaptiveTargets(exponent), "branches": Branches(exponent)}

    return {
        LABELS: Arm(lambda: {"labels": Labels()}, {}),
        KD: Arm(kd, {}),
        HINT: Arm(hint, {}),
        OFA: Arm(ofa(1.0), {}),
        SHARP: Arm(ofa(1.5), {}),
        LIGHTER: Arm(ofa(1.5), {"branches": 0.25}),
    }


def features(network: nn.Module, examples: Examples, count: int) -> list[Tensor]:
    """What the ends of `count` stages say of the first test pictures, (N, C) each: the mean over positions."""
    batch = examples.batch(torch.arange(LOOKED_AT))
    with Taps(network, stages(count)) as taps, torch.no_grad():
        said = observe(network, batch, taps).taps
    return [vectors(said[name]) for name in stages(count)]


def alike(cnns: Sequence[Sequence[Tensor]], mixers: Sequence[Sequence[Tensor]]) -> dict[str, dict[str, float]]:
    """Biased CKA of equal stages within a family, and each CNN stage's largest with any stage of a mixer."""
    figures = {}
    for family, (one, other) in (("CNN", cnns), ("mixer", mixers)):
        for place, (x, y) in enumerate(zip(one, other, strict=True), 1):
            figures[f"{family} with {family}, stage {place}"] = {CKA: linear_cka(x, y)}
    for place, x in enumerate(cnns[0], 1):
        figures[f"CNN with mixer, stage {place}"] = {CKA: max(linear_cka(x, y) for y in mixers[0])}
    return figures


def judge(results: Results) -> list[Finding]:
    """What the pilot saw: a gain over labels, none over KD, CNN stages that no mixer resembles; and the paper's claim.

    The claim decides as well: where it does not hold, no agreement with the pilot makes it reproduced.
    """

    def ahead(arm: str, other: str) -> Paired:
        return paired(results.of(arm, ACCURACY), results.of(other, ACCURACY))

    gained, kept = ahead(SHARP, LABELS), ahead(SHARP, KD)
    rivals = [(arm, ahead(SHARP, arm)) for arm in (KD, HINT)]
    return [
        Finding(f"{SHARP} exceeds {LABELS} by 0.4 points at least", str(gained), shown(gained, 0.4)),
        Finding(
            f"{SHARP} and {KD} differ by {NEAR} points at most: no gain at this scale", str(kept), within(kept, NEAR)
        ),
        *(_unlike(results, place) for place in range(1, len(CNN) + 1)),
        Finding(
            f"the paper's claim, {SHARP} above KD and above hints",
            "; ".join(f"{gap} against {arm}" for arm, gap in rivals),
            _all([shown(gap) for _, gap in rivals]),
        ),
        *(_mixers(results, place) for place in range(1, MIXER.depth + 1)),
    ]


def _all(each: Sequence[Holds]) -> Holds:
    """The worst of them."""
    return "no" if "no" in each else "undecided" if "undecided" in each else "yes"


def _unlike(results: Results, place: int) -> Finding:
    """Two CNNs resemble each other more than any stage of a mixer resembles one of them."""
    own, cross = (results.of(f"CNN with {other}, stage {place}", CKA) for other in ("CNN", "mixer"))
    criterion = f"stage {place} of two CNNs is {FURTHER} more alike than it is to any stage of a mixer"
    return Finding(criterion, _both(own, cross), shown(paired(own, cross), FURTHER))


def _mixers(results: Results, place: int) -> Finding:
    """The same of mixers, of which the pilot's deep blocks were no more alike than blocks and maps are."""
    own = results.of(f"mixer with mixer, stage {place}", CKA)
    cross = max((results.of(f"CNN with mixer, stage {number}", CKA) for number in range(1, len(CNN) + 1)), key=fmean)
    criterion = f"block {place} of two mixers is {FURTHER} more alike than the most alike blocks and maps"
    return Finding(criterion, _both(own, cross), shown(paired(own, cross), FURTHER), decides=False)


def _both(own: Sequence[float], cross: Sequence[float]) -> str:
    gap = paired(own, cross)
    return f"{fmean(own):.3f} and {fmean(cross):.3f}, {gap}"


EXPERIMENT = Experiment(
    source="arXiv:2310.19444, figure 2 and tables 1 to 3",
    claim=(
        "Where teacher and student are of different families, features are unlike, and distilling into logits of the"
        " student's stages beats plain distillation and hints."
    ),
    bed=(
        "Fashion-MNIST pooled to 14 x 14; teacher of 24, 48 and 96 channels on 10,000 pictures, 8 epochs, students"
        " mixers of 4 blocks, width 32, on 2,000 others, 8 epochs, batch 64, rate 3e-3, from the same weights; light"
        " branches at 4 stages. CKA, biased, of means over positions on 2,000 test pictures: 2 CNNs like the teacher"
        " and 2 mixers on the teacher's pictures, 4 epochs"
    ),
    data="fashion_mnist",
    columns=(ACCURACY, CKA),
    reference=LABELS,
    seeds=3,
    run=run,
    judge=judge,
)
