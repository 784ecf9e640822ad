"""The bed that selectors are compared on: one teacher, a set of students, and one way to train each.

A full training is short enough to do it for every student with two seeds on a small machine. Features are computed once
(the tasks' front-ends have no weights) and no example is augmented, so the teacher's answers are computed once as well.
"""

import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

import profiles
from compress import catalog
from compress import recipe as recipes
from compress.contracts.batch import Batch
from compress.contracts.examples import Examples, Splits, TensorExamples
from compress.contracts.selector import identity_of
from compress.contracts.signals import Signals
from compress.contracts.space import Space, SpaceContext
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.job import Job
from compress.methods.vanilla_kd import METHOD
from compress.network import Model
from compress.progress import Quiet
from compress.ranks import join, open_folder
from compress.stages.prepare import prepare
from compress.strategies.plain import Plain
from compress.training.evaluate import evaluate, outputs_of
from compress.training.fit import fit
from profiles.atomic import write_text
from profiles.cost import Cost

WIDTH_MULTIPLE = 8
FAMILY = "x86-cpu"  # offers every kind of block; the students are costed on all targets


@dataclass(frozen=True)
class Protocol:
    """What a full training is, and which students there are.

    Attributes:
        train, val: examples of the task's own splits, the first ones; test is the published split.
        macs: the network's multiply-accumulates, from and to, without the front-end.
        spaces: name -> students drawn from it.
        seeds: share of the full training -> trainings with that share.
        targets: on which each student is costed.
    """

    task: str
    train: int
    val: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    macs: tuple[float, float]
    spaces: Mapping[str, int]
    seeds: Mapping[float, int]
    targets: tuple[str, ...] = ("jetson", "hearing_aid", "x86")

    def epochs_of(self, share: float) -> int:
        """Whole epochs of a share."""
        return max(1, round(share * self.epochs))


SPACES = {"int8_conv": 28, "derived": 12, "inverted_residual": 10, "audio_conv": 8, "mlp": 6, "transformer_encoder": 4}
SEEDS = {1 / 16: 5, 1 / 8: 3, 1 / 4: 1, 1.0: 2}
PROTOCOLS = {
    "digits": Protocol("digits", 1_078, 269, 24, 32, 4e-3, 0.01, (3e3, 2e5), SPACES, SEEDS),
    "fashion_mnist": Protocol("fashion_mnist", 5_000, 2_500, 16, 64, 4e-3, 0.01, (1e4, 5e5), SPACES, SEEDS),
    "spoken_digits": Protocol("spoken_digits", 2_400, 300, 16, 32, 4e-3, 0.01, (1e4, 5e5), SPACES, SEEDS),
}


@dataclass(frozen=True)
class Trained:
    """One training: scores are fractions, `cpu_s` the CPU seconds of the training alone."""

    val: float
    test: float
    cpu_s: float


class Answers(Teacher):
    """Logits by position, (N, C)."""

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


class Toy(Task):
    """Stands for a task where nothing is trained."""

    name = "toy"
    labels = ("0", "1")
    input_shape = (1,)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Identity()


def of_features(task: Task) -> Task:
    """The task for somebody whose examples are what its front-end gave."""

    @final
    class OfFeatures(Task):
        name = task.name
        kind = task.kind
        labels = task.labels
        input_shape = task.input_shape
        metric = task.metric

        def load(self, data: Path | None) -> Splits:
            raise NotImplementedError

        def frontend(self) -> nn.Module:
            return nn.Identity()

        def teacher(self) -> nn.Module:
            return task.teacher()

        def loss(self, output: Tensor, labels: Tensor) -> Tensor:
            return task.loss(output, labels)

        def score(self, output: Tensor, labels: Tensor) -> Tensor:
            return task.score(output, labels)

    return OfFeatures()


