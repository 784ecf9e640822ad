"""FitNets: the annealed weight and the two stages."""

from compress.contracts.clock import Clock
from compress.methods.hints import METHOD, annealed


def test_the_teachers_weight_falls_from_four_to_one() -> None:
    assert annealed(Clock("distill", 0, 100, 0, 1)) == 4.0
    assert annealed(Clock("distill", 50, 100, 0, 1)) == 2.5
    assert annealed(Clock("distill", 100, 100, 0, 1)) == 1.0


def test_the_regressor_is_trained_in_the_first_stage_alone() -> None:
    hint, distill = METHOD.phases
    assert hint.groups is None
    assert distill.groups == ("student",)
