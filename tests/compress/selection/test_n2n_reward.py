"""The reward worked by hand, what a violated constraint leaves of it, the baseline."""

import math

import pytest
import torch

from compress.selection.n2n_reward import (
    DEGENERATE,
    Baseline,
    combined_reward,
    easing,
    n2n_reward,
    per_rollout,
    saving,
    saving_reward,
    violated_reward,
)


def test_rewards_worked_by_hand() -> None:
    assert n2n_reward(0.99, 1.0, 1.0, 10.0) == pytest.approx(0.9801)  # C = 0.9, R_c = 0.9 * 1.1 = 0.99
    assert n2n_reward(0.8, 2.0, 0.8, 4.0) == pytest.approx(0.75)  # C = 0.5, R_c = 0.5 * 1.5
    assert n2n_reward(0.9181, 1.0, 0.9201, 11.0) == pytest.approx(0.9895798246866805, abs=1e-15)


@pytest.mark.parametrize(
    ("step", "kept", "reward"),
    [(0, 1.0, 0.75), (5, 16 / 81, -0.65432099), (10, 1 / 81, -0.97839506), (15, 0.0, -1.0)],
)
def test_a_violated_constraint_counts_more_and_more(step: int, kept: float, reward: float) -> None:
    assert easing(step) == pytest.approx(kept)
    assert violated_reward(0.75, step) == pytest.approx(reward, abs=1e-8)
    assert n2n_reward(1.0, 1.0, 1.0, 2.0, violated=True, step=step) == pytest.approx(reward, abs=1e-8)


def test_a_violated_constraint_stays_violated_behind_the_horizon() -> None:
    """(1 - t/15)^4 is even about 15: as it stands it would be 1 again at 30."""
    assert [easing(step) for step in (16, 20, 30, 99)] == [0.0] * 4
    assert n2n_reward(1.0, 1.0, 1.0, 2.0, violated=True, step=30) == -1.0
    assert easing(2, horizon=4) == pytest.approx(1 / 16)


def test_saving_is_worth_less_and_less() -> None:
    shares = torch.linspace(0.0, 1.0, 101, dtype=torch.float64).requires_grad_(True)
    values = shares * (2.0 - shares)
    assert [saving_reward(share) for share in shares.tolist()] == pytest.approx(values.tolist())
    assert (values.diff() > 0).all()
    assert (values.diff().diff() < 0).all()
    (slope,) = torch.autograd.grad(values.sum(), shares)
    assert slope[-1] == 0.0
    assert slope[0] == 2.0
    # From five to ten times smaller pays below a relative loss of 3.03 %.
    assert saving_reward(0.8) / saving_reward(0.9) == pytest.approx(1.0 - 0.0303, abs=5e-5)


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
def test_a_student_that_is_no_smaller_is_worth_nothing(accuracy: float) -> None:
    assert n2n_reward(accuracy, 7.0, 0.9, 7.0) == 0.0


def test_larger_than_the_teacher_or_diverged_is_degenerate() -> None:
    assert n2n_reward(1.0, 8.0, 0.9, 7.0) == DEGENERATE
    assert n2n_reward(math.nan, 1.0, 0.9, 7.0) == DEGENERATE


def test_latency_multiplies_in_or_replaces() -> None:
    params, latency = saving(1.0, 10.0), saving(1.0, 2.0)
    assert combined_reward(0.9, [(params, 1.0), (latency, 1.0)]) == pytest.approx(0.9 * 0.99 * 0.75)
    assert combined_reward(0.9, [(params, 0.0), (latency, 1.0)]) == pytest.approx(0.9 * 0.75)
    assert combined_reward(0.9, [(params, 0.5)]) == pytest.approx(0.9 * 0.99**0.5)
    # A slower student is no saving where latency counts, and no matter where it does not.
    assert combined_reward(0.9, [(params, 1.0), (-0.1, 1.0)]) == DEGENERATE
    assert combined_reward(0.9, [(params, 1.0), (-0.1, 0.0)]) == pytest.approx(0.9 * 0.99)


def test_the_baseline_is_the_mean_of_what_came_before() -> None:
    """The published code divides by one too many and gives 0, 0.25, 0.3667 here."""
    baseline, against = Baseline(), []
    for mean in (0.5, 0.6, 0.7):
        against.append(baseline.against(mean))
        baseline = baseline.after(mean)
    assert against == pytest.approx([0.5, 0.5, 0.55])
    assert baseline.against(123.0) == pytest.approx(0.6)  # its own mean is not in it


def test_each_student_has_its_own_advantage() -> None:
    advantages = per_rollout(torch.tensor([1.0, 0.0, 0.5]), 0.5)
    assert advantages.tolist() == [0.5, -0.5, 0.0]
