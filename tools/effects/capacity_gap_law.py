"""The law of capacity gap at small scale: a larger teacher stops helping, and the best one grows with the student.

    nice -n 10 python -m tools.effects.capacity_gap_law [--bed pictures|text] [--seeds 0 1 2] [--quick] [--json FILE]

Claim (Zhang et al., arXiv:2311.07052): with the student fixed, quality against the teacher's size rises, then falls,
and the best size is linear in the student's. Two beds, each with 3 seeds of everything:

    pictures: one-hidden-layer MLPs on 10,000 pictures of Fashion-MNIST; students 6, 10, 16 units wide, teachers 8 to
        512; 0.1 labels + 0.9 soft targets at temperature 4; accuracy on 5,000 other pictures.
    text: GRUs that predict the next character of a generated third-order Markov text over 32 characters; students 8,
        16, 32 units, teachers 8 to 256; half labels, half the teacher's probabilities; nats per character on new text.

Reproduced, in the weak sense that this scale allows, if for at least 2 of 3 students the largest teacher is worse than
the best by more than the pooled standard deviation between seeds, and the best teacher's size does not fall as the
student's grows. The published slope, 2.5, is of language models and is not tested here; the fit is printed with its
interval to show how little it says.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.objectives.soft_labels import soft_label_loss
from compress.objectives.soft_targets import soft_target_loss
from compress.selection.capacity_gap import PRIOR, Pilot, fit_pilots
from compress.tasks.fashion_mnist import TASK
from profiles.atomic import write_text

FASHION = Path(__file__).parents[3] / "shared" / "data" / "fashion_mnist"
NO_TEACHER = 0
SEEDS = (0, 1, 2)
CHARACTERS, LENGTH = 32, 32


@dataclass(frozen=True)
class Bed:
    """Networks of one family, and how they are trained and scored.

    Attributes:
        students, teachers: widths, ascending.
        train: (width, seed, teacher's logits or None) -> the trained network's row.
        better: 1 where a larger quality is better, -1 where a smaller one is.
        quality: what `Row.quality` is.
    """

    name: str
    students: tuple[int, ...]
    teachers: tuple[int, ...]
    train: "Callable[[int, int, Tensor | None], Trained]"
    params: Callable[[int], int]
    better: int
    quality: str


@dataclass(frozen=True)
class Trained:
    """`answers` are its logits on the training data."""

    quality: float
    loss: float
    answers: Tensor


@dataclass(frozen=True)
class Row:
    """One training; teacher `NO_TEACHER` for none, student 0 for a teacher itself. `loss` is on validation labels."""

    student: int
    teacher: int
    seed: int
    quality: float
    loss: float


def fit(network: nn.Module, epochs: int, count: int, batch: int, rate: float, loss: Callable[[Tensor], Tensor]) -> None:
    """AdamW with the rate falling to 0 by a cosine; `loss` takes positions in the training data."""
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * -(-count // batch))
    for _ in range(epochs):
        for index in torch.randperm(count).split(batch):
            optimiser.zero_grad(set_to_none=True)
            loss(index).mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()


def pictures(data: Path, quick: bool) -> Bed:
    splits = TASK.load(data)
    count, unseen, epochs = (1_000, 500, 2) if quick else (10_000, 5_000, 12)
    x, y = _pictures(splits.train, 0, count)
    x_val, y_val = _pictures(splits.train, count, unseen)

    def train(width: int, seed: int, answers: Tensor | None) -> Trained:
        torch.manual_seed(10_000 * seed + width)
        network = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))

        def loss(index: Tensor) -> Tensor:
            output = network(x[index])
            hard = F.cross_entropy(output, y[index], reduction="none")
            return hard if answers is None else 0.1 * hard + 0.9 * soft_target_loss(output, answers[index], 4.0)

        fit(network, epochs, count, 128, 3e-3, loss)
        with torch.no_grad():
            output = network(x_val)
            accuracy = 100 * (output.argmax(1) == y_val).float().mean().item()
            return Trained(accuracy, F.cross_entropy(output, y_val).item(), network(x))

    widths = (8, 64, 512) if quick else (8, 16, 32, 64, 128, 256, 512)
    return Bed("pictures", (6, 10, 16), widths, train, lambda width: 795 * width + 10, 1, "accuracy, %")


def _pictures(examples: Any, start: int, count: int) -> tuple[Tensor, Tensor]:
    batch = examples.batch(torch.arange(start, start + count))
    return (batch.inputs[0].flatten(1) - 0.2860) / 0.3530, batch.labels


class Reader(nn.Module):
    """A GRU that predicts the next character."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CHARACTERS, 16)
        self.gru = nn.GRU(16, width, batch_first=True)
        self.head = nn.Linear(width, CHARACTERS)

    def forward(self, text: Tensor) -> Tensor:
        """(B, L) characters -> (B, CHARACTERS, L) logits."""
        logits: Tensor = self.head(self.gru(self.embedding(text))[0])
        return logits.transpose(1, 2)


def markov(count: int, seed: int = 1) -> Tensor:
    """Text whose next character depends on the last three: each alone, and the neighbours together."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    alone = normal(3, CHARACTERS, CHARACTERS)
    first, second, mixed = normal(2, CHARACTERS, 12), normal(2, CHARACTERS, 12), normal(2, 12, CHARACTERS)
    pairs = torch.einsum("nik,njk,nkc->nijc", first, second, mixed) / 12**0.5
    logits = 1.2 * (alone[0][:, None, None] + alone[1][None, :, None] + alone[2][None, None])
    p = torch.softmax(logits + 1.5 * (pairs[0][:, :, None] + pairs[1][None]), dim=-1)
    steps = torch.rand(count, generator=generator).tolist()
    sums = p.cumsum(-1).clamp_max(1.0).numpy()
    text = [0, 1, 2]
    for step in steps:
        text.append(min(CHARACTERS - 1, int(sums[text[-3], text[-2], text[-1]].searchsorted(step))))
    return torch.tensor(text[3:])


def text(quick: bool) -> Bed:
    count, epochs = (8_192, 1) if quick else (65_536, 8)
    characters = markov(count + 16_384 + 2)
    windows, after = (characters[start : start + count].view(-1, LENGTH) for start in (0, 1))
    unseen, next_unseen = (characters[count + start :][:16_384].view(-1, LENGTH) for start in (0, 1))

    def train(width: int, seed: int, answers: Tensor | None) -> Trained:
        torch.manual_seed(10_000 * seed + width)
        network = Reader(width)

        def loss(index: Tensor) -> Tensor:
            output = network(windows[index])
            if answers is None:
                return F.cross_entropy(output, after[index], reduction="none").mean(dim=1)
            return soft_label_loss(output, answers[index], after[index])

        fit(network, epochs, len(windows), 64, 5e-3, loss)
        with torch.no_grad():
            nats = F.cross_entropy(network(unseen), next_unseen).item()
            return Trained(nats, nats, network(windows))

    def params(width: int) -> int:
        return sum(parameter.numel() for parameter in Reader(width).parameters())

    widths = (8, 64) if quick else (8, 16, 32, 64, 128, 256)
    return Bed("text", (8, 16, 32), widths, train, params, -1, "nats per character")


def run(bed: Bed, seeds: Sequence[int]) -> list[Row]:
    """Every teacher, every student by every teacher, and every student by none."""
    rows = []
    for seed in seeds:
        answers: dict[int, Tensor | None] = {NO_TEACHER: None}
        for width in bed.teachers:
            teacher = bed.train(width, seed, None)
            answers[width] = teacher.answers
            rows.append(Row(0, width, seed, teacher.quality, teacher.loss))
        for student in bed.students:
            for width, logits in answers.items():
                # Students have other weights than the teachers that happen to be as wide.
                trained = bed.train(student, seed + 100, logits)
                rows.append(Row(student, width, seed, trained.quality, trained.loss))
        print(f"{bed.name}: seed {seed} is done, {len(rows)} trainings", file=sys.stderr, flush=True)
        for student in bed.students:
            figures = [f"{row.quality:.4f}" for row in rows if (row.seed, row.student) == (seed, student)]
            print(
                f"  student {student}, without a teacher and by each: {' '.join(figures)}", file=sys.stderr, flush=True
            )
    return rows


@dataclass(frozen=True)
class Finding:
    """What a grid says.

    Attributes:
        means: (student, teacher) -> mean quality over seeds.
        spread: standard deviation between seeds, pooled over all students' cells.
        best: student -> the teacher of best mean quality.
        costs: student -> how much better that one is than the largest, in units of quality.
    """

    means: dict[tuple[int, int], float]
    spread: float
    best: dict[int, int]
    costs: dict[int, float]
    verdict: str


def judge(rows: Sequence[Row], better: int) -> Finding:
    """The criterion of the head of this file.

    "inconclusive" where some student loses more than the spread by the largest teacher, but too few do or the best size
    falls; "not reproduced at this scale" where none does.
    """
    cells: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        cells.setdefault((row.student, row.teacher), []).append(row.quality)
    means = {cell: statistics.fmean(values) for cell, values in cells.items()}
    students = sorted({student for student, _ in cells if student})
    teachers = sorted({teacher for student, teacher in cells if student and teacher != NO_TEACHER})
    several = [values for (student, _), values in cells.items() if student and len(values) > 1]
    spread = math.sqrt(statistics.fmean(statistics.variance(values) for values in several)) if several else math.nan
    best = {s: max(teachers, key=lambda t: (better * means[s, t], -t)) for s in students}
    costs = {s: better * (means[s, best[s]] - means[s, teachers[-1]]) for s in students}
    worse = [s for s in students if costs[s] > spread]
    grows = all(best[one] <= best[other] for one, other in pairwise(students))
    if 3 * len(worse) >= 2 * len(students) and grows:
        verdict = "reproduced (weak sense)"
    elif not worse or not several:
        verdict = "not reproduced at this scale"
    else:
        verdict = "inconclusive"
    return Finding(means, spread, best, costs, verdict)


def show(bed: Bed, rows: Sequence[Row], found: Finding) -> None:
    print(f"\n{bed.name}: {bed.quality} of students by teachers' width, mean of {len({r.seed for r in rows})} seeds")
    columns = [*bed.teachers, NO_TEACHER]
    print("student  " + "".join(f"{width or 'none':>9}" for width in columns) + "   best  largest costs")
    for student in bed.students:
        cells = "".join(f"{found.means[student, width]:9.3f}" for width in columns)
        print(f"{student:7d}  {cells}{found.best[student]:7d}{found.costs[student]:15.3f}")
    print("teachers " + "".join(f"{found.means[0, width]:9.3f}" for width in bed.teachers))
    print(f"standard deviation between seeds, pooled: {found.spread:.3f}")


def fitted(bed: Bed, rows: Sequence[Row]) -> dict[str, Any] | None:
    """The law's line over the students' label losses, with its interval."""
    own = {(row.teacher, row.seed): row.loss for row in rows if not row.student}
    pilots = [
        Pilot(bed.params(r.student) / 1e6, bed.params(r.teacher) / 1e6, r.loss, r.seed, own[r.teacher, r.seed])
        for r in rows
        if r.student and r.teacher != NO_TEACHER
    ]
    fit = fit_pilots(pilots) if len(bed.teachers) >= 5 else None
    return None if fit is None else asdict(fit)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bed", action="append", choices=("pictures", "text"), help="default: both")
    parser.add_argument("--data", type=Path, default=FASHION)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs; says nothing")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    for name in options.bed or ("pictures", "text"):
        begun = time.process_time()
        bed = pictures(options.data, options.quick) if name == "pictures" else text(options.quick)
        rows = run(bed, SEEDS[:2] if options.quick else options.seeds)
        found, line = judge(rows, bed.better), fitted(bed, rows)
        show(bed, rows, found)
        if line is None:
            print("line: none; fewer than two students had their best teacher inside the grid")
        else:
            ci = line["ci"]
            interval = f"95 % {ci['slope'][0]:.3g} to {ci['slope'][1]:.3g}, {ci['undefined']:.0%} of resamples none"
            hits = sum(optimum["where"] == "boundary" for optimum in line["per_student_optimum"])
            print(f"line: slope {line['slope']:.3g} ({interval if ci else 'no interval'}), {hits} boundary optima;")
            print(f"      the prior, {PRIOR.slope}, is of language models and is not tested here")
        cpu_s = time.process_time() - begun
        print(f"verdict: {found.verdict}; {len(rows)} trainings, {cpu_s:.0f} CPU s")
        report[name] = {
            "rows": [asdict(row) for row in rows],
            "spread": found.spread,
            "best": found.best,
            "costs": found.costs,
            "fit": line,
            "verdict": found.verdict,
            "cpu_s": cpu_s,
        }
    if options.json:
        write_text(options.json, json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
