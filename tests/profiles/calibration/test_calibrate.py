"""From times to a target file that predicts: refusals, the round trip, and what a user's own file keeps."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import profiles
from profiles import calibration
from profiles.calibration import elsewhere, processor, write
from profiles.calibration.build import Net
from profiles.calibration.suite import Sample
from profiles.calibration.timing import Session, time_models
from profiles.errors import ProfileError
from profiles.latency.models import latency_model
from profiles.measure import Measurement

Array = NDArray[np.float64]
Known = tuple[Sequence[Sample], Array, Array]
Make = Callable[..., Session]


def quiet(text: str) -> None:
    pass


@pytest.fixture
def calibrated(known: Known, session: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which x86 was calibrated on a core that is exactly like the known constants."""
    samples, rows, truth = known
    monkeypatch.setattr(processor, "suite", lambda share: samples)
    monkeypatch.setattr(processor, "time_models", lambda *_, **__: session(rows @ truth))
    path = calibration.calibrate(profiles.target("x86"), tmp_path, say=quiet)
    assert path == tmp_path / "targets" / "x86.toml"
    return tmp_path


def test_the_file_takes_the_place_of_the_packages_target(calibrated: Path) -> None:
    target, plain = profiles.target("x86", search=calibrated), profiles.target("x86")
    model = latency_model(target)
    assert target.hardware == plain.hardware
    assert model.origin.startswith("calibrated on a core with onnxruntime 1, one thread, on ")
    assert "left out of the fit" in model.origin
    assert model.interval[0] < 1 < model.interval[1]
    assert model.fixed_ms == pytest.approx(0.005, rel=0.2)
    net = Net((1, 24, 20, 20), np.random.default_rng(0))
    cost = profiles.profile(net.model(net.conv(net.conv(net.x, 32, 3), 48, 3)), target)
    assert any("calibrated on a core" in note for note in cost.notes)
    low, high = model.interval
    assert cost.interval_ms == pytest.approx((low * cost.latency_ms, high * cost.latency_ms))
    assert cost.latency_ms != profiles.profile(net.model(net.conv(net.x, 32, 3)), plain).latency_ms


def test_predictions_are_those_of_the_core_that_was_measured(calibrated: Path, known: Known) -> None:
    samples, rows, truth = known
    target = profiles.target("x86", search=calibrated)
    whole = [index for index, sample in enumerate(samples) if sample.name == "classifier"]
    for index in whole:
        wanted = float(rows[index] @ truth) / 1e6
        assert profiles.profile(samples[index].model, target).latency_ms == pytest.approx(wanted, rel=0.05)


def test_more_work_never_costs_less(calibrated: Path) -> None:
    target = profiles.target("x86", search=calibrated)

    def latency(width: int, size: int) -> float:
        net = Net((1, 16, size, size), np.random.default_rng(0))
        return profiles.profile(net.model(net.conv(net.conv(net.x, width, 3), width, 3)), target).latency_ms

    by_width = [latency(width, 24) for width in (16, 32, 48, 64, 96, 128)]
    by_size = [latency(32, size) for size in (4, 6, 12, 24, 30, 48)]
    assert by_width == sorted(by_width)
    assert by_size == sorted(by_size)


def test_calibrating_again_replaces_the_constants(calibrated: Path) -> None:
    first = (calibrated / "targets" / "x86.toml").read_text(encoding="utf-8")
    calibration.calibrate(profiles.target("x86", search=calibrated), calibrated, say=quiet)
    assert (calibrated / "targets" / "x86.toml").read_text(encoding="utf-8") == first
    assert [path.name for path in (calibrated / "targets").iterdir()] == ["x86.toml"]


def test_what_a_users_own_target_says_stays(tmp_path: Path) -> None:
    path = tmp_path / "targets" / "edge.toml"
    path.parent.mkdir()
    path.write_text('inherit = "x86"\n[budget]\nlatency_ms = 3.0\n', encoding="utf-8")
    target = profiles.target("edge", search=tmp_path)
    for fixed in (10.0, 20.0):
        write.target_file(target, tmp_path, write.Calibration({"fixed_us": fixed}, (0.8, 1.25), "two tests"))
        made = profiles.target("edge", search=tmp_path)
        assert made.budget.latency_ms == 3.0
        assert dict(made.latency) == {"fixed_us": fixed, "interval": [0.8, 1.25], "origin": "two tests"}
    path.write_text('inherit = "x86"\n[latency]\nfixed_us = 1\n', encoding="utf-8")
    with pytest.raises(ProfileError, match="of your own"):
        write.target_file(target, tmp_path, write.Calibration({}, (0.8, 1.25), "x"))


