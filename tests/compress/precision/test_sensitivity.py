"""Estimates by hand, the sensitive layer by name, and a cache that survives what is done to it."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.precision import sensitivity
from compress.precision.sensitivity import Measurer, Study, divergence, relative_error, study
from compress.qat import prepare as qat
from tests.compress.precision.conftest import Digits, prepared, score

POSITIONS = torch.arange(200)


@pytest.fixture
def model(outlier: nn.Module, train: Digits) -> qat.Prepared:
    return prepared(outlier, train, "tensorrt")


def studied(model: qat.Prepared, data: Digits, reference: Callable[..., Tensor], cache: Path | None = None) -> Study:
    return study(model, data.batch, POSITIONS, reference, score=score, distance=divergence, cache=cache)


def test_divergence_equals_the_value_worked_by_hand() -> None:
    reference, output = (
        torch.tensor([[math.log(3.0), 0.0]]),
        torch.tensor([[0.0, 0.0]]),
    )  # p = (3/4, 1/4), q = (1/2, 1/2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    torch.testing.assert_close(divergence(output, reference), torch.tensor([expected]))
    per_pixel = divergence(output[..., None].expand(1, 2, 5), reference[..., None].expand(1, 2, 5))
    torch.testing.assert_close(per_pixel, torch.tensor([expected]))


def test_relative_error_equals_the_value_worked_by_hand() -> None:
    reference, output = torch.tensor([[3.0, 4.0], [0.0, 5.0]]), torch.tensor([[3.0, 3.0], [0.0, 5.0]])
    # squares of the reference: 9 + 16 + 0 + 25 = 50, mean 12.5; errors 0.5 and 0.
    torch.testing.assert_close(relative_error(output, reference), torch.tensor([0.04, 0.0]))


def test_names_the_layer_that_was_made_sensitive(model: qat.Prepared, outlier: nn.Module, val: Digits) -> None:
    found = studied(model, val, outlier)
    assert [row.layer.name for row in found.rows] == ["body.0", "body.3", "body.6", "body.9", "head"]
    alone = {row.layer.name: row.alone.distance for row in found.rows}
    worst = max(alone, key=lambda name: alone[name].mean)
    assert worst == "body.6"
    # Told from the second by far more than the samples leave open.
    second = max(estimate.mean + 3 * estimate.standard_error for name, estimate in alone.items() if name != worst)
    assert alone[worst].mean - 3 * alone[worst].standard_error > second
    without = {row.layer.name: row.without for row in found.rows}
    assert max(without, key=lambda name: without[name].gain.mean) == "body.6"
    assert found.quantized.drop.mean - without["body.6"].gain.mean == pytest.approx(without["body.6"].drop.mean)


def test_figures_equal_those_of_students_prepared_anew(
    model: qat.Prepared, outlier: nn.Module, train: Digits, val: Digits
) -> None:
    found = studied(model, val, outlier)
    again = prepared(outlier, train, "tensorrt", ("frontend", "body.6"))
    with torch.no_grad():
        images, labels = val.images[:200], val.labels[:200]
        exact, output = outlier(images), again(images)
        drops = (score(exact, labels) - score(output, labels)).double()
        distances = divergence(output, exact).double()
    effect = found.rows[2].without
    assert effect.drop.mean == pytest.approx(float(drops.mean()), abs=1e-12)
    assert effect.drop.standard_error == pytest.approx(float(drops.std()) / math.sqrt(200), abs=1e-12)
    assert effect.distance.mean == pytest.approx(float(distances.mean()), rel=1e-4)
    assert found.score == pytest.approx(float(score(exact, labels).mean()))


def test_a_whole_assignment_is_measured_alike(model: qat.Prepared, outlier: nn.Module, val: Digits) -> None:
    found = studied(model, val, outlier)
    measurer = Measurer(model, val.batch, POSITIONS, outlier, score=score, distance=divergence)
    assert measurer(frozenset({"body.6"})).drop == pytest.approx(found.rows[2].without.drop)
    everything = measurer(frozenset(row.layer.name for row in found.rows))
    assert everything.distance.mean == pytest.approx(found.others.distance.mean)


def test_asked_again_nothing_is_computed(
    model: qat.Prepared, outlier: nn.Module, val: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = studied(model, val, outlier, tmp_path)
    monkeypatch.setattr(sensitivity, "_measured", lambda *_: pytest.fail("measured again"))
    assert studied(model, val, outlier, tmp_path) == first


def test_other_weights_ranges_or_samples_are_another_study(
    model: qat.Prepared, outlier: nn.Module, val: Digits, tmp_path: Path
) -> None:
    first = studied(model, val, outlier, tmp_path).key
    next(iter(model.activations())).scale.mul_(1.01)
    second = studied(model, val, outlier, tmp_path).key
    shifted = Digits(val.images.flip(0), val.labels.flip(0))
    assert len({first, second, studied(model, shifted, outlier, tmp_path).key}) == 3


def test_goes_on_behind_the_last_whole_batch_after_a_kill(
    model: qat.Prepared, outlier: nn.Module, val: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = studied(model, val, outlier)
    measured, calls = sensitivity._measured, 0

    def killed(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return measured(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(sensitivity, "_measured", killed)
    with pytest.raises(KeyboardInterrupt):
        studied(model, val, outlier, tmp_path)
    assert studied(model, val, outlier, tmp_path) == whole
    assert calls == 3 + 2  # four batches of 64, two of which were kept


@pytest.mark.parametrize("left", [0, 1, 30, -1])
def test_a_damaged_file_is_measured_again(
    model: qat.Prepared, outlier: nn.Module, val: Digits, tmp_path: Path, left: int
) -> None:
    whole = studied(model, val, outlier, tmp_path)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:left])
    assert studied(model, val, outlier, tmp_path) == whole
    path.write_text(json.dumps({"format": 1, "key": whole.key, "done": 3, "sums": {}}))
    assert studied(model, val, outlier, tmp_path) == whole


def test_needs_an_example(model: qat.Prepared, outlier: nn.Module, val: Digits) -> None:
    with pytest.raises(ValueError, match="at least one example"):
        study(model, val.batch, torch.arange(0), outlier, score=score, distance=divergence)
