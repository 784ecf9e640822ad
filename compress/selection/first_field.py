"""Who is looked at first: of every family the student that computes most within the budget, then smaller ones.

A short training compares badly across families: perceptrons and students with inherited weights are far on their way
when a convolutional one of like cost has hardly begun. Within a family more computation is better until the budget ends
it. So each family sends its largest member first, and what remains to be found out is which family.
"""

import math
from collections.abc import Hashable, Sequence

from compress.contracts.selector import Candidate
from compress.selection.pareto import pareto_layers
from compress.selection.ranking import capacity, expense
from compress.selection.short_trials import by_capacity

SPAN = math.log(4.0)  # what is four times cheaper than the dearest that fits learns too little to be worth a trial


def family(candidate: Candidate) -> tuple[Hashable, ...]:
    """The space, and the kind of block where its plans name one."""
    kind = candidate.plan.to_json().get("kind")
    return (candidate.space, kind) if isinstance(kind, str) else (candidate.space,)


def by_work(candidate: Candidate) -> tuple[float, float, str]:
    """Sorts most multiply-accumulates first, ties to the cheaper."""
    return (-candidate.cost.macs, expense(candidate.cost), candidate.identity)


def strata(field: Sequence[Candidate], count: int) -> list[Candidate]:
    """`count` of the field, ordered from dear to cheap.

    Expense is cut into as many equal steps, from the dearest down to the cheapest or `SPAN` below the dearest. Each
    step gives the one with most capacity; an empty step's place goes to the one with most capacity that is left.
    """
    high = max(expense(c.cost) for c in field)
    span = min(SPAN, high - min(expense(c.cost) for c in field))
    best: dict[int, Candidate] = {}
    for candidate in sorted(field, key=by_capacity):
        below = high - expense(candidate.cost)
        if below <= span:
            best.setdefault(min(count - 1, int(count * below / max(span, 1e-9))), candidate)
    chosen = [best[place] for place in sorted(best)]
    chosen += [candidate for candidate in sorted(field, key=by_capacity) if candidate not in chosen]
    return chosen[:count]


def first_field(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Who is tried at all: the families in turn, about the same number from each, those that compute most first.

    Behind its largest member a family sends, from dear to cheap, those that no other beats in both expense and
    capacity, then those that only these beat, and so on, until there are three times as many as needed; from these, one
    per step of expense.
    """
    families: dict[tuple[Hashable, ...], list[Candidate]] = {}
    for candidate in candidates:
        families.setdefault(family(candidate), []).append(candidate)
    orders: list[list[Candidate]] = []
    for members in families.values():
        largest = min(members, key=by_work)
        others = [candidate for candidate in members if candidate is not largest]
        share = min(len(others), math.ceil(count / len(families)))
        shortlist: list[Candidate] = []
        for layer in pareto_layers([(expense(c.cost), -capacity(c.cost)) for c in others]):
            shortlist += [others[place] for place in layer]
            if len(shortlist) >= 3 * share:
                break
        chosen = [largest, *(strata(shortlist, share) if share else ())]
        orders.append(chosen + [c for c in sorted(others, key=by_capacity) if c not in chosen])
    orders.sort(key=lambda order: by_work(order[0]))  # where places are fewer than families
    field: list[Candidate] = []
    for place in range(max(len(order) for order in orders)):
        field += [order[place] for order in orders if place < len(order)]
    return field[:count]
