"""DisWOT on the published architectures: does it order them, does it order them better than their size, what is it for.

    nice -n 10 python -m tools.effects.diswot [--seeds N] [--proxies] [--json FILE]

Effect 1 (Dong, Li, Wei, arXiv:2303.15678): the 64 residual networks {1, 3, 5, 7}^3 of `diswot_published.csv` are scored
against a random ResNet-56, 64 normal images of 3x32x32 and 100 random labels, and correlated (Spearman) with their
published distilled accuracy; then with Fashion-MNIST pictures (three equal channels, padded to 32x32, their own labels)
in place of noise. Reproduced if the mean over the seeds is at least 0.5 for each term on noise.

Effect 2, the control: Spearman of size alone; of the summed z-scores of the terms, averaged over the seeds, with size
held still; and how many pairs within 10 % of each other in parameters, more than 0.3 points apart, each orders
correctly. That the score says more than size is reproduced if its partial correlation, parameters held still, is
above 0 on every bed.

Effect 3: CPU seconds of scoring a student as the selector does against training it as the recipe for Fashion-MNIST
does, in this process: for a short trial, and in full. Reproduced from 180 times a short trial on. It follows from the
number of steps alone and says nothing about how good the choice is. `--init` without a name leaves effects 1 and 2 out.
"""

import argparse
import csv
import itertools
import json
import math
import statistics
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from compress import catalog
from compress.clothing import MEAN, STD
from compress.contracts.batch import Batch
from compress.contracts.examples import Examples, Splits, TensorExamples
from compress.contracts.proxy import Proxy
from compress.contracts.space import SpaceContext
from compress.contracts.task import TrainingNumbers
from compress.network import Model
from compress.residual_network import ResidualNetwork
from compress.selection.correlation import partial_spearman, spearman
from compress.selection.initialise import initialise
from compress.selection.likeness import Likeness, batches, draws, likeness, rank_shares, z_scores
from compress.strategies.plain import Plain
from compress.tasks.fashion_mnist import TASK
from compress.teachers.cached import CachedTeacher
from compress.teachers.frozen import FrozenTeacher
from compress.training.fit import fit
from profiles.atomic import write_text

HERE = Path(__file__).parent
FASHION = HERE.parents[2] / "shared" / "data" / "fashion_mnist"
RECIPE = HERE.parents[1] / "compress" / "recipes" / "fashion_mnist.toml"
BATCH, CLASSES = 64, 100
TEACHER = (9, 9, 9)  # ResNet-56
NEAR, APART = 0.1, 0.3  # of the larger one's parameters; points of accuracy
SHARE = 0.05  # of the recipe's training, for a short trial: the default of the selector diswot
WANTED, TIMES = 0.5, 180.0
REPEATS = 3  # of a score's timing
MACS: Proxy = catalog.load("compress.selection.proxies", "multiply_accumulates").PROXY


@dataclass(frozen=True)
class Published:
    """One row of the table: blocks per stage, accuracies in per cent, and what the network counts."""

    depths: tuple[int, int, int]
    plain: float
    distilled: float
    parameters: int
    macs: int


def network(depths: Sequence[int]) -> ResidualNetwork:
    """The published family: 3x32x32 -> 100 logits."""
    return ResidualNetwork(3, (16, 32, 64), depths, CLASSES)


def published() -> list[Published]:
    """The table, with parameters and multiply-accumulates counted here."""
    example = Batch((torch.zeros(1, 3, 32, 32),), None, torch.zeros(1, dtype=torch.int64))
    rows = []
    with (HERE / "diswot_published.csv").open(encoding="utf-8") as handle:
        for row in csv.DictReader(line for line in handle if not line.startswith("#")):
            depths = (int(row["first"]), int(row["second"]), int(row["third"]))
            model = network(depths)
            size = sum(parameter.numel() for parameter in model.parameters())
            count = int(MACS(model, None, example))
            rows.append(Published(depths, float(row["plain"]), float(row["distilled"]), size, count))
    return rows


def noise(seed: int) -> Batch:
    """Normal images with random labels."""
    source = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCH, 3, 32, 32, generator=source)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=source)
    return Batch((images,), labels, torch.arange(BATCH))


def pictures(splits: Splits, seed: int) -> Batch:
    """Normalised pictures of Fashion-MNIST, as three channels of 32x32."""
    (batch,) = batches(splits.train, BATCH, 1, seed, noise=False)
    images = nn.functional.pad((batch.inputs[0] - MEAN) / STD, (2, 2, 2, 2), value=-MEAN / STD)
    return Batch((images.expand(-1, 3, -1, -1).contiguous(),), batch.labels, batch.index)


