"""Students cut out of the teacher: narrower, shallower, with smaller kernels and heads, at a lower resolution, and
with the weights that matter most. Nobody writes a student.

Channels that depend on each other are found by tracing (`structure/channels.py`), blocks that can be left out by
running (`structure/blocks.py`), as are kernels, heads and resolutions (`structure/{kernels,head,resolution}.py`). Each
finding is proven on real features before it is offered (`structure/anatomy.py`): a cut network must run, keep its
output's shape and, where no normalisation runs over what is cut, answer exactly like the teacher with the cut parts
silenced. What fails stays whole, and `whole` says why.
"""

import copy
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from torch import nn

from compress.contracts.space import Outline, Space, SpaceContext
from compress.errors import RecipeError
from compress.structure.anatomy import Choice, dissect, smaller
from compress.structure.channels import ChannelGroup

FACTORS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0)  # of the teacher's widths, in `corners`
RATES = (0.0, 0.0, 0.25, 0.5, 1.0)  # of the convolutions that get a smaller kernel, in `sample`
USE_INSTEAD = "use the space 'int8_conv', which needs nothing of the teacher's inside"


@dataclass(frozen=True)
class Plan:
    """One student.

    Attributes:
        widths: (group, channels that stay), sorted by group; without the groups that lie in what is left out.
        dropped: blocks and hidden layers of the head that are left out, in the teacher's order.
        kernels: (convolution, extent of its window), in the teacher's order; only those smaller than the teacher's.
        pooled: the head reads one average per channel, where the teacher's reads every position of a flattened map.
        shrink: this many positions of the features are averaged into one along each axis.
    """

    widths: tuple[tuple[str, int], ...]
    dropped: tuple[str, ...]
    kernels: tuple[tuple[str, int], ...] = ()
    pooled: bool = False
    shrink: int = 1

    def to_json(self) -> dict[str, Any]:
        """Plain data that `Derived.from_json` reads; without what is as in the teacher, widths aside."""
        data: dict[str, Any] = {"widths": dict(self.widths), "dropped": list(self.dropped)}
        if self.kernels:
            data["kernels"] = dict(self.kernels)
        if self.pooled:
            data["pooled"] = True
        if self.shrink > 1:
            data["shrink"] = self.shrink
        return data

    def __hash__(self) -> int:
        # Python salts the hashes of strings per process; this one is the same in every run.
        return int.from_bytes(hashlib.sha256(json.dumps(self.to_json()).encode()).digest()[:7], "big")


