"""Several teachers with masks, of which a gate picks one per sample; the student sees one modality of two.

Source: Li, Yang, Chen, Dong, Chen, Wang, "MST-Distill: Mixture of Specialized Teachers for Cross-Modal Knowledge
Distillation", ACM Multimedia 2025, arXiv:2507.07015. Shows: a teacher that is trained on by the method, a second one
that the task brings, networks that teach each other and then freeze, three phases with different optimiser groups,
inputs that no student sees. Of the networks the method knows the taps and their widths alone, as recipes say them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits
from compress.contracts.method import Method, Phase
from compress.contracts.preparation import Preparation
from compress.contracts.step import Step, Update
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.world import World
from compress.objectives.soft_targets import soft_target_loss
from compress.teachers.frozen import FrozenTeacher
from compress.training.curve import CurvePoint
from compress.training.fit import fit

CLASSES, WIDTH, TAU = 2, 8, 4.0
WAYS = (("fused", "0"), ("fused", "2"), ("other", "0"), ("other", "2"))  # network and tapped module


def routed(gate: Tensor, kd: Tensor, top: int) -> Tensor:
    """(B, E) gate probabilities and divergences -> (B,): mean over the chosen ways, none of it through the gate."""
    return kd.gather(1, gate.topk(top, dim=1).indices).mean(dim=1)


def load_balance(gate: Tensor) -> Tensor:
    """KL of the uniform distribution from the mean gate, over E as the authors' code divides it."""
    share = 1.0 / gate.shape[1]
    return (share * (share / gate.mean(0).clamp(min=1e-8)).log()).mean()


class Mask(nn.Module):
    """A factor in (0, 1) for each feature, from the features."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.layer(features))


def masked(network: nn.Module, tap: str, mask: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """The network's answer with one module's output multiplied by its mask; the hook lives for this call only."""
    hook = network.get_submodule(f"body.{tap}").register_forward_hook(lambda _m, _i, out: out * mask(out))
    try:
        answer: Tensor = network(*inputs)
        return answer
    finally:
        hook.remove()


class Net(nn.Module):
    """Concatenates what it is given."""

    def __init__(self, modalities: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(3 * modalities, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES)
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        answer: Tensor = self.body(torch.cat(inputs, dim=1))
        return answer


def views(world: World, batch: Batch) -> dict[str, Batch]:
    """What each network sees of a batch: its inputs, these and the privileged ones, or the privileged ones alone."""
    told = world.told(batch)
    return {"student": batch, "fused": told, "other": batch.with_inputs(*told.inputs[len(batch.inputs) :])}


def cotrain(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    """Everyone learns labels and from everyone else."""
    batch = batches["train"]
    assert batch.labels is not None
    seen = views(world, batch)
    answers = {name: world.observe(name, seen[name]).output for name in seen}
    hard = sum(world.supervised(answer, batch.labels).mean() for answer in answers.values())
    soft = sum(soft_target_loss(answers[a], answers[b], TAU).mean() for a in answers for b in answers if a != b)
    yield Update(hard + soft, groups=("student", "fused", "other"), logs={"hard": torch.as_tensor(hard)})


def freeze(world: World) -> None:
    for name in ("fused", "other"):
        world.modules[name].eval().requires_grad_(False)


def specialise(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    """Each mask learns to make its teacher say what the student says."""
    batch = batches["train"]
    with torch.no_grad():
        student = world.observe("student", batch).output
    yield Update(
        torch.stack([soft_target_loss(way, student, TAU).mean() for way in ways(world, batch)]).sum(), groups=("masks",)
    )


def ways(world: World, batch: Batch) -> list[Tensor]:
    seen, masks = views(world, batch), world.modules["masks"]
    return [
        masked(world.modules[name], tap, masks.get_submodule(str(number)), seen[name].inputs)
        for number, (name, tap) in enumerate(WAYS)
    ]


def route(learned: bool) -> Callable[[World, Mapping[str, Batch], Clock], Iterator[Update]]:
    def step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
        batch = batches["train"]
        assert batch.labels is not None
        output = world.observe("student", batch).output
        with torch.no_grad():
            teachers = ways(world, batch)
        kd = torch.stack([soft_target_loss(output, teacher, TAU) for teacher in teachers], dim=1)
        gate = world.modules["gate"](output.detach()).softmax(1)
        loss = world.supervised(output, batch.labels).mean() + routed(gate, kd, 1).mean()
        if learned:  # the published router gets no gradient from what it routes
            worth = torch.stack([world.supervised(teacher, batch.labels) for teacher in teachers], dim=1)
            loss = loss + (gate * worth).sum(1).mean() + load_balance(gate)
        yield Update(loss, groups=("student", "gate"), logs={"entropy": -(gate * gate.log()).sum(1).mean()})

    return step


def fused(preparation: Preparation) -> nn.Module:
    """The given teacher, which sees both modalities, to be trained on."""
    return preparation.trainable_teacher()


def other(preparation: Preparation) -> nn.Module:
    """The task's network for the modality that no student sees."""
    return preparation.companions()["other"]


def make_masks(preparation: Preparation) -> nn.Module:
    return nn.ModuleList(Mask() for _ in WAYS)


def make_gate(preparation: Preparation) -> nn.Module:
    gate = nn.Linear(preparation.outputs, len(WAYS))
    nn.init.zeros_(gate.weight)
    nn.init.zeros_(gate.bias)
    return gate


