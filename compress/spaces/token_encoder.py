"""Students of texts: a table of token vectors, blocks of attention or none, the masked mean, and a linear layer.

A pre-norm encoder over token ids and their mask (Vaswani et al. 2017, arXiv:1706.03762, with the norm in front) with
the head of LEAF (arXiv:2509.12539): masked mean, linear map to the teacher's dimension, unit length where the teacher's
answers have it. Without blocks it is a bag of token vectors with a perceptron behind its mean (proposed), which costs
almost nothing. What multiplies runs in int8, and the table is stored in it.

Where the teacher is a network with a table of the same words, students that are no wider start from its principal axes
(proposed: LEAF's students start from pre-trained encoders); wider ones, and those of a black box, start at random.

It takes ids (B, n) and, as a second input, their mask (B, n), 1 where a token is; without a mask every token is there.
Not offered where a runtime has neither tables nor softmax: Cortex-M, Ethos-U and RISC-V clusters.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError
from compress.structure.attention import Block
from compress.structure.decisions import (
    checked,
    listed,
    odd_value,
    once_per_example,
    one_of,
    others,
    refuse,
    stable_hash,
    steps,
)
from compress.structure.embedding_head import LeafHead, masked_mean
from compress.structure.layers import widths_of

FAMILIES = ("nvidia-gpu", "x86-cpu")
LADDER = (32, 48, 64, 96, 128, 192, 256, 384)  # of a token's vector, before rounding up to the target's multiple
HIDDEN = (0, 64, 128, 256, 512)  # of the perceptron behind the mean; 0 for none
HEADS = (1, 2, 4, 8)
NARROWEST_HEAD = 16  # channels
RATIOS = (1, 2, 4)  # of a block's hidden width to the token's
MOST_DEPTH = 6
SPREAD = 0.02  # of a table's first values, as in BERT; with 1, torch's own, bags of words learn far less
KEYS: Mapping[str, type] = {"width": int, "depth": int, "heads": int, "ratio": int, "hidden": int}


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        width: of a token's vector.
        depth: blocks; 0 is a bag of tokens, whose order does not matter.
        heads: of attention; they divide the width. 1 where there is no block.
        ratio: of a block's hidden width to the token's. 1 where there is no block.
        hidden: of the layer between mean and answer; 0 for none.
    """

    width: int
    depth: int
    heads: int
    ratio: int
    hidden: int

    def to_json(self) -> dict[str, Any]:
        """Plain data that `TokenEncoder.from_json` reads."""
        return {key: getattr(self, key) for key in KEYS}

    def __hash__(self) -> int:
        return stable_hash(self.to_json())