@final
class Derived(Space[Plan]):
    """All plans for one teacher.

    Attributes:
        groups: channel groups whose width can be chosen.
        offered: group name -> widths, ascending; the last is the teacher's.
        blocks: blocks and hidden layers of the head that can be left out.
        kernels: convolution -> extents of its window, ascending; the last is the teacher's.
        shrinks: how many positions may become one, for a head that reads all positions; for True, one that reads
            averages. Without True, the head cannot.
        whole: what stays as it is -> why.
    """

    def __init__(self, context: SpaceContext) -> None:
        if context.teacher is None:
            raise RecipeError(
                "the space 'derived' cuts students out of the teacher's layers, and this teacher is a black box",
                fix=USE_INSTEAD,
            )
        self.teacher = context.teacher
        self.trainable = not any(parameter.requires_grad for parameter in self.teacher.parameters())
        self.shape = tuple(context.features.shape[1:])
        # Tracing follows gradients and the proofs write into weights: both happen on a copy.
        network = copy.deepcopy(self.teacher).eval()
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        try:
            self.anatomy = dissect(network, context.features.detach().clone(), context.width_multiple)
        except Exception as error:  # any network may come here; whatever it raises, the advice is the same
            raise RecipeError(
                f"the teacher {type(self.teacher).__name__} cannot be traced on features"
                f" {tuple(context.features.shape)}: {type(error).__name__}: {error}",
                fix=f"give the teacher as a network of standard layers that takes one tensor, or {USE_INSTEAD}",
            ) from error
        self.groups = self.anatomy.groups
        self.offered = self.anatomy.offered
        self.blocks = (*self.anatomy.blocks, *(hidden.layer for hidden in self.anatomy.hidden))
        self.kernels = self.anatomy.kernels
        self.shrinks = self.anatomy.shrinks
        self.whole = self.anatomy.whole
        if not (self.groups or self.blocks or self.kernels or self.shrinks != {False: (1,)}):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(self.whole.items())[:4])
            raise RecipeError(
                f"nothing of the teacher {type(self.teacher).__name__} can be made narrower, smaller or left out"
                + (f" ({reasons})" if reasons else ""),
                fix=USE_INSTEAD,
            )

    def present(self, dropped: Sequence[str]) -> tuple[ChannelGroup, ...]:
        """Groups that do not lie in what is left out."""
        prefixes = tuple(block + "." for block in dropped)
        hidden = {hidden.layer for hidden in self.anatomy.hidden} & set(dropped)
        return tuple(
            group
            for group in self.groups
            if not all(piece.layer.startswith(prefixes) for piece in group.slices)
            and not any(piece.layer in hidden and not piece.consumes for piece in group.slices)
        )

    def convolutions(self, dropped: Sequence[str]) -> list[str]:
        """Convolutions with a choice of kernels that do not lie in what is left out."""
        prefixes = tuple(block + "." for block in dropped)
        return [name for name in self.kernels if not (name + ".").startswith(prefixes)]

    def plan(
        self,
        widths: Mapping[str, int],
        dropped: Sequence[str],
        kernels: Mapping[str, int] | None = None,
        pooled: bool = False,
        shrink: int = 1,
    ) -> Plan:
        """A plan in its one normal form. A group without a width gets the mean factor of those that have one.

        Raises:
            ValueError: this teacher's head or resolution cannot be so.
        """
        if shrink not in self.shrinks.get(pooled, ()):
            raise ValueError(f"no plan with shrink {shrink} and pooled {pooled}: there are {dict(self.shrinks)}")
        dropped = tuple(block for block in self.blocks if block in dropped)
        groups = self.present(dropped)
        factors = [widths[group.name] / group.channels for group in groups if group.name in widths]
        factor = sum(factors) / len(factors) if factors else 1.0
        chosen = {group.name: widths.get(group.name, self.nearest(group, factor)) for group in groups}
        sizes = {name: (kernels or {}).get(name, self.kernels[name][-1]) for name in self.convolutions(dropped)}
        small = tuple((name, size) for name, size in sizes.items() if size != self.kernels[name][-1])
        return Plan(tuple(sorted(chosen.items())), dropped, small, pooled, shrink)

    def nearest(self, group: ChannelGroup, factor: float) -> int:
        """The offered width nearest to `factor` times the teacher's; the smaller of two."""
        return min(self.offered[group.name], key=lambda width: (abs(width - factor * group.channels), width))

    def sample(self, rng: random.Random) -> Plan:
        """One width factor for all groups, which each follows loosely; blocks left out and kernels cut at one rate
        each; at least half of the plans at the full resolution."""
        factor = 2.0 ** rng.uniform(-3.5, 0.0)  # evenly over orders of magnitude: cost goes with its square
        widths = {group.name: self.nearest(group, factor * 2.0 ** rng.uniform(-0.5, 0.5)) for group in self.groups}
        rate = rng.choice((0.0, 0.25, 0.5, 0.75, 1.0))
        dropped = [block for block in self.blocks if rng.random() < rate]
        rate = rng.choice(RATES)
        kernels = {name: rng.choice(sizes[:-1]) for name, sizes in self.kernels.items() if rng.random() < rate}
        pooled = rng.choice(tuple(self.shrinks))
        shrink = rng.choice(self.shrinks[pooled]) if rng.random() < 0.5 else 1
        return self.plan(widths, dropped, kernels, pooled, shrink)

    def corners(self) -> Sequence[Plan]:
        """Even width factors with all blocks, every second one and none; with the smallest kernels; with averaged maps
        and at each lower resolution; and the smallest of everything."""
        smallest = {name: sizes[0] for name, sizes in self.kernels.items()}
        lower = [(pooled, shrink) for pooled, shrinks in self.shrinks.items() for shrink in shrinks]
        kinds: list[tuple[Sequence[str], Mapping[str, int], bool, int]] = [
            *((dropped, {}, False, 1) for dropped in (self.blocks, self.blocks[::2], ())),
            *(((), {}, *decided) for decided in lower if decided != (False, 1)),
            ((), smallest, False, 1),
        ]
        plans = [
            self.plan({group.name: self.nearest(group, factor) for group in self.groups}, *kind)
            for kind in kinds
            for factor in FACTORS
        ]
        least = {group.name: self.offered[group.name][0] for group in self.groups}
        return tuple(dict.fromkeys([self.plan(least, self.blocks, smallest, *lower[-1]), *plans]))

    def mutate(self, plan: Plan, rng: random.Random) -> Plan:
        """Another width of one group, one block or layer more or less, another kernel, head or resolution."""
        widths, kernels = dict(plan.widths), dict(plan.kernels)
        shrinks = [shrink for shrink in self.shrinks[plan.pooled] if shrink != plan.shrink]
        heads = [pooled for pooled, fits in self.shrinks.items() if pooled != plan.pooled and plan.shrink in fits]
        convolutions = self.convolutions(plan.dropped)
        names = [
            *(("width", name) for name in widths),
            *(("layer", name) for name in self.blocks),
            *(("kernel", name) for name in convolutions),
            *(("head", "") for _ in heads),
            *(("resolution", "") for _ in shrinks[:1]),
        ]
        dropped, pooled, shrink = plan.dropped, plan.pooled, plan.shrink
        what, name = rng.choice(names)
        if what == "width":
            widths[name] = rng.choice([width for width in self.offered[name] if width != widths[name]])
        elif what == "layer":
            dropped = tuple(sorted({name} ^ set(dropped)))
        elif what == "kernel":
            sizes = self.kernels[name]
            kernels[name] = rng.choice([size for size in sizes if size != kernels.get(name, sizes[-1])])
        elif what == "head":
            (pooled,) = heads
        else:
            shrink = rng.choice(shrinks)
        return self.plan(widths, dropped, kernels, pooled, shrink)

    def crossover(self, plan: Plan, other: Plan, rng: random.Random) -> Plan:
        """Each block is left out or not as in either parent; each width and kernel comes from either parent that has
        it, the head from either, and the resolution from either that the head goes with."""
        parents = (plan, other)
        dropped = [block for block in self.blocks if block in rng.choice(parents).dropped]
        both = [dict(parent.widths) for parent in parents]
        widths = {
            group.name: rng.choice([parent[group.name] for parent in both if group.name in parent])
            for group in self.present(dropped)
        }
        kernels = {}
        for name in self.convolutions(dropped):
            having = [parent for parent in parents if name in self.convolutions(parent.dropped)]
            kernels[name] = dict(rng.choice(having).kernels).get(name, self.kernels[name][-1])
        pooled = rng.choice(parents).pooled
        shrink = rng.choice([parent.shrink for parent in parents if parent.shrink in self.shrinks[pooled]])
        return self.plan(widths, dropped, kernels, pooled, shrink)

    def from_json(self, data: Mapping[str, Any]) -> Plan:
        """The plan that `to_json` gave.

        Raises:
            RecipeError: it is not a plan for this teacher.
        """
        wrong = self.wrong_with(data)
        if wrong:
            raise RecipeError(
                f"a plan of derived {wrong}", fix="take a plan that was made for the same teacher and target"
            )
        return self.plan(
            data["widths"],
            data["dropped"],
            data.get("kernels", {}),
            data.get("pooled", False),
            data.get("shrink", 1),
        )

    def wrong_with(self, data: Mapping[str, Any]) -> str | None:
        """Why plain data is no plan for this teacher, or None."""
        needed, further = {"widths", "dropped"}, {"kernels", "pooled", "shrink"}
        if not needed <= set(data) <= needed | further:
            return (
                f"has the keys widths and dropped, and may have kernels, pooled and shrink; this one has"
                f" {', '.join(map(str, data)) or 'none'}"
            )
        named = (data["widths"], data.get("kernels", {}))
        if not (isinstance(data["dropped"], list | tuple) and all(isinstance(part, Mapping) for part in named)):
            return "has a list of blocks in dropped, and names with numbers in widths and kernels; this one has not"
        if strange := [block for block in data["dropped"] if block not in self.blocks]:
            there = ", ".join(self.blocks) or "no blocks"
            return f"leaves out some of {there}; this one names {', '.join(map(str, strange))}"
        if strange := sorted(set(data["widths"]) ^ {group.name for group in self.present(data["dropped"])}):
            return f"gives a width to each group that is there; missing or unknown: {', '.join(strange)}"
        if strange := [name for name, width in data["widths"].items() if width not in self.offered[name]]:
            there = ", ".join(map(str, self.offered[strange[0]]))
            return f"gives {strange[0]} one of the widths {there}; this one {data['widths'][strange[0]]}"
        kernels = data.get("kernels", {})
        if strange := [name for name in kernels if name not in self.convolutions(data["dropped"])]:
            there = ", ".join(self.convolutions(data["dropped"])) or "no convolution"
            return f"chooses the kernels of {there}; this one names {', '.join(map(str, strange))}"
        if strange := [name for name, size in kernels.items() if size not in self.kernels[name]]:
            there = ", ".join(map(str, self.kernels[strange[0]]))
            return f"gives {strange[0]} one of the kernels {there}; this one {kernels[strange[0]]}"
        pooled, shrink = data.get("pooled", False), data.get("shrink", 1)
        if pooled not in self.shrinks:
            return f"has pooled {' or '.join(map(str, self.shrinks)).lower()}; this one {pooled}"
        if shrink not in self.shrinks[pooled]:
            return f"has shrink {', '.join(map(str, self.shrinks[pooled]))} with this head; this one {shrink}"
        return None

    def outline(self, plan: Plan) -> Outline:
        """The larger network has all blocks, the plan's head and its resolution."""
        hidden = tuple(item.layer for item in self.anatomy.hidden if item.layer in plan.dropped)
        widths = dict(plan.widths)
        sizes = {group.name: widths.get(group.name, group.channels) for group in self.present(hidden)}
        absent = tuple(name for name in plan.dropped if name not in hidden)
        return Outline((hidden, plan.pooled, plan.shrink), sizes, absent, dict(plan.kernels))

    def unabridged(self, plan: Plan, rng: random.Random) -> Plan:
        """All blocks and whole kernels; random widths."""
        hidden = [item.layer for item in self.anatomy.hidden if item.layer in plan.dropped]
        widths = {group.name: rng.choice(self.offered[group.name]) for group in self.groups}
        return self.plan(widths, hidden, {}, plan.pooled, plan.shrink)

    def build(self, plan: Plan) -> nn.Module:
        """The teacher cut to the plan, in training mode; weights are the teacher's.

        Batch-norm statistics are the teacher's too: they fit again after a few steps of training.
        """
        choice = Choice(dict(plan.widths), plan.dropped, dict(plan.kernels), plan.pooled, plan.shrink)
        return smaller(self.teacher, self.anatomy, choice, self.shape, self.trainable)


SPACE = Derived
