"""U-Nets: an answer for every position of a map or a signal, (B, outputs, H, W) or (B, outputs, L).

A stem; levels of blocks with a max-pool between them; back up, each level beside the one that it came from; a 1 x 1
convolution (Ronneberger et al. 2015, arXiv:1505.04597, figure 1). Unlike there, convolutions are padded, and up goes a
1 x 1 convolution followed by nearest-neighbour upsampling in place of a transposed convolution, which no runtime here
has in int8: like this every layer runs in integers. A stem with a stride computes all of it on a smaller map; logits
are then upsampled, too.

Joins: `concat`, U-Net's; `add`, which halves what the level's first block reads (LinkNet, Chaurasia and Culurciello
2017, arXiv:1707.03718, section 3). Blocks: `plain`, `separable` (depthwise and 1 x 1; not offered on NVIDIA GPUs, where
TensorRT pads int8 depthwise convolutions to full groups).

Only for tasks whose teacher answers every position. Not offered on Ethos-U, whose file has no upsampling here, and on
RISC-V clusters, for which nothing is built here.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final, get_args

import torch
from torch import Tensor, nn

from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError
from compress.structure.decisions import (
    checked,
    exchanged,
    inherited,
    listed,
    one_of,
    others,
    refuse,
    stable_hash,
)
from compress.structure.layers import SMALLEST_MAP, Pair, activated, halved, pool, separable, widths_of

Kind = Literal["plain", "separable"]
Join = Literal["concat", "add"]

FAMILIES = ("nvidia-gpu", "x86-cpu", "cortex-m")
LADDER = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192)  # channels, before rounding up to the target's multiple
DEPTHS = (1, 2, 3)  # blocks per level, on the way down and on the way up
MOST_LEVELS = 5  # the original's
STEM_CHOICES = 3  # reductions offered, in powers of two
SPARSEST = 64  # an answer for every 64th position is not called dense any more
USE_INSTEAD = "choose the space 'int8_conv' or 'derived'"
KEYS: Mapping[str, type] = {"kind": str, "join": str, "stem_stride": int, "depth": int, "widths": tuple}


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        kind: of every block.
        join: how a level on the way up meets the one that it came from.
        stem_stride: reduction by the first convolution, a power of two; along a short axis it is less.
        depth: blocks of every level, each way.
        widths: channels of each level from the finest to the coarsest. One level has nothing to join: "concat" there.
    """

    kind: Kind
    join: Join
    stem_stride: int
    depth: int
    widths: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data that `UNetSpace.from_json` reads."""
        return {key: list(self.widths) if key == "widths" else getattr(self, key) for key in KEYS}

    def __hash__(self) -> int:
        return stable_hash(self.to_json())


class Grown(nn.Module):
    """A smaller map at the size of a larger one: each position repeated, what is too much cut off."""

    def __init__(self, factor: Pair, size: Pair, reached: Pair) -> None:
        """
        Args:
            factor: of repetition along each axis.
            size: positions that are wanted.
            reached: positions that repetition gives, as many or more.
        """
        super().__init__()
        # torch wants floats here and writes them into the graph as they are.
        self.repeat = nn.Upsample(scale_factor=(float(factor[0]), float(factor[1])), mode="nearest")
        self.size, self.cut = size, size != reached

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, H, W)."""
        grown: Tensor = self.repeat(x)
        return grown[:, :, : self.size[0], : self.size[1]] if self.cut else grown


class Rise(nn.Module):
    """From a coarse level to the next finer one."""

    def __init__(self, plan: Plan, level: int, fine: Pair, coarse: Pair) -> None:
        super().__init__()
        width = plan.widths[level]
        # Before repeating: the 1 x 1 convolution sees a quarter of the positions.
        self.narrow = activated(plan.widths[level + 1], width, (1, 1))
        self.grow = grown(coarse, fine)
        self.add = plan.join == "add"
        self.blocks = blocks(plan, width if self.add else 2 * width, width, fine)

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        """(B, width, H, W) of the way down and (B, width below, h, w) -> (B, width, H, W)."""
        up = self.grow(self.narrow(below))
        output: Tensor = self.blocks(skip + up if self.add else torch.cat([skip, up], 1))
        return output


