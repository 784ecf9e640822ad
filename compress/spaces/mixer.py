"""Mixers: perceptrons across tokens and across channels, without convolutions or attention.

A convolution whose stride is its kernel makes tokens; each block has a two-layer perceptron along the tokens, the same
for every channel, then one along the channels, the same for every token, layer norm in front of each, both residual; a
last layer norm, the mean of the tokens, a linear layer (Tolstikhin et al., "MLP-Mixer", NeurIPS 2021, arXiv:2105.01601,
equation 1 and figure 1). Places need no embedding: the perceptron along the tokens knows them.

Layer norm and GELU stay float; not offered where a runtime has no kernel for them between int8 layers: Cortex-M,
Ethos-U and RISC-V clusters.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from torch import Tensor, nn

from compress.contracts.space import Space, SpaceContext
from compress.structure.decisions import checked, odd_value, one_of, others, refuse, stable_hash, steps
from compress.structure.layers import widths_of
from compress.structure.tokens import SIDES, TokenNetwork, offered_patches, wrong_patch

LADDER = (16, 32, 48, 64, 96, 128, 192)  # channels of a token, before rounding up to the target's multiple
MIXING = (16, 32, 64, 128)  # hidden width of the perceptron along the tokens, before rounding
RATIOS = (1, 2, 4)  # of the hidden width along the channels to the token's
MOST_DEPTH = 8
KEYS: Mapping[str, type] = {"frames": bool, "patch": int, "width": int, "mixing": int, "ratio": int, "depth": int}


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        frames: whether a token is as high as the map, so that tokens are in a row.
        patch: positions of one token along the last axis, and along the other where it does not make frames.
        width: channels of a token.
        mixing: hidden width of the perceptron along the tokens.
        ratio: of the hidden width along the channels to the token's.
        depth: blocks.
    """

    frames: bool
    patch: int
    width: int
    mixing: int
    ratio: int
    depth: int

    def to_json(self) -> dict[str, Any]:
        """Plain data that `MixerSpace.from_json` reads."""
        return {key: getattr(self, key) for key in KEYS}

    def __hash__(self) -> int:
        return stable_hash(self.to_json())


class Block(nn.Module):
    """A perceptron along the tokens and one along the channels, each added to its input."""

    def __init__(self, tokens: int, width: int, mixing: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, mixing), nn.GELU(), nn.Linear(mixing, tokens))
        self.channels = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same."""
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        output: Tensor = x + self.channels(self.norm2(x))
        return output


def mixer_network(plan: Plan, shape: tuple[int, ...], outputs: int) -> TokenNetwork:
    """The network of one plan, with the arguments of `TokenNetwork`."""
    return TokenNetwork(
        shape,
        plan.frames,
        plan.patch,
        plan.width,
        outputs,
        depth=plan.depth,
        block=lambda tokens: Block(tokens, plan.width, plan.mixing, plan.ratio * plan.width),
    )


@final
class MixerSpace(Space[Plan]):
    """All plans for one input size and one target."""

    def __init__(self, context: SpaceContext) -> None:
        self.patches = offered_patches("mixer", "layer norm and GELU", context)
        self.shape = tuple(context.features.shape[1:])
        self.outputs = context.outputs
        self.widths = widths_of(LADDER, context.width_multiple)
        self.mixings = widths_of(MIXING, context.width_multiple)
        depths = range(1, MOST_DEPTH + 1)
        self.offered = {"width": self.widths, "mixing": self.mixings, "ratio": RATIOS, "depth": depths}

    def sample(self, rng: random.Random) -> Plan:
        """Every decision evenly."""
        frames, patch = rng.choice(self.patches)
        width, mixing = rng.choice(self.widths), rng.choice(self.mixings)
        return Plan(frames, patch, width, mixing, rng.choice(RATIOS), rng.randint(1, MOST_DEPTH))

    def corners(self) -> Sequence[Plan]:
        """The smallest, the largest, and for each patch growing widths and depths."""
        middle = len(self.mixings) // 2
        plans = [Plan(*self.patches[-1], self.widths[0], self.mixings[0], 1, 1)]
        for patch in reversed(self.patches):
            for width, depth in ((self.widths[0], 2), (self.widths[len(self.widths) // 2], 4), (self.widths[-1], 6)):
                plans.append(Plan(*patch, width, self.mixings[middle], 2, depth))
        plans.append(Plan(*self.patches[0], self.widths[-1], self.mixings[-1], RATIOS[-1], MOST_DEPTH))
        return tuple(dict.fromkeys(plans))

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Frames or patches, another side, width, hidden width along the tokens, ratio or depth."""
        neighbours = [
            [replace(plan, frames=not plan.frames)],
            [replace(plan, patch=value) for value in others(SIDES, plan.patch)],
            [replace(plan, width=value) for value in others(self.widths, plan.width)],
            [replace(plan, mixing=value) for value in others(self.mixings, plan.mixing)],
            [replace(plan, ratio=value) for value in others(RATIOS, plan.ratio)],
            [replace(plan, depth=value) for value in steps(range(1, MOST_DEPTH + 1), plan.depth)],
        ]
        return one_of(([p for p in plans if self.wrong_with(p) is None] for plans in neighbours), plan, rng)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Every decision of either parent; the patch goes with its form where it must."""
        form, patch, width, mixing, ratio, depth = (rng.choice((plan, other)) for _ in KEYS)
        side = patch.patch if (form.frames, patch.patch) in self.patches else form.patch
        return Plan(form.frames, side, width.width, mixing.mixing, ratio.ratio, depth.depth)

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: a key is missing or unknown, or a value is none that this space offers.
        """
        plan = Plan(**checked("mixer", data, KEYS))
        refuse("mixer", self.wrong_with(plan))
        return plan

    def wrong_with(self, plan: Plan) -> str | None:
        """Why a plan is not one of this space, or None."""
        return wrong_patch(self.patches, plan.frames, plan.patch) or odd_value(plan, self.offered)

    def build(self, plan: Plan) -> nn.Module:
        """Fresh weights from torch's current seed; features -> (B, outputs)."""
        return mixer_network(plan, self.shape, self.outputs)


SPACE = MixerSpace
