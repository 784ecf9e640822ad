"""A dense detector learns where its teacher and the target say that objects are, from the teacher's boxes too.

Source: Yang, Shi, Ding, Wang, Qi, "Towards Efficient 3D Object Detection with Knowledge Distillation", NeurIPS 2022,
arXiv:2205.15156, with the losses of CVMI-Lab/SparseKD. Shows: detection, whose labels are padded lists of boxes and
whose heads are one dense output; a metric of ranked detections made from sums; a strategy that puts a (cached)
teacher's boxes among the labels; a term over all cells of a batch; a student that starts as a slice of its teacher.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits
from compress.contracts.method import Method, Phase
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.contracts.strategy import DataStrategy
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.objectives.labels import Labels
from compress.teachers.cached import CachedTeacher
from compress.teachers.frozen import FrozenTeacher
from compress.training.fit import fit

CLASSES, SIDE, OBJECTS, NONE = 2, 12, 3, -1
BINS = 10  # of scores, for the metric
FAR = MappingProxyType({"rtol": 0.0, "atol": 5e-11})  # half of the last digit given


def drawn(boxes: Tensor, side: int = SIDE) -> Tensor:
    """Heat maps (B, C, H, W) of padded boxes (B, M, 3): class (-1 for none), row, column. The larger of two counts."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    away = (rows - boxes[..., 1, None, None]).square() + (columns - boxes[..., 2, None, None]).square()
    bumps = (-away / 2.0).exp() * (boxes[..., 0, None, None] != NONE)
    there = F.one_hot(boxes[..., 0].long().clamp(min=0), CLASSES).movedim(-1, 1)  # (B, C, M)
    return (bumps.unsqueeze(1) * there[..., None, None]).amax(dim=2)


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """CornerNet's, alpha 2, beta 4, by the number of centres: (B,)."""
    q = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    centre = target == 1
    values = torch.where(centre, (1 - q).square() * q.log(), (1 - target).pow(4) * q.square() * (1 - q).log())
    return -values.sum(dim=(1, 2, 3)) / centre.sum(dim=(1, 2, 3)).clamp(min=1)


def pivotal(teacher: Tensor, target: Tensor | None, threshold: float = 0.0, soft: bool = True, rank: int = 0) -> Tensor:
    """m of the specification, (B, H, W), from probabilities (B, C, H, W)."""
    sure = teacher.amax(dim=1)
    mask = (sure > threshold).to(teacher.dtype)
    if soft:
        mask = mask * sure
    if target is not None:
        mask = mask * target.amax(dim=1)
    if rank:
        best = sure.flatten(1).topk(rank, dim=1).indices
        mask = mask * torch.zeros_like(sure).flatten(1).scatter(1, best, 1.0).view_as(sure)
    return mask


def pivotal_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """sum m (s - t)^2 / (sum m + 1e-6) over all cells of the batch; channels are summed."""
    return (mask.unsqueeze(1) * (student - teacher).square()).sum() / (mask.sum() + 1e-6)


class Pivotal(Objective):
    """`pivotal_loss` of the heat maps: one value for the batch."""

    batch_wide = True

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        ours, theirs = (
            said.output[:, :CLASSES].sigmoid().clamp(1e-4, 1 - 1e-4) for said in (student, teacher.detach())
        )
        return pivotal_loss(ours, theirs, pivotal(theirs, drawn(batch.extras["boxes"]))).reshape(1)


class TeachersBoxes(DataStrategy):
    """Sure boxes of the teacher stand in front of the true ones in the labels, and the true ones alone in "boxes"."""

    def __init__(self, sure: float = 0.6, most: int = 2, augment: bool = False) -> None:
        self._sure, self._most = sure, most
        self.augments = augment

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0}

    @property
    def deterministic(self) -> bool:
        return True  # the inputs stay, so that the teacher's answers may come from a cache, here and in the step

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        batch = self.augmented(batches["train"], generator)
        assert batch.labels is not None
        found, scores = peaks(teachers["teacher"].observe(batch).output[:, :CLASSES].sigmoid(), self._most)
        found[..., 0] = torch.where(scores > self._sure, found[..., 0], NONE)
        labels = torch.cat([found, batch.labels], dim=1)
        return {"train": replace(batch, labels=labels, extras={**batch.extras, "boxes": batch.labels})}