class UNet(nn.Module):
    """The network of one plan. `stem`, `down.0`, ..., `up.0`, ... and `head` are its taps."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], answer: tuple[int, ...]) -> None:
        """
        Args:
            plan: what to build.
            shape: of one example's features, (C, H, W) or (C, L).
            answer: of the network, (outputs, H', W') or (outputs, L').
        """
        super().__init__()
        self.signal = len(shape) == 2
        size, wanted = plane(shape), plane(answer)
        stride = (reduced(size[0], plan.stem_stride), reduced(size[1], plan.stem_stride))
        kernel = (1 if size[0] == 1 else max(3, 2 * stride[0] - 1), max(3, 2 * stride[1] - 1))
        self.stem = activated(shape[0], plan.widths[0], kernel, stride)
        sizes = [(-(-size[0] // stride[0]), -(-size[1] // stride[1]))]
        down: list[nn.Module] = [blocks(plan, plan.widths[0], plan.widths[0], sizes[0])]
        for inputs, width in zip(plan.widths, plan.widths[1:], strict=False):
            last = sizes[-1]
            sizes.append((halved(last[0]), halved(last[1])))
            down.append(nn.Sequential(pool(last, sizes[-1]), blocks(plan, inputs, width, sizes[-1])))
        self.down = nn.ModuleList(down)
        self.up = nn.ModuleList(
            Rise(plan, level, sizes[level], sizes[level + 1]) for level in reversed(range(len(plan.widths) - 1))
        )
        self.head = nn.Conv2d(plan.widths[0], answer[0], 1)
        self.grow = grown(sizes[0], wanted)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, L) -> (B, outputs, H', W') or (B, outputs, L')."""
        if self.signal:
            x = x.unsqueeze(2)
        x = self.stem(x)
        passed: list[Tensor] = []
        for level in self.down:
            x = level(x)
            passed.append(x)
        for rise, skip in zip(self.up, reversed(passed[:-1]), strict=True):
            x = rise(skip, x)
        output: Tensor = self.grow(self.head(x))
        return output.squeeze(2) if self.signal else output


def plane(shape: tuple[int, ...]) -> Pair:
    """Positions along both axes; a signal is one row."""
    return (shape[1], shape[2]) if len(shape) == 3 else (1, shape[1])


def reduced(size: int, stride: int) -> int:
    """The reduction that one axis gets when `stride` is asked for: no axis falls below `SMALLEST_MAP` positions."""
    while stride > 1 and size / stride < SMALLEST_MAP:
        stride //= 2
    return stride


def grown(size: Pair, wanted: Pair) -> nn.Module:
    """From `size` to `wanted` positions, by the smallest power of two that reaches them."""
    factors: list[int] = []
    for length, goal in zip(size, wanted, strict=True):
        factor = 1
        while length * factor < goal:
            factor *= 2
        factors.append(factor)
    reached = (size[0] * factors[0], size[1] * factors[1])
    return nn.Identity() if reached == size == wanted else Grown((factors[0], factors[1]), wanted, reached)


def blocks(plan: Plan, inputs: int, width: int, size: Pair) -> nn.Module:
    """The blocks of one level, one way."""
    kernel = (3 if size[0] > 1 else 1, 3 if size[1] > 1 else 1)
    make = activated if plan.kind == "plain" else separable
    return nn.Sequential(*(make(inputs if i == 0 else width, width, kernel) for i in range(plan.depth)))


def reduction_of(shape: tuple[int, ...], answer: tuple[int, ...]) -> int | None:
    """How many positions one answer stands for along each axis, a power of two; None where the answer is not dense."""
    if len(answer) != len(shape) or len(shape) not in (2, 3) or min((*shape, *answer)) < 1:
        return None
    size, wanted, factor = plane(shape), plane(answer), 1
    while factor <= SPARSEST:
        if wanted == tuple(-(-length // factor) if length > 1 else 1 for length in size):
            return factor
        factor *= 2
    return None


def answer_of(context: SpaceContext) -> tuple[int, ...] | None:
    """The shape of one answer, where it is known or the teacher can be asked."""
    if context.answer or context.teacher is None:
        return context.answer or None
    training = context.teacher.training
    try:
        with torch.no_grad():
            found = context.teacher.eval()(context.features[:1])
    except Exception:  # a teacher that expects another front-end may raise anything
        return None
    finally:
        context.teacher.train(training)
    return tuple(found.shape[1:]) if isinstance(found, Tensor) else None


@final
class UNetSpace(Space[Plan]):
    """All plans for one input size, one answer's size and one target."""

    def __init__(self, context: SpaceContext) -> None:
        if context.family not in FAMILIES:
            raise RecipeError(
                f"the space unet needs upsampling in int8, which is not there for targets of the family"
                f" {context.family}; {listed(FAMILIES)} have it",
                fix=USE_INSTEAD,
            )
        shape, answer = tuple(context.features.shape[1:]), answer_of(context)
        if answer is None:
            raise RecipeError(
                "the space unet answers every position, and how the task's answers look is not known: the teacher is"
                " a black box, or takes other features than the task's front-end gives",
                fix=USE_INSTEAD,
            )
        factor = reduction_of(shape, answer)
        if factor is None or answer[0] != context.outputs:
            raise RecipeError(
                f"the space unet answers every position, ({context.outputs}, H, W) for features (C, H, W); here an"
                f" answer is {answer}, for features {shape} and {context.outputs} outputs",
                fix=USE_INSTEAD,
            )
        self.shape, self.answer = shape, answer
        self.widths = widths_of(LADDER, context.width_multiple)
        longest = max(plane(shape))
        strides = [factor * 2**i for i in range(STEM_CHOICES)]
        self.strides = tuple(s for s in strides if s == factor or longest / s >= 2 * SMALLEST_MAP)
        self.kinds: tuple[Kind, ...] = get_args(Kind) if context.family != "nvidia-gpu" else ("plain",)
        self.levels = max(1, min(MOST_LEVELS, (longest // factor).bit_length() - 1))

    def sample(self, rng: random.Random) -> Plan:
        """Widths do not fall with depth; small and large members are about equally likely."""
        count = rng.randint(1, self.levels)
        # A random ceiling first: widths drawn independently from the whole ladder would hardly ever all be small.
        ceiling = rng.randrange(len(self.widths)) + 1
        return Plan(
            rng.choice(self.kinds),
            rng.choice(get_args(Join)) if count > 1 else "concat",
            rng.choice(self.strides),
            rng.choice(DEPTHS),
            tuple(sorted(rng.choice(self.widths[:ceiling]) for _ in range(count))),
        )

    def corners(self) -> Sequence[Plan]:
        """For each kind: the smallest, the largest; between them widths that grow by half or double per level."""
        plans: list[Plan] = []
        for kind in self.kinds:
            plans.append(Plan(kind, "concat", self.strides[-1], 1, self.widths[:1]))
            for stride in reversed(self.strides):
                for levels in sorted({min(3, self.levels), min(4, self.levels)}):
                    for first in (8, 16, 32):
                        widths = tuple(self.at_least(first * 2**level) for level in range(levels))
                        gentle = tuple(self.at_least(first * (level + 2) // 2) for level in range(levels))
                        joined: Join = "add" if levels > 1 else "concat"
                        plans += [Plan(kind, "concat", stride, 2, widths), Plan(kind, joined, stride, 1, gentle)]
            plans.append(Plan(kind, "concat", self.strides[0], DEPTHS[-1], self.widths[-1:] * self.levels))
        return tuple(dict.fromkeys(plans))

    def at_least(self, channels: int) -> int:
        """The smallest width on offer that is not below `channels`, or the largest there is."""
        return next((width for width in self.widths if width >= channels), self.widths[-1])

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Another kind, join, stem reduction, depth, width of one level, or one level more or less below."""
        neighbours: list[list[Plan]] = [
            [replace(plan, kind=value) for value in others(self.kinds, plan.kind)],
            [replace(plan, join=value) for value in others(get_args(Join), plan.join)],
            [replace(plan, stem_stride=value) for value in others(self.strides, plan.stem_stride)],
            [replace(plan, depth=value) for value in others(DEPTHS, plan.depth)],
            [replace(plan, widths=plan.widths[:-1]), replace(plan, widths=(*plan.widths, plan.widths[-1]))],
        ]
        for level, width in enumerate(plan.widths):
            wider = [exchanged(plan.widths, level, value) for value in others(self.widths, width)]
            neighbours.append([replace(plan, widths=widths) for widths in wider])
        return one_of(([p for p in plans if self.wrong_with(p) is None] for plans in neighbours), plan, rng)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Every decision of either parent; the join is that of the parent with one level where there is one."""
        parents = (plan, other)
        widths = inherited(plan.widths, other.widths, len(rng.choice(parents).widths), rng)
        kind, join, stride, depth = (rng.choice(parents) for _ in range(4))
        return Plan(kind.kind, join.join if len(widths) > 1 else "concat", stride.stem_stride, depth.depth, widths)

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: a key is missing or unknown, or a value is none that this space offers.
        """
        plan = Plan(**checked("unet", data, KEYS))
        refuse("unet", self.wrong_with(plan))
        return plan

    def wrong_with(self, plan: Plan) -> str | None:
        """Why a plan is not one of this space, or None."""
        offered: Mapping[str, Sequence[object]] = {
            "kind": self.kinds,
            "join": get_args(Join),
            "stem_stride": self.strides,
            "depth": DEPTHS,
        }
        for key, values in offered.items():
            if (found := getattr(plan, key)) not in values:
                return f"has {key} {found!r}; here there are {listed(values)}"
        if not 1 <= len(plan.widths) <= self.levels:
            return f"has {len(plan.widths)} levels; here they are 1 to {self.levels}"
        if odd := [width for width in plan.widths if width not in self.widths]:
            return f"has widths {odd}; here there are {listed(self.widths)}"
        if len(plan.widths) == 1 and plan.join != "concat":
            return "has one level and nothing to join; that is written as 'concat'"
        return None

    def build(self, plan: Plan) -> nn.Module:
        """Fresh weights from torch's current seed; features -> (B, outputs, H, W), or (B, outputs, L) of a signal."""
        return UNet(plan, self.shape, self.answer)


SPACE = UNetSpace
