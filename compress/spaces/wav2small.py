"""Wav2Small: 3 x 3 convolutions of one width over a log-mel map, pooled over time by attention.

Source: Kounadis-Bastian et al. 2024, arXiv:2408.13920, in the released student's topology
(`compress/structure/wav2small.py`). A choice of other depths, of frames that are left out and of mean pooling is
proposed. The number of mel bands and the hop are the front-end's, which belongs to the task: `every` = 2 leaves out
every second frame, exactly as twice the hop does.

Attention's softmax and sums are float, so it is offered where the runtime runs float beside int8; mean pooling needs
none, and is the one that RISC-V clusters have. Ethos-U has no max-pool with a border on every side, and no network of
this space.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final, get_args

from torch import nn

from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError
from compress.structure.attentive_pool import WITHOUT_FLOAT
from compress.structure.decisions import (
    checked,
    odd_value,
    once_per_example,
    one_of,
    others,
    refuse,
    stable_hash,
    steps,
)
from compress.structure.layers import SMALLEST_MAP, widths_of
from compress.structure.wav2small import AFTER, BEFORE, Wav2SmallNetwork

Pooling = Literal["attentive", "mean"]

LADDER = (4, 8, 12, 16, 24, 32, 48)  # channels, before rounding up to the target's multiple
PUBLISHED = (5, 13, 33)  # of the small study of the claim, of the release, and of the paper's 72 thousand parameters
EVERY = (1, 2, 4)
MOST_BEFORE, MOST_AFTER = 4, 6
WITHOUT_BORDERS = "ethos-u"  # of a max-pool, on every side
KEYS: Mapping[str, type] = {"channels": int, "before": int, "after": int, "every": int, "pooling": str}


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        channels: of every convolution.
        before: convolutions before the max-pool; 3 are published.
        after: convolutions after it; 4 are published.
        every: frames from one that is looked at to the next.
        pooling: of time: "attentive" as published, or "mean".
    """

    channels: int
    before: int
    after: int
    every: int
    pooling: Pooling

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Wav2SmallSpace.from_json` reads."""
        return {key: getattr(self, key) for key in KEYS}

    def __hash__(self) -> int:
        return stable_hash(self.to_json())


@final
class Wav2SmallSpace(Space[Plan]):
    """All plans for one front-end and one target."""

    def __init__(self, context: SpaceContext) -> None:
        once_per_example("wav2small", context)
        if context.family == WITHOUT_BORDERS:
            raise RecipeError(
                "the space wav2small pools with a border on every side, which TensorFlow Lite has not, and targets of"
                f" the family {WITHOUT_BORDERS} take nothing else",
                fix="choose the space 'audio_conv'",
            )
        shape = tuple(context.features.shape[1:])
        if len(shape) != 3 or min(shape[1:]) < SMALLEST_MAP:
            raise RecipeError(
                f"the space wav2small takes maps (B, C, bands, frames) of at least {SMALLEST_MAP} bands and frames;"
                f" here they are {tuple(context.features.shape)}",
                fix="give the task a front-end that makes a spectrogram, or choose 'audio_conv', which takes signals",
            )
        self.inputs, self.bands, frames = shape
        self.outputs = context.outputs
        self.widths = widths_of(LADDER, context.width_multiple)
        self.every = tuple(value for value in EVERY if frames / value >= SMALLEST_MAP)
        self.poolings: tuple[Pooling, ...] = get_args(Pooling)
        if context.family in WITHOUT_FLOAT:
            self.poolings = ("mean",)

    def sample(self, rng: random.Random) -> Plan:
        """Every decision evenly."""
        return Plan(
            rng.choice(self.widths),
            rng.randint(1, MOST_BEFORE),
            rng.randint(1, MOST_AFTER),
            rng.choice(self.every),
            rng.choice(self.poolings),
        )

    def corners(self) -> Sequence[Plan]:
        """The smallest and the largest; the published depths at every width and pooling, and at the published widths,
        which need not be what the target's kernels want."""
        plans = [Plan(self.widths[0], 1, 1, self.every[-1], self.poolings[-1])]
        for channels in (*PUBLISHED, *self.widths):
            plans += [Plan(channels, BEFORE, AFTER, 1, pooling) for pooling in self.poolings]
        plans += [Plan(channels, BEFORE, AFTER, self.every[-1], self.poolings[0]) for channels in self.widths]
        plans.append(Plan(self.widths[-1], MOST_BEFORE, MOST_AFTER, 1, self.poolings[0]))
        return tuple(dict.fromkeys(plans))

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Another width, one convolution more or less, other frames, or the other pooling."""
        before, after = range(1, MOST_BEFORE + 1), range(1, MOST_AFTER + 1)
        neighbours = [
            [replace(plan, channels=value) for value in others(self.widths, plan.channels)],
            [replace(plan, before=value) for value in steps(before, plan.before)],
            [replace(plan, after=value) for value in steps(after, plan.after)],
            [replace(plan, every=value) for value in steps(self.every, plan.every)],
            [replace(plan, pooling=value) for value in others(self.poolings, plan.pooling)],
        ]
        return one_of(neighbours, plan, rng)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Every decision of either parent."""
        parents = (plan, other)
        return Plan(
            rng.choice(parents).channels,
            rng.choice(parents).before,
            rng.choice(parents).after,
            rng.choice(parents).every,
            rng.choice(parents).pooling,
        )

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: a key is missing or unknown, or a value is none that this space offers.
        """
        plan = Plan(**checked("wav2small", data, KEYS))
        refuse("wav2small", self.wrong_with(plan))
        return plan

    def wrong_with(self, plan: Plan) -> str | None:
        """Why a plan is not one of this space, or None."""
        offered: Mapping[str, Sequence[object]] = {
            "channels": tuple(dict.fromkeys((*PUBLISHED, *self.widths))),
            "before": range(1, MOST_BEFORE + 1),
            "after": range(1, MOST_AFTER + 1),
            "every": self.every,
            "pooling": self.poolings,
        }
        return odd_value(plan, offered)

    def build(self, plan: Plan) -> nn.Module:
        """Fresh weights from torch's current seed; features -> (B, outputs)."""
        return Wav2SmallNetwork(
            plan.channels,
            self.bands,
            self.outputs,
            inputs=self.inputs,
            blocks=(plan.before, plan.after),
            every=plan.every,
            attention=plan.pooling == "attentive",
        )


SPACE = Wav2SmallSpace
