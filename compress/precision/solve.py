"""The cheapest choice of one option per layer whose losses stay within a budget: multiple-choice knapsack, exactly.

Source: dynamic programming over undominated states, Nemhauser and Ullmann, "Discrete dynamic programming and capital
allocation", Management Science 15 (1969); the bound by the linear relaxation, Sinha and Zoltners, "The multiple-choice
knapsack problem", Operations Research 27 (1979), section 2. Plain values in and out.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_STATES = (
    20_000  # undominated choices that are followed at once; beyond, some are let go and the gap says what it may cost
)


@dataclass(frozen=True)
class Option:
    """One precision of one layer.

    Attributes:
        cost: >= 0, in whole units (picoseconds): sums must not depend on their order.
        size: >= 0, bytes; decides between equal costs.
        loss: >= 0, of the unit of the budget; losses of layers add up.
    """

    cost: int
    size: int
    loss: float


@dataclass(frozen=True)
class Solution:
    """One option per layer.

    Attributes:
        picks: index of each layer's option.
        bound: no choice within the budget costs less.
        exact: whether this is a cheapest one; else `gap` limits by how much it may not be.
    """

    picks: tuple[int, ...]
    cost: int
    size: int
    loss: float
    bound: int
    exact: bool

    @property
    def gap(self) -> float:
        """Cost above the bound, as a share of the cost; 0 where the choice is proven cheapest."""
        return 0.0 if self.cost == self.bound else (self.cost - self.bound) / self.cost


@dataclass(frozen=True)
class _State:
    cost: int
    size: int
    loss: float
    pick: int
    before: "_State | None"


def solve(layers: Sequence[Sequence[Option]], budget: float, most: int = MOST_STATES) -> Solution | None:
    """Least cost, then least size, with the sum of losses at most `budget`.

    Args:
        layers: at least one option each.
        budget: of the losses.
        most: states that are kept after each layer.

    Returns:
        None where even the least losses exceed the budget.

    Raises:
        ValueError: a layer without options, or a negative or infinite number.
    """
    _check(layers)
    rest = [0.0]  # least loss of the layers from here on
    for options in reversed(layers):
        rest.append(rest[-1] + min(option.loss for option in options))
    rest.reverse()
    states = [_State(0, 0, 0.0, -1, None)]
    exact = True
    for index, options in enumerate(layers):
        grown = [
            _State(state.cost + option.cost, state.size + option.size, state.loss + option.loss, pick, state)
            for state in states
            for pick, option in enumerate(options)
            if state.loss + option.loss + rest[index + 1] <= budget
        ]
        states = _undominated(grown)
        if len(states) > most:
            exact = False
            states = _thinned(states, most)
    if not states:
        return None
    best = states[0]
    picks = []
    state: _State | None = best
    while state is not None and state.before is not None:
        picks.append(state.pick)
        state = state.before
    bound = best.cost if exact else min(best.cost, relaxed(layers, budget))
    return Solution(tuple(reversed(picks)), best.cost, best.size, best.loss, bound, exact or bound == best.cost)


def greedy(layers: Sequence[Sequence[Option]], budget: float) -> Solution | None:
    """The usual heuristic: the layer that saves most per loss gets its cheaper option first, while the budget lasts."""
    _check(layers)
    picks = [min(range(len(options)), key=lambda n: (options[n].loss, options[n].cost)) for options in layers]
    loss = sum(options[pick].loss for options, pick in zip(layers, picks, strict=True))
    if loss > budget:
        return None
    for index, _, pick in _steps(layers):
        change = layers[index][pick].loss - layers[index][picks[index]].loss
        if layers[index][pick].cost <= layers[index][picks[index]].cost and loss + change <= budget:
            loss += change
            picks[index] = pick
    chosen = [options[pick] for options, pick in zip(layers, picks, strict=True)]
    cost, size = sum(option.cost for option in chosen), sum(option.size for option in chosen)
    return Solution(tuple(picks), cost, size, loss, min(cost, relaxed(layers, budget)), False)


def relaxed(layers: Sequence[Sequence[Option]], budget: float) -> int:
    """Least cost if options could be mixed in fractions: no choice within the budget costs less.

    Returns:
        Rounded up to whole units; the sum of the least-loss options' costs where those exceed the budget already.
    """
    picks = [_hull(options)[0] for options in layers]
    cost = float(sum(options[pick].cost for options, pick in zip(layers, picks, strict=True)))
    left = budget - sum(options[pick].loss for options, pick in zip(layers, picks, strict=True))
    at = list(picks)
    for index, _, pick in _steps(layers):
        options = layers[index]
        loss = options[pick].loss - options[at[index]].loss
        saved = options[at[index]].cost - options[pick].cost
        share = 1.0 if loss <= 0 else min(1.0, max(0.0, left / loss))
        cost -= share * saved
        left -= share * loss
        at[index] = pick
        if share < 1.0:
            break
    return math.ceil(cost - 1e-6)


def _steps(layers: Sequence[Sequence[Option]]) -> list[tuple[int, float, int]]:
    """(layer, saved cost per loss, next option) along every layer's lower convex hull, the best first."""
    found = []
    for index, options in enumerate(layers):
        hull = _hull(options)
        for before, after in itertools.pairwise(hull):
            saved, loss = options[before].cost - options[after].cost, options[after].loss - options[before].loss
            found.append((index, saved / loss if loss > 0 else math.inf, after))
    # Stable: a layer's own steps stay in order, since efficiency falls along a convex hull.
    return sorted(found, key=lambda step: -step[1])


def _hull(options: Sequence[Option]) -> list[int]:
    """Options on the lower convex hull of cost over loss, from the least loss to the least cost."""
    order = sorted(range(len(options)), key=lambda n: (options[n].loss, options[n].cost, options[n].size))
    hull: list[int] = []
    for n in order:
        if hull and options[n].cost >= options[hull[-1]].cost:
            continue
        while len(hull) > 1 and _above(options[hull[-2]], options[hull[-1]], options[n]):
            hull.pop()
        hull.append(n)
    return hull


def _above(first: Option, middle: Option, last: Option) -> bool:
    """Whether `middle` lies on or above the line from `first` to `last`."""
    return (first.cost - middle.cost) * (last.loss - middle.loss) <= (middle.cost - last.cost) * (
        middle.loss - first.loss
    )


def _undominated(states: list[_State]) -> list[_State]:
    """Those that no other beats or equals in (cost, size) and in loss; cheapest first."""
    kept: list[_State] = []
    for state in sorted(states, key=lambda item: (item.cost, item.size, item.loss)):
        if not kept or state.loss < kept[-1].loss:
            kept.append(state)
    return kept


def _thinned(states: list[_State], most: int) -> list[_State]:
    """Evenly spaced, both ends kept: the cheapest, and the one of least loss, from which all can still be reached."""
    last = len(states) - 1
    return [states[round(n * last / (most - 1))] for n in range(most)] if most > 1 else [states[-1]]


def _check(layers: Sequence[Sequence[Option]]) -> None:
    for index, options in enumerate(layers):
        if not options:
            raise ValueError(f"layer {index} has no option")
        for option in options:
            if not (math.isfinite(option.loss) and min(option.cost, option.size, option.loss) >= 0):
                raise ValueError(f"layer {index} has {option}; costs, sizes and losses are finite and not negative")