def method(learned: bool) -> Method:
    return Method(
        source="arXiv:2507.07015",
        objectives={},
        phases=(
            Phase("cotrain", 0.3, cotrain, ("student", "fused", "other")),
            Phase("specialise", 0.2, specialise, ("masks",), freeze),
            Phase("route", 0.5, route(learned), ("student", "gate"), freeze),
        ),
        modules={"fused": fused, "other": other, "masks": make_masks, "gate": make_gate},
    )


@dataclass(frozen=True)
class Pairs:
    """Two modalities; the second is an extra that only teachers get."""

    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def batch(self, index: Tensor) -> Batch:
        source = torch.Generator().manual_seed(self.seed)
        labels = torch.randint(0, CLASSES, (self.count,), generator=source)
        mine, other = (torch.randn(self.count, 3, generator=source) + labels[:, None] for _ in range(2))
        return Batch((mine[index],), labels[index], index, {"other": other[index]})

    def fingerprint(self) -> str:
        return f"pairs-{self.count}-{self.seed}"


class PairTask(Task):
    name = "pairs"
    labels = ("a", "b")
    input_shape = (3,)
    privileged = ("other",)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return Net(2)

    def companions(self) -> Mapping[str, nn.Module]:
        return {"other": Net(1)}


def train(
    learned: bool, on_point: Callable[[CurvePoint], None] | None = None, watch: Callable[[World], None] | None = None
) -> tuple[Any, nn.Module]:
    torch.manual_seed(0)
    given = FrozenTeacher(Net(2), fingerprint="pairs", privileged=PairTask.privileged)
    student = Net(1)
    chosen = method(learned)
    if watch is not None:
        phases = tuple(replace(phase, step=watched(phase.step, watch)) for phase in chosen.phases)
        chosen = replace(chosen, phases=phases)
    outcome = fit(
        method=chosen,
        students={"student": student},
        teachers={"teacher": given},
        objectives={},
        weights={},
        splits=Splits(Pairs(128, 1), Pairs(64, 2), Pairs(8, 3)),
        task=PairTask(),
        numbers=TrainingNumbers(epochs=10, batch_size=32, learning_rate=1e-2),
        seed=0,
        precision="fp32",
        on_point=on_point,
    )
    return outcome, given.modules()["network"]


def watched(step: Step, watch: Callable[[World], None]) -> Step:
    """The same step, and a look at the world behind it."""

    def around(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
        yield from step(world, batches, clock)
        watch(world)

    return around


def first_weights() -> Tensor:
    """Of the given teacher's first layer."""
    torch.manual_seed(0)
    weights: Tensor = Net(2).state_dict()["body.0.weight"]
    return weights


S = torch.tensor([[2.0, 0, -1], [0, 1, 0]], dtype=torch.float64)
T1 = torch.tensor([[4.0, 0, 0], [0, 3, 1]], dtype=torch.float64)
T2 = torch.tensor([[1.0, 1, 0], [2, 0, 0]], dtype=torch.float64)
GATE = torch.tensor([[0.7, 0.3], [0.4, 0.6]], dtype=torch.float64)
DIGIT = 1e-10  # the last digit given


def test_reference_values() -> None:
    kd = torch.stack([soft_target_loss(S, teacher, TAU) for teacher in (T1, T2)], dim=1)
    assert kd.mean(0).tolist() == pytest.approx([0.3369613722, 0.6559340749], abs=DIGIT)
    assert routed(GATE, kd, 1).mean().item() == pytest.approx(0.5883525802, abs=DIGIT)
    assert routed(GATE, kd, 2).mean().item() == pytest.approx(0.4964477235, abs=DIGIT)
    assert load_balance(GATE).item() == pytest.approx(0.0025125840, abs=DIGIT)
    one = torch.tensor([[0.7, 0.1, 0.1, 0.1]], dtype=torch.float64)
    assert load_balance(one).item() == pytest.approx(0.1074532987, abs=DIGIT)


def test_one_mask_at_a_time_and_a_mask_of_ones_is_the_plain_teacher() -> None:
    network, inputs = Net(1), (torch.randn(5, 3),)
    ones = nn.Module()
    ones.forward = torch.ones_like  # type: ignore[assignment]
    torch.testing.assert_close(masked(network, "0", ones, inputs), network(*inputs))
    assert not any(module._forward_hooks for module in network.modules())


def test_three_phases_move_their_own_groups() -> None:
    now: dict[str, Tensor] = {}
    frozen: list[dict[str, Tensor]] = []

    def watch(world: World) -> None:
        now.update({name: value.clone() for name, value in world.modules["fused"].state_dict().items()})

    outcome, given = train(True, lambda point: frozen.append(dict(now)), watch)
    assert torch.equal(given.state_dict()["body.0.weight"], first_weights())  # the given teacher itself stays
    assert [point.phase for point in outcome.curve] == ["cotrain"] * 3 + ["specialise"] * 2 + ["route"] * 5
    assert not torch.equal(frozen[0]["body.0.weight"], frozen[2]["body.0.weight"])
    assert all(torch.equal(frozen[2]["body.0.weight"], later["body.0.weight"]) for later in frozen[3:])
    specialised = [point.loss for point in outcome.curve if point.phase == "specialise"]
    assert specialised[1] < specialised[0]
    assert outcome.validation is not None
    assert outcome.validation > 0.65  # half is chance, four fifths is the most that one modality allows


def test_the_published_router_is_never_trained_and_the_other_one_is() -> None:
    published, _ = train(learned=False)
    learned, _ = train(learned=True)
    uniform = torch.tensor(4.0).log().item()
    for point in published.curve[5:]:
        assert point.terms["entropy"] == pytest.approx(uniform, rel=1e-6)  # float32
    assert learned.curve[-1].terms["entropy"] < uniform - 1e-3