class Bed:
    """Data, teacher and spaces of one protocol, ready to train students."""

    def __init__(self, protocol: Protocol, data: Path | None, folder: Path, more_spaces: Sequence[str] = ()) -> None:
        """
        Args:
            data: of the task; None for one that brings its own.
            folder: where the teacher's run is kept; a reference teacher is trained where the cache has none.
            more_spaces: beside the protocol's, for selectors that make plans of their own.
        """
        self.protocol = protocol
        base = recipes.load(
            recipe=protocol.task if protocol.task in recipes.recipes() else None,
            overrides={
                "task": {"name": protocol.task} | ({} if data is None else {"data": str(data)}),
                "target": "x86",
            },
        )
        with open_folder(join(), folder, frozenset()) as store:
            self.job: Job = prepare(base, store, Quiet(), None)
        self.task: Task = self.job.task
        self.task_of_features = of_features(self.task)
        raw = Splits(
            first(self.job.splits.train, protocol.train),
            first(self.job.splits.val, protocol.val),
            self.job.splits.test,
        )
        self.features_of = self.task.frontend().eval()
        train, val, test = (features(self.features_of, split) for split in (raw.train, raw.val, raw.test))
        self.splits = Splits(train, val, test)
        network = self.job.teacher.network
        if network is None:
            raise ValueError("the bed's teacher is the task's own network")
        self.teacher = network.eval()
        self.answers = Answers(outputs_of(self.teacher, self.splits.train))
        self.teacher_test = evaluate(self.teacher, self.splits.test, self.task).score
        context = SpaceContext(
            self.teacher,
            self.splits.train.batch(torch.arange(8)).inputs[0],
            len(self.task.labels),
            WIDTH_MULTIPLE,
            FAMILY,
        )
        self.spaces: dict[str, Space[Any]] = {
            name: catalog.load("compress.spaces", name).SPACE(context)
            for name in (*protocol.spaces, *more_spaces)
            if name in catalog.names("compress.spaces")
        }
        self.targets = {name: profiles.target(name) for name in protocol.targets}

    def build(self, space: str, plan: Any, seed: int) -> nn.Module:
        """The untrained network, features -> logits."""
        torch.manual_seed(1_000 + seed)
        return self.spaces[space].build(plan)

    def train(self, space: str, plan: Any, share: float, seed: int) -> Trained:
        """Distil one student and score it."""
        protocol = self.protocol
        student = self.build(space, plan, seed)
        began = time.process_time()
        fit(
            method=METHOD,
            students={"student": student},
            teachers={"teacher": self.answers},
            objectives={name: make() for name, make in METHOD.objectives.items()},
            weights=METHOD.weights,
            splits=replace(self.splits, val=first(self.splits.val, 1)),  # no score per epoch: it is not used
            task=self.task,
            numbers=TrainingNumbers(
                protocol.epochs_of(share), protocol.batch_size, protocol.learning_rate, protocol.weight_decay
            ),
            seed=seed,
            precision="fp32",
            strategy=Plain(augment=False),
            together=False,
        )
        cpu_s = time.process_time() - began
        return Trained(
            evaluate(student, self.splits.val, self.task).score,
            evaluate(student, self.splits.test, self.task).score,
            cpu_s,
        )

    def cost(self, space: str, plan: Any, target: str) -> Cost:
        """With the front-end, on raw inputs, as the pipeline costs it."""
        model = Model(self.task.frontend(), self.build(space, plan, 0))
        chosen = self.targets[target]
        return profiles.profile(
            model, target=chosen, precision=chosen.precision, example=self.job.one_example, layers=False
        )

    def network_cost(self, space: str, plan: Any) -> Cost:
        """Without the front-end."""
        example = self.splits.train.batch(torch.arange(1)).inputs
        return profiles.profile(self.build(space, plan, 0), target="x86", example=example, layers=False)

    def draw(self, name: str, count: int) -> list[Any]:
        """`count` plans of one space within the protocol's range, evenly over the logarithm of their size."""
        space, rng = self.spaces[name], random.Random(f"students/{name}")
        low, high = self.protocol.macs
        steps = max(1, count // 4)
        room = {step: -(-count // steps) for step in range(steps)}
        plans: dict[str, Any] = {}
        pending = list(space.corners())
        for attempt in range(60 * count):
            plan = pending.pop(rng.randrange(len(pending))) if pending and rng.random() < 0.25 else space.sample(rng)
            identity = identity_of(name, plan)
            if identity in plans:
                continue
            macs = self.network_cost(name, plan).macs
            if not low <= macs < high:
                continue
            step = min(steps - 1, int(steps * position(macs, low, high)))
            if room[step] == 0 and attempt < 30 * count:  # some sizes a space hardly has
                continue
            room[step] -= 1
            plans[identity] = plan
            if len(plans) == count:
                break
        return list(plans.values())


def position(value: float, low: float, high: float) -> float:
    """Where a value lies between two others on a logarithmic scale, 0 to 1."""
    return math.log(value / low) / math.log(high / low)


def first(examples: Examples, count: int) -> TensorExamples:
    """The first `count` examples."""
    assert isinstance(examples, TensorExamples)
    return replace(
        examples, inputs=examples.inputs[:count], labels=examples.labels[:count], digest=f"{examples.digest}:{count}"
    )


def features(frontend: Callable[[Tensor], Tensor], examples: Examples) -> TensorExamples:
    """What the front-end makes of every example."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(examples), 256):
            index = torch.arange(start, min(start + 256, len(examples)))
            parts.append(frontend(examples.batch(index).inputs[0]))
    assert isinstance(examples, TensorExamples)
    return TensorExamples(torch.cat(parts), examples.labels, f"{examples.digest}:features")


def plain_cost(cost: Cost) -> dict[str, Any]:
    """A cost as the table keeps it."""
    keys = ("macs", "params", "weight_bytes", "peak_activation_bytes", "latency_ms", "interval_ms", "origin")
    figures = asdict(cost)
    return {key: figures[key] for key in keys}


def all_students(bed: Bed, kept: Path, spaces: Sequence[str]) -> list[tuple[str, Any]]:
    """Every (space, plan) of the protocol, always in the same order: drawn once, for `spaces`, and kept."""
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    for name, count in bed.protocol.spaces.items():
        if name not in known and name in spaces:
            known[name] = [plan.to_json() for plan in bed.draw(name, count)]
            write_text(kept, json.dumps(known))
    return [
        (name, bed.spaces[name].from_json(plan)) for name, plans in known.items() if name in spaces for plan in plans
    ]
