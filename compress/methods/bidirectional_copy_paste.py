"""A mean teacher labels what is pasted between labelled and unlabelled pictures, both ways.

Source: Bai, Chen, Li, Shen, Wang, "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation", CVPR 2023,
arXiv:2305.00673. With labelled x_i, x_j, unlabelled u_p, u_q, a mask M that is 0 in a box, P the teacher's labels:

    x_in = x_j M + u_p (1 - M),  x_out = u_q M + x_i (1 - M)
    L = l(x_in, y_j; M) + a l(x_in, P(u_p); 1 - M) + a l(x_out, P(u_q); M) + l(x_out, y_i; 1 - M),  a = 0.5

with l = (Dice + cross-entropy) / 2 in the region. First the student is pre-trained on labelled pictures pasted onto
each other; then student and teacher start from its weights, and the teacher follows by theta' <- 0.99 theta' + 0.01
theta.

The weights that go on are those at the end of pre-training; the source takes the best by validation. The teacher
answers with the batch's own statistics, as the source's does. The optimiser is the loop's (AdamW, one cycle; the
source: SGD). There is no ramp-up of a: the source computes one and does not use it.
"""

from collections.abc import Iterator, Mapping

from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method, Phase
from compress.contracts.step import Update
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.objectives.regions import Regions
from compress.strategies.copy_paste import PRETRAIN, CopyPaste
from compress.teachers.ema import EMATeacher

DECAY = 0.99


def on_both_mixes(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    """The region losses of every mix that the strategy made, added up; each mix is one forward pass of the student."""
    losses = {}
    for name, batch in batches.items():
        answer = world.observe("student", batch)
        losses[name] = world.objectives["regions"](answer, answer, batch, clock).mean()
    total = world.weights("regions") * sum(losses[name] for name in losses)
    yield Update(total, logs={name: loss.detach() for name, loss in losses.items()})


def start_from_pretrained(world: World) -> None:
    """Student and teacher go into self-training with the same weights."""
    world.teachers["teacher"].modules()["average"].load_state_dict(world.students["student"].state_dict())


def mean_teacher(teacher: Teacher, students: Mapping[str, nn.Module]) -> Mapping[str, Teacher]:
    """The moving average of the student stands in the place of the task's teacher."""
    return {"teacher": EMATeacher(students["student"], DECAY, mode="train")}


METHOD = Method(
    source="arXiv:2305.00673 section 3",
    objectives={"regions": Regions},
    teachers=mean_teacher,
    strategy=CopyPaste,
    phases=(
        Phase(PRETRAIN, share=0.25, step=on_both_mixes),
        Phase("selftrain", share=0.75, step=on_both_mixes, begin=start_from_pretrained),
    ),
    diagnostics=("fidelity",),
    tasks=("segmentation",),
)
