"""Small convolutional networks over time: log-mel maps, feature sequences, and raw waveforms.

Time is the last axis. A stem, whose stride carries most of the reduction, stages of equal blocks with halved time
between them, pooling over time, and a linear layer.

Layouts:
    map: frequency is a spatial axis, kernels are 3 x k, as in DS-CNN (Zhang et al., "Hello Edge", 2017,
        arXiv:1711.07128) and Wav2Small (Kounadis-Bastian et al. 2024, arXiv:2408.13920).
    temporal: frequency bins are channels and kernels are 1 x k, so each layer sees the whole spectrum and costs a
        fraction (Choi et al., "Temporal Convolution for Real-time Keyword Spotting on Mobile Devices", 2019,
        arXiv:1904.03814, section 2.1). The one layout for sequences and waveforms.

Blocks: `plain` is k - ReLU (VGG-like); `residual` two of them with a shortcut (TC-ResNet); `separable` depthwise and
1 x 1 (DS-CNN), not offered on NVIDIA GPUs, where TensorRT pads int8 depthwise convolutions to full groups.

Pooling: `mean` over time and frequency; `time`, which keeps each frequency; `attentive`, Wav2Small's: two 1 x 1
convolutions give values and weights, weights are a softmax over time, and the linear layer sees the weighted sums
z (C x F) and their Gram matrix z z'. Its softmax and sums are float, so it is offered where the runtime runs float
beside int8: not on Ethos-U and RISC-V clusters. Plan("map", "plain", 3, 1, "pool", "attentive", (13, 13), (2, 4)) on
26 mel bands is the released Wav2Small but for its max-pool, whose windows are 3 wide along even axes, too.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, final, get_args

from torch import Tensor, nn

from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError
from compress.structure.attentive_pool import WITHOUT_FLOAT, AttentivePool
from compress.structure.decisions import (
    checked,
    exchanged,
    inherited,
    listed,
    odd_value,
    once_per_example,
    one_of,
    others,
    refuse,
    stable_hash,
    steps,
)
from compress.structure.layers import (
    SMALLEST_MAP,
    Pair,
    Residual,
    activated,
    at_least,
    halved,
    pool,
    separable,
    widths_of,
)

Layout = Literal["map", "temporal"]
Kind = Literal["plain", "residual", "separable"]
Reduction = Literal["stride", "pool"]
Pooling = Literal["mean", "time", "attentive"]

LADDER = (8, 12, 16, 24, 32, 48, 64, 96, 128)  # channels, before rounding up to the target's multiple
KERNELS = (3, 5, 9)  # positions in time; 9 is TC-ResNet's
MOST_DEPTH = 4  # blocks per stage
MOST_STAGES = 4
LONGEST = 512  # positions in time that the first stage may see; longer inputs are reduced in the stem
STEM_CHOICES = 4  # reductions offered, in powers of two
KEYS: Mapping[str, type] = {
    "layout": str,
    "kind": str,
    "kernel": int,
    "stem_stride": int,
    "reduction": str,
    "pooling": str,
    "widths": tuple,
    "depths": tuple,
}


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        layout: whether frequency is an axis or channels.
        kind: of every block.
        kernel: positions in time, of every block.
        stem_stride: reduction of time by the first convolution, a power of two; frequency is halved where it is not 1.
        reduction: of each later stage, by its first block's stride or by a max-pool. One stage has "stride".
        pooling: what the linear layer sees. "time" in the layout "map" alone: elsewhere it is the same as "mean".
        widths: channels of each stage; the stem has the first stage's.
        depths: blocks of each stage.
    """

    layout: Layout
    kind: Kind
    kernel: int
    stem_stride: int
    reduction: Reduction
    pooling: Pooling
    widths: tuple[int, ...]
    depths: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data that `AudioConv.from_json` reads."""
        data = {key: getattr(self, key) for key in KEYS}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}

    def __hash__(self) -> int:
        return stable_hash(self.to_json())


class AudioNet(nn.Module):
    """The network of one plan. `stem`, `stages.0`, `stages.1`, ... and `head` are its taps."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], outputs: int) -> None:
        """
        Args:
            plan: what to build.
            shape: of one example's features, (C, F, T), (C, T) or (T,).
            outputs: of the linear layer.
        """
        super().__init__()
        self.axes, self.temporal = len(shape), plan.layout == "temporal"
        channels, bands, time = three(shape)
        if self.temporal:
            channels, bands = channels * bands, 1
        low = 2 if plan.stem_stride > 1 and bands >= 2 * SMALLEST_MAP else 1
        kernel = (3 if bands > 1 else 1, max(plan.kernel, 2 * plan.stem_stride + 1))
        self.stem = activated(channels, plan.widths[0], kernel, (low, plan.stem_stride))
        bands, time = -(-bands // low), -(-time // plan.stem_stride)

        stages: list[nn.Module] = []
        inputs = plan.widths[0]
        for index, (width, depth) in enumerate(zip(plan.widths, plan.depths, strict=True)):
            blocks: list[nn.Module] = []
            stride: Pair = (1, 1)
            before = (bands, time)
            if index > 0:
                bands, time = halved(bands), halved(time)
                stride = (1 if bands == before[0] else 2, 1 if time == before[1] else 2)
            if plan.reduction == "pool" and stride != (1, 1):
                blocks.append(pool(before, (bands, time)))
                stride = (1, 1)
            for block in range(depth):
                kernel = (3 if bands > 1 else 1, plan.kernel)
                blocks.append(BLOCKS[plan.kind](inputs, width, kernel, stride if block == 0 else (1, 1)))
                inputs = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        if plan.pooling == "attentive":
            self.head: nn.Module = AttentivePool(inputs, bands, outputs)
        else:
            average = nn.AdaptiveAvgPool2d(1) if plan.pooling == "mean" else nn.AvgPool2d((1, time))
            positions = 1 if plan.pooling == "mean" else bands
            self.head = nn.Sequential(average, nn.Flatten(), nn.Linear(inputs * positions, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T), (B, C, T) or (B, T) -> (B, outputs)."""
        if self.axes == 1:
            x = x.unsqueeze(1)
        if self.axes == 3 and self.temporal:
            x = x.flatten(1, 2)
        if x.dim() == 3:
            x = x.unsqueeze(2)
        output: Tensor = self.head(self.stages(self.stem(x)))
        return output


BLOCKS: Mapping[Kind, Callable[[int, int, Pair, Pair], nn.Module]] = {
    "plain": activated,
    "residual": Residual,
    "separable": separable,
}


def three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, frequencies, time) of one example."""
    if len(shape) == 3:
        return (shape[0], shape[1], shape[2])
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (1, 1, shape[0])


@final
class AudioConv(Space[Plan]):
    """All plans for one front-end and one target."""

    def __init__(self, context: SpaceContext) -> None:
        once_per_example("audio_conv", context)
        shape = tuple(context.features.shape[1:])
        if len(shape) not in (1, 2, 3) or min(shape) < 1 or shape[-1] < SMALLEST_MAP:
            raise RecipeError(
                f"the space audio_conv takes features (B, C, F, T), (B, C, T) or (B, T) with at least {SMALLEST_MAP}"
                f" positions in time; here they are {tuple(context.features.shape)}",
                fix="choose the space 'mlp' for features without time, or give the task a front-end that makes"
                " frames of a signal",
            )
        self.shape = shape
        self.outputs = context.outputs
        self.widths = widths_of(LADDER, context.width_multiple)
        _, bands, time = three(shape)
        first = 1
        while time / first > LONGEST:
            first *= 2
        self.strides = (first, *(s for i in range(1, STEM_CHOICES) if time / (s := first * 2**i) >= SMALLEST_MAP))
        self.layouts: tuple[Layout, ...] = ("map", "temporal") if bands > 1 else ("temporal",)
        self.kinds: tuple[Kind, ...] = get_args(Kind)
        if context.family == "nvidia-gpu":
            self.kinds = ("plain", "residual")
        self.poolings: tuple[Pooling, ...] = get_args(Pooling) if bands > 1 else ("mean", "attentive")
        if context.family in WITHOUT_FLOAT:
            self.poolings = self.poolings[:-1]
        self.stages = max(1, min(MOST_STAGES, (time // first).bit_length() - 1))

    def sample(self, rng: random.Random) -> Plan:
        """Widths do not fall with depth; small and large members are about equally likely."""
        count = rng.randint(1, self.stages)
        # A random ceiling first: widths drawn independently from the whole ladder would hardly ever all be small.
        ceiling = rng.randrange(len(self.widths)) + 1
        most = rng.randint(1, MOST_DEPTH)
        layout = rng.choice(self.layouts)
        poolings = [pooling for pooling in self.poolings if fits(layout, pooling)]
        return Plan(
            layout,
            rng.choice(self.kinds),
            rng.choice(KERNELS),
            rng.choice(self.strides),
            rng.choice(get_args(Reduction)) if count > 1 else "stride",
            rng.choice(poolings),
            tuple(sorted(rng.choice(self.widths[:ceiling]) for _ in range(count))),
            tuple(rng.randint(1, most) for _ in range(count)),
        )

    def corners(self) -> Sequence[Plan]:
        """For each layout and kind: the smallest, the largest; between them growing widths at each stem reduction."""
        plans: list[Plan] = []
        for layout in self.layouts:
            kernel = 3 if layout == "map" else 9
            looks: tuple[tuple[int, Pooling], ...] = ((1, "mean"), (2, self.poolings[-1]))
            for kind in self.kinds:
                plans.append(Plan(layout, kind, 3, self.strides[-1], "stride", "mean", self.widths[:1], (1,)))
                for stride in reversed(self.strides):
                    stages = max(1, min(3, self.stages - self.strides.index(stride)))
                    for first in (8, 16, 32):
                        widths = tuple(at_least(self.widths, first * (stage + 2) // 2) for stage in range(stages))
                        plans += [
                            Plan(layout, kind, kernel, stride, "stride", pooling, widths, (depth,) * stages)
                            for depth, pooling in looks
                            if fits(layout, pooling)
                        ]
                reduction: Reduction = "pool" if self.stages > 1 else "stride"
                widest, deepest = self.widths[-1:] * self.stages, (MOST_DEPTH,) * self.stages
                plans.append(Plan(layout, kind, 9, self.strides[0], reduction, self.poolings[-1], widest, deepest))
        return tuple(dict.fromkeys(plan for plan in plans if self.wrong_with(plan) is None))

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """One decision of `Plan` anew, one stage's width or depth, or one stage more or less at the end."""
        neighbours: list[list[Plan]] = [
            [replace(plan, layout=value) for value in others(self.layouts, plan.layout)],
            [replace(plan, kind=value) for value in others(self.kinds, plan.kind)],
            [replace(plan, kernel=value) for value in others(KERNELS, plan.kernel)],
            [replace(plan, stem_stride=value) for value in others(self.strides, plan.stem_stride)],
            [replace(plan, reduction=value) for value in others(get_args(Reduction), plan.reduction)],
            [replace(plan, pooling=value) for value in others(self.poolings, plan.pooling)],
            [
                replace(plan, widths=plan.widths[:-1], depths=plan.depths[:-1]),
                replace(plan, widths=(*plan.widths, plan.widths[-1]), depths=(*plan.depths, plan.depths[-1])),
            ],
        ]
        for stage, (width, depth) in enumerate(zip(plan.widths, plan.depths, strict=True)):
            wider = [exchanged(plan.widths, stage, value) for value in others(self.widths, width)]
            deeper = [exchanged(plan.depths, stage, value) for value in steps(range(1, MOST_DEPTH + 1), depth)]
            neighbours += [[replace(plan, widths=w) for w in wider], [replace(plan, depths=d) for d in deeper]]
        return one_of(([p for p in plans if self.wrong_with(p) is None] for plans in neighbours), plan, rng)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Every decision of either parent; pooling goes with the layout where the two would not fit."""
        parents = (plan, other)
        layout, pooling = rng.choice(parents), rng.choice(parents)
        count = len(rng.choice(parents).widths)
        reduction = rng.choice(parents).reduction
        fitting = pooling if fits(layout.layout, pooling.pooling) else layout
        return Plan(
            layout.layout,
            rng.choice(parents).kind,
            rng.choice(parents).kernel,
            rng.choice(parents).stem_stride,
            reduction if count > 1 else "stride",  # which the parent with one stage has
            fitting.pooling,
            inherited(plan.widths, other.widths, count, rng),
            inherited(plan.depths, other.depths, count, rng),
        )

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: a key is missing or unknown, or a value is none that this space offers.
        """
        plan = Plan(**checked("audio_conv", data, KEYS))
        refuse("audio_conv", self.wrong_with(plan))
        return plan

    def wrong_with(self, plan: Plan) -> str | None:
        """Why a plan is not one of this space, or None."""
        offered: Mapping[str, Sequence[object]] = {
            "layout": self.layouts,
            "kind": self.kinds,
            "kernel": KERNELS,
            "stem_stride": self.strides,
            "reduction": get_args(Reduction),
            "pooling": self.poolings,
        }
        if wrong := odd_value(plan, offered):
            return wrong
        count = len(plan.widths)
        if count != len(plan.depths) or not 1 <= count <= self.stages:
            return f"has {count} widths and {len(plan.depths)} depths; here there are 1 to {self.stages} stages"
        if odd := [width for width in plan.widths if width not in self.widths]:
            return f"has widths {odd}; here there are {listed(self.widths)}"
        if any(not 1 <= depth <= MOST_DEPTH for depth in plan.depths):
            return f"has depths {list(plan.depths)}; here they are 1 to {MOST_DEPTH}"
        if not fits(plan.layout, plan.pooling):
            return "pools over time alone where there is no frequency left; that is written as 'mean'"
        if count == 1 and plan.reduction != "stride":
            return "has one stage and nothing that pools between stages; that is written as 'stride'"
        return None

    def build(self, plan: Plan) -> nn.Module:
        """Fresh weights from torch's current seed; features -> (B, outputs)."""
        return AudioNet(plan, self.shape, self.outputs)


def fits(layout: str, pooling: str) -> bool:
    """Whether pooling says something of its own in this layout."""
    return layout == "map" or pooling != "time"


SPACE = AudioConv
