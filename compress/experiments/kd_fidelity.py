"""How faithful a copy a student of the teacher's own size becomes, over data, temperature and starting point.

Source: Stanton et al., "Does Knowledge Distillation Really Work?", NeurIPS 2021, arXiv:2106.05945, sections 4 to 6. The
paper's plateau below 80 % and the jump between basins need its networks; here a small one shows the directions. The
control is another student, taught by the same procedure by a teacher of other labelled pictures and first weights.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Examples, TensorExamples
from compress.contracts.experiment import Experiment, Figures, Finding, Results
from compress.contracts.strategy import DataStrategy
from compress.contracts.task import TrainingNumbers
from compress.diagnostics.fidelity import Answer, FidelityReport, fidelity
from compress.errors import TaskError
from compress.methods.kd_fidelity import METHOD
from compress.objectives.soft_cross_entropy import SoftCrossEntropy
from compress.reproduction import bed
from compress.reproduction.paired import paired, shown
from compress.strategies.distillation_data import DistillationData

TEST, TRAIN, CONTROL, ACCURACY = "agreement on test, %", "on its data, %", "control, %", "accuracy, %"
DIVERGENCE, ECE = "KL on test, nats", "ECE, %"
STEPS, BATCH, RATE = 2_000, 64, 4e-3
NUMBERS = TrainingNumbers(epochs=1, batch_size=BATCH, learning_rate=RATE)  # one epoch of `STEPS` steps
FEW, MANY = 200, 5_000  # labelled pictures of a teacher
UNSEEN = 50_000
NEAR = TrainingNumbers(epochs=30, batch_size=BATCH, learning_rate=RATE)  # of students that start near their teacher
FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Arm:
    """What a student copies its teacher on.

    Attributes:
        labelled: pictures of the teacher.
        data: `own`, the teacher's; `unseen`, 50,000 others; `noise`, numbers of the pictures' spread.
    """

    labelled: int
    data: str
    temperature: float = 1.0
    mixed: float = 0.0
    control: bool = True


ARMS: Mapping[str, Arm] = {
    "200 pictures, its own": Arm(FEW, "own"),
    "200 pictures, 50,000 unseen": Arm(FEW, "unseen"),
    "5,000 pictures, its own": Arm(MANY, "own"),
    "5,000 pictures, 50,000 unseen": Arm(MANY, "unseen"),
    "5,000 pictures, its own, temperature 4": Arm(MANY, "own", temperature=4.0),
    "5,000 pictures, 50,000 unseen, temperature 4": Arm(MANY, "unseen", temperature=4.0),
    "5,000 pictures, its own, mixup": Arm(MANY, "own", mixed=1.0, control=False),
    "5,000 pictures, noise": Arm(MANY, "noise", control=False),
}
FEW_OWN, FEW_UNSEEN, MANY_OWN, MANY_UNSEEN, WARM_OWN, WARM_UNSEEN, MIXED, NOISE = ARMS


def run(data: Path | None, seed: int, say: Callable[[str], None]) -> Figures:
    """Four teachers, a student and a control of each arm, and students that start near their teacher."""
    if data is None:
        raise TaskError("this experiment needs Fashion-MNIST", fix="pass --data FOLDER")
    clothes = bed.pictures(data)
    order = bed.some(len(clothes.train), seed)
    figures: dict[str, dict[str, float]] = {}
    unseen, noise = clothes.examples(order[2 * MANY :]), _noise(seed)
    labelled = {
        (count, which): clothes.examples(order[which * MANY :][:count]) for count in (FEW, MANY) for which in (0, 1)
    }
    teachers = {
        (count, which): bed.taught(_network(100 * (which + 1) + seed), bed.only(_long(own)), NUMBERS, seed)
        for (count, which), own in labelled.items()
    }
    for name, arm in ARMS.items():
        sets: dict[str, tuple[Examples, Examples]] = {
            "own": (labelled[arm.labelled, 0], labelled[arm.labelled, 1]),
            "unseen": (unseen, unseen),
            "noise": (noise, noise),
        }
        shown, shown_to_control = sets[arm.data]
        strategy = DistillationData(mixed=arm.mixed)
        teacher, other = (teachers[arm.labelled, which] for which in (0, 1))
        student, control = _copy(_network(seed), teacher, _long(shown), NUMBERS, seed, arm.temperature, strategy), None
        if arm.control:
            control = _copy(_network(seed), other, _long(shown_to_control), NUMBERS, seed, arm.temperature, strategy)
        report = _report(student, teacher, clothes.unseen, shown, control, strategy)
        figures[name] = _figures(report)
        say(f"seed {seed}: {name}: {figures[name][TEST]:.1f} % on test, {figures[name][TRAIN]:.1f} % on its data")
    teacher, own = teachers[MANY, 0], labelled[MANY, 0]
    for fraction in FRACTIONS:
        student = interpolated(_network(seed), teacher, fraction)
        if fraction < 1.0:
            numbers = replace(NEAR, learning_rate=RATE * (1.0 - fraction))
            student = _copy(student, teacher, own, numbers, seed, 1.0, DistillationData())
        figures[_start(fraction)] = _figures(_report(student, teacher, clothes.unseen, own, None, DistillationData()))
    for (count, which), network in teachers.items():
        if which == 0:
            figures[f"teacher of {count:,}"] = {ACCURACY: bed.accuracy(network, clothes.unseen)}
    return figures


def interpolated(student: nn.Module, teacher: nn.Module, fraction: float) -> nn.Module:
    """Move the student's parameters towards the teacher's, in place: (1 - fraction) x own + fraction x the teacher's.

    Source: section 6.2 of the paper. Networks of one shape, without running statistics, which do not interpolate.

    Raises:
        ValueError: the networks differ, or have buffers.
    """
    ours, theirs = dict(student.named_parameters()), dict(teacher.named_parameters())
    if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in theirs.items()}:
        raise ValueError("the networks' parameters differ")
    if any(True for _ in student.buffers()):
        raise ValueError("running statistics do not interpolate: use a network without batch normalisation")
    with torch.no_grad():
        for name, value in ours.items():
            value.lerp_(theirs[name], fraction)
    return student


def judge(results: Results) -> Sequence[Finding]:
    """The specification's criteria; what a small network cannot show is reported and does not decide."""

    findings = []
    for few, own, unseen, bar in (("200", FEW_OWN, FEW_UNSEEN, 1.5), ("5,000", MANY_OWN, MANY_UNSEEN, 0.0)):
        more = paired(results.of(unseen, TEST), results.of(own, TEST))
        less = paired(results.of(own, TRAIN), results.of(unseen, TRAIN))
        said = f"teacher of {few}: unseen data raise the agreement on test"
        above = "by at least 1.5" if bar else "at all"
        findings.append(Finding(f"{said} {above}", str(more), shown(more, bar)))
        findings.append(
            Finding(f"teacher of {few}: and do not raise that on the student's data", str(less), shown(less))
        )
    for name, bar in ((FEW_OWN, 15.0), (FEW_UNSEEN, 15.0), (MANY_OWN, 3.0), (MANY_UNSEEN, 3.0)):
        beyond = paired(results.of(name, TEST), results.of(name, CONTROL))
        findings.append(Finding(f"{name}: agreement - control >= {bar:g}", str(beyond), shown(beyond, bar)))
    short = paired([98.0] * len(results.seeds), results.of(MANY_OWN, TRAIN))
    findings.append(Finding("98 - agreement on its data > 0, teacher of 5,000", str(short), shown(short)))
    for before, after in itertools.pairwise(FRACTIONS):
        rise = paired(results.of(_start(after), TRAIN), results.of(_start(before), TRAIN))
        criterion = f"agreement on its data rises from {before:g} to {after:g} of the way to the teacher"
        findings.append(Finding(criterion, str(rise), shown(rise)))
    for name, against, claim in (
        (WARM_OWN, MANY_OWN, "temperature 4 helps on test (the paper's teachers are saturated)"),
        (MIXED, MANY_OWN, "mixup helps on test"),
        (NOISE, MANY_OWN, "noise helps on test (the paper: it hurts)"),
    ):
        found = paired(results.of(name, TEST), results.of(against, TEST))
        findings.append(Finding(claim, str(found), shown(found), decides=False))
    return findings


