"""Does it help a short distillation to start a student of a free space with weights of the teacher?

    nice -n 10 python -m tools.effects.inheritance [--seeds N] [--epochs 2 8 24] [--json FILE]

Students of the spaces int8_conv and inverted_residual, which are not cut from the teacher, learn handwritten digits of
8x8 pixels from one trained teacher, from fresh weights and from what `compress.structure.inherit` finds; everything
else is equal, seed by seed. Printed: accuracy on validation data, and the difference with its 95 % interval over
students and seeds (Student's t of the pairs). *Reproduced* for a length of training if the interval lies above 0,
*inconclusive* if it holds 0, *not reproduced* if it lies below.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.space import SpaceContext
from compress.objectives.soft_targets import soft_target_loss
from compress.spaces import int8_conv, inverted_residual
from compress.structure.inherit import inherited
from compress.tasks.digits import TASK
from profiles.atomic import write_text

BATCH, RATE, TEMPERATURE = 64, 4e-3, 4.0
TEACHER_EPOCHS = 30
STUDENTS: dict[str, tuple[Any, Any]] = {
    "residual 16-32": (int8_conv, int8_conv.Plan("residual", 1, (16, 32), (1, 1))),
    "residual 8-16": (int8_conv, int8_conv.Plan("residual", 1, (8, 16), (1, 1))),
    "light 16": (int8_conv, int8_conv.Plan("light", 1, (16,), (2,))),
    "fused 16-32": (
        inverted_residual,
        inverted_residual.Plan(1, ("fused", "fused"), (16, 32), (1, 1), (2, 2), (3, 3)),
    ),
}


@dataclass(frozen=True)
class Row:
    """One pair of trainings; accuracies on validation data. `filled`: share of the weights that were inherited."""

    student: str
    epochs: int
    seed: int
    fresh: float
    inherited: float
    filled: float


def features(part: Any) -> tuple[Tensor, Tensor]:
    """All of a split as the networks take it, (N, 1, 8, 8), and the labels, (N,)."""
    batch = part.batch(torch.arange(len(part)))
    with torch.no_grad():
        return TASK.frontend().eval()(batch.inputs[0]), batch.labels


def train(network: nn.Module, x: Tensor, y: Tensor, logits: Tensor | None, epochs: int, seed: int) -> None:
    """Adam with a rate that falls to zero; labels alone where there are no teacher's logits."""
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(x) // BATCH)
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    network.train()
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=generator).split(BATCH):
            answer = network(x[index])
            loss = F.cross_entropy(answer, y[index])
            if logits is not None:
                loss = 0.1 * loss + 0.9 * soft_target_loss(answer, logits[index], TEMPERATURE).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    """In [0, 1]."""
    with torch.no_grad():
        return float((network(x).argmax(dim=1) == y).float().mean())


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of the mean."""
    from scipy.stats import t  # a second of import

    mean = statistics.fmean(differences)
    half = float(t.ppf(0.975, len(differences) - 1)) * statistics.stdev(differences) / len(differences) ** 0.5
    return mean, mean - half, mean + half


def main() -> None:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(description="Does inheriting weights help short distillation?")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 8, 24])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    splits = TASK.load(None)
    (x, y), (val_x, val_y) = features(splits.train), features(splits.val)
    torch.manual_seed(0)
    teacher = TASK.teacher()
    train(teacher, x, y, None, TEACHER_EPOCHS, 0)
    with torch.no_grad():
        logits = teacher(x)
    print(f"teacher: {100 * accuracy(teacher, val_x, val_y):.1f} % of {len(val_y)} validation images", flush=True)
    context = SpaceContext(None, x[:8], 10, 8, "x86-cpu")
    rows: list[Row] = []
    for epochs in given.epochs:
        for name, (module, plan) in STUDENTS.items():
            space = module.SPACE(context)
            for seed in range(given.seeds):
                scores, filled = [], 0.0
                for inherits in (False, True):
                    torch.manual_seed(seed)
                    student = space.build(plan)
                    if inherits:
                        found = inherited(student, teacher, x[:4], x[:4])
                        student.load_state_dict(found, strict=False)
                        weights = dict(student.named_parameters())
                        filled = sum(v.numel() for k, v in found.items() if k in weights) / sum(
                            v.numel() for v in weights.values()
                        )
                    train(student, x, y, logits, epochs, seed)
                    scores.append(accuracy(student, val_x, val_y))
                rows.append(Row(name, epochs, seed, *scores, filled))
            of = [row for row in rows if row.student == name and row.epochs == epochs]
            print(
                f"{epochs:3} epochs  {name:16} fresh {100 * statistics.fmean(r.fresh for r in of):5.1f} %"
                f"  inherited {100 * statistics.fmean(r.inherited for r in of):5.1f} %"
                f"  ({100 * of[0].filled:.0f} % of the weights)",
                flush=True,
            )
    verdicts = {}
    for epochs in given.epochs:
        mean, low, high = interval([row.inherited - row.fresh for row in rows if row.epochs == epochs])
        verdict = "reproduced" if low > 0 else "not reproduced at this scale" if high < 0 else "inconclusive"
        verdicts[epochs] = verdict
        print(f"{epochs:3} epochs: {100 * mean:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f}): {verdict}")
    if given.json:
        write_text(given.json, json.dumps({"rows": [asdict(row) for row in rows], "verdicts": verdicts}, indent=1))


if __name__ == "__main__":
    main()