def test_constants_survive_toml(tmp_path: Path) -> None:
    values = {"fixed_us": 1.25e-7, "peaks": (3.7e3, 0.1184, 1e-12, 20.0), "lanes": 16.0}
    target = profiles.target("x86")
    write.target_file(target, tmp_path, write.Calibration(values, (0.5, 2.0), 'said "so" – ü'))
    read = profiles.target("x86", search=tmp_path).latency
    assert read["origin"] == 'said "so" – ü'
    assert read["fixed_us"] == pytest.approx(1.25e-7)
    assert read["peaks"] == pytest.approx([3.7e3, 0.1184, 1e-12, 20.0])


def test_a_busy_machine_is_refused(known: Known, session: Make) -> None:
    samples, rows, truth = known
    with pytest.raises(ProfileError, match=r"40% apart .*at most 10%"):
        processor.fitted(profiles.target("x86").hardware, samples, session(rows @ truth, 0.4), quiet)


def test_times_that_nothing_explains_are_refused(known: Known, session: Make) -> None:
    samples, rows, _ = known
    anything = np.exp(np.random.default_rng(0).uniform(8, 20, len(rows)))
    with pytest.raises(ProfileError, match="did not see by more than"):
        processor.fitted(profiles.target("x86").hardware, samples, session(anything), quiet)


@pytest.mark.parametrize("name", ["a100", "jetson", "hearing_aid"])
def test_other_devices_ask_for_anchors(name: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as error:
        calibration.calibrate(profiles.target(name), tmp_path, say=quiet)
    assert "--anchors" in error.value.fix
    assert not (tmp_path / "targets").exists()


def test_seconds_are_positive(tmp_path: Path) -> None:
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ProfileError, match="seconds of measuring"):
            calibration.calibrate(profiles.target("x86"), tmp_path, seconds=seconds, say=quiet)


def test_the_vectors_of_an_unknown_core_are_found_from_its_times(known: Known, session: Make) -> None:
    samples, _, truth = known
    narrow = np.array([processor.row_of(sample.model, 8, 1024.0) for sample in samples])
    times = session(narrow @ truth)
    unknown = Session(times.timed, 1.0, 0.0, "a core", "onnxruntime 1")
    found = processor.fitted(profiles.target("x86").hardware, samples, unknown, quiet)
    assert found.constants["lanes"] == 8


def test_models_that_another_machine_could_not_run_are_left_out(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, rows, truth = known
    times = rows @ truth / 1e6

    def measured(ms: float) -> Measurement:
        numbers = dict.fromkeys(("p5_ms", "p90_ms", "p95_ms", "p99_ms"), ms)
        return Measurement(
            median_ms=ms, iqr_ms=0.01 * ms, runs=30, warmup_runs=10, steady=True, batch=1, threads=1,
            device="their core", runtime="onnxruntime 2", clock="wall", **numbers,
        )  # fmt: skip

    def run_each(artifacts: Sequence[tuple[Path, None]], target: object, *_: object, **__: object) -> list[object]:
        assert all(path.is_file() for path, _ in artifacts)
        found: list[object] = [measured(ms) for ms in times[: len(artifacts)]]
        found[3] = ProfileError("too noisy", fix="again")
        return found

    monkeypatch.setattr(elsewhere.remote, "run_each", run_each)
    kept, found = elsewhere.time_models(profiles.target("x86"), samples, "me@there", 1000, quiet)
    assert len(kept) == len(found.timed) == len(samples) - 1
    assert kept[3] is samples[4]
    assert found.device == "their core (me@there)"
    assert found.lanes == 16  # the target says AVX-512
    with pytest.raises(ProfileError, match="9 of 10 models could be measured on me@there: too noisy"):
        elsewhere.time_models(profiles.target("x86"), samples[:10], "me@there", 1000, quiet)


def test_time_is_what_the_clock_says() -> None:
    pytest.importorskip("onnxruntime")
    net = Net((1, 8), np.random.default_rng(0))
    samples = [Sample("one", net.model(net.gemm(net.x, 4)))] * 2
    ticks = iter(range(0, 10**12, 1_500_000))  # 1.5 ms between two looks
    session = time_models(samples, 0.05, visits=3, clock=lambda: next(ticks))
    assert [timed.ms for timed in session.timed] == [1.5, 1.5]
    assert all(len(timed.visits) == 3 and timed.spread == 0 for timed in session.timed)
    assert session.runtime.startswith("onnxruntime")


@pytest.mark.parametrize(("name", "lanes"), [("x86", 16), ("x86_amx", 16), ("x86_avx512", 16), ("x86_avx2", 8)])
def test_the_vectors_of_a_target(name: str, lanes: int) -> None:
    assert elsewhere._lanes(profiles.target(name).hardware.core) == lanes
    assert elsewhere._lanes("a core") is None
