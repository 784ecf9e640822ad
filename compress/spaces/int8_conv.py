"""Small convolutional networks made for int8 kernels.

A stem convolution, stages of equal blocks, a global average and a linear layer. Only convolution, ReLU, addition and
batch norm, which folds into the convolution in front of it; widths are multiples of what the target's kernels want.

Three kinds of block:
    residual: 3x3 - ReLU - 3x3, added to its input, ReLU (He et al., "Deep Residual Learning for Image Recognition",
        CVPR 2016, arXiv:1512.03385, figure 2). With widths 16-32-64, three blocks each and no reduction in the stem it
        is their ResNet-20.
    light: the same with 1x1 as the second convolution: 5/9 of the weights and multiply-accumulates at the same width,
        and still no operator but dense convolution.
    separable: 3x3 depthwise - ReLU - 1x1 - ReLU, without addition, as in DS-CNN (Zhang et al., "Hello Edge: Keyword
        Spotting on Microcontrollers", 2017, arXiv:1711.07128, section 3.6). Not offered on NVIDIA GPUs: TensorRT pads
        int8 depthwise convolutions to full groups, so they cost more there than the dense ones.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import Tensor, nn

from compress.contracts.space import Outline, Space, SpaceContext
from compress.structure.convnets import LADDER, most_stages, reduced, stages_of, stem_of, stem_strides, window
from compress.structure.decisions import (
    checked,
    exchanged,
    inherited,
    map_or_signal,
    one_of,
    others,
    refuse,
    stable_hash,
    steps,
)
from compress.structure.layers import SMALLEST_MAP, Pair, at_least, convolution, halved, widths_of

Kind = Literal["residual", "light", "separable"]

MOST_DEPTH = 4  # blocks per stage
MOST_STAGES = 4


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        kind: of every block.
        stem_stride: reduction by the first convolution, a power of two; along a short axis it is less.
        widths: channels of each stage; the stem has the first stage's.
        depths: blocks of each stage. From the second stage on, the first block halves each axis that is long enough.
    """

    kind: Kind
    stem_stride: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Int8Conv.from_json` reads."""
        return {
            "kind": self.kind,
            "stem_stride": self.stem_stride,
            "widths": list(self.widths),
            "depths": list(self.depths),
        }

    def __hash__(self) -> int:
        return stable_hash(self.to_json())


class ResidualBlock(nn.Module):
    """relu(second(relu(first(x))) + shortcut(x)); the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, kernels: tuple[Pair, Pair], stride: Pair) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, kernels[0], stride)
        self.first_relu = nn.ReLU()
        self.second = convolution(outputs, outputs, kernels[1], (1, 1))
        same = inputs == outputs and stride == (1, 1)
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, (1, 1), stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        branch: Tensor = self.second(self.first_relu(self.first(x)))
        output: Tensor = self.relu(branch + self.shortcut(x))
        return output


class SeparableBlock(nn.Module):
    """Depthwise 3x3 and 1x1, each with ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Pair, stride: Pair) -> None:
        super().__init__()
        self.depthwise = convolution(inputs, inputs, kernel, stride, groups=inputs)
        self.depthwise_relu = nn.ReLU()
        self.pointwise = convolution(inputs, outputs, (1, 1), (1, 1))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        output: Tensor = self.relu(self.pointwise(self.depthwise_relu(self.depthwise(x))))
        return output


class ConvNet(nn.Module):
    """The network of one plan. `stem`, `stages.0`, `stages.1`, ... and `head` are its taps."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], outputs: int) -> None:
        """
        Args:
            plan: what to build.
            shape: of one example's features, (C, H, W) or (C, L).
            outputs: of the linear layer.
        """
        super().__init__()
        self.signal = len(shape) == 2
        stem = stem_of(shape, plan.stem_stride)
        self.stem = nn.Sequential(convolution(shape[0], plan.widths[0], stem.kernel, stem.stride), nn.ReLU())

        def block(_stage: int, inputs: int, outputs: int, size: Pair, stride: Pair) -> nn.Module:
            return one_block(plan.kind, inputs, outputs, window(3, size), stride)

        self.stages = stages_of(stem.size, plan.widths, plan.depths, block)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(plan.widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, L) -> (B, outputs)."""
        if self.signal:
            x = x.unsqueeze(2)
        output: Tensor = self.head(self.flatten(self.pool(self.stages(self.stem(x)))))
        return output


def one_block(kind: Kind, inputs: int, outputs: int, kernel: Pair, stride: Pair) -> nn.Module:
    """The block that a plan's kind names."""
    if kind == "separable":
        return SeparableBlock(inputs, outputs, kernel, stride)
    second = kernel if kind == "residual" else (1, 1)
    return ResidualBlock(inputs, outputs, (kernel, second), stride)


class Int8Conv(Space[Plan]):
    """All plans for one input size and one target."""

    def __init__(self, context: SpaceContext) -> None:
        self.shape = shape = map_or_signal("int8_conv", context)
        self.outputs = context.outputs
        self.widths = widths_of(LADDER, context.width_multiple)
        self.strides = stem_strides(shape[1:])
        self.kinds: tuple[Kind, ...] = get_args(Kind)
        if context.family == "nvidia-gpu":
            self.kinds = ("residual", "light")
        self.stages = most_stages(shape[1:], self.strides[0], MOST_STAGES)

    def sample(self, rng: random.Random) -> Plan:
        """Widths do not fall with depth; small and large members are about equally likely."""
        count = rng.randint(1, self.stages)
        # A random ceiling first: widths drawn independently from the whole ladder would hardly ever all be small.
        ceiling = rng.randrange(len(self.widths)) + 1
        widths = tuple(sorted(rng.choice(self.widths[:ceiling]) for _ in range(count)))
        most = rng.randint(1, MOST_DEPTH)
        depths = tuple(rng.randint(1, most) for _ in range(count))
        return Plan(rng.choice(self.kinds), rng.choice(self.strides), widths, depths)

    def corners(self) -> Sequence[Plan]:
        """For each kind: the smallest, the largest; between them doubling widths at each reduction, depths 1 to 3."""
        plans: list[Plan] = []
        for kind in self.kinds:
            plans.append(Plan(kind, self.strides[-1], self.widths[:1], (1,)))
            for stride in reversed(self.strides):
                stages = max(1, min(3, self.stages - self.strides.index(stride)))
                for first in (8, 16, 32):
                    widths = tuple(at_least(self.widths, first * 2**stage) for stage in range(stages))
                    plans += [Plan(kind, stride, widths, (depth,) * stages) for depth in (1, 2, 3)]
            plans.append(Plan(kind, self.strides[0], self.widths[-1:] * self.stages, (MOST_DEPTH,) * self.stages))
        return tuple(dict.fromkeys(plans))

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Another kind, stem reduction, width or depth of one stage, or one stage more or less at the end."""
        neighbours: list[list[Plan]] = [
            [replace(plan, kind=kind) for kind in others(self.kinds, plan.kind)],
            [replace(plan, stem_stride=stride) for stride in others(self.strides, plan.stem_stride)],
        ]
        for stage, (width, depth) in enumerate(zip(plan.widths, plan.depths, strict=True)):
            wider = [exchanged(plan.widths, stage, other) for other in others(self.widths, width)]
            deeper = [exchanged(plan.depths, stage, other) for other in steps(range(1, MOST_DEPTH + 1), depth)]
            neighbours += [[replace(plan, widths=w) for w in wider], [replace(plan, depths=d) for d in deeper]]
        stages = []
        if len(plan.widths) > 1:
            stages.append(replace(plan, widths=plan.widths[:-1], depths=plan.depths[:-1]))
        if len(plan.widths) < self.stages:
            stages.append(replace(plan, widths=(*plan.widths, plan.widths[-1]), depths=(*plan.depths, plan.depths[-1])))
        return one_of([*neighbours, stages], plan, rng)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Kind, stem reduction, number of stages, and each stage's width and depth come from either parent that has it.

        Stages beyond the shorter parent's are the longer one's.
        """
        count = len(rng.choice((plan, other)).widths)
        return Plan(
            rng.choice((plan, other)).kind,
            rng.choice((plan, other)).stem_stride,
            inherited(plan.widths, other.widths, count, rng),
            inherited(plan.depths, other.depths, count, rng),
        )

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: a key is missing or unknown, or a value is none that this space offers.
        """
        plan = Plan(**checked("int8_conv", data, {"kind": str, "stem_stride": int, "widths": tuple, "depths": tuple}))
        refuse("int8_conv", self.wrong_with(plan))
        return plan

    def wrong_with(self, plan: Plan) -> str | None:
        """Why a plan is not one of this space, or None."""
        if plan.kind not in self.kinds:
            return f"has blocks of kind {plan.kind!r}; here there are {', '.join(self.kinds)}"
        if plan.stem_stride not in self.strides:
            return f"reduces by {plan.stem_stride} in the stem; here there are {', '.join(map(str, self.strides))}"
        if len(plan.widths) != len(plan.depths) or not 1 <= len(plan.widths) <= self.stages:
            return (
                f"has {len(plan.widths)} widths and {len(plan.depths)} depths; here there are 1 to {self.stages} stages"
            )
        odd = [width for width in plan.widths if width not in self.widths]
        if odd:
            return f"has widths {odd}; here there are {', '.join(map(str, self.widths))}"
        if any(depth not in range(1, MOST_DEPTH + 1) for depth in plan.depths):
            return f"has depths {list(plan.depths)}; here they are 1 to {MOST_DEPTH}"
        return None

    def outline(self, plan: Plan) -> Outline:
        """The larger network has the most blocks in every stage."""
        sizes = {str(stage): width for stage, width in enumerate(plan.widths)}
        absent = [
            f"stages.{stage}.{block}" for stage, depth in enumerate(plan.depths) for block in range(depth, MOST_DEPTH)
        ]
        return Outline((plan.kind, plan.stem_stride, len(plan.widths), self.bridged(plan)), sizes, absent)

    def bridged(self, plan: Plan) -> tuple[int, ...]:
        """Stages from the second on whose first block has an identity as its shortcut: nothing changes the shape."""
        axes = [-(-size // reduced(size, plan.stem_stride)) for size in (1, *self.shape[1:])[-2:]]
        found = []
        for stage in range(1, len(plan.widths)):
            if max(axes) < SMALLEST_MAP and plan.widths[stage] == plan.widths[stage - 1] and plan.kind != "separable":
                found.append(stage)
            axes = [halved(size) for size in axes]
        return tuple(found)

    def unabridged(self, plan: Plan, rng: random.Random) -> Plan:
        """The most blocks in every stage; random widths, equal where the key says so."""
        widths = [rng.choice(self.widths)]
        for stage in range(1, len(plan.widths)):
            if stage in self.bridged(plan):
                widths.append(widths[-1])
            else:  # another than before: where nothing else changes the shape, an equal width has another structure
                widths.append(rng.choice([width for width in self.widths if width != widths[-1]]))
        return replace(plan, widths=tuple(widths), depths=(MOST_DEPTH,) * len(widths))

    def build(self, plan: Plan) -> nn.Module:
        """Fresh weights from torch's current seed; features -> (B, outputs)."""
        return ConvNet(plan, self.shape, self.outputs)


SPACE = Int8Conv
