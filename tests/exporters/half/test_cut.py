"""The cut is the cheapest colouring: compared with every colouring of small random graphs."""

import itertools
import random

import pytest

from exporters.half import cut

Tensors = list[tuple[int, list[int]]]


def casts(colours: dict[int, bool], tensors: Tensors) -> int:
    return sum(any(colours[reader] != colours[maker] for reader in readers) for maker, readers in tensors)


def test_one_cast_serves_any_number_of_readers() -> None:
    """0 is float32, 1..4 are half; one tensor goes to all of them."""
    found = cut.cheapest(range(6), {0: False, 1: True, 2: True, 3: True, 4: True}, [(0, [5]), (5, [1, 2, 3, 4])])
    assert found[5] is True, "a tie goes to half"
    assert casts(found, [(0, [5]), (5, [1, 2, 3, 4])]) == 1


def test_a_chain_between_float_nodes_stays_float() -> None:
    found = cut.cheapest(range(4), {0: False, 3: False}, [(0, [1]), (1, [2]), (2, [3])])
    assert found == {0: False, 1: False, 2: False, 3: False}


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_best_of_all_colourings(seed: int) -> None:
    rng = random.Random(seed)
    count = 8
    bound = {node: rng.random() < 0.5 for node in rng.sample(range(count), 3)}
    tensors = [
        (node, rng.sample(range(node + 1, count), rng.randint(1, min(3, count - node - 1))))
        for node in range(count - 1)
    ]
    found = cut.cheapest(range(count), bound, tensors)
    assert all(found[node] is colour for node, colour in bound.items())
    every = [dict(enumerate(colours)) for colours in itertools.product((True, False), repeat=count)]
    allowed = [colours for colours in every if all(colours[node] is colour for node, colour in bound.items())]
    fewest = min(casts(colours, tensors) for colours in allowed)
    assert casts(found, tensors) == fewest
    most = max(sum(colours.values()) for colours in allowed if casts(colours, tensors) == fewest)
    assert sum(found.values()) == most
