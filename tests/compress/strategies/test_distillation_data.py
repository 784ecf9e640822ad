"""Streams joined, examples blended, nothing of the labels left where they are none."""

import pytest
import torch

from compress.augmentations import mixed_up
from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.errors import RecipeError, TaskError
from compress.objectives.labels import Labels
from compress.strategies.distillation_data import DistillationData

CLOCK = Clock("distill", 0, 10, 0, 1)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int, offset: float = 0.0, *, labels: bool = True, stream: str = "train") -> Batch:
    inputs = torch.arange(float(count)).add(offset).view(-1, 1, 1).expand(-1, 2, 3).contiguous()
    return Batch((inputs,), torch.arange(count) if labels else None, torch.arange(count), stream=stream)


def test_one_stream_as_it_is_may_be_answered_from_a_cache() -> None:
    strategy, one = DistillationData(), batch(4)
    assert strategy.deterministic
    assert strategy.transform({"train": one}, {}, CLOCK, source())["train"] is one
    assert DistillationData("unlabelled").deterministic
    assert not DistillationData(mixed=0.1).deterministic
    assert not DistillationData("train+unlabelled").deterministic


def test_streams_are_joined_in_their_proportion_and_lose_their_name() -> None:
    strategy = DistillationData("train + synthetic", others=4.0)
    assert strategy.streams == {"train": 1.0, "synthetic": 4.0}
    parts = {"train": batch(2), "synthetic": batch(8, 100.0, labels=False, stream="synthetic")}
    (found,) = strategy.transform(parts, {}, CLOCK, source()).values()
    assert found.inputs[0][:, 0, 0].tolist() == [0, 1, 100, 101, 102, 103, 104, 105, 106, 107]
    assert found.labels is None
    assert found.stream == ""
    both = {"train": batch(2), "synthetic": batch(2, stream="synthetic")}
    (found,) = strategy.transform(both, {}, CLOCK, source()).values()
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 0, 1]


def test_blends_lie_between_two_examples_with_the_weight_that_is_told() -> None:
    one = batch(64)
    found = mixed_up(one, 1.0, source())
    assert found.labels is None
    first, second, weight = (found.extras[name] for name in ("first_labels", "second_labels", "first_share"))
    expected = weight * first + (1 - weight) * second  # inputs are their labels here
    torch.testing.assert_close(found.inputs[0][:, 0, 0], expected)
    assert torch.equal(first, torch.arange(64))
    assert torch.equal(second.sort().values, torch.arange(64))
    assert 0.35 < weight.mean() < 0.65  # uniform: 0.5, standard error 0.036
    assert weight.min() < 0.15
    assert weight.max() > 0.85


def test_a_share_is_blended_and_the_rest_stays() -> None:
    found = mixed_up(batch(400), 0.25, source())
    changed = found.extras["first_share"] < 1.0
    assert 0.17 < changed.float().mean() < 0.33  # 0.25, standard error 0.022
    torch.testing.assert_close(found.inputs[0][~changed], batch(400).inputs[0][~changed])
    assert torch.equal(mixed_up(batch(8), 0.0, source()).inputs[0], batch(8).inputs[0])


def test_the_generator_alone_decides() -> None:
    first, again, other = (mixed_up(batch(16), 1.0, source(seed)).inputs[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_hard_labels_of_blends_are_refused_by_the_objective_that_would_read_them() -> None:
    found = mixed_up(batch(4), 1.0, source())
    with pytest.raises(TaskError, match="without labels"):
        Labels()(None, None, found, CLOCK)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [{"streams": "train+"}, {"streams": "a+a"}, {"others": 0.0}, {"mixed": 1.5}])
def test_numbers_that_make_no_sense_are_refused(numbers: dict[str, float | str]) -> None:
    with pytest.raises(RecipeError):
        DistillationData(**numbers)  # type: ignore[arg-type]
