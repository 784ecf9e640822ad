"""Networks of equal small cells, whose inside is the choice: the space that differentiable search works on.

A plan says how three nodes of a cell are wired, by which operations, and how often the cell is stacked at which width.
Every plan is a plain network of convolutions whose batch norm folds, pools and sums: see `structure/cell_network.py`.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from torch import nn

from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError
from compress.structure.cell_network import NONE, SKIP, CellNetwork, Nodes, Skeleton
from compress.structure.convnets import stem_strides
from compress.structure.decisions import checked, exchanged, map_or_signal, refuse, stable_hash
from compress.structure.layers import SMALLEST_MAP, widths_of

NODES = 3
KEPT = 2  # edges per node at most
LADDER = (8, 12, 16, 24, 32, 48, 64)  # channels of the first stage, before rounding up to the target's multiple
MOST_CELLS = 3  # per stage
MOST_STAGES = 3

# TensorRT pads int8 depthwise convolutions to full groups, so dense ones cost less there.
DENSE = (NONE, SKIP, "max_3x3", "average_3x3", "conv_1x1", "conv_3x3", "dilated_3x3")
SEPARABLE = (
    NONE,
    SKIP,
    "max_3x3",
    "average_3x3",
    "conv_1x1",
    "conv_3x3",
    "separable_3x3",
    "separable_5x5",
    "dilated_separable_3x3",
)
MADE_HERE = "take the plan from candidates.json of a run as it stands there"
KEYS: Mapping[str, type] = {"stem_stride": int, "channels": int, "cells": tuple, "nodes": object}


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        stem_stride: reduction by the first convolution, a power of two; along a short axis it is less.
        channels: of the first stage; each further stage has twice as many and halves the positions.
        cells: of each stage.
        nodes: for each node of the cell its edges as (earlier node, operation), sorted; node 0 is the cell's input.
    """

    stem_stride: int
    channels: int
    cells: tuple[int, ...]
    nodes: Nodes

    @property
    def skeleton(self) -> Skeleton:
        """Everything but the cells' inside."""
        return Skeleton(self.stem_stride, self.channels, self.cells)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Cells.from_json` reads."""
        return {
            "stem_stride": self.stem_stride,
            "channels": self.channels,
            "cells": list(self.cells),
            "nodes": [[[source, name] for source, name in kept] for kept in self.nodes],
        }

    def __hash__(self) -> int:
        return stable_hash(self.to_json())


@final
class Cells(Space[Plan]):
    """All plans for one input size and one target.

    Attributes:
        operations: on offer for every edge, "none" first: what a mixture for this target is made of.
        shape: of one example's features.
        outputs: of the linear layer.
        widths, strides, stages: what skeletons are made of: channels of the first stage, stem reductions, and the most
            stages there may be.
    """

    def __init__(self, context: SpaceContext) -> None:
        self.shape, self.outputs = map_or_signal("cells", context), context.outputs
        self.widths = widths_of(LADDER, context.width_multiple)
        self.operations = DENSE if context.family == "nvidia-gpu" else SEPARABLE
        self.strides = stem_strides(self.shape[1:])
        longest = max(self.shape[1:]) // self.strides[0]
        self.stages = max(1, min(MOST_STAGES, (longest // SMALLEST_MAP).bit_length()))

    def skeletons(self) -> tuple[Skeleton, ...]:
        """Those whose stages have the same number of cells: by reduction, depth, then width, each ascending."""
        return tuple(
            Skeleton(stride, width, (depth,) * stages)
            for stride, stages, depth, width in itertools.product(
                self.strides, range(1, self.stages + 1), range(1, MOST_CELLS + 1), self.widths
            )
        )

    def smallest(self) -> Skeleton:
        """The cheapest there is."""
        return Skeleton(self.strides[-1], self.widths[0], (1,))

    def plan(self, skeleton: Skeleton, nodes: Nodes) -> Plan:
        """The two halves of a plan together."""
        return Plan(skeleton.stem_stride, skeleton.channels, skeleton.cells, nodes)

    def sample(self, rng: random.Random) -> Plan:
        """Any skeleton and any wiring; every node keeps one or two edges."""
        cells = tuple(rng.randint(1, MOST_CELLS) for _ in range(rng.randint(1, self.stages)))
        nodes = tuple(self.wiring(node, rng) for node in range(1, NODES + 1))
        return Plan(rng.choice(self.strides), rng.choice(self.widths), cells, nodes)

    def wiring(self, node: int, rng: random.Random) -> tuple[tuple[int, str], ...]:
        """A random way to wire one node."""
        sources = sorted(rng.sample(range(node), rng.randint(1, min(KEPT, node))))
        return tuple((source, rng.choice(self.operations[1:])) for source in sources)

    def corners(self) -> Sequence[Plan]:
        """For each convolution in a residual cell: the smallest, the largest, and three widths and depths between."""
        plans = []
        for name in (name for name in self.operations if name in ("conv_3x3", "separable_3x3", "conv_1x1")):
            # Two convolutions in a row with a wire around them, and one beside.
            nodes: Nodes = (((0, name),), ((0, SKIP), (1, name)), ((0, name), (2, SKIP)))
            plans.append(Plan(self.strides[-1], self.widths[0], (1,), nodes))
            for stages, depth in itertools.product(range(1, self.stages + 1), (1, 2)):
                for width in (self.widths[0], self.widths[len(self.widths) // 3], self.widths[len(self.widths) // 2]):
                    plans.append(Plan(self.strides[0], width, (depth,) * stages, nodes))
            plans.append(Plan(self.strides[0], self.widths[-1], (MOST_CELLS,) * self.stages, nodes))
        return tuple(dict.fromkeys(plans))

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Another stem reduction, width or depth of one stage, one stage more or less at the end, or one node's wiring
        with one edge more, less, from elsewhere, or of another operation."""
        neighbours: list[list[Plan]] = [
            [replace(plan, stem_stride=stride) for stride in self.strides if stride != plan.stem_stride],
            [replace(plan, channels=width) for width in self.widths if width != plan.channels],
        ]
        for stage, depth in enumerate(plan.cells):
            others = [other for other in (depth - 1, depth + 1) if 1 <= other <= MOST_CELLS]
            neighbours.append([replace(plan, cells=exchanged(plan.cells, stage, other)) for other in others])
        if len(plan.cells) > 1:
            neighbours.append([replace(plan, cells=plan.cells[:-1])])
        if len(plan.cells) < self.stages:
            neighbours.append([replace(plan, cells=(*plan.cells, plan.cells[-1]))])
        for place, kept in enumerate(plan.nodes):
            for change in (self.renamed(kept), self.moved(kept, place + 1), self.resized(kept, place + 1)):
                neighbours.append([replace(plan, nodes=exchanged(plan.nodes, place, other)) for other in change])
        return rng.choice(rng.choice([some for some in neighbours if some]))

    def renamed(self, kept: tuple[tuple[int, str], ...]) -> list[tuple[tuple[int, str], ...]]:
        """One edge with another operation."""
        return [
            exchanged(kept, edge, (source, other))
            for edge, (source, name) in enumerate(kept)
            for other in self.operations[1:]
            if other != name
        ]

    def moved(self, kept: tuple[tuple[int, str], ...], node: int) -> list[tuple[tuple[int, str], ...]]:
        """One edge with the same operation from another node."""
        taken = {source for source, _ in kept}
        return [
            tuple(sorted(exchanged(kept, edge, (other, name))))
            for edge, (_, name) in enumerate(kept)
            for other in range(node)
            if other not in taken
        ]

    def resized(self, kept: tuple[tuple[int, str], ...], node: int) -> list[tuple[tuple[int, str], ...]]:
        """One edge less or more."""
        if len(kept) > 1:
            return [kept[:edge] + kept[edge + 1 :] for edge in range(len(kept))]
        if min(KEPT, node) == 1:
            return []
        taken = {source for source, _ in kept}
        return [
            tuple(sorted((*kept, (source, name))))
            for source in range(node)
            if source not in taken
            for name in self.operations[1:]
        ]

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Reduction, width, depths and each node's wiring from one of the two."""
        return Plan(
            rng.choice((plan.stem_stride, other.stem_stride)),
            rng.choice((plan.channels, other.channels)),
            rng.choice((plan.cells, other.cells)),
            tuple(rng.choice(pair) for pair in zip(plan.nodes, other.nodes, strict=True)),
        )

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: a key is missing or unknown, or a value is none that this space offers.
        """
        given = checked("cells", data, KEYS)
        try:
            nodes = tuple(tuple((int(source), str(name)) for source, name in kept) for kept in given["nodes"])
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"a plan of cells has nodes = {given['nodes']!r}, no lists of edges", fix=MADE_HERE
            ) from error
        plan = Plan(**given | {"nodes": nodes})
        refuse("cells", self.wrong_with(plan))
        return plan

    def wrong_with(self, plan: Plan) -> str | None:
        """Why a plan is not one of this space, or None."""
        if plan.stem_stride not in self.strides:
            return f"reduces by {plan.stem_stride} in the stem; here there are {', '.join(map(str, self.strides))}"
        if plan.channels not in self.widths:
            return f"has {plan.channels} channels; here there are {', '.join(map(str, self.widths))}"
        if not 1 <= len(plan.cells) <= self.stages or any(c not in range(1, MOST_CELLS + 1) for c in plan.cells):
            return f"has {list(plan.cells)} cells; here there are 1 to {self.stages} stages of 1 to {MOST_CELLS}"
        if len(plan.nodes) != NODES:
            return f"wires {len(plan.nodes)} nodes; here there are {NODES}"
        for node, kept in enumerate(plan.nodes, 1):
            sources = [source for source, _ in kept]
            if not 1 <= len(kept) <= KEPT or sources != sorted(set(sources)) or not set(sources) <= set(range(node)):
                return f"wires node {node} to {sources}; it takes 1 to {KEPT} different earlier nodes, sorted"
            odd = [name for _, name in kept if name not in self.operations[1:]]
            if odd:
                return f"has the operation {odd[0]!r}; here there are {', '.join(self.operations[1:])}"
        return None

    def build(self, plan: Plan) -> nn.Module:
        """Fresh weights from torch's current seed; features -> (B, outputs)."""
        return CellNetwork(plan.skeleton, plan.nodes, self.shape, self.outputs)


SPACE = Cells
