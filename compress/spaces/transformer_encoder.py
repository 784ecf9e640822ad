"""Small transformer encoders over patches of an image, frames of a spectrogram, or pieces of a signal.

A convolution whose stride is its kernel makes tokens, each with a learned place; blocks of attention and a two-layer
perceptron, layer norm in front of each, both residual; a last layer norm, the mean of the tokens, a linear layer
(Dosovitskiy et al. 2021, arXiv:2010.11929, figure 1, with the mean in place of a class token). Attention is written as
two matrix products, which is what runs in int8 on NVIDIA GPUs and x86; layer norm and softmax stay float there.

Not offered where a runtime has no kernel for layer norm and softmax between int8 layers: Cortex-M, Ethos-U and RISC-V
clusters.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from torch import nn

from compress.contracts.space import Space, SpaceContext
from compress.structure.attention import Block
from compress.structure.decisions import checked, listed, odd_value, one_of, others, refuse, stable_hash, steps
from compress.structure.layers import widths_of
from compress.structure.tokens import SIDES, TokenNetwork, offered_patches, wrong_patch

LADDER = (16, 32, 48, 64, 96, 128, 192)  # channels of a token, before rounding up to the target's multiple
HEADS = (1, 2, 4, 8)
NARROWEST_HEAD = 8  # channels
RATIOS = (1, 2, 4)  # of the perceptron's hidden width to the token's
MOST_DEPTH = 6
SPREAD = 0.02  # of a place's first values, as in BERT
KEYS: Mapping[str, type] = {"frames": bool, "patch": int, "width": int, "heads": int, "ratio": int, "depth": int}


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        frames: whether a token is as high as the map, so that tokens are in a row.
        patch: positions of one token along the last axis, and along the other where it does not make frames.
        width: channels of a token.
        heads: of attention; they divide the width.
        ratio: of the perceptron's hidden width to the token's.
        depth: blocks.
    """

    frames: bool
    patch: int
    width: int
    heads: int
    ratio: int
    depth: int

    def to_json(self) -> dict[str, Any]:
        """Plain data that `TransformerEncoder.from_json` reads."""
        return {key: getattr(self, key) for key in KEYS}

    def __hash__(self) -> int:
        return stable_hash(self.to_json())


def encoder_network(plan: Plan, shape: tuple[int, ...], outputs: int) -> TokenNetwork:
    """The network of one plan, with the arguments of `TokenNetwork`."""
    return TokenNetwork(
        shape,
        plan.frames,
        plan.patch,
        plan.width,
        outputs,
        depth=plan.depth,
        block=lambda _tokens: Block(plan.width, plan.heads, plan.ratio * plan.width),
        places=SPREAD,
    )


@final
class TransformerEncoder(Space[Plan]):
    """All plans for one input size and one target."""

    def __init__(self, context: SpaceContext) -> None:
        self.patches = offered_patches("transformer_encoder", "layer norm and softmax", context)
        self.shape = tuple(context.features.shape[1:])
        self.outputs = context.outputs
        self.widths = widths_of(LADDER, context.width_multiple)
        self.offered = {"width": self.widths, "ratio": RATIOS, "depth": range(1, MOST_DEPTH + 1)}

    def heads_of(self, width: int) -> tuple[int, ...]:
        """Numbers of heads that a width can have."""
        return tuple(heads for heads in HEADS if width % heads == 0 and width // heads >= NARROWEST_HEAD)

    def sample(self, rng: random.Random) -> Plan:
        """Every decision evenly."""
        width = rng.choice(self.widths)
        heads = rng.choice(self.heads_of(width))
        return Plan(*rng.choice(self.patches), width, heads, rng.choice(RATIOS), rng.randint(1, MOST_DEPTH))

    def corners(self) -> Sequence[Plan]:
        """The smallest, the largest, and for each patch growing widths and depths."""
        plans = [Plan(*self.patches[-1], self.widths[0], 1, 1, 1)]
        for patch in reversed(self.patches):
            for width, depth in ((self.widths[0], 2), (self.widths[len(self.widths) // 2], 3), (self.widths[-1], 4)):
                plans.append(Plan(*patch, width, max(self.heads_of(width)[:3]), 2, depth))
        plans.append(Plan(*self.patches[0], self.widths[-1], self.heads_of(self.widths[-1])[-1], 4, MOST_DEPTH))
        return tuple(dict.fromkeys(plans))

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Frames or patches, another side, width, number of heads, ratio or depth."""
        neighbours = [
            [replace(plan, frames=not plan.frames)],
            [replace(plan, patch=value) for value in others(SIDES, plan.patch)],
            [replace(plan, width=value) for value in others(self.widths, plan.width)],
            [replace(plan, heads=value) for value in others(HEADS, plan.heads)],
            [replace(plan, ratio=value) for value in others(RATIOS, plan.ratio)],
            [replace(plan, depth=value) for value in steps(range(1, MOST_DEPTH + 1), plan.depth)],
        ]
        return one_of(([p for p in plans if self.wrong_with(p) is None] for plans in neighbours), plan, rng)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Every decision of either parent; heads go with the width, and the patch with its form, where they must."""
        parents = (plan, other)
        width, heads = rng.choice(parents), rng.choice(parents)
        fitting = heads if heads.heads in self.heads_of(width.width) else width
        form, patch, ratio, depth = (rng.choice(parents) for _ in range(4))
        side = patch.patch if (form.frames, patch.patch) in self.patches else form.patch
        return Plan(form.frames, side, width.width, fitting.heads, ratio.ratio, depth.depth)

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: a key is missing or unknown, or a value is none that this space offers.
        """
        plan = Plan(**checked("transformer_encoder", data, KEYS))
        refuse("transformer_encoder", self.wrong_with(plan))
        return plan

    def wrong_with(self, plan: Plan) -> str | None:
        """Why a plan is not one of this space, or None."""
        wrong = wrong_patch(self.patches, plan.frames, plan.patch) or odd_value(plan, self.offered)
        if wrong is None and plan.heads not in (there := self.heads_of(plan.width)):
            return f"has {plan.heads} heads at width {plan.width}; here there are {listed(there)}"
        return wrong

    def build(self, plan: Plan) -> nn.Module:
        """Fresh weights from torch's current seed; features -> (B, outputs)."""
        return encoder_network(plan, self.shape, self.outputs)


SPACE = TransformerEncoder
