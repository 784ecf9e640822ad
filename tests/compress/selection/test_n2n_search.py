"""What is trained, what it is worth, when a search ends, and that each rollout has its own credit."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from compress.selection.n2n_layers import Layers
from compress.selection.n2n_policy import RemovalPolicy
from compress.selection.n2n_reward import DEGENERATE, n2n_reward
from compress.selection.n2n_search import Episode, Judge, Searched, Size, Worth, search

WORTH = Worth(Size(100, 2.0), 0.8)


class Trainings:
    """Accuracies by plan, and what was asked."""

    def __init__(self, most: int = 10**9, accuracy: float = 0.6) -> None:
        self.asked: list[int] = []
        self.most, self.accuracy = most, accuracy

    def __call__(self, plans: Sequence[int]) -> list[float] | None:
        if len(self.asked) + len(plans) > self.most:
            return None
        self.asked += plans
        return [self.accuracy] * len(plans)


def sizes(plan: int) -> Size:
    return Size(plan, plan / 50, "too slow" if plan == 66 else None)


def test_each_plan_is_trained_once() -> None:
    trainings = Trainings()
    judge: Judge[int] = Judge(trainings, sizes, WORTH)
    first, second = judge([10, 20, 10], 0), judge([20, 10, 30], 1)
    assert trainings.asked == [10, 20, 30]
    assert first is not None
    assert second is not None
    assert [episode.reward for episode in first] == pytest.approx(
        [n2n_reward(0.6, plan, 0.8, 100) for plan in (10, 20, 10)]
    )
    assert second[1].reward == first[0].reward


def test_what_is_no_student_is_not_trained() -> None:
    trainings = Trainings()
    judge: Judge[int | None] = Judge(trainings, sizes, WORTH)  # type: ignore[arg-type]
    episodes = judge([100, 120, None], 0) or []
    assert [episode.reward for episode in episodes] == [DEGENERATE] * 3
    assert trainings.asked == []


def test_a_student_over_the_budget_is_guessed_not_trained() -> None:
    """R_c(66) with the mean accuracy so far, 0.6 of the teacher's 0.8, eased as the iterations go on."""
    trainings = Trainings()
    judge: Judge[int] = Judge(trainings, sizes, WORTH)
    (early,) = judge([66], 0) or []
    assert early.reward == pytest.approx(n2n_reward(0.8, 66, 0.8, 100))  # nobody trained yet: the teacher's
    judge([10], 0)
    for step in (0, 5, 10, 15):
        (episode,) = judge([66], step) or []
        assert episode.accuracy is None
        assert episode.reward == pytest.approx(n2n_reward(0.6, 66, 0.8, 100, violated=True, step=step))
    assert trainings.asked == [10]


def test_too_little_accuracy_violates_too() -> None:
    judge: Judge[int] = Judge(Trainings(), sizes, Worth(Size(100), 0.8, least_ratio=0.9))
    (episode,) = judge([10], 5) or []
    assert episode.reward == pytest.approx(n2n_reward(0.6, 10, 0.8, 100, violated=True, step=5))


def test_an_early_student_that_loses_too_much_is_not_the_best_in_the_end() -> None:
    """At the first iteration a violation costs nothing: 10 parameters with 0.6 have .74 then, 50 with 0.78 have .73."""
    worth = Worth(Size(100), 0.8, least_ratio=0.9)
    accuracy = {10: 0.6, 50: 0.78}
    judge: Judge[int] = Judge(lambda plans: [accuracy[plan] for plan in plans], sizes, worth)
    found = Searched(tuple(judge([10, 50], 0) or []))
    assert found.best is not None
    assert found.best.plan == 10
    lasting = found.best_for(worth)
    assert lasting is not None
    assert lasting.plan == 50
    assert Searched[int](()).best_for(worth) is None


def test_latency_in_the_reward() -> None:
    worth = Worth(Size(100, 2.0), 0.8, params_exponent=0.0, latency_exponent=1.0)
    assert worth.of(0.6, Size(10, 1.0), 0) == pytest.approx(0.75 * 0.75)
    assert worth.of(0.6, Size(10, 2.5), 0) == DEGENERATE  # slower than the teacher
    assert worth.of(0.6, Size(100, 0.1), 0) == DEGENERATE  # as large as the teacher


def three_layers() -> Layers:
    every = torch.ones(3, dtype=torch.bool)
    return Layers(tuple("abc"), torch.eye(3, 7), every, torch.zeros(3, 5, dtype=torch.bool), torch.arange(3))


def decode(actions: Tensor) -> int:
    return 1 + int(actions.sum())


def run(policy: RemovalPolicy, judge: Judge[int], iterations: int) -> Searched[int]:
    generator = torch.Generator().manual_seed(0)
    return search(
        policy, three_layers(), decode, judge, rate=0.01, rollouts=4, iterations=iterations, generator=generator
    )


def test_the_search_ends_where_nothing_is_left_to_spend() -> None:
    trainings = Trainings(most=2)
    found = run(RemovalPolicy(), Judge(trainings, sizes, WORTH), 50)
    assert len(trainings.asked) <= 2
    assert 0 <= len(found.means) < 50
    assert len(found.episodes) == 4 * len(found.means)


def test_equal_rewards_move_nothing() -> None:
    """With its own credit and a true baseline no rollout is better than usual where all are equal."""
    torch.manual_seed(0)
    policy = RemovalPolicy()
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    judge: Judge[int] = Judge(Trainings(), lambda plan: Size(10), WORTH)
    run(policy, judge, 5)
    assert all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_the_first_iteration_already_tells_its_students_apart() -> None:
    """The advantages of the first iteration sum to zero; averaged ones would all be zero and leave the policy alone."""
    torch.manual_seed(0)
    policy = RemovalPolicy()
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    found = run(policy, Judge(Trainings(), sizes, WORTH), 1)
    assert len({episode.reward for episode in found.episodes}) > 1
    assert not all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))


def test_best_front_and_means() -> None:
    rows = [(0, 1, 0.5, 10), (0, 2, 0.7, 20), (1, 1, 0.5, 10), (1, 3, 0.6, 30), (1, 4, None, 5)]
    found = Searched(tuple(Episode(i, plan, acc, Size(p), -1.0 if acc is None else acc) for i, plan, acc, p in rows))
    assert found.means == pytest.approx([0.6, 0.1 / 3])
    assert [episode.plan for episode in found.trained] == [1, 2, 3]
    assert found.best is not None
    assert found.best.plan == 2
    assert [episode.plan for episode in found.pareto] == [1, 2]  # 3 is larger than 2 and worse
    assert Searched[int](()).best is None
    assert math.isnan(Size(1).latency_ms)