def peaks(heat: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The best local maxima of heat maps (B, C, H, W): boxes (B, most, 3) and their scores (B, most)."""
    alone = heat * (F.max_pool2d(heat, 3, stride=1, padding=1) == heat)
    scores, places = alone.flatten(1).topk(most, dim=1)
    size = heat.shape[2] * heat.shape[3]
    boxes = [places // size, places % size // heat.shape[3], places % heat.shape[3]]
    return torch.stack(boxes, dim=-1).to(heat.dtype), scores


def slice_of(wide: Tensor, like: Tensor) -> Tensor:
    """The first entries along every axis."""
    return wide[tuple(slice(0, size) for size in like.shape)]


def start_as_a_slice(world: World) -> None:
    """The student's tensors are the leading parts of the teacher's."""
    given = world.teachers["teacher"].modules()["network"].state_dict()
    student = world.students["student"].state_dict()
    student_of = {name: slice_of(given[name], value) for name, value in student.items()}
    world.students["student"].load_state_dict(student_of)


METHOD = Method(
    source="arXiv:2205.15156",
    objectives={"pivotal": Pivotal, "labels": Labels},
    weights={"pivotal": 10.0},
    strategy=TeachersBoxes,
    phases=(Phase("distill", begin=start_as_a_slice),),
    tasks=("detection",),
)


class Detector(nn.Module):
    """(B, 1, H, W) -> heat-map logits and offsets of centres in one tensor, (B, C + 2, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
        self.head = nn.Conv2d(width, CLASSES + 2, 1)
        nn.init.constant_(self.head.bias, -2.19)  # type: ignore[arg-type]

    def forward(self, picture: Tensor) -> Tensor:
        answer: Tensor = self.head(self.body(picture).relu())
        return answer


@dataclass(frozen=True)
class Scenes:
    """Bright and dark spots in noise, with their places."""

    count: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def batch(self, index: Tensor) -> Batch:
        source = torch.Generator().manual_seed(self.seed)
        boxes = torch.randint(1, SIDE - 1, (self.count, OBJECTS, 3), generator=source)
        boxes[..., 0] = torch.randint(-1, CLASSES, (self.count, OBJECTS), generator=source)
        signs = torch.tensor([1.0, -1.0]).view(1, CLASSES, 1, 1)
        pictures = (drawn(boxes.float()) * signs).sum(dim=1, keepdim=True)
        pictures = 3 * pictures + 0.1 * torch.randn(pictures.shape, generator=source)
        return Batch((pictures[index],), boxes.float()[index], index)

    def fingerprint(self) -> str:
        return f"scenes-{self.count}-{self.seed}"


class Spots(Task):
    """Average precision over detections of all scenes, from histograms of scores."""

    name, kind, labels, input_shape = "spots", "detection", ("bright", "dark"), (1, SIDE, SIDE)
    metric = "average precision"

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return Detector(12)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        return focal(output[:, :CLASSES], drawn(labels))

    def score(self, output: Tensor, labels: Tensor) -> Tensor:
        """(B, 2 BINS + 1): right and wrong detections by score, and objects."""
        boxes, scores = peaks(output[:, :CLASSES].sigmoid(), 2 * OBJECTS)
        near = (boxes[:, :, None, 1:] - labels[:, None, :, 1:]).square().sum(-1) <= 2
        right = (near & (boxes[:, :, None, 0] == labels[:, None, :, 0])).any(dim=2)
        bins = F.one_hot((scores * BINS).long().clamp(max=BINS - 1), BINS)
        objects = (labels[..., 0] != NONE).sum(dim=1, keepdim=True)
        return torch.cat([(bins * right[..., None]).sum(1), (bins * ~right[..., None]).sum(1), objects], dim=1).float()

    def total(self, sums: Tensor, count: int) -> float:
        right, wrong = sums[:BINS].flip(0).cumsum(0), sums[BINS : 2 * BINS].flip(0).cumsum(0)
        recall = (right / sums[-1].clamp(min=1)).clamp(max=1)
        gained = recall.diff(prepend=recall.new_zeros(1)).clamp(min=0)
        return float((gained * right / (right + wrong).clamp(min=1)).sum())


T = torch.tensor([[[[0.9, 0.2], [0.5, 0.1]], [[0.05, 0.6], [0.3, 0.1]]]], dtype=torch.float64)
S = torch.tensor([[[[0.7, 0.1], [0.5, 0.3]], [[0.05, 0.2], [0.4, 0.1]]]], dtype=torch.float64)
G = torch.tensor([[[[1.0, 0.0], [0.5, 0.0]], [[0.0, 0.8], [0.0, 0.0]]]], dtype=torch.float64)


def test_reference_values() -> None:
    mask = pivotal(T, G)
    torch.testing.assert_close(mask, torch.tensor([[[0.9, 0.48], [0.25, 0.0]]], dtype=torch.float64))
    student = S.clone().requires_grad_(True)
    loss = pivotal_loss(student, T, mask)
    loss.backward()
    expected = [[[-0.22085876, -0.05889567], [0, 0]], [[0, -0.23558268], [0.03067483, 0]]]
    torch.testing.assert_close(loss.detach(), torch.tensor(0.0736809364, dtype=torch.float64), **FAR)
    torch.testing.assert_close(student.grad, torch.tensor([expected], dtype=torch.float64), rtol=0.0, atol=5e-9)
    for found, value in (
        (pivotal(T, None, 0.3, soft=False), 0.0733333089),
        (pivotal(T, None, soft=False, rank=2), 0.1049999475),
        (torch.ones(1, 2, 2, dtype=torch.float64), 0.0649999838),
    ):
        assert pivotal_loss(S, T, found).item() == pytest.approx(value, abs=5e-11)
    assert pivotal_loss(T, T, mask).item() == 0.0
    outside = S.clone()
    outside[0, :, 1, 1] = 0.99
    assert pivotal_loss(outside, T, mask) == pivotal_loss(S, T, mask)


def test_a_slice_of_a_linear_teacher_gives_its_first_outputs() -> None:
    wide, narrow = nn.Linear(4, 6), nn.Linear(4, 3)
    narrow.load_state_dict({name: slice_of(wide.state_dict()[name], v) for name, v in narrow.state_dict().items()})
    inputs = torch.randn(5, 4)
    torch.testing.assert_close(narrow(inputs), wide(inputs)[:, :3])


def test_detections_in_the_order_of_their_scores() -> None:
    sums = torch.zeros(2 * BINS + 1, dtype=torch.float64)
    sums[9], sums[BINS + 5], sums[3], sums[-1] = 1, 1, 1, 2  # right at 0.9, wrong at 0.5, right at 0.3; two objects
    assert Spots().total(sums, 1) == pytest.approx(0.5 * 1.0 + 0.5 * 2 / 3)


def test_a_sliced_student_learns_to_detect_from_cached_answers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    splits, teacher_net = Splits(Scenes(64, 1), Scenes(24, 2), Scenes(8, 3)), Detector(12)
    call: dict[str, Any] = {
        "weights": {}, "splits": splits, "task": Spots(), "seed": 0, "precision": "fp32",
        "numbers": TrainingNumbers(epochs=6, batch_size=16, learning_rate=2e-2),
    }  # fmt: skip
    supervised = Method("labels", {"labels": Labels})
    fit(
        method=supervised, students={"student": teacher_net}, teachers={}, objectives={"labels": Labels()},
        **{**call, "numbers": replace(call["numbers"], epochs=9)},
    )  # fmt: skip
    weights = {name: value.clone() for name, value in teacher_net.state_dict().items()}
    teacher = FrozenTeacher(teacher_net, fingerprint="spots")
    cached = CachedTeacher(teacher, splits.train, "train", tmp_path)
    student = Detector(4)
    outcome = fit(
        method=METHOD, students={"student": student}, teachers={"teacher": cached},
        objectives={"pivotal": Pivotal(), "labels": Labels()}, **call,
    )  # fmt: skip
    assert all(torch.equal(value, weights[name]) for name, value in teacher_net.state_dict().items())
    assert outcome.curve[-1].terms["pivotal"] < 0.7 * outcome.curve[0].terms["pivotal"]
    assert outcome.validation is not None
    assert outcome.validation > 0.2  # 0.05 after the first epoch
