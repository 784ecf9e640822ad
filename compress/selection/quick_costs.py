"""What plans cost, many of one space: equal to profiling each built network, and many times as fast.

Building a student and tracing it takes nearly all of the time. Where a space says how its networks follow from a larger
one (`Space.outline`), a few of those are traced, and the graphs of all others are worked out from their shapes
(`profiles.family`). Everything else is built and traced as ever: plans of a space without outlines, structures that
were asked for too seldom to be worth learning, and networks whose sizes follow nothing that was found.
"""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import profiles
from compress.contracts.space import Space
from profiles.cost import Cost, Precision
from profiles.family import HELD_OUT, SAMPLES, Family, learned
from profiles.graph import Graph, Span
from profiles.read_torch import read, read_spans
from profiles.target import Target

LEARNT_AFTER = 3 * (SAMPLES + HELD_OUT)  # plans of one structure: learning, from large ones, costs about as much again


class QuickCosts:
    """Costs of one space's plans on one target.

    Args:
        space: of the plans.
        model: student -> what is costed, such as the student with its front-end. It keeps the student as it is, in a
            submodule.
        within: name of that submodule, "" where `model` returns the student itself.
        example: raw inputs, (B, ...) each; they are costed at batch 1.
        target: see `profiles.profile`.
        precision: see `profiles.profile`.
        layers: see `profiles.profile`.
        learnt_after: plans of one structure that are traced before it is learned.
    """

    def __init__(
        self,
        space: Space[Any],
        model: Callable[[nn.Module], nn.Module],
        within: str,
        example: tuple[Tensor, ...],
        target: Target,
        precision: Precision | None,
        layers: bool = False,
        learnt_after: int = LEARNT_AFTER,
    ) -> None:
        self._space = space
        self._model = model
        self._prefix = within + "." if within else ""
        self._example = tuple(tensor[:1] for tensor in example)
        self._target, self._precision, self._layers = target, precision, layers
        self._learnt_after = learnt_after
        self._asked: Counter[Hashable] = Counter()
        self._families: dict[Hashable, Family | None] = {}

    def __call__(self, plan: Any) -> Cost:
        """The cost that `profiles.profile` gives of the built network."""
        return profiles.profile(self.graph(plan), self._target, precision=self._precision, layers=self._layers)

    def graph(self, plan: Any) -> Graph:
        """The graph that `profiles.read` gives of the built network."""
        outline = self._space.outline(plan)
        if outline is None:
            return read(self._built(plan), self._example)
        self._asked[outline.key] += 1
        if outline.key not in self._families and self._asked[outline.key] > self._learnt_after:
            self._families[outline.key] = self._learned(plan)
        family = self._families.get(outline.key)
        absent = [self._prefix + name for name in outline.absent]
        if family is None or any(name not in family.spans for name in absent):
            return read(self._built(plan), self._example)
        return family.graph(outline.sizes, absent, {self._prefix + k: size for k, size in outline.windows.items()})

    def _built(self, plan: Any) -> nn.Module:
        state = torch.get_rng_state()  # how much costing draws must not show in what is trained next
        try:
            return self._model(self._space.build(plan))
        finally:
            torch.set_rng_state(state)

    def _learned(self, plan: Any) -> Family | None:
        rng = random.Random(0)  # which plans are learned from does not show in what is learned
        plans: dict[tuple[tuple[str, int], ...], Any] = {}

        def draw() -> Mapping[str, int]:
            drawn = self._space.unabridged(plan, rng)
            outline = self._space.outline(drawn)
            assert outline is not None
            plans[tuple(sorted(outline.sizes.items()))] = drawn
            return outline.sizes

        def traced(sizes: Mapping[str, int]) -> tuple[Graph, Mapping[str, Span]]:
            network = self._built(plans[tuple(sorted(sizes.items()))])
            return read_spans(network, self._example, self._spanned(network))

        return learned(traced, draw)

    def _spanned(self, network: nn.Module) -> Sequence[str]:
        """Modules with children: what can be absent is among them, and watching is cheap."""
        return [
            name
            for name, module in network.named_modules()
            if name.startswith(self._prefix) and name and any(True for _ in module.children())
        ]