class Encoder(nn.Module):
    """The network of one plan. `blocks.0`, `blocks.1`, ... and `head` are its taps."""

    def __init__(self, plan: Plan, vocabulary: int, tokens: int, outputs: int, normalize: bool) -> None:
        """
        Args:
            plan: what to build.
            vocabulary: rows of the table.
            tokens: of the longest text.
            outputs: of the linear layer.
            normalize: whether answers have length 1.
        """
        super().__init__()
        self.table = nn.Embedding(vocabulary, plan.width)
        self.places: nn.Parameter | None = None
        self.blocks = nn.ModuleList(Block(plan.width, plan.heads, plan.ratio * plan.width) for _ in range(plan.depth))
        self.norm: nn.Module = nn.Identity()
        nn.init.normal_(self.table.weight, std=SPREAD)
        if plan.depth:
            self.places = nn.Parameter(SPREAD * torch.randn(1, tokens, plan.width))
            self.norm = nn.LayerNorm(plan.width)
        self.between: nn.Module = nn.Identity()
        if plan.hidden:
            self.between = nn.Sequential(nn.Linear(plan.width, plan.hidden), nn.GELU())
        self.head = LeafHead(plan.hidden or plan.width, outputs, normalize)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, n) and (B, n) -> (B, outputs)."""
        there = torch.ones_like(ids) if mask is None else mask
        x = self.table(ids)
        if self.places is not None:
            x = x + self.places
            absent = there == 0
            for block in self.blocks:
                x = block(x, absent)
        return self.head.project(self.between(masked_mean(self.norm(x), there)))


@final
class TokenEncoder(Space[Plan]):
    """All plans for one vocabulary, one length and one target."""

    tokens: ClassVar[bool] = True

    def __init__(self, context: SpaceContext) -> None:
        once_per_example("token_encoder", context)
        if context.family not in FAMILIES:
            raise RecipeError(
                f"the space token_encoder looks token ids up in a table, which targets of the family {context.family}"
                f" cannot; {listed(FAMILIES)} can",
                fix="choose another target: compress list targets",
            )
        given = (context.features, *context.more)
        shapes = [tuple(tensor.shape[1:]) for tensor in given]
        whole = [not tensor.is_floating_point() for tensor in given]
        vocabulary = context.values[0] if context.values else 0
        if len(given) > 2 or not all(whole) or len(shapes[0]) != 1 or len(set(shapes)) > 1 or vocabulary < 1:
            raise RecipeError(
                "the space token_encoder takes token ids (B, n) and perhaps their mask (B, n), integers both; here the"
                f" front-end gives {listed(tuple(tensor.shape) for tensor in given)}",
                fix="name the size of the vocabulary in the task's input_values, or choose a space for real numbers",
            )
        self.vocabulary, self.length = vocabulary, shapes[0][0]
        self.outputs, self.unit = context.outputs, context.unit
        self.inherited = _principal(context.teacher, vocabulary)
        self.widths = widths_of(LADDER, context.width_multiple)
        self.hidden = (0, *widths_of(HIDDEN[1:], context.width_multiple))

    def heads_of(self, width: int) -> tuple[int, ...]:
        """Numbers of heads that a width can have."""
        return tuple(heads for heads in HEADS if width % heads == 0 and width // heads >= NARROWEST_HEAD)

    def sample(self, rng: random.Random) -> Plan:
        """A bag in one of four, else every decision evenly."""
        width, hidden = rng.choice(self.widths), rng.choice(self.hidden)
        if rng.random() < 0.25:
            return Plan(width, 0, 1, 1, hidden)
        heads = rng.choice(self.heads_of(width))
        return Plan(width, rng.randint(1, MOST_DEPTH), heads, rng.choice(RATIOS), hidden)

    def corners(self) -> Sequence[Plan]:
        """The smallest, the largest, bags and encoders of growing width between them."""
        plans = [Plan(self.widths[0], 0, 1, 1, 0)]
        for width in self.widths:
            plans += [Plan(width, 0, 1, 1, hidden) for hidden in (0, self.hidden[len(self.hidden) // 2])]
        for width, depth in ((self.widths[0], 1), (self.widths[len(self.widths) // 2], 2), (self.widths[-1], 4)):
            plans.append(Plan(width, depth, max(self.heads_of(width)[:3]), 2, 0))
        plans.append(Plan(self.widths[-1], MOST_DEPTH, self.heads_of(self.widths[-1])[-1], 4, self.hidden[-1]))
        return tuple(dict.fromkeys(plans))

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Another width, number of heads, ratio or hidden width, or one block more or less; an encoder of one head and
        ratio 1 becomes a bag by losing its one block, and a bag becomes that."""
        neighbours = [
            [replace(plan, width=value) for value in others(self.widths, plan.width)],
            [replace(plan, depth=value) for value in steps(range(MOST_DEPTH + 1), plan.depth)],
            [replace(plan, heads=value) for value in others(HEADS, plan.heads)],
            [replace(plan, ratio=value) for value in others(RATIOS, plan.ratio)],
            [replace(plan, hidden=value) for value in others(self.hidden, plan.hidden)],
        ]
        return one_of(([p for p in plans if self.wrong_with(p) is None] for plans in neighbours), plan, rng)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Every decision of either parent; heads go with the width, and with the depth, where they must."""
        parents = (plan, other)
        body, hidden = rng.choice(parents), rng.choice(parents).hidden
        if body.depth == 0:
            return replace(body, width=rng.choice(parents).width, hidden=hidden)
        width, heads, ratio = rng.choice(parents).width, rng.choice(parents).heads, rng.choice(parents)
        fitting = heads if heads in self.heads_of(width) else body.heads
        width = width if fitting in self.heads_of(width) else body.width
        return Plan(width, body.depth, fitting, ratio.ratio, hidden)

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: a key is missing or unknown, or a value is none that this space offers.
        """
        plan = Plan(**checked("token_encoder", data, KEYS))
        refuse("token_encoder", self.wrong_with(plan))
        return plan

    def wrong_with(self, plan: Plan) -> str | None:
        """Why a plan is not one of this space, or None."""
        offered = {"width": self.widths, "depth": range(MOST_DEPTH + 1), "ratio": RATIOS, "hidden": self.hidden}
        if wrong := odd_value(plan, offered):
            return wrong
        if plan.depth == 0 and (plan.heads, plan.ratio) != (1, 1):
            return f"has {plan.heads} heads of ratio {plan.ratio} and no block; a bag has 1 and 1"
        if plan.heads not in self.heads_of(plan.width):
            return f"has {plan.heads} heads at width {plan.width}; here there are {listed(self.heads_of(plan.width))}"
        return None

    def build(self, plan: Plan) -> nn.Module:
        """Fresh weights from torch's current seed, but for a table as wide as the teacher's or narrower, which starts
        from that; ids (and mask) -> (B, outputs)."""
        made = Encoder(plan, self.vocabulary, self.length, self.outputs, self.unit)
        if self.inherited is not None and plan.width <= self.inherited.shape[1]:
            with torch.no_grad():
                made.table.weight.copy_(self.inherited[:, : plan.width])
        return made


def _principal(teacher: nn.Module | None, vocabulary: int) -> Tensor | None:
    """The teacher's own table of that vocabulary along its principal axes, the widest first; None without one."""
    tables = [m.weight for m in (teacher.modules() if teacher is not None else ()) if isinstance(m, nn.Embedding)]
    table = next((table.detach().float() for table in tables if len(table) == vocabulary), None)
    if table is None:
        return None
    centred = table - table.mean(dim=0)
    axes: Tensor = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)
    axes = torch.where(axes.sum(dim=0) < 0, -axes, axes)  # an axis has no direction of its own
    return centred @ axes


SPACE = TokenEncoder
