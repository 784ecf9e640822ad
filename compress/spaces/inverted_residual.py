"""Inverted residual networks: narrow maps between blocks, wide ones inside.

A block widens its input, filters each channel of the wide map on its own, and projects to a narrow map without an
activation; where shapes allow, the input is added (Sandler et al., "MobileNetV2: Inverted Residuals and Linear
Bottlenecks", CVPR 2018, arXiv:1801.04381, table 1 and figure 4). An h x w map costs h w t d (d + k^2 + e) multiply-
accumulates in a block of expansion t, kernel k, d inputs and e outputs (section 3.3).

Two kinds of block, chosen stage by stage as in their search:
    depthwise: 1x1 to t d channels, k x k depthwise, 1x1 to e channels.
    fused: k x k to t d channels, 1x1 to e channels (Tan and Le, "EfficientNetV2", ICML 2021, arXiv:2104.00298, section
        3.2 and figure 2, Fused-MBConv). More multiply-accumulates, all of them in dense convolutions.

On NVIDIA GPUs depthwise is dear and is not offered: it does k^2 multiply-accumulates per value that it reads and
writes, so it waits for memory, and int8 tensor cores multiply 16 or 32 channels at a time, so TensorRT pads each
channel's group to a full one. There all stages are fused, with 3x3 kernels and small expansions.

Activations are ReLU, not the paper's ReLU6: every int8 kernel has it for free, and the quantiser's range, which is
learned, bounds the map from above as ReLU6's constant would.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, final

from torch import Tensor, nn

from compress.contracts.space import Space, SpaceContext
from compress.structure.convnets import LADDER, most_stages, stages_of, stem_of, stem_strides, window
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
from compress.structure.layers import Pair, activated, at_least, convolution, widths_of

Kind = Literal["depthwise", "fused"]

MOST_DEPTH = 4  # blocks per stage
MOST_STAGES = 5
EXPANSIONS = (1, 2, 3, 4, 6)
KERNELS = (3, 5)
DENSE_EXPANSIONS = (1, 2, 4)  # where every block is fused: EfficientNetV2 uses 1 and 4
DENSE_KERNELS = (3,)
PER_STAGE = ("kinds", "widths", "depths", "expansions", "kernels")
KEYS: Mapping[str, type] = {
    "stem_stride": int,
    "kinds": list,
    "widths": tuple,
    "depths": tuple,
    "expansions": tuple,
    "kernels": tuple,
    "last": int,
}


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        stem_stride: reduction by the first convolution, a power of two; along a short axis it is less.
        kinds: of the blocks of each stage.
        widths: channels between blocks, of each stage; the stem has the first stage's.
        depths: blocks of each stage. From the second stage on, the first block halves each axis that is long enough.
        expansions: how much wider the map is inside a block; at 1 a depthwise block has no 1x1 in front, and a fused
            one no 1x1 behind.
        kernels: extent of the window, of each stage.
        last: channels of a 1x1 convolution in front of the global average; 0 for none.
    """

    stem_stride: int
    kinds: tuple[Kind, ...]
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    expansions: tuple[int, ...]
    kernels: tuple[int, ...]
    last: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data that `InvertedResidual.from_json` reads."""
        return {
            field.name: list(value) if isinstance(value := getattr(self, field.name), tuple) else value
            for field in fields(self)
        }

    def __hash__(self) -> int:
        return stable_hash(self.to_json())


def changed(plan: Plan, decisions: Mapping[str, Any]) -> Plan:
    """The plan with other values of some decisions, by name."""
    return replace(plan, **decisions)


class Bottleneck(nn.Module):
    """One block; `widen` and `filter` end with ReLU, `project` does not."""

    def __init__(self, kind: Kind, inputs: int, outputs: int, expansion: int, kernel: Pair, stride: Pair) -> None:
        super().__init__()
        wide = expansion * inputs
        self.adds = inputs == outputs and stride == (1, 1)
        single = kind == "fused" and expansion == 1  # then the k x k convolution is all, and makes the outputs
        groups = wide if kind == "depthwise" else 1
        self.widen: nn.Module = nn.Identity()
        if kind == "depthwise" and expansion > 1:
            self.widen = activated(inputs, wide, (1, 1))
        before = wide if kind == "depthwise" else inputs
        self.filter = activated(before, outputs if single else wide, kernel, stride, groups)
        self.project: nn.Module = nn.Identity() if single else convolution(wide, outputs, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        branch: Tensor = self.project(self.filter(self.widen(x)))
        return x + branch if self.adds else branch


class InvertedNet(nn.Module):
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
        self.stem = activated(shape[0], plan.widths[0], stem.kernel, stem.stride)

        def block(stage: int, inputs: int, outputs: int, size: Pair, stride: Pair) -> nn.Module:
            kernel = window(plan.kernels[stage], size)
            return Bottleneck(plan.kinds[stage], inputs, outputs, plan.expansions[stage], kernel, stride)

        self.stages = stages_of(stem.size, plan.widths, plan.depths, block)
        self.last: nn.Module = nn.Identity()
        if plan.last:
            self.last = activated(plan.widths[-1], plan.last, (1, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(plan.last or plan.widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, L) -> (B, outputs)."""
        if self.signal:
            x = x.unsqueeze(2)
        output: Tensor = self.head(self.flatten(self.pool(self.last(self.stages(self.stem(x))))))
        return output


