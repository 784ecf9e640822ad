"""Two constants from times that were measured elsewhere."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import profiles
from profiles import calibration
from profiles.calibration import anchors
from profiles.calibration.build import Net
from profiles.errors import ProfileError


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Three networks of different sizes."""
    paths = []
    for width in (16, 64, 128):
        net = Net((1, 3, 64, 64), np.random.default_rng(0))
        x = net.x
        for _ in range(4):
            x = net.conv(x, width, 3)
        paths.append(tmp_path / f"net{width}.onnx")
        onnx.save(net.model(net.head(x, 10)), str(paths[-1]))
    return paths


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_two_constants_by_hand() -> None:
    scale, fixed = anchors.two_constants(np.array([1.0, 3.0]), np.array([2.5, 6.5]))
    assert (scale, fixed) == pytest.approx((2.0, 0.5))
    scale, fixed = anchors.two_constants(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    assert fixed == 0.0  # never negative


@pytest.mark.parametrize("name", ["jetson", "hearing_aid", "x86"])
def test_anchors_of_a_device_twice_as_slow(name: str, models: list[Path], tmp_path: Path) -> None:
    target = profiles.target(name)
    costs = [profiles.profile(path, target).latency_ms for path in models]
    plain = profiles.latency.models.latency_model(target)
    file = table(
        tmp_path / "times.json",
        [{"model": path.name, "ms": 2 * (ms - plain.fixed_ms) + 0.1} for path, ms in zip(models, costs, strict=True)],
    )
    calibration.calibrate(target, tmp_path, anchors=file)
    made = profiles.target(name, search=tmp_path)
    for path, ms in zip(models, costs, strict=True):
        assert profiles.profile(path, made).latency_ms == pytest.approx(2 * (ms - plain.fixed_ms) + 0.1, rel=1e-3)
    model = profiles.latency.models.latency_model(made)
    assert model.origin.startswith("calibrated by 3 times measured on the device (times.json, ")
    assert plain.interval[0] < model.interval[0] < 1 < model.interval[1] < plain.interval[1]
    # Again, from a device that is twice as slow once more.
    file = table(tmp_path / "more.json", [{"model": p.name, "ms": 4 * c} for p, c in zip(models, costs, strict=True)])
    calibration.calibrate(made, tmp_path, anchors=file)
    again = profiles.target(name, search=tmp_path)
    assert profiles.profile(models[1], again).latency_ms == pytest.approx(4 * costs[1], rel=0.1)


def test_csv_with_batch_and_precision(models: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    path.write_text("model,ms,batch,precision\nnet16.onnx,1.5,8,fp16\nnet64.onnx,2,,\n", encoding="utf-8")
    first, second = anchors.read(path)
    assert (first.model, first.ms, first.batch, first.precision) == (models[0], 1.5, 8, "fp16")
    assert (second.batch, second.precision) == (1, None)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"model": "net16.onnx", "ms": 1}], "1 anchors; two constants need at least 2"),
        ([{"model": "none.onnx", "ms": 1}], "there is no model 'none.onnx'"),
        ([{"ms": 1}], "there is no model None"),
        ([{"model": "net16.onnx", "ms": "fast"}], "ms or batch is not a number"),
        ([{"model": "net16.onnx"}], "ms or batch is not a number"),
        ([{"model": "net16.onnx", "ms": -1}], "-1 ms at batch 1"),
        ([{"model": "net16.onnx", "ms": 1, "batch": -2}], "at batch -2"),
        ([{"model": "net16.onnx", "ms": 1, "precision": "int9"}], "precision is 'int9'"),
        ([{"model": "net16.onnx", "ms": 10}, {"model": "net128.onnx", "ms": 0.01}], "contradict the model of jetson"),
    ],
)
def test_anchors_that_are_refused(rows: list[dict[str, object]], said: str, models: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as error:
        calibration.calibrate(profiles.target("jetson"), tmp_path, anchors=table(tmp_path / "a.json", rows))
    assert said in error.value.what
    assert not (tmp_path / "targets").exists()


def test_files_that_are_no_anchors(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is no file"):
        anchors.read(tmp_path / "none.csv")
    (tmp_path / "bad.json").write_text("[{", encoding="utf-8")
    with pytest.raises(ProfileError, match="not valid JSON"):
        anchors.read(tmp_path / "bad.json")
    (tmp_path / "odd.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ProfileError, match="not a list of objects"):
        anchors.read(tmp_path / "odd.json")
