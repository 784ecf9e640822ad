"""Which students there are to choose from."""

import random
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor, nn


class Plan(Protocol):
    """One student as plain data: equal plans build equal networks, and a report can print one."""

    def to_json(self) -> dict[str, Any]: ...

    def __hash__(self) -> int: ...


P = TypeVar("P", bound=Plan)


@dataclass(frozen=True)
class SpaceContext:
    """What a space may depend on.

    Attributes:
        teacher: the teacher's network (without the task's front-end), or None for a black box.
        features: what the front-end gives for a few real examples, (B, ...): the students' input, or its first part.
        outputs: size of the student's output.
        width_multiple: channels that the target's int8 kernels want.
        family: of the target's runtime, for rules about operators (nvidia-gpu, cortex-m, ethos-u, x86-cpu).
        answer: shape of one answer of the teacher, for spaces whose students answer every position; () where nobody
            has looked.
        more: further tensors that the front-end gives, (B, ...) each, in the order in which students take them: the
            mask beside token ids.
        values: how many integers each of the task's inputs may hold (`Task.input_values`); 0 for real numbers.
        unit: whether the teacher's answers are vectors of length 1.
    """

    teacher: nn.Module | None
    features: Tensor
    outputs: int
    width_multiple: int
    family: str
    answer: tuple[int, ...] = ()
    more: tuple[Tensor, ...] = ()
    values: tuple[int, ...] = ()
    unit: bool = False


@dataclass(frozen=True)
class Outline:
    """How a plan's network follows from a larger one of the same space, so that it need not be built to be costed.

    Attributes:
        key: plans of one key share the larger network's structure.
        sizes: numbers of which every dimension of every tensor is a sum of multiples, by name; plans of one key have
            the same names.
        absent: modules of the larger network that let through what goes into them.
        windows: extent that a convolution's window is cut to along each longer axis, by module.
    """

    key: Hashable
    sizes: Mapping[str, int]
    absent: Sequence[str] = ()
    windows: Mapping[str, int] = field(default_factory=dict)


class Space(ABC, Generic[P]):
    """A set of plans. A file of `compress/spaces` ends with `SPACE = <a final subclass>`, which takes the context.

    Raises (from the constructor):
        RecipeError: the space cannot be made from this context (a derived space needs a teacher with layers).

    Attributes:
        tokens: whether its students take integers and several tensors, such as token ids and a mask. To all other
            spaces none but one tensor of real numbers is offered.
    """

    tokens: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, context: SpaceContext) -> None: ...

    @abstractmethod
    def sample(self, rng: random.Random) -> P:
        """A random plan; widths are multiples of `context.width_multiple` wherever the space is free to choose."""

    @abstractmethod
    def corners(self) -> Sequence[P]:
        """Plans that every search should see: the smallest, the largest, evenly scaled ones between."""

    @abstractmethod
    def mutate(self, plan: P, rng: random.Random) -> P:
        """A plan that differs in exactly one decision."""

    @abstractmethod
    def crossover(self, plan: P, other: P, rng: random.Random) -> P:
        """A plan of this space each of whose decisions is one of the two parents', as far as they go together.

        Two equal parents give themselves.
        """

    @abstractmethod
    def from_json(self, data: Mapping[str, Any]) -> P:
        """The plan that `to_json` gave."""

    def outline(self, plan: P) -> Outline | None:
        """How the plan's network follows from a larger one; None where only building it tells."""
        return None

    def unabridged(self, plan: P, rng: random.Random) -> P:
        """A plan of the same outline's key with random sizes, nothing absent and whole windows.

        It is asked for plans that have an outline, to learn their larger network: a space that gives outlines gives
        these too, and no other needs them.
        """
        raise NotImplementedError(f"{type(self).__name__} gives outlines, and no plans to learn them from")

    @abstractmethod
    def build(self, plan: P) -> nn.Module:
        """The network: `features` (and `more`) -> (B, outputs).

        Weights come from torch's current seed, and from the teacher where the space inherits them.
        """
