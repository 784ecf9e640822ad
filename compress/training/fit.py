"""The training loop: any method, any number of students, one process or several, from any checkpoint of its own."""

import hashlib
import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Examples, Splits
from compress.contracts.method import Method, Phase
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.step import Update
from compress.contracts.strategy import DataStrategy
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.contracts.world import whole as whole_rows
from compress.errors import TrainingError
from compress.privileged import told
from compress.strategies.plain import Plain
from compress.tally import total
from compress.training import checkpoint as disk
from compress.training.curve import CurvePoint as CurvePoint
from compress.training.curve import Outcome as Outcome
from compress.training.devices import Precision, laid_out, open_fabric, placed, repeatable, seed_all
from compress.training.evaluate import evaluating, score_part
from compress.training.global_batchnorm import global_batchnorm
from compress.training.nonfinite import broken_gradients, first_source
from compress.training.observe import Autocast, Observer, as_float32
from compress.training.order import EpochPlan, derived_seed, generator, steps_per_epoch
from compress.training.schedule import Weight, read_weight, weight_at
from compress.training.updates import Updates, one_cycle
from compress.training.whole_batch import gather, whole, whole_batches

EXAMPLES = 8  # shown to objectives before training, for shapes
WITHIN_EPOCH = 12  # a checkpoint inside an epoch waits this many times longer than one at its end


def fit(
    *,
    method: Method,
    students: Mapping[str, nn.Module],
    teachers: Mapping[str, Teacher],
    objectives: Mapping[str, Objective],
    weights: Mapping[str, Weight | Mapping[str, Any]],
    splits: Splits,
    task: Task,
    numbers: TrainingNumbers,
    seed: int,
    precision: Precision = "auto",
    clip: float | None = None,
    strategy: DataStrategy | None = None,
    checkpoint: Path | None = None,
    checkpoint_every_s: float = 5.0,
    before_epoch: Callable[[Clock], None] | None = None,
    before_step: Callable[[Clock], None] | None = None,
    on_point: Callable[[CurvePoint], None] | None = None,
    stop: Callable[[CurvePoint], bool] | None = None,
    together: bool = True,
    learned: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> Outcome:
    """Train the students in place, as the method says.

    The same call under `torchrun --nproc-per-node n` splits every batch over n processes and, but for the order in
    which sums are rounded, trains the same weights: batch statistics and gradients are those of the whole batch.
    Objectives that are `batch_wide` see the whole batch too. (Dropout draws differently in every process, and ranges
    that are observed are those of its own part of the batch until the epoch ends, when the first process's hold for
    all.)

    The same seed gives the same bits on the same machine with the same number of threads and processes; on a GPU as far
    as the kernels in use repeat themselves.

    Args:
        method: its phases, modules and rates drive the loop.
        students: by name; on return they hold the trained weights, on the CPU, in eval mode.
        teachers: by name; empty for a method that asks none.
        objectives: by name, already built with their numbers.
        weights: of each objective, also as recipes write them; those absent here have the method's own, or 1.
        splits: the train split is trained on (or the strategy's streams), the val split gives the curve's score.
        task: its loss, metric and augmentation.
        numbers: epochs of all phases together, global batch size, peak learning rate.
        seed: of data order, augmentation and dropout. Initial weights are the caller's.
        precision: "auto" is bf16 where the hardware has it natively.
        clip: largest gradient norm of one update; None for no limit.
        strategy: None for the method's own, or the train split with the task's augmentation.
        checkpoint: file to resume from and to write to; the run is bit-identical to one that was never interrupted.
        checkpoint_every_s: seconds that lie between two checkpoints at least.
        before_epoch: called before every epoch, also after a resume.
        before_step: called before every step, to freeze parts of a network when the clock says so. It must be cheap.
        on_point: called in the first process after every epoch.
        stop: called after every epoch; true ends the training.
        together: under torchrun, with all processes; False for a training that one process does alone.
        learned: state dicts that objectives had when this student was trained before; those named take theirs up.

    Raises:
        TrainingError: the loss is not finite (the last good checkpoint is kept), or the checkpoint is another run's.
        RecipeError: a tap that the student has not, or a weight that cannot be used.
    """
    fabric, exact = open_fabric(precision, together)
    chosen = strategy or (method.strategy or Plain)()
    with ExitStack() as stack:
        stack.enter_context(repeatable(fabric.device))
        loop = _Loop(
            stack=stack,
            method=method,
            students=dict(students),
            teachers=dict(teachers),
            objectives=dict(objectives),
            weights={**dict.fromkeys(objectives, 1.0), **method.weights, **_read_weights(weights)},
            strategy=chosen,
            splits=chosen.splits(splits),
            task=task,
            numbers=numbers,
            seed=seed,
            device=fabric.device,
            rank=fabric.global_rank,
            processes=fabric.world_size,
            autocast=fabric.autocast if exact == "bf16" else nullcontext,
            precision=exact,
            clip=clip,
            before_epoch=before_epoch,
            before_step=before_step,
            on_point=on_point,
            stop=stop,
            learned=learned or {},
            saver=_Saver(checkpoint if fabric.global_rank == 0 else None, checkpoint, checkpoint_every_s),
        )
        return loop.run()


@dataclass
class _Saver:
    """When to write, and where; only the first process writes."""

    target: Path | None
    source: Path | None
    every_s: float
    last: float = field(default_factory=time.monotonic)

    def due(self, *, epoch_ended: bool) -> bool:
        wait = self.every_s * (1 if epoch_ended else WITHIN_EPOCH)
        return self.target is not None and time.monotonic() - self.last >= wait


@dataclass
class _Sums:
    """Running means of one epoch."""

    loss: float = 0.0
    updates: int = 0
    terms: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, loss: float, logs: Mapping[str, float]) -> None:
        self.loss += loss
        self.updates += 1
        for name, value in logs.items():
            self.terms[name] = self.terms.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> tuple[float, dict[str, float]]:
        return self.loss / max(1, self.updates), {name: self.terms[name] / self.counts[name] for name in self.terms}


