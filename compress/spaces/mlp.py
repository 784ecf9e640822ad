"""Perceptrons: linear layers with batch norm and ReLU over all features at once, for inputs without neighbours.

Batch norm folds into the linear layer in front of it. A residual one adds a layer's input to its output wherever their
widths are equal, before the ReLU (He et al. 2016, arXiv:1512.03385, figure 2, with one linear layer per block; for
tables see Gorishniy et al. 2021, arXiv:2106.11959, section 3.2; this form, which leaves nothing in float, is proposed).
Images and signals may be averaged first: the first layer reads every feature, so its size is what a plan mostly costs.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, final

from torch import Tensor, nn

from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError
from compress.structure.decisions import (
    checked,
    exchanged,
    inherited,
    listed,
    once_per_example,
    one_of,
    others,
    refuse,
    stable_hash,
)
from compress.structure.layers import widths_of

LADDER = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # before rounding up to the target's multiple
MOST_DEPTH = 5  # hidden layers
REDUCTIONS = (1, 2, 4)  # of each axis that keeps `SMALLEST_AXIS` positions
SMALLEST_AXIS = 4
KEYS: Mapping[str, type] = {"reduction": int, "residual": bool, "widths": tuple}


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        reduction: windows of so many positions along each long axis are averaged first.
        residual: whether layers whose input is as wide as their output add it. True only where there is one.
        widths: of the hidden layers.
    """

    reduction: int
    residual: bool
    widths: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Mlp.from_json` reads."""
        return {"reduction": self.reduction, "residual": self.residual, "widths": list(self.widths)}

    def __hash__(self) -> int:
        return stable_hash(self.to_json())


class Layer(nn.Module):
    """relu(norm(linear(x))), or relu(norm(linear(x)) + x)."""

    def __init__(self, inputs: int, outputs: int, residual: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        nn.init.kaiming_normal_(self.linear.weight, nonlinearity="relu")
        self.norm = nn.BatchNorm1d(outputs)
        self.relu = nn.ReLU()
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        inner = self.norm(self.linear(x))
        output: Tensor = self.relu(inner + x if self.residual else inner)
        return output


class Perceptron(nn.Module):
    """The network of one plan. `layers.0`, `layers.1`, ... and `head` are its taps."""

    def __init__(self, plan: Plan, shape: tuple[int, ...], outputs: int) -> None:
        """
        Args:
            plan: what to build.
            shape: of one example's features, any.
            outputs: of the last linear layer.
        """
        super().__init__()
        window = tuple(plan.reduction if size >= SMALLEST_AXIS * plan.reduction else 1 for size in shape[1:])
        self.average: nn.Module = nn.Identity()
        if max(window, default=1) > 1:
            self.average = nn.AvgPool2d(window) if len(window) == 2 else nn.AvgPool1d(window[0])
        self.flatten = nn.Flatten()
        inputs = shape[0]
        for size, reduction in zip(shape[1:], window, strict=True):
            inputs *= size // reduction
        layers: list[nn.Module] = []
        for width in plan.widths:
            layers.append(Layer(inputs, width, plan.residual and bool(layers) and inputs == width))
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, outputs)."""
        output: Tensor = self.head(self.layers(self.flatten(self.average(x))))
        return output


@final
class Mlp(Space[Plan]):
    """All plans for one input size and one target."""

    def __init__(self, context: SpaceContext) -> None:
        once_per_example("mlp", context)
        shape = tuple(context.features.shape[1:])
        if not shape or min(shape) < 1:
            raise RecipeError(
                f"the space mlp takes features (B, ...); here they are {tuple(context.features.shape)}",
                fix="give the task a front-end that makes at least one feature of an example",
            )
        self.shape = shape
        self.outputs = context.outputs
        self.widths = widths_of(LADDER, context.width_multiple)
        averaged = len(shape) in (2, 3)
        self.reductions = tuple(r for r in REDUCTIONS if r == 1 or (averaged and max(shape[1:]) >= SMALLEST_AXIS * r))

    def sample(self, rng: random.Random) -> Plan:
        """Small and large members are about equally likely; half of those that can are residual."""
        ceiling = rng.randrange(len(self.widths)) + 1
        widths = tuple(rng.choice(self.widths[:ceiling]) for _ in range(rng.randint(1, MOST_DEPTH)))
        if rng.random() < 0.5:  # repeated widths, which independent draws hardly give
            widths = (widths[0],) * len(widths)
        return Plan(rng.choice(self.reductions), repeats(widths) and rng.random() < 0.5, widths)

    def corners(self) -> Sequence[Plan]:
        """The smallest and the largest, and equal widths of 1 to 3 layers between them."""
        plans = [Plan(self.reductions[-1], False, self.widths[:1])]
        for reduction in reversed(self.reductions):
            for width in self.widths[:: max(1, len(self.widths) // 4)]:
                plans += [Plan(reduction, depth > 1, (width,) * depth) for depth in (1, 2, 3)]
        plans.append(Plan(1, True, self.widths[-1:] * MOST_DEPTH))
        return tuple(dict.fromkeys(plans))

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Another reduction, residual or not, another width of one layer, or one layer more or less at the end."""
        neighbours = [
            [replace(plan, reduction=value) for value in others(self.reductions, plan.reduction)],
            [replace(plan, residual=not plan.residual)],
            [replace(plan, widths=plan.widths[:-1]), replace(plan, widths=(*plan.widths, plan.widths[-1]))],
        ]
        for place, width in enumerate(plan.widths):
            wider = [exchanged(plan.widths, place, value) for value in others(self.widths, width)]
            neighbours.append([replace(plan, widths=widths) for widths in wider])
        return one_of(([p for p in plans if self.wrong_with(p) is None] for plans in neighbours), plan, rng)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Every decision of either parent; a residual child in which no width repeats gets all widths of one."""
        parents = (plan, other)
        widths = inherited(plan.widths, other.widths, len(rng.choice(parents).widths), rng)
        like = rng.choice(parents)
        if like.residual and not repeats(widths):
            widths = like.widths
        return Plan(rng.choice(parents).reduction, like.residual, widths)

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: a key is missing or unknown, or a value is none that this space offers.
        """
        plan = Plan(**checked("mlp", data, KEYS))
        refuse("mlp", self.wrong_with(plan))
        return plan

    def wrong_with(self, plan: Plan) -> str | None:
        """Why a plan is not one of this space, or None."""
        if plan.reduction not in self.reductions:
            return f"has reduction {plan.reduction}; here there are {listed(self.reductions)}"
        if not 1 <= len(plan.widths) <= MOST_DEPTH:
            return f"has {len(plan.widths)} hidden layers; here they are 1 to {MOST_DEPTH}"
        if odd := [width for width in plan.widths if width not in self.widths]:
            return f"has widths {odd}; here there are {listed(self.widths)}"
        if plan.residual and not repeats(plan.widths):
            return "is residual without two layers of one width behind each other"
        return None

    def build(self, plan: Plan) -> nn.Module:
        """Fresh weights from torch's current seed; features -> (B, outputs)."""
        return Perceptron(plan, self.shape, self.outputs)


def repeats(widths: tuple[int, ...]) -> bool:
    """Whether two layers behind each other are equally wide."""
    return any(width == following for width, following in pairwise(widths))


SPACE = Mlp
