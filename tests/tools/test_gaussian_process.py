import math

import gaussian_process
import numpy as np
import pytest
from gaussian_process import Columns, Kernel, Pairs, Posterior, Term


def columns(labels: list[str], numbers: list[float]) -> Columns:
    """Rows with one label and one number each."""
    return Columns({"who": np.array(labels)}, {"x": np.array(numbers)}, {})


def test_two_points_equal_the_posterior_worked_by_hand() -> None:
    # A term of variance 4 on x with length 2, noise of variance 1; seen at x = 0 (y = 1) and 2 (y = 3), asked at 1.
    kernel = Kernel((Term("smooth", (), ("x",)),), np.log([2.0, 2.0, 1.0]))
    near = 4 * math.exp(-((2 / 2) ** 2) / 2)
    between = 4 * math.exp(-((1 / 2) ** 2) / 2)
    # inverse of [[5, near], [near, 5]]; both points weigh the same in the middle
    weight = between / (5 + near)
    mean, deviation = Posterior(kernel, columns(["a", "a"], [0.0, 2.0]), np.array([1.0, 3.0])).predict(
        columns(["a"], [1.0])
    )
    assert mean[0] == pytest.approx(weight * (1.0 + 3.0), rel=1e-6)
    assert deviation[0] == pytest.approx(math.sqrt(4 + 1 - 2 * between * weight), rel=1e-6)


def test_a_label_shrinks_towards_zero_by_the_number_of_its_rows() -> None:
    # Effect of variance 1, noise of variance 1: n rows of y = 1 give n / (n + 1), and another label gives nothing.
    kernel = Kernel((Term("who", ("who",)),), np.log([1.0, 1.0]))
    for count in (1, 3):
        seen = columns(["a"] * count, [0.0] * count)
        mean, _ = Posterior(kernel, seen, np.ones(count)).predict(columns(["a", "b"], [0.0, 0.0]))
        assert mean == pytest.approx([count / (count + 1), 0.0], abs=1e-6)


def test_rows_without_a_label_have_no_effect_in_common() -> None:
    kernel = Kernel((Term("who", ("who",)),), np.log([1.0, 1.0]))
    mean, deviation = Posterior(kernel, columns([""], [0.0]), np.ones(1)).predict(columns([""], [0.0]))
    assert mean[0] == 0.0
    assert deviation[0] == pytest.approx(1.0)


def test_gradient_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    rows = Columns(
        {"who": rng.choice(list("abc"), 20)},
        {"x": rng.normal(size=20), "z": rng.normal(size=20)},
        {"w": np.abs(rng.normal(size=(20, 4)))},
    )
    terms = (
        Term("who", ("who",)),
        Term("both", ("who",), ("x", "z")),
        Term("line", ("who",), linear="z"),
        Term("words", (), ("x",), "w"),
    )
    pairs = Pairs(terms, rows, rows)
    logs, y = rng.normal(size=len(gaussian_process.names(terms))) * 0.3, rng.normal(size=20)
    _, gradient = gaussian_process.negative_log_likelihood(pairs, logs, y)
    for at in range(len(logs)):
        step = np.zeros(len(logs))
        step[at] = 1e-5
        up, down = (gaussian_process.negative_log_likelihood(pairs, logs + side * step, y)[0] for side in (1, -1))
        assert gradient[at] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-5)


def test_nine_in_ten_of_new_draws_are_inside_the_deviation() -> None:
    rng = np.random.default_rng(1)
    kernel = Kernel((Term("who", ("who",)), Term("smooth", (), ("x",))), np.log([0.5, 0.3, 1.0, 0.1]))
    rows = columns(rng.choice(list("abcdefgh"), 400).tolist(), rng.uniform(0, 10, 400).tolist())
    covariance = Pairs(kernel.terms, rows, rows).covariance(kernel.logs) + 0.01 * np.eye(400)
    y = np.linalg.cholesky(covariance) @ rng.normal(size=400)
    seen, asked = np.arange(0, 200), np.arange(200, 400)
    mean, deviation = Posterior(kernel, rows.take(seen), y[seen]).predict(rows.take(asked))
    inside = np.mean(np.abs(y[asked] - mean) <= 1.645 * deviation)
    assert 0.85 <= inside <= 0.95


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    kernel = Kernel((Term("who", ("who",)), Term("smooth", ("who",), ("x",))), np.log([0.5, 0.3, 1.0, 0.1]))
    rows, y = columns(rng.choice(list("ab"), 30).tolist(), rng.normal(size=30).tolist()), rng.normal(size=30)
    shuffled = rng.permutation(30)
    first = Posterior(kernel, rows, y).predict(rows)
    second = Posterior(kernel, rows.take(shuffled), y[shuffled]).predict(rows)
    np.testing.assert_allclose(first, second, rtol=1e-8)