def _network(seed: int) -> nn.Module:
    return bed.seeded(seed, lambda: bed.mlp((64,), 10))


def _long(examples: Examples) -> bed.Repeated:
    return bed.Repeated(examples, STEPS * BATCH)


def _noise(seed: int) -> TensorExamples:
    source = torch.Generator().manual_seed(seed)
    return TensorExamples(
        torch.randn(10_000, 1, 14, 14, generator=source), torch.zeros(10_000, dtype=torch.int64), f"noise {seed}"
    )


def _copy(
    student: nn.Module,
    teacher: nn.Module,
    shown: Examples,
    numbers: TrainingNumbers,
    seed: int,
    temperature: float,
    strategy: DataStrategy,
) -> nn.Module:
    return bed.taught(
        student,
        bed.only(shown),
        numbers,
        seed,
        method=METHOD,
        objectives={"soft_cross_entropy": SoftCrossEntropy(temperature)},
        teachers={"teacher": bed.frozen(teacher)},
        strategy=strategy,
    )


def _report(
    student: nn.Module,
    teacher: nn.Module,
    test: Examples,
    shown: Examples,
    control: nn.Module | None,
    strategy: DataStrategy,
) -> FidelityReport:
    """On test data, and on the distillation data as the student saw them."""
    source, clock = torch.Generator().manual_seed(0), Clock("distill", 0, 1, 0, 1)
    seen = (strategy.transform({"train": batch}, {}, clock, source) for batch in _batches(shown))
    told = None if control is None else _answer(control)
    every = (next(iter(batches.values())) for batches in seen)
    return fidelity(_answer(student), _answer(teacher), _batches(test), every, told)