@final
class InvertedResidual(Space[Plan]):
    """All plans for one input size and one target.

    Attributes:
        offered: what each decision may be, by its name in the plan; for the lists, of each stage.
        stages: at most.
    """

    def __init__(self, context: SpaceContext) -> None:
        self.shape = shape = map_or_signal("inverted_residual", context)
        self.outputs = context.outputs
        dense = context.family == "nvidia-gpu"
        widths = widths_of(LADDER, context.width_multiple)
        self.offered: dict[str, tuple[Any, ...]] = {
            "stem_stride": stem_strides(shape[1:]),
            "kinds": ("fused",) if dense else ("depthwise", "fused"),
            "widths": widths,
            "depths": tuple(range(1, MOST_DEPTH + 1)),
            "expansions": DENSE_EXPANSIONS if dense else EXPANSIONS,
            "kernels": DENSE_KERNELS if dense else KERNELS,
            "last": (0, *(width for width in widths if width >= widths[-1] // 2), 2 * widths[-1]),
        }
        self.stages = most_stages(shape[1:], self.offered["stem_stride"][0], MOST_STAGES)

    def sample(self, rng: random.Random) -> Plan:
        """Widths do not fall with depth; small and large members are about equally likely."""
        count = rng.randint(1, self.stages)
        widths = self.offered["widths"]
        # A random ceiling first: widths drawn independently from the whole ladder would hardly ever all be small.
        ceiling = rng.randrange(len(widths)) + 1
        most = rng.randint(1, MOST_DEPTH)
        return Plan(
            rng.choice(self.offered["stem_stride"]),
            tuple(rng.choice(self.offered["kinds"]) for _ in range(count)),
            tuple(sorted(rng.choice(widths[:ceiling]) for _ in range(count))),
            tuple(rng.randint(1, most) for _ in range(count)),
            tuple(rng.choice(self.offered["expansions"]) for _ in range(count)),
            tuple(rng.choice(self.offered["kernels"]) for _ in range(count)),
            rng.choice(self.offered["last"]) if rng.random() < 0.5 else 0,
        )

    def corners(self) -> Sequence[Plan]:
        """For each kind of block: the smallest, the largest; between them doubling widths at each reduction, depths
        1 to 3 and the largest expansion but one."""
        strides, widths = self.offered["stem_stride"], self.offered["widths"]
        least, usual, most = (self.offered["expansions"][place] for place in (0, -2, -1))
        plans: list[Plan] = []
        for kind in self.offered["kinds"]:
            plans.append(self.even(kind, strides[-1], widths[:1], 1, least, 3))
            for stride in reversed(strides):
                count = max(1, min(3, self.stages - strides.index(stride)))
                for first in (8, 16, 32):
                    wider = tuple(at_least(widths, first * 2**stage) for stage in range(count))
                    plans += [self.even(kind, stride, wider, depth, usual, 3) for depth in (1, 2, 3)]
            kernel, last = self.offered["kernels"][-1], self.offered["last"][-1]
            plans.append(self.even(kind, strides[0], widths[-1:] * self.stages, MOST_DEPTH, most, kernel, last))
        return tuple(dict.fromkeys(plans))

    def even(
        self,
        kind: Kind,
        stride: int,
        widths: tuple[int, ...],
        depth: int,
        expansion: int,
        kernel: int,
        last: int = 0,
    ) -> Plan:
        """A plan whose stages differ in width only."""
        each = len(widths)
        return Plan(stride, (kind,) * each, widths, (depth,) * each, (expansion,) * each, (kernel,) * each, last)

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Another value of one decision, or one stage more or less at the end; depths change by one."""
        neighbours = [
            [changed(plan, {name: other}) for other in others(self.offered[name], getattr(plan, name))]
            for name in ("stem_stride", "last")
        ]
        for name in PER_STAGE:
            values: tuple[Any, ...] = getattr(plan, name)
            near = steps if name == "depths" else others
            neighbours += [
                [changed(plan, {name: exchanged(values, stage, other)}) for other in near(self.offered[name], value)]
                for stage, value in enumerate(values)
            ]
        lengths = []
        if len(plan.widths) > 1:
            lengths.append(changed(plan, {name: getattr(plan, name)[:-1] for name in PER_STAGE}))
        if len(plan.widths) < self.stages:
            lengths.append(changed(plan, {name: (*getattr(plan, name), getattr(plan, name)[-1]) for name in PER_STAGE}))
        return one_of([*neighbours, lengths], plan, rng)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Every decision comes from either parent that has it: stages beyond the shorter parent's are the longer's."""
        parents = (plan, other)
        count = len(rng.choice(parents).widths)
        each = {name: inherited(getattr(plan, name), getattr(other, name), count, rng) for name in PER_STAGE}
        return changed(plan, {name: getattr(rng.choice(parents), name) for name in ("stem_stride", "last")} | each)

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: a key is missing or unknown, or a value is none that this space offers.
        """
        plan = Plan(**checked("inverted_residual", data, KEYS))
        refuse("inverted_residual", self.wrong_with(plan))
        return plan

    def wrong_with(self, plan: Plan) -> str | None:
        """Why a plan is not one of this space, or None."""
        lengths = {len(getattr(plan, name)) for name in PER_STAGE}
        if len(lengths) != 1 or not 1 <= min(lengths) <= self.stages:
            return f"has lists of {sorted(lengths)} stages; here they are equal, 1 to {self.stages}"
        for name, offered in self.offered.items():
            values = getattr(plan, name)
            odd = [value for value in (values if name in PER_STAGE else (values,)) if value not in offered]
            if odd:
                return f"has {name} {odd}; here there are {', '.join(map(str, offered))}"
        return None

    def build(self, plan: Plan) -> nn.Module:
        """Fresh weights from torch's current seed; features -> (B, outputs)."""
        return InvertedNet(plan, self.shape, self.outputs)


SPACE = InvertedResidual
