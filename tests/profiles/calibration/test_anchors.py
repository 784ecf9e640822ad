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


@pytest.mark.parametrize("name", ["jetson", "hearing_aid", "x86", "gap9"])
def test_anchors_of_a_device_twice_as_slow(name: str, models: list[Path], tmp_path: Path) -> None:
    target = profiles.target(name)
    costs = [profiles.profile(path, target).latency_ms for path in models]
    plain = profiles.latency.models.latency_model(target)
    rows = [{"model": path.name, "ms": 2 * ms} for path, ms in zip(models, costs, strict=True)]
    off = []
    for times in (1, 20):  # the more agree, the less the family's own constants weigh
        calibration.calibrate(target, tmp_path, anchors=table(tmp_path / "times.json", rows * times))
        made = profiles.target(name, search=tmp_path)
        found = [profiles.profile(path, made) for path in models]
        off.append(max(abs(np.log(cost.latency_ms / (2 * ms))) for cost, ms in zip(found, costs, strict=True)))
        for cost, ms in zip(found, costs, strict=True):
            low, high = cost.interval_ms
            assert low < 2 * ms < high
    assert off[0] < 0.3 < np.log(2)  # two thirds of what was wrong are gone at least
    assert off[1] < 0.03
    model = profiles.latency.models.latency_model(made)
    assert model.origin.startswith("calibrated by 60 times measured on the device (times.json, ")
    assert model.interval[1] / model.interval[0] < plain.interval[1] / plain.interval[0]


def test_a_calibration_is_calibrated_again(models: list[Path], tmp_path: Path) -> None:
    target = profiles.target("jetson")
    for factor in (2, 4):  # of what the target says at that time
        device = profiles.target("jetson", search=tmp_path)
        costs = [profiles.profile(path, target).latency_ms for path in models]
        rows = [{"model": path.name, "ms": factor * ms} for path, ms in zip(models, costs, strict=True)] * 20
        calibration.calibrate(device, tmp_path, anchors=table(tmp_path / "times.json", rows))
        made = profiles.target("jetson", search=tmp_path)
        assert profiles.profile(models[1], made).latency_ms == pytest.approx(factor * costs[1], rel=0.05)


def test_one_wild_time_does_not_bend_the_device(models: list[Path], tmp_path: Path) -> None:
    target = profiles.target("jetson")
    costs = [profiles.profile(path, target).latency_ms for path in models[:2]]
    rows = [{"model": models[0].name, "ms": 1.5 * costs[0]}, {"model": models[1].name, "ms": costs[1] / 1.5}]
    calibration.calibrate(target, tmp_path, anchors=table(tmp_path / "times.json", rows))
    made = profiles.target("jetson", search=tmp_path)
    # Two constants through both points would extrapolate to a device many times as fast.
    assert profiles.profile(models[2], made).latency_ms == pytest.approx(
        profiles.profile(models[2], target).latency_ms, rel=0.35
    )


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
        ([{"ms": 1}], "row 1 names no model"),
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
    (tmp_path / "net.csv").write_bytes(b"model,ms\n\xff\xfe\x00")
    with pytest.raises(ProfileError, match="not a readable text file"):
        anchors.read(tmp_path / "net.csv")
    (tmp_path / "bad.json").write_text("[{", encoding="utf-8")
    with pytest.raises(ProfileError, match="not valid JSON"):
        anchors.read(tmp_path / "bad.json")
    (tmp_path / "odd.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ProfileError, match="not a list of objects"):
        anchors.read(tmp_path / "odd.json")
