"""Labels alone teach the toy task, and no teacher is asked."""

from dataclasses import replace
from types import ModuleType

from compress.training import supervised


def test_a_reference_teacher_learns(toy: ModuleType) -> None:
    net = toy.network(8)
    numbers = replace(toy.NUMBERS, epochs=30)
    outcome = supervised.train(net, toy.ToyTask(), toy.splits(), numbers, seed=0, precision="fp32")
    assert outcome.validation is not None
    assert outcome.validation > 0.8  # a third is chance
    assert set(outcome.curve[0].terms) == {"labels"}
