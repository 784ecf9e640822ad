"""Terms against the distances themselves, independence of trained weights, combinations worked by hand, refusals."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import TensorExamples
from compress.errors import RecipeError
from compress.residual_network import ResidualNetwork
from compress.selection.initialise import initialise
from compress.selection.likeness import COMBINED, Likeness, batches, draws, likeness, rank_shares, z_scores
from compress.selection.observation import observe
from compress.similarity import relation_distance, semantic_distance
from tests.compress.tokens import Bag, texts

DATA = TensorExamples(torch.randn(80, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(80) % 3, "toy")


def teacher() -> nn.Module:
    torch.manual_seed(0)
    return ResidualNetwork(1, (4, 8), (1, 2), 3)


def student(width: int = 8) -> nn.Module:
    return ResidualNetwork(1, (4, width), (1, 1), 3)


def drawn(count: int = 2, *, noise: bool = False) -> list[Batch]:
    return batches(DATA, 40, count, seed=0, noise=noise)


def of(relation: float, semantic: float = math.nan) -> Likeness:
    return Likeness(relation, semantic, math.nan, math.nan)


def test_the_terms_are_minus_the_mean_distances_of_both_networks_drawn_anew() -> None:
    against = draws(teacher(), drawn(), "gauss", 5)
    found = likeness(student(), against, "gauss")
    relations, semantics = [], []
    for draw in against:
        network = student()
        initialise(network, "gauss", draw.seed)
        seen = observe(network, draw.inputs)
        relations.append(float(relation_distance(seen.features, draw.features)))
        assert isinstance(draw.gradient, Tensor)
        semantics.append(float(semantic_distance(seen.gradient(draw.labels), draw.gradient)))
    assert found.relation == pytest.approx(-sum(relations) / 2)
    assert found.semantic == pytest.approx(-sum(semantics) / 2)
    assert found.relation_sd == pytest.approx(abs(relations[0] - relations[1]) / math.sqrt(2))
    assert found.undefined == ""


def test_trained_weights_do_not_matter_and_are_left_alone() -> None:
    trained, inherited = teacher(), student()
    with torch.no_grad():
        for parameter in (*trained.parameters(), *inherited.parameters()):
            parameter.mul_(3.0).add_(0.1)
    before = copy.deepcopy(trained.state_dict()), copy.deepcopy(inherited.state_dict())
    one = likeness(inherited, draws(trained, drawn(), "kaiming", 5), "kaiming")
    assert one == likeness(student(), draws(teacher(), drawn(), "kaiming", 5), "kaiming")
    for network, kept in zip((trained, inherited), before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())


def test_the_teachers_draw_follows_from_the_seed() -> None:
    one, again, other = (draws(teacher(), drawn(1), "gauss", seed)[0] for seed in (5, 5, 6))
    assert torch.equal(one.features, again.features)
    assert not torch.equal(one.features, other.features)
    assert one.seed == again.seed
    # The student's weights are another draw than the teacher's: its own architecture is not at distance 0.
    assert likeness(teacher(), [one], "gauss").relation < 0


def test_classifiers_of_other_widths_have_relations_only_and_it_says_why() -> None:
    found = likeness(student(12), draws(teacher(), drawn(), "gauss", 5), "gauss")
    assert math.isfinite(found.relation)
    assert math.isnan(found.semantic)
    assert "12 channels and the teacher's 8" in found.undefined


def test_a_teacher_without_a_classifier_leaves_relations() -> None:
    odd = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 6), nn.Flatten())
    found = likeness(student(), draws(odd, drawn(), "gauss", 5), "gauss")
    assert math.isfinite(found.relation)
    assert found.undefined.startswith("of the teacher: the output of Sequential")


def test_batches_are_of_different_examples_and_follow_from_the_seed() -> None:
    one, other = batches(DATA, 40, 2, seed=0, noise=False)
    assert len(set(one.index.tolist())) == 40
    assert one.index.tolist() != other.index.tolist()
    assert torch.equal(one.inputs[0], batches(DATA, 40, 1, seed=0, noise=False)[0].inputs[0])
    assert len(batches(DATA, 500, 1, seed=0, noise=False)[0]) == 80


def test_noise_has_the_examples_mean_and_deviation_but_not_their_content() -> None:
    (real,), (noise,) = drawn(1), drawn(1, noise=True)
    assert torch.equal(real.index, noise.index)
    assert float(noise.inputs[0].std()) == pytest.approx(float(real.inputs[0].std()), rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([real.inputs[0].flatten(), noise.inputs[0].flatten()]))[0, 1])) < 0.1


def test_rank_shares_and_z_scores_worked_by_hand() -> None:
    assert rank_shares([3.0, math.nan, -1.0, 7.0, -math.inf]) == pytest.approx(
        [0.5, math.nan, 0.0, 1.0, math.nan], nan_ok=True
    )
    assert rank_shares([2.0, 2.0]) == [0.5, 0.5]
    assert rank_shares([2.0]) == [0.5]
    assert z_scores([1.0, 3.0, math.nan]) == pytest.approx([-1.0, 1.0, math.nan], nan_ok=True)
    assert z_scores([2.0]) == [0.0]


def test_totals_worked_by_hand() -> None:
    pool = [of(-1.0, -4.0), of(-2.0, -3.0), of(-3.0), of(math.nan, -1.0)]
    # Relations 1, 0.5, 0; semantics of the first, the second and the last 0, 0.5, 1.
    assert COMBINED["rank"](pool) == pytest.approx([0.5, 0.5, 0.0, -math.inf])
    assert COMBINED["sum"](pool) == pytest.approx([-1.0, -2.0, -3.0, -math.inf])
    assert COMBINED["sum"](pool[:2]) == pytest.approx([-5.0, -5.0])
    # Without the last, deviations from the means -2 and -3.5 over sqrt(2 / 3) and 0.5.
    expected = [0.5 * (1.5**0.5 - 1.0), 0.5, -(1.5**0.5)]
    assert COMBINED["zscore"](pool[:3]) == pytest.approx(expected)


def test_the_larger_term_rules_the_sum_and_not_the_ranks() -> None:
    pool = [of(-0.001, -2.0), of(-0.003, -1.5), of(-0.002, -1.9)]
    sums = COMBINED["sum"](pool)
    assert sorted(range(3), key=lambda place: sums[place]) == [0, 2, 1]
    assert COMBINED["rank"](pool) == pytest.approx([0.5, 0.5, 0.5])


def test_too_little_data_and_noise_for_tokens_are_refused() -> None:
    with pytest.raises(RecipeError, match="fewer than two"):
        batches(TensorExamples(torch.zeros(1, 2), torch.zeros(1), "one"), 32, 1, 0, noise=False)

    with pytest.raises(RecipeError, match="cannot stand in for integers"):
        batches(texts(40, 1), 32, 1, 0, noise=True)


def test_networks_of_several_inputs_are_compared_too() -> None:
    drawn = batches(texts(40, 1), 32, 1, 0, noise=False)
    assert [tensor.shape for tensor in drawn[0].inputs] == [(32, 8), (32, 8)]
    found = likeness(Bag(), draws(Bag(), drawn, "default", 0), "default")
    assert found.relation < 0  # other weights, other relations
