"""N2N learning on a teacher of ResNet-34's shape: how much smaller at how little loss.

    python -m tools.effects.n2n_resnet [--quick] [--seeds N] [--first-seed N] [--folder FOLDER] [--json FILE]

Claim (Ashok et al., arXiv:1709.06030, abstract): more than ten times fewer parameters than ResNet-34 at about its
accuracy. Here the teacher has ResNet-34's 3-4-6-3 basic blocks with widths scaled to the data (16-32-64-128, a stem of
stride 2), on Fashion-MNIST averaged to 14x14, without augmentation, so that its answers are computed once. The selector
`n2n` searches with real short distillations (soft targets and labels, scored on validation data); its choice is then
distilled for as long as the teacher was trained, and scored on the test split once. Beside it stands the control that
nobody searched: the teacher narrowed evenly to at most as many parameters, distilled in the same way. Students start
from the teacher's weights, as those of the space `derived` do.

Reproduced if on every seed the choice has at least ten times fewer parameters than the teacher and loses at most one
point.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import profiles
from compress.clothing import MEAN, STD
from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.selector import Candidate, Outcome, Problem, Trial, identity_of
from compress.contracts.signals import Signals
from compress.contracts.space import SpaceContext
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.methods.vanilla_kd import METHOD
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets
from compress.residual_network import ResidualNetwork
from compress.selectors.n2n import N2N
from compress.spaces.derived import Derived, Plan
from compress.strategies.plain import Plain
from compress.tasks.fashion_mnist import TASK
from compress.training.evaluate import evaluate, outputs_of
from compress.training.fit import fit
from compress.training.supervised import SUPERVISED
from profiles.atomic import write_text, writing

FASHION = Path(__file__).parents[3] / "shared" / "data" / "fashion_mnist"
WIDTHS, DEPTHS = (16, 32, 64, 128), (3, 4, 6, 3)
TARGET = "jetson"
MULTIPLE = 8  # of channels, for the finest choice that int8 kernels take


@dataclass(frozen=True)
class Amount:
    """How much is run."""

    train: int
    val: int
    test: int
    epochs: int
    training: float
    selector: N2N
    batch: int = 128
    rate: float = 3e-3


FULL = Amount(8_000, 1_000, 10_000, 8, 3.0, N2N(share=0.03, finalists=2, removal_rate=0.01))
QUICK = Amount(1_024, 500, 500, 2, 3.0, N2N(share=0.125, removal_rate=0.01, iterations=3, finalists=1))


def pooled(examples: Any, count: int) -> TensorExamples:
    """The first pictures, averaged to 14x14 and normalised."""
    batch = examples.batch(torch.arange(count))
    pictures = (nn.functional.avg_pool2d(batch.inputs[0], 2) - MEAN) / STD
    return TensorExamples(pictures, batch.labels, f"{examples.fingerprint()}:14x14")


def first(examples: Any, count: int) -> TensorExamples:
    """The first of them."""
    return replace(
        examples, inputs=examples.inputs[:count], labels=examples.labels[:count], digest=f"{examples.digest}:{count}"
    )


class Answers(Teacher):
    """The teacher's logits by position."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @property
    def cacheable(self) -> bool:
        return True

    @property
    def fingerprint(self) -> str:
        return "answers"

    def observe(self, batch: Batch) -> Signals:
        return Signals(self.logits[batch.index])


@final
class Distillations(Problem):
    """Students of one teacher, trained for real in this process; each trial once."""

    def __init__(
        self, teacher: nn.Module, splits: Splits, amount: Amount, seed: int, most_params: float | None = None
    ) -> None:
        self.most_params = most_params
        self.amount, self.seed, self.training = amount, seed, amount.training
        self.epochs = amount.epochs
        self.task: Task = TASK
        self.splits, self.teacher = splits, teacher
        self.answers = Answers(outputs_of(teacher, splits.train))
        features = splits.train.batch(torch.arange(8)).inputs[0]
        self.target = profiles.target(TARGET, Path())
        self.space = Derived(SpaceContext(teacher, features, 10, MULTIPLE, self.target.family))
        self.spaces = {"derived": self.space}
        self.pool: tuple[Candidate, ...] = ()
        self.known: dict[str, Candidate] = {}
        self.total, self.trials, self.cpu_s = 0.0, 0, 0.0

    @property
    def spent(self) -> float:
        return self.total

    def admit(self, space: str, plan: Plan) -> Candidate:
        name = identity_of(space, plan)
        if name not in self.known:
            model = self.space.build(plan)
            example = (self.splits.train.batch(torch.arange(1)).inputs[0],)
            cost = profiles.profile(model, target=self.target, precision="int8", example=example, layers=False)
            over = self.most_params is not None and cost.params > self.most_params
            self.known[name] = Candidate(space, plan, cost, f"{cost.params} parameters are too many" if over else None)
        return self.known[name]

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Outcome]]:
        for place, trial in enumerate(trials):
            student = self.student(trial.candidate, trial.seed)
            cpu_s = self.distil(student, trial.share, trial.seed)
            score = evaluate(student, self.splits.val, self.task).score
            self.total += trial.share
            self.trials += 1
            print(
                f"  trial {self.trials}: {trial.candidate.cost.params} parameters, share {trial.share:.3f}, "
                f"{100 * score:.2f} %, {cpu_s:.1f} CPU s",
                flush=True,
            )
            yield place, Outcome(score, cpu_s)

    def distil(self, student: nn.Module, share: float, seed: int) -> float:
        """Train in place; a share of less than one epoch is one epoch of fewer examples."""
        begun = time.process_time()
        epochs = share * self.amount.epochs
        splits = self.splits
        if epochs < 1.0:
            part = max(self.amount.batch, round(epochs * len(splits.train)))
            splits = replace(splits, train=first(splits.train, part))
        train(student, splits, self.answers, max(1, round(epochs)), self.amount, self.seed + seed)
        cpu_s = time.process_time() - begun
        self.cpu_s += cpu_s
        return cpu_s

    def student(self, candidate: Candidate, seed: int = 0) -> nn.Module:
        torch.manual_seed(self.seed + seed)
        return self.space.build(candidate.plan)

    def charge(self, share: float, what: str) -> None:
        self.total += share


