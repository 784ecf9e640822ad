"""A Gaussian process on rows that mix labels and numbers; numpy only.

Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006: posterior by equations 2.25 and 2.26,
log marginal likelihood by 5.8, its gradient by 5.9. The covariance is a sum of terms. A term is a variance, times one
where two rows agree in all of the term's labels (else zero), times exp(-d^2 / 2) over the term's numbers, each divided
by its length, times the cosine of the rows' words where the term names a set of words. So a protocol, a device or a
family of models has an effect of its own that is learned from few rows and is drawn towards zero where there are none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
JITTER = 1e-8  # added to the diagonal, so that equal rows do not make the matrix singular


@dataclass(frozen=True)
class Columns:
    """Rows as columns of equal length."""

    labels: Mapping[str, NDArray[np.str_]]
    numbers: Mapping[str, Array]
    words: Mapping[str, Array]  # (rows, words), rows of unit length or zero; one row's product with another is >= 0

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))

    def take(self, index: NDArray[np.int_]) -> "Columns":
        """The rows of these positions."""
        return Columns(
            {key: value[index] for key, value in self.labels.items()},
            {key: value[index] for key, value in self.numbers.items()},
            {key: value[index] for key, value in self.words.items()},
        )


@dataclass(frozen=True)
class Term:
    """One term of the covariance: which columns it looks at. A label in both rows "" never agrees."""

    name: str
    labels: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    words: str = ""
    linear: str = ""  # a number that the term is proportional to: a slope with a prior around zero


@dataclass(frozen=True)
class Kernel:
    """The terms and their logarithmic parameters, in the order of `names`."""

    terms: tuple[Term, ...]
    logs: Array

    @property
    def names(self) -> list[str]:
        return names(self.terms)


def names(terms: Sequence[Term]) -> list[str]:
    """Names of the parameters: a spread per term, a length per number of a term, and the noise."""
    out = []
    for term in terms:
        out.append(f"{term.name}.spread")
        out.extend(f"{term.name}.{number}" for number in term.numbers)
    return [*out, "noise"]


class Pairs:
    """What the covariance of two sets of rows needs and what does not change with the parameters."""

    def __init__(self, terms: Sequence[Term], left: Columns, right: Columns) -> None:
        self.terms = tuple(terms)
        self.masks: list[Array] = []
        self.squares: list[list[Array]] = []
        for term in terms:
            mask = np.ones((len(left), len(right)))
            for key in term.labels:
                a, b = left.labels[key], right.labels[key]
                mask *= (a[:, None] == b[None, :]) & (a != "")[:, None]
            if term.words:
                mask *= left.words[term.words] @ right.words[term.words].T
            if term.linear:
                mask *= np.outer(left.numbers[term.linear], right.numbers[term.linear])
            self.masks.append(mask)
            self.squares.append(
                [np.square(left.numbers[key][:, None] - right.numbers[key][None, :]) for key in term.numbers]
            )

    def parts(self, logs: Array) -> list[Array]:
        """One matrix per term."""
        out, at = [], 0
        for mask, squares in zip(self.masks, self.squares, strict=True):
            part = mask * np.exp(2 * logs[at])
            if squares:
                exponent = sum(
                    square * np.exp(-2 * length)
                    for square, length in zip(squares, logs[at + 1 : at + 1 + len(squares)], strict=True)
                )
                part = part * np.exp(-0.5 * exponent)
            out.append(part)
            at += 1 + len(squares)
        return out

    def covariance(self, logs: Array) -> Array:
        """The sum of the terms."""
        total = np.zeros_like(self.masks[0])
        for part in self.parts(logs):
            total += part
        return total


def negative_log_likelihood(pairs: Pairs, logs: Array, y: Array) -> tuple[float, Array]:
    """Minus the log marginal likelihood, without its constant, and its gradient by the logarithmic parameters.

    Args:
        pairs: of the training rows with themselves.
        y: (rows,), measured minus mean.
    """
    parts = pairs.parts(logs)
    covariance = np.sum(parts, axis=0)
    noise = np.exp(2 * logs[-1])
    covariance[np.diag_indices_from(covariance)] += noise + JITTER
    factor = np.linalg.cholesky(covariance)
    inverse = np.linalg.inv(covariance)
    alpha = inverse @ y
    value = 0.5 * float(y @ alpha) + float(np.log(np.diag(factor)).sum())
    weight = inverse - np.outer(alpha, alpha)  # twice the gradient is the sum of weight * dK
    gradient, at = np.zeros(len(logs)), 0
    for part, squares in zip(parts, pairs.squares, strict=True):
        weighted = weight * part
        gradient[at] = weighted.sum()
        for offset, square in enumerate(squares, 1):
            gradient[at + offset] = 0.5 * float((weighted * square).sum()) * np.exp(-2 * logs[at + offset])
        at += 1 + len(squares)
    gradient[-1] = noise * np.trace(weight)
    return value, gradient


class Posterior:
    """The process after it has seen rows."""

    def __init__(self, kernel: Kernel, seen: Columns, y: Array) -> None:
        """Args: y: (rows,), measured minus mean, of the rows seen; there may be none."""
        self.kernel, self.seen = kernel, seen
        noise = np.exp(2 * kernel.logs[-1])
        if not len(y):
            return
        covariance = Pairs(kernel.terms, seen, seen).covariance(kernel.logs)
        covariance[np.diag_indices_from(covariance)] += noise + JITTER
        self.factor = np.linalg.cholesky(covariance)
        self.alpha = np.linalg.solve(self.factor.T, np.linalg.solve(self.factor, y))

    def predict(self, rows: Columns) -> tuple[Array, Array]:
        """Mean and standard deviation of a measurement of each row; the noise is part of the deviation."""
        logs = self.kernel.logs
        prior = _diagonal(self.kernel, rows) + np.exp(2 * logs[-1])
        if not len(self.seen):
            return np.zeros(len(rows)), np.sqrt(prior)
        between = Pairs(self.kernel.terms, rows, self.seen).covariance(logs)
        mean = between @ self.alpha
        known = np.linalg.solve(self.factor, between.T)
        variance = prior - np.square(known).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, np.exp(2 * logs[-1])))


def _diagonal(kernel: Kernel, rows: Columns) -> Array:
    """The prior variance of each row."""
    total, at = np.zeros(len(rows)), 0
    for term in kernel.terms:
        part = np.full(len(rows), np.exp(2 * kernel.logs[at]))
        for key in term.labels:
            part = part * (rows.labels[key] != "")
        if term.words:
            part = part * np.square(rows.words[term.words]).sum(axis=1)
        if term.linear:
            part = part * np.square(rows.numbers[term.linear])
        total += part
        at += 1 + len(term.numbers)
    return total
