"""A suite whose times follow from known constants."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray

from profiles.calibration import fit, processor
from profiles.calibration.suite import Sample, suite
from profiles.calibration.timing import Session, Timed

Array = NDArray[np.float64]


@lru_cache(maxsize=1)
def models() -> tuple[Sample, ...]:
    return tuple(suite(share=0.35))


@lru_cache(maxsize=1)
def rows() -> Array:
    return np.array([processor.row_of(sample.model, 16, 1024.0) for sample in models()])


def truth() -> Array:
    """Nanoseconds per unit as onnxruntime's are about: calls 1000, elements 0.2, multiply-accumulates 0.02."""
    words = [fit.ROUTES[route][index][0] for route, index in fit.PLACES]
    each = [1000.0 if w == "calls" else 0.02 if w.startswith(("MAC", "loads")) else 0.2 for w in words]
    return np.array([*each, 5000.0])


@pytest.fixture(scope="session")
def known() -> tuple[Sequence[Sample], Array, Array]:
    """Models, their counts, and the constants that make their times."""
    return models(), rows(), truth()


@pytest.fixture(scope="session")
def session() -> Callable[[Array, float], Session]:
    """Times in nanoseconds as measurements whose visits are `noise` apart."""

    def make(nanoseconds: Array, noise: float = 0.002) -> Session:
        timed = (Timed(ms, (ms * (1 - noise), ms, ms * (1 + noise))) for ms in nanoseconds / 1e6)
        return Session(tuple(timed), 30.0, 0.0, "a core", "onnxruntime 1", 16)

    return make