def train(network: nn.Module, splits: Splits, answers: Answers | None, epochs: int, amount: Amount, seed: int) -> None:
    """In place: distilled, or on labels alone where there are no answers."""
    fit(
        method=METHOD if answers else SUPERVISED,
        students={"student": network.requires_grad_(True)},
        teachers={"teacher": answers} if answers else {},
        objectives={"soft_targets": SoftTargets(temperature=4.0), "labels": Labels()}
        if answers
        else {"labels": Labels()},
        weights={},
        splits=replace(splits, val=first(splits.val, 1)),  # no score per epoch: it is not used
        task=TASK,
        numbers=TrainingNumbers(epochs, amount.batch, amount.rate, 0.02),
        seed=seed,
        precision="fp32",
        strategy=Plain(augment=False),
        together=False,
    )


def data(amount: Amount) -> Splits:
    splits = TASK.load(FASHION)
    return Splits(pooled(splits.train, amount.train), pooled(splits.val, amount.val), pooled(splits.test, amount.test))


def teacher_of(splits: Splits, amount: Amount, folder: Path) -> nn.Module:
    """Trained once per amount; later calls read its weights."""
    torch.manual_seed(0)
    network = ResidualNetwork(1, WIDTHS, DEPTHS, 10, stem_stride=2)
    path = folder / f"teacher-{amount.train}-{amount.epochs}.safetensors"
    if path.is_file():
        network.load_state_dict(load_file(path))
        return network.eval()
    train(network, splits, None, amount.epochs, amount, 0)
    with writing(path) as temporary:
        save_file(network.state_dict(), temporary)
    return network.eval()


def evenly_narrowed(problem: Distillations, most: int) -> Candidate:
    """The teacher with all blocks and even widths, the largest with at most `most` parameters."""
    space = problem.space
    plans = [space.plan({g.name: space.nearest(g, step / 64) for g in space.groups}, ()) for step in range(1, 65)]
    fitting = [c for c in (problem.admit("derived", plan) for plan in dict.fromkeys(plans)) if c.cost.params <= most]
    return max(fitting, key=lambda c: c.cost.params)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--reduction",
        type=float,
        help="a budget: this many times fewer parameters than the teacher, and within it only accuracy counts",
    )
    parser.add_argument("--folder", type=Path, default=Path("n2n_resnet"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    amount = QUICK if arguments.quick else FULL
    if arguments.reduction is not None:
        amount = replace(amount, selector=replace(amount.selector, params_exponent=0.0))
    splits = data(amount)
    teacher = teacher_of(splits, amount, arguments.folder)
    base = evaluate(teacher, splits.test, TASK).score
    params = sum(parameter.numel() for parameter in teacher.parameters())
    print(f"teacher: {params} parameters, {100 * base:.2f} % on {len(splits.test)} test examples")
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        most = None if arguments.reduction is None else params / arguments.reduction
        problem = Distillations(teacher, splits, amount, seed, most)
        found = amount.selector(problem)
        means = found.notes["mean_rewards"]
        for stage, rewards in means.items():
            print(f"  {stage}: mean reward {' '.join(f'{reward:.3f}' for reward in rewards)}")
        search_cpu_s, spent, trials = problem.cpu_s, problem.spent, problem.trials
        chosen = found.ranked[0]
        for name, candidate in (
            ("n2n", chosen),
            ("evenly narrowed", evenly_narrowed(problem, chosen.cost.params)),
        ):
            student = problem.student(candidate)
            problem.distil(student, 1.0, 0)
            score = evaluate(student, splits.test, TASK).score
            rows.append(
                {
                    "seed": seed,
                    "student": name,
                    "params": candidate.cost.params,
                    "reduction": params / candidate.cost.params,
                    "macs": candidate.cost.macs,
                    "latency_ms_predicted": candidate.cost.latency_ms,
                    "test": score,
                    "points_lost": 100 * (base - score),
                    "plan": candidate.plan.to_json(),
                    "search": {"full_trainings": spent, "trials": trials, "cpu_s": search_cpu_s},
                }
            )
            print(
                f"seed {seed}, {name}: {candidate.cost.params} parameters ({params / candidate.cost.params:.1f} times "
                f"fewer), {candidate.cost.macs / 1e6:.2f} M MACs, {100 * score:.2f} % on test, "
                f"{100 * (base - score):+.2f} points lost; search: {trials} trials, {spent:.2f} full trainings, "
                f"{search_cpu_s:.0f} CPU s",
                flush=True,
            )
    ours = [row for row in rows if row["student"] == "n2n"]
    met = all(row["reduction"] >= 10.0 and row["points_lost"] <= 1.0 for row in ours)
    verdict = "reproduced" if met else "not reproduced at this scale"
    print(f"verdict (>= 10 times fewer parameters at <= 1 point, every seed): {verdict}")
    if arguments.json:
        content = {"teacher": {"params": params, "test": base}, "rows": rows, "verdict": verdict}
        write_text(arguments.json, json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