def score_all(rows: Sequence[Published], batch: Batch, init: str, seed: int) -> list[Likeness]:
    """Every architecture against one draw of ResNet-56."""
    against = draws(network(TEACHER), [batch], init, seed)
    return [likeness(network(row.depths), against, init) for row in rows]


def combined(relation: Sequence[float], semantic: Sequence[float]) -> dict[str, list[float]]:
    """The terms and their two combinations."""
    by_rank, by_z = (
        [r + s for r, s in zip(shares(relation), shares(semantic), strict=True)] for shares in (rank_shares, z_scores)
    )
    return {"relation": list(relation), "semantic": list(semantic), "rank sum": by_rank, "z sum": by_z}


def right_pairs(rows: Sequence[Published], score: Sequence[float]) -> tuple[int, int]:
    """How many pairs of like size and unlike accuracy a score orders correctly, and how many there are."""
    right = pairs = 0
    for (one, first), (other, second) in itertools.combinations(zip(rows, score, strict=True), 2):
        sizes = sorted((one.parameters, other.parameters))
        if sizes[1] - sizes[0] <= NEAR * sizes[1] and abs(one.distilled - other.distilled) > APART:
            pairs += 1
            right += (first - second) * (one.distilled - other.distilled) > 0
    return right, pairs


def bed(rows: Sequence[Published], drawn: Sequence[Batch], init: str) -> dict[str, Any]:
    """Figures of effects 1 and 2 for one kind of input and one initialiser."""
    truth = [row.distilled for row in rows]
    sizes, macs = [float(row.parameters) for row in rows], [float(row.macs) for row in rows]
    started = time.process_time()
    draws_ = [score_all(rows, batch, init, seed) for seed, batch in enumerate(drawn)]
    cpu_s = (time.process_time() - started) / len(drawn)
    single = [combined([one.relation for one in draw], [one.semantic for one in draw]) for draw in draws_]
    averaged = combined(
        [statistics.fmean(draw[place].relation for draw in draws_) for place in range(len(rows))],
        [statistics.fmean(draw[place].semantic for draw in draws_) for place in range(len(rows))],
    )
    terms = {}
    for name, values in averaged.items():
        rhos = [spearman(draw[name], truth) for draw in single]
        right, pairs = right_pairs(rows, values)
        terms[name] = {
            "rho": statistics.fmean(rhos),
            "sd": statistics.stdev(rhos) if len(rhos) > 1 else math.nan,
            "rho_of_the_mean": spearman(values, truth),
            "given_parameters": partial_spearman(values, truth, sizes),
            "given_macs": partial_spearman(values, truth, macs),
            "right_pairs": right,
            "pairs": pairs,
        }
    return {"init": init, "cpu_s_per_seed": cpu_s, "terms": terms}


def control(rows: Sequence[Published]) -> dict[str, Any]:
    """What plain training and size alone say."""
    truth = [row.distilled for row in rows]
    sizes = [float(row.parameters) for row in rows]
    right, pairs = right_pairs(rows, sizes)
    return {
        "plain": spearman([row.plain for row in rows], truth),
        "parameters": spearman(sizes, truth),
        "depth": spearman([float(sum(row.depths)) for row in rows], truth),
        "macs": spearman([float(row.macs) for row in rows], truth),
        "right_pairs": right,
        "pairs": pairs,
    }


def other_proxies(rows: Sequence[Published], drawn: Sequence[Batch]) -> dict[str, dict[str, float]]:
    """Every training-free score there is, on the same architectures: mean over the seeds."""
    truth, sizes = [row.distilled for row in rows], [float(row.parameters) for row in rows]
    found: dict[str, dict[str, float]] = {}
    for name in catalog.names("compress.selection.proxies"):
        proxy = catalog.load("compress.selection.proxies", name).PROXY
        each, started = [], time.process_time()
        for seed, batch in enumerate(drawn if proxy.drawn else drawn[:1]):
            teacher = network(TEACHER)
            initialise(teacher, "kaiming", 1000 + seed)
            scores = []
            for row in rows:
                student = network(row.depths)
                initialise(student, "kaiming", seed)
                scores.append(proxy(student, teacher, batch))
            each.append((spearman(scores, truth), partial_spearman(scores, truth, sizes)))
        found[name] = {
            "rho": statistics.fmean(rho for rho, _ in each),
            "given_parameters": statistics.fmean(partial for _, partial in each),
            "cpu_s": (time.process_time() - started) / len(each) / len(rows),
        }
    return found


