"""Phases of the fine-tuning."""

import pytest

from compress.qat.phase import Phase, phase


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, Phase.ADAPT),
        (0.49, Phase.ADAPT),
        (0.5, Phase.FIXED_BATCHNORM),
        (0.74, Phase.FIXED_BATCHNORM),
        (0.75, Phase.FIXED_RANGES),
        (1.0, Phase.FIXED_RANGES),
    ],
)
def test_batch_norm_freezes_first_and_ranges_last(progress: float, expected: Phase) -> None:
    assert phase(progress) is expected


@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
def test_refuses_what_is_no_share(progress: float) -> None:
    with pytest.raises(ValueError, match="share"):
        phase(progress)
