"""Metrics of search on three queries worked by hand."""

import math

import torch

from compress.retrieval import in_int8, ndcg_at, of_unit_length, prefix, recall_at, signs

SCORES = torch.tensor([[0.9, 0.8, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4], [0.5, 0.4, 0.3, 0.2]])
GRADES = torch.tensor([[0, 1, 0, 2], [0, 0, 0, 3], [0, 0, 0, 0]])


def test_recall_is_the_share_of_what_is_relevant() -> None:
    assert recall_at(SCORES, GRADES > 0, 2).tolist() == [0.5, 1.0, 0.0]
    assert recall_at(SCORES, GRADES > 0, 10).tolist() == [1.0, 1.0, 0.0]


def test_the_tenth_counts_and_the_eleventh_does_not() -> None:
    scores = torch.arange(30.0, 0.0, -1.0).expand(2, -1)
    relevant = torch.zeros(2, 30, dtype=torch.bool)
    relevant[0, 9] = relevant[1, 10] = True
    assert recall_at(scores, relevant).tolist() == [1.0, 0.0]


def test_gain_is_discounted_by_place_and_compared_with_the_best_order() -> None:
    found = ndcg_at(SCORES, GRADES, 4)
    best = 2.0 + 1.0 / math.log2(3)
    expected = [(1.0 / math.log2(3) + 2.0 / math.log2(5)) / best, 1.0, 0.0]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_gain_is_computed_where_the_scores_are() -> None:
    found = ndcg_at(SCORES.to("meta"), GRADES.to("meta"), 4)
    assert found.device.type == "meta"


def test_a_prefix_has_length_one_and_loses_what_lies_behind() -> None:
    vectors = of_unit_length(torch.tensor([[3.0, 0.0, 4.0]]))
    torch.testing.assert_close(prefix(vectors, 2), torch.tensor([[1.0, 0.0]]))


def test_int8_keeps_the_largest_and_errs_by_half_a_step() -> None:
    vectors = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    half_a_step = vectors.abs().amax(dim=1, keepdim=True) / 127 / 2
    assert bool(((in_int8(vectors) - vectors).abs() <= half_a_step * (1 + 1e-5)).all())
    torch.testing.assert_close(in_int8(vectors).abs().amax(dim=1), vectors.abs().amax(dim=1))


def test_signs_are_one_bit() -> None:
    assert signs(torch.tensor([[0.5, -0.1, 0.0]])).tolist() == [[1.0, -1.0, 1.0]]