def cost(splits: Splits, students: int, most: int) -> dict[str, Any]:
    """Effect 3: seconds of scoring a student with three draws, and of its short trial, whose teacher's answers come
    from disk as they do in a run. The students are of the space int8_conv, from the smallest to the largest that the
    recipe's budget of multiply-accumulates admits.

    Args:
        most: examples of an epoch; with fewer than there are, the epoch's seconds are scaled up.
    """
    whole_recipe = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    recipe, reduction = whole_recipe["distill"], whole_recipe["budget"]["macs_reduction"]
    epochs = max(1, round(SHARE * recipe["epochs"]))
    whole, count = len(splits.train), min(most, len(splits.train))
    # Validation examples become fewer alike: each epoch ends with them, and its seconds are scaled up as a whole.
    few = replace(
        splits, train=first(splits.train, count), val=first(splits.val, max(1, len(splits.val) * count // whole))
    )
    features = TASK.frontend()(splits.train.batch(torch.arange(BATCH)).inputs[0])
    example = Batch((features,), None, torch.arange(BATCH))
    context = SpaceContext(TASK.teacher(), features, len(TASK.labels), 16, "nvidia-gpu")
    space = catalog.load("compress.spaces", "int8_conv").SPACE(context)
    budget = MACS(TASK.teacher(), None, example) / reduction
    sizes = {plan: MACS(space.build(plan), None, example) for plan in space.corners()}
    plans = sorted((plan for plan, size in sizes.items() if size <= budget), key=lambda plan: sizes[plan])
    plans = [plans[round(place * (len(plans) - 1) / max(1, students - 1))] for place in range(students)]
    method = catalog.load("compress.methods", recipe["method"]).METHOD
    started = time.process_time()
    drawn = batches(splits.train, BATCH, 3, 0, noise=False)
    against = draws(Model(TASK.frontend(), TASK.teacher()), drawn, "gauss", 0)
    once_s = time.process_time() - started
    rows = []
    with TemporaryDirectory() as answers:
        # Reading answers costs the same whoever gave them: a small network's are at hand sooner.
        small = FrozenTeacher(Model(TASK.frontend(), space.build(plans[0])), fingerprint="small")
        teacher = CachedTeacher(small, few.train, "train", Path(answers))

        def epoch_s(plan: Any, splits: Splits) -> float:
            started = time.process_time()
            fit(
                method=method,
                students={"student": Model(TASK.frontend(), space.build(plan))},
                teachers={"teacher": teacher},
                objectives={name: make() for name, make in method.objectives.items()},
                weights={},
                splits=splits,
                task=TASK,
                numbers=TrainingNumbers(1, recipe["batch_size"], recipe["learning_rate"]),
                seed=0,
                precision="fp32",
                strategy=Plain(augment=False),
            )
            return time.process_time() - started

        def score_s(plan: Any) -> float:
            started = time.process_time()
            likeness(Model(TASK.frontend(), space.build(plan)), against, "gauss")
            return time.process_time() - started

        score_s(plans[0])  # libraries load at the first call
        epoch_s(plans[0], replace(few, train=first(few.train, recipe["batch_size"]), val=first(few.val, 1)))
        for plan in plans:
            scored = statistics.median(score_s(plan) for _ in range(REPEATS))
            each = epoch_s(plan, few) * whole / count
            rows.append(
                {
                    "macs": int(sizes[plan]),
                    "score_s": scored,
                    "short_training_s": each * epochs,
                    "full_training_s": each * recipe["epochs"],
                    "times": each * epochs / scored,
                    "times_full": each * recipe["epochs"] / scored,
                }
            )
    return {
        "epochs": epochs,
        "full_epochs": recipe["epochs"],
        "scaled_from": count,
        "of": whole,
        "teacher_once_s": once_s,
        "students": rows,
    }


def first(examples: Examples, count: int) -> TensorExamples:
    """The first of them."""
    assert isinstance(examples, TensorExamples)
    return replace(examples, inputs=examples.inputs[:count], labels=examples.labels[:count])


def verdicts(found: Mapping[str, Any]) -> dict[str, str]:
    """In the words that every effect uses."""
    said = {}
    if found["beds"]:
        noisy = [one for one in found["beds"] if one["input"] == "noise"]
        terms = [one["terms"][name]["rho"] for one in noisy for name in ("relation", "semantic", "rank sum")]
        partial = [one["terms"]["z sum"]["given_parameters"] for one in found["beds"]]
        said["1: correlates with distilled accuracy (published: yes)"] = decided(min(terms) >= WANTED)
        said["2: says more than parameters (not claimed in public figures)"] = decided(min(partial) > 0)
    if "cost" in found:
        times = min(row["times"] for row in found["cost"]["students"])
        said["3: at least 180 times cheaper than a short training"] = decided(times >= TIMES)
    return said


def decided(holds: bool) -> str:
    """Whether an effect appeared."""
    return "reproduced" if holds else "not reproduced at this scale"


def show_control(size: Mapping[str, Any]) -> None:
    """Size alone, and the head of the table that follows."""
    print("Spearman with the published distilled accuracy:")
    for name in ("plain", "parameters", "depth", "macs"):
        print(f"  {name:<12} {size[name]:6.3f}")
    print(f"  parameters order {size['right_pairs']} of {size['pairs']} pairs of like size correctly")
    print("\ninput     init     term       rho  (sd)   of the mean | given params  given MACs | pairs", flush=True)


def show_bed(one: Mapping[str, Any]) -> None:
    """One kind of input with one initialiser."""
    for name, term in one["terms"].items():
        rho = f"{term['rho']:5.2f} ({term['sd']:.2f})  {term['rho_of_the_mean']:6.2f}      "
        beyond = f"{term['given_parameters']:7.2f} {term['given_macs']:10.2f}   "
        pairs = f"{term['right_pairs']:3d} / {term['pairs']}"
        print(f"{one['input']:<9} {one['init']:<8} {name:<9} {rho}| {beyond}| {pairs}")
    print(f"{'':<18} {one['cpu_s_per_seed']:.1f} CPU s a seed", flush=True)


def show_cost(part: Mapping[str, Any]) -> None:
    """Effect 3."""
    print(
        f"\nCPU time of scoring with 3 draws, of a short trial ({part['epochs']} epochs) and of the full training"
        f" ({part['full_epochs']} epochs), timed on {part['scaled_from']} of {part['of']} examples"
    )
    for row in part["students"]:
        print(
            f"  {row['macs'] / 1e6:6.2f} M MACs: {1000 * row['score_s']:7.1f} ms, {row['short_training_s']:7.1f} s"
            f" ({row['times']:.0f} times), {row['full_training_s']:7.1f} s ({row['times_full']:.0f} times)"
        )
    print(f"  and {part['teacher_once_s']:.2f} s for the teacher, once")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the effects and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FASHION, help="folder of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=64, help="architectures, evenly picked, for a quick look")
    parser.add_argument("--init", nargs="*", default=["kaiming", "gauss"])
    parser.add_argument("--proxies", action="store_true", help="every other training-free score as well, on noise")
    parser.add_argument("--students", type=int, default=3, help="of effect 3; 0 to leave it out")
    parser.add_argument("--examples", type=int, default=55_000, help="of an epoch of effect 3; fewer are scaled up")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    rows = published()
    rows = rows[:: max(1, len(rows) // asked.rows)]
    inputs = {"noise": [noise(seed) for seed in range(asked.seeds)]}
    splits = TASK.load(asked.data) if asked.data.is_dir() else None
    if splits is not None:
        inputs["pictures"] = [pictures(splits, seed) for seed in range(asked.seeds)]
    else:
        print(f"{asked.data} is absent: noise alone, and no costs")
    found: dict[str, Any] = {"seeds": asked.seeds, "architectures": len(rows), "control": control(rows), "beds": []}
    show_control(found["control"])
    for name, drawn in inputs.items():
        for init in asked.init:
            found["beds"].append({"input": name} | bed(rows, drawn, init))
            show_bed(found["beds"][-1])
    if asked.proxies:
        found["proxies"] = other_proxies(rows, inputs["noise"])
        for name, row in found["proxies"].items():
            beyond = f"given parameters {row['given_parameters']:6.2f}"
            print(f"{name:<24} {row['rho']:6.2f}  {beyond}  {1000 * row['cpu_s']:7.1f} ms")
    if asked.students and splits is not None:
        found["cost"] = cost(splits, asked.students, asked.examples)
        show_cost(found["cost"])
    found["verdicts"] = verdicts(found)
    for claim, verdict in found["verdicts"].items():
        print(f"{claim}: {verdict}")
    if asked.json is not None:
        write_text(asked.json, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