def _answer(network: nn.Module) -> Answer:
    def answer(batch: Batch) -> Tensor:
        said: Tensor = network(*batch.inputs)
        return said

    return answer


def _batches(examples: Examples) -> list[Batch]:
    return [replace(examples.batch(index), stream="train") for index in torch.split(torch.arange(len(examples)), 1000)]


def _figures(report: FidelityReport) -> dict[str, float]:
    made = {
        TEST: 100 * report.agree_test,
        TRAIN: 100 * report.agree_train,
        ACCURACY: 100 * report.acc,
        DIVERGENCE: report.kl_test,
        ECE: 100 * report.ece,
    }
    return made if report.agree_control is None else made | {CONTROL: 100 * report.agree_control}


def _start(fraction: float) -> str:
    return f"starts at {fraction:g} of the way to its teacher"


EXPERIMENT = Experiment(
    source="arXiv:2106.05945, figures 1 to 6 and tables of its appendix",
    claim="A student that could copy its teacher exactly does not; more data help on test and not on what is copied.",
    bed="Fashion-MNIST pooled to 14 x 14; teacher and student MLP 196-64-10; teachers on 200 and on 5,000 labelled"
    " pictures; distillation without labels; 2,000 steps of batch 64 each, AdamW at 4e-3, one cycle; students that"
    " start near their teacher: 30 epochs on its 5,000 pictures, the rate times the distance",
    data="fashion_mnist",
    columns=(TEST, TRAIN, CONTROL, ACCURACY, DIVERGENCE, ECE),
    reference=MANY_OWN,
    seeds=3,
    run=run,
    judge=judge,
)