@dataclass
class _Pending:
    """An update whose figures were not looked at yet: on a GPU looking would wait for it."""

    clock: Clock
    batches: Mapping[str, Batch]
    loss: Tensor
    logs: Mapping[str, Tensor]
    norm: Tensor  # of the gradient


@dataclass(frozen=True)
class _Best:
    """The epoch with the best validation score so far: its position in the curve and the students' weights."""

    score: float
    place: int
    weights: Mapping[str, Mapping[str, Tensor]]


@dataclass
class _Loop:
    stack: ExitStack
    method: Method
    students: dict[str, nn.Module]
    teachers: dict[str, Teacher]
    objectives: dict[str, Objective]
    weights: dict[str, Weight]
    strategy: DataStrategy
    splits: Splits
    task: Task
    numbers: TrainingNumbers
    seed: int
    device: torch.device
    rank: int
    processes: int
    autocast: Autocast
    precision: str
    clip: float | None
    before_epoch: Callable[[Clock], None] | None
    before_step: Callable[[Clock], None] | None
    on_point: Callable[[CurvePoint], None] | None
    stop: Callable[[CurvePoint], bool] | None
    learned: Mapping[str, Mapping[str, Tensor]]
    saver: _Saver

    def run(self) -> Outcome:
        """Prepare, take up a checkpoint where there is one, and run what is left."""
        self._clock = Clock(self.method.phases[0].name, 0, 1, 0, 1)
        self._place()
        preparation = self._prepare()
        self._modules = {
            name: build(preparation).to(self.device).train() for name, build in self.method.modules.items()
        }
        for objective in self.objectives.values():
            objective.to(self.device).train()
        self._synchronise()
        if self.processes > 1:
            self.stack.enter_context(global_batchnorm([*self.objectives.values(), *self._modules.values()]))
            self.stack.enter_context(whole_batches(self.objectives.values()))
        self._observe(self._modules)
        self._world = self._build_world()
        self._curve: list[CurvePoint] = []
        self._taken, self._stopped = 0, False
        self._best: _Best | None = None
        self._identity = self._fingerprint()
        saved = disk.read(self.saver.source, self._identity, self.device) if self.saver.source else None
        lengths = _epochs(self.method.phases, self.numbers.epochs)
        first = 0 if saved is None else int(saved["phase"])
        if saved is not None and saved["done"]:
            self._restore_weights(saved)
        for number in range(first, len(self.method.phases)):
            if lengths[number] > 0 and not self._stopped:
                self._phase(number, lengths[number], saved if number == first else None)
        if not (saved and saved["done"]):
            self._take_best()
            if self.saver.target is not None:
                self._save(len(self.method.phases), 0, 0, 0, _Sums(), None, done=True)
        kept = -1 if self._best is None else self._best.place
        return Outcome(tuple(self._curve), self._stopped, self.precision, self._taken, kept)

    # -- before the first step ---------------------------------------------------------------------------------------

    def _trained(self) -> list[nn.Module]:
        return [*self.students.values(), *self.objectives.values(), *self._modules.values()]

    def _place(self) -> None:
        for student in self.students.values():
            student.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
            self.stack.callback(_give_back, student)
        if self.processes > 1:  # before the taps, which may be on such a module
            self.stack.enter_context(global_batchnorm(self.students.values()))
        for teacher in self.teachers.values():
            for module in teacher.modules().values():
                module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
                self.stack.callback(_as_before, module)
        self._observers: dict[str, Observer] = {}
        self._observe(self.students)

    def _observe(self, networks: Mapping[str, nn.Module]) -> None:
        for name, network in networks.items():
            usual = name in self.students
            taps = [
                tap
                for objective in self.objectives.values()
                for tap in objective.network_taps.get(name, objective.student_taps if usual else ())
            ]
            self._observers[name] = Observer(network, taps, self.autocast)
            self.stack.callback(self._observers[name].close)

    def _prepare(self) -> Preparation:
        index = torch.arange(min(EXAMPLES, len(self.splits.train)))
        batch = laid_out(placed(replace(self.splits.train.batch(index), stream="train"), self.device))
        name = next(iter(self.students))
        with evaluating(self.students[name]), torch.no_grad():
            student = self._observers[name](batch).detach()
        first = next(iter(self.teachers), None)
        teacher = student if first is None else self._ask(first, batch)
        preparation = Preparation(
            self.splits,
            self._answers,
            student,
            teacher,
            len(self.task.labels),
            self.seed,
            self._supervised,
            self._observers[name].stages,
            {} if first is None else self.teachers[first].stages,
            self._augmented,
            self.students,
            self.teachers,
            self.task.companions,
        )
        seed_all(derived_seed(self.seed, "objectives"), self.device)
        for name, objective in self.objectives.items():
            objective.prepare(preparation)
            if name in self.learned:
                objective.take_up(self.learned[name])
        self.strategy.prepare(preparation)
        return preparation

    def _augmented(self, batch: Batch, source: torch.Generator) -> Batch:
        return replace(self.task.augment(batch, source), stream="") if self.task.augments else batch

    def _answers(self, split: str) -> Iterator[tuple[Batch, Signals]]:
        examples, teacher = self.splits.named()[split], next(iter(self.teachers))
        for start in range(0, len(examples), self.numbers.batch_size):
            index = torch.arange(start, min(start + self.numbers.batch_size, len(examples)))
            batch = laid_out(placed(replace(examples.batch(index), stream=split), self.device))
            yield batch, self._ask(teacher, batch)

    def _synchronise(self) -> None:
        """All processes start from the first one's weights."""
        if self.processes > 1:
            for module in self._trained():
                for tensor in (*module.parameters(), *module.buffers()):
                    dist.broadcast(tensor.detach(), 0)

    def _build_world(self) -> World:
        groups: dict[str, tuple[nn.Parameter, ...]] = {
            **{name: tuple(student.parameters()) for name, student in self.students.items()},
            "objectives": tuple(p for objective in self.objectives.values() for p in objective.parameters()),
            **{name: tuple(module.parameters()) for name, module in self._modules.items()},
        }
        return World(
            self.students,
            self.teachers,
            self.objectives,
            self._modules,
            lambda name: weight_at(self.weights[name], self._clock),
            lambda name, batch: self._observers[name](batch),
            self._ask,
            groups,
            self._supervised,
            lambda batch: told(batch, self.task.privileged),
            (lambda rows: gather(rows, self.device)) if self.processes > 1 else whole_rows,
        )

    def _ask(self, name: str, batch: Batch) -> Signals:
        with torch.no_grad(), self.autocast():
            return as_float32(self.teachers[name].observe(batch))

    def _supervised(self, output: Tensor, labels: Tensor) -> Tensor:
        loss = self.task.loss(output, labels)
        share = self.numbers.label_smoothing
        if share and self.task.kind == "classification":
            loss = (1.0 - share) * loss - share * output.log_softmax(dim=1).mean(dim=1)
        return loss

    # -- one phase ---------------------------------------------------------------------------------------------------

    def _phase(self, number: int, epochs: int, saved: dict[str, Any] | None) -> None:
        phase = self.method.phases[number]
        streams = self.splits.named()
        length = len(streams[next(iter(self.strategy.streams))])
        batch_size = min(self.numbers.batch_size, length)
        steps = steps_per_epoch(length, batch_size)
        self._clock = Clock(phase.name, 0, epochs * steps, 0, epochs)
        # After an interruption everything that earlier phases set stands again; weights are then the saved ones.
        for begun in (phase,) if saved is None else self.method.phases[: number + 1]:
            if begun.begin is not None:
                begun.begin(self._world)
        members = {n: g for n, g in self._world.groups.items() if phase.groups is None or n in phase.groups}
        self._updates = Updates(members, self.numbers, self.method.rates, self.clip, self.processes)
        first, offset, sums = 0, 0, _Sums()
        if saved is not None:
            first, offset, sums = self._restore(saved)
        for epoch in range(first, epochs):
            self._clock = Clock(phase.name, epoch * steps + offset, epochs * steps, epoch, epochs)
            if self.before_epoch is not None:
                self.before_epoch(self._clock)
            start = replace(self._clock, step=epoch * steps)
            plan = EpochPlan.draw(self.strategy, streams, batch_size, steps, self.seed, start)
            self._epoch(number, phase, plan, streams, offset, steps, sums)
            self._finish(number, phase, epoch, epochs, steps, sums)
            offset, sums = 0, _Sums()
            if self._stopped:
                return

    def _epoch(
        self,
        number: int,
        phase: Phase,
        plan: EpochPlan,
        streams: Mapping[str, Examples],
        offset: int,
        steps: int,
        sums: _Sums,
    ) -> None:
        epoch, start = self._clock.epoch, time.monotonic()
        earlier = sums.seconds
        pending: list[_Pending] = []
        for step in range(offset, steps):
            self._clock = replace(self._clock, step=epoch * steps + step)
            if self.before_step is not None:
                self.before_step(self._clock)
            pending = self._step(phase, plan, streams, step, pending, sums)
            if self.saver.due(epoch_ended=False) and step + 1 < steps:
                self._look(pending, sums)
                pending = []
                sums.seconds = earlier + time.monotonic() - start
                self._save(number, epoch, step + 1, steps, sums, self._updates, done=False)
        self._look(pending, sums)
        sums.seconds = earlier + time.monotonic() - start

    def _step(
        self,
        phase: Phase,
        plan: EpochPlan,
        streams: Mapping[str, Examples],
        step: int,
        pending: list[_Pending],
        sums: _Sums,
    ) -> list[_Pending]:
        clock = self._clock
        batches, share = self._batches(plan, streams, step)
        # Dropout and the like: repeatable from any step, and different in every process.
        seed_all(derived_seed(self.seed, "step", phase.name, clock.step, self.rank), self.device)
        fresh: list[_Pending] = []
        for update in phase.step(self._world, batches, clock):
            self._check_groups(update)
            fresh.append(_Pending(clock, batches, *self._updates.apply(update, clock, share)))
            if self.device.type == "cpu":
                self._look(fresh, sums)
                fresh = []
            if update.feedback:
                self._learn(batches, {name: value.detach() for name, value in update.feedback.items()})
            for teacher in self.teachers.values():
                teacher.after_step(self.students)
        self._taken += 1
        self._look(pending, sums)  # of the step before: on a GPU this one is still being computed
        return fresh

    def _learn(self, batches: Mapping[str, Batch], feedback: Mapping[str, Tensor]) -> None:
        for name, rows in feedback.items():
            if len(rows) != (count := len(next(iter(batches.values())))):
                raise ValueError(f"the feedback {name!r} has {len(rows)} rows for a batch of {count} examples")
        if self.processes > 1:  # otherwise every process would change the next batches in its own way
            batches = {name: whole(batch, self.device) for name, batch in batches.items()}
            feedback = {name: gather(rows, self.device) for name, rows in feedback.items()}
        self.strategy.learn(batches, feedback)

    def _batches(
        self, plan: EpochPlan, streams: Mapping[str, Examples], step: int
    ) -> tuple[Mapping[str, Batch], float]:
        """This process's part of the step's batches, and its share of the first stream's batch."""
        part, parts = self.rank, self.processes
        count = len(next(iter(plan.positions.values()))[step])
        same = self.strategy.unchanged(self.task)
        # What is common to a batch, such as edges, belongs to the whole of it, which such objectives are shown.
        wide = parts > 1 and any(objective.batch_wide for objective in self.objectives.values())
        if same and not wide:
            batches = plan.batches(streams, step, part, parts)
            batches = {name: placed(batch, self.device) for name, batch in batches.items()}
            source = generator(self.seed, "transform", self._clock.phase, self._clock.step)
            ready = self.strategy.transform(batches, self.teachers, self._clock, source)
            ready = {name: laid_out(batch) for name, batch in ready.items()}
            return ready, len(next(iter(ready.values()))) / count if parts > 1 else 1.0
        # Every process draws the whole batch's random changes, so that they do not depend on how many there are.
        batches = {name: placed(batch, self.device) for name, batch in plan.batches(streams, step).items()}
        source = generator(self.seed, "transform", self._clock.phase, self._clock.step)
        with torch.no_grad():
            changed = self.strategy.transform(batches, self.teachers, self._clock, source)
        count = len(next(iter(changed.values())))
        ready = {
            name: laid_out((batch if same else replace(batch, stream="")).part(part, parts))
            for name, batch in changed.items()
        }
        return ready, len(next(iter(ready.values()))) / count if parts > 1 else 1.0

    def _check_groups(self, update: Update) -> None:
        unknown = [name for name in update.groups if name not in self._world.groups]
        # "student" is the usual name; a method that calls its students otherwise says so in its updates.
        if unknown and unknown != ["student"]:
            raise ValueError(f"an update moves {unknown[0]!r}; there are the groups {', '.join(self._world.groups)}")

    def _look(self, pending: list[_Pending], sums: _Sums) -> None:
        for item in pending:
            loss = float(item.loss)
            logs = {name: float(value) for name, value in item.logs.items()}
            if not math.isfinite(loss) or not math.isfinite(float(item.norm)):
                self._refuse(item, loss, logs)
            sums.add(loss, logs)

    def _refuse(self, item: _Pending, loss: float, logs: Mapping[str, float]) -> None:
        terms = [f"{name} is {value}" for name, value in logs.items() if not math.isfinite(value)]
        clock, positions = item.clock, next(iter(item.batches.values())).index.tolist()
        shown = ", ".join(map(str, positions[:8])) + (", ..." if len(positions) > 8 else "")
        kept = "" if self.saver.source is None else "; the last good checkpoint is kept"
        what = (
            f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient's norm became {float(item.norm)}"
        )
        ask = {name: partial(self._ask, name) for name in self.teachers}
        source = first_source(item.batches, ask, self.students, self.autocast, broken_gradients(self.students))
        raise TrainingError(
            f"{what} in phase {clock.phase!r}, epoch {clock.epoch}, step {clock.step} of {clock.steps} "
            f"({'; '.join(terms) or 'no logged term shows it'}), on the examples {shown}; {source}{kept}",
            fix="mend what is named first, or lower the learning rate, set a gradient clip, train in fp32",
        )

    def _finish(self, number: int, phase: Phase, epoch: int, epochs: int, steps: int, sums: _Sums) -> None:
        self._share_buffers()
        for teacher in self.teachers.values():
            teacher.after_epoch(self.students)
        loss, terms = sums.means()
        rate = self.numbers.learning_rate * one_cycle(self._clock.step, self._clock.steps)
        point = CurvePoint(phase.name, epoch, epochs, loss, terms, self._validate(), rate, sums.seconds)
        self._curve.append(point)
        self._remember(number, point)
        if self.on_point is not None and self.rank == 0:
            self.on_point(point)
        self._stopped = self._agreed(self.stop is not None and self.stop(point))
        if self.saver.due(epoch_ended=True) and not self._stopped:
            self._save(number, epoch + 1, 0, steps, _Sums(), self._updates, done=False)

    def _remember(self, number: int, point: CurvePoint) -> None:
        """Keep the students' weights where the last phase's epoch is the best one so far, if that is asked for."""
        if not self.numbers.keep_best or number + 1 < len(self.method.phases) or point.validation is None:
            return
        if self._best is None or point.validation >= self._best.score:
            weights = {name: _copied(student) for name, student in self.students.items()}
            self._best = _Best(point.validation, len(self._curve) - 1, weights)

    def _take_best(self) -> None:
        """Put the best epoch's weights into the students."""
        if self._best is not None:
            for name, student in self.students.items():
                student.load_state_dict(self._best.weights[name])

    def _agreed(self, decision: bool) -> bool:
        """The first process's decision, in every process."""
        if self.processes == 1:
            return decision
        told = torch.tensor([int(decision)], device=self.device)
        dist.broadcast(told, 0)
        return bool(told.item())

    def _share_buffers(self) -> None:
        """Statistics that only one process saw (observers of ranges) follow the first one's."""
        if self.processes > 1:
            for module in self._trained():
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)

    def _validate(self) -> float | None:
        """The task's metric of the first student, each process scoring its part."""
        examples = self.splits.val
        if len(examples) == 0:
            return None
        count = len(examples)
        part = range(count * self.rank // self.processes, count * (self.rank + 1) // self.processes)
        student = next(iter(self.students.values()))
        found, _ = score_part(student, examples, self.task, part, self.numbers.batch_size, False, self.autocast)
        if self.processes == 1:
            return found.value()
        width = torch.tensor(len(found.sums), device=self.device)
        dist.all_reduce(width, dist.ReduceOp.MAX)  # a process without a part knows no sums
        summed = torch.zeros(int(width), dtype=torch.float64, device=self.device)
        summed[: len(found.sums)] = torch.tensor(found.sums, dtype=torch.float64)
        dist.all_reduce(summed)
        return total(self.task, summed.tolist(), count)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, nn.Module]:
        """Everything whose weights the training changes, by a name that says where it belongs."""
        parts = {f"student/{name}": module for name, module in self.students.items()}
        parts |= {f"objective/{name}": module for name, module in self.objectives.items()}
        parts |= {f"module/{name}": module for name, module in self._modules.items()}
        for name, teacher in self.teachers.items():
            if not teacher.cacheable:
                parts |= {f"teacher/{name}/{part}": module for part, module in teacher.modules().items()}
        return parts

    def _save(
        self, phase: int, epoch: int, step: int, steps: int, sums: _Sums, updates: Updates | None, *, done: bool
    ) -> None:
        assert self.saver.target is not None
        disk.write(
            self.saver.target,
            self._identity,
            {
                "phase": phase,
                "epoch": epoch,
                "step": step,
                "done": done,
                "stopped": self._stopped,
                "taken": self._taken,
                "sums": vars(sums),
                "curve": disk.curve_to_plain(self._curve),
                "weights": {name: module.state_dict() for name, module in self._parts().items()},
                "optimizers": updates.state() if updates is not None else {},
                "strategy": dict(self.strategy.state()),
                "best": None if self._best is None else vars(self._best),
            },
        )
        self.saver.last = time.monotonic()

    def _restore(self, saved: dict[str, Any]) -> tuple[int, int, _Sums]:
        self._restore_weights(saved)
        self._updates.restore(saved["optimizers"])
        return int(saved["epoch"]), int(saved["step"]), _Sums(**saved["sums"])

    def _restore_weights(self, saved: dict[str, Any]) -> None:
        for name, module in self._parts().items():
            module.load_state_dict(saved["weights"][name])
        self.strategy.restore(saved["strategy"])
        self._curve = disk.curve_from_plain(saved["curve"])
        self._taken, self._stopped = int(saved["taken"]), bool(saved["stopped"])
        self._best = None if saved["best"] is None else _Best(**saved["best"])

    def _fingerprint(self) -> str:
        """Changes with everything that decides the weights, as far as it can be named."""
        described = [
            self.method.source,
            [(phase.name, phase.share, phase.groups) for phase in self.method.phases],
            sorted((name, repr(rate)) for name, rate in self.method.rates.items() if not inspect.isfunction(rate)),
            sorted((name, repr(weight)) for name, weight in self.weights.items() if not inspect.isfunction(weight)),
            self.numbers,
            self.seed,
            self.precision,
            self.clip,
            [(name, part.fingerprint()) for name, part in self.splits.named().items() if name != "test"],
            [(name, teacher.fingerprint) for name, teacher in self.teachers.items() if teacher.cacheable],
            [
                (name, key, tuple(value.shape))
                for name, module in self._parts().items()
                for key, value in module.state_dict().items()
                if isinstance(value, Tensor)
            ],
        ]
        return hashlib.sha256(repr(described).encode()).hexdigest()


def _read_weights(weights: Mapping[str, Weight | Mapping[str, Any]]) -> dict[str, Weight]:
    return {
        name: weight if callable(weight) else read_weight(weight, f"objective '{name}'")
        for name, weight in weights.items()
    }


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _give_back(student: nn.Module) -> None:
    _as_before(student)
    student.eval()
    for parameter in student.parameters():
        parameter.grad = None


def _as_before(module: nn.Module) -> None:
    # Exporters and safetensors want the plain layout.
    module.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _epochs(phases: tuple[Phase, ...], epochs: int) -> list[int]:
    """Epochs of each phase by largest remainder; each has one at least where there are enough."""
    total = sum(phase.share for phase in phases)
    exact = [epochs * phase.share / total for phase in phases]
    whole = [math.floor(value) for value in exact]
    order = sorted(range(len(phases)), key=lambda n: exact[n] - whole[n], reverse=True)
    for number in order[: epochs - sum(whole)]:
        whole[number] += 1
    while epochs >= len(phases) and 0 in whole:
        whole[whole.index(max(whole))] -= 1
        whole[whole.index(0)] += 1
    return whole
