import csv
import json
from dataclasses import replace
from pathlib import Path

import latency_memory
import latency_model
import latency_rows
import numpy as np
import pytest
import score_latency
from latency_model import Prediction
from latency_rows import Row, TableError

PUBLISHED: dict[str, str] = {
    "row_id": "X1", "device": "A100-SXM4-80GB", "power_mode": "default", "core_clock_mhz": "", "runtime": "TensorRT",
    "runtime_version": "10", "model": "resnet50", "family": "resnet", "task": "classification",
    "input_shape": "1x3x224x224", "batch": "8", "precision": "fp16", "latency_ms": "2.0", "latency_stat": "mean",
    "throughput_per_s": "", "ms_per_item": "0.25", "avg_power_w": "", "energy_uj": "", "params_m": "25.6",
    "gmacs_per_item": "4.1", "macts_m_per_item": "11.1", "fit_ok": "1", "source_repo": "somebody/benchmarks",
    "source_path": "README.md", "source_commit": "abc", "notes": "p90 2.1 ms",
}  # fmt: skip
TIMM: dict[str, str] = {
    "device": "RTX 3090", "runtime": "PyTorch 2.4.0 eager, AMP, NCHW", "model": "resnet50_unheard", "family": "resnet",
    "img_size": "224", "batch": "1024", "precision": "amp-fp16", "samples_per_s": "2000", "ms_per_item": "0.5",
    "params_m": "25.6", "gmacs": "4.1", "macts_m": "11.1", "source": "timm",
}  # fmt: skip
# What the tables leave out, write as text, or have never named before.
GAPS: tuple[dict[str, str], ...] = (
    {},
    {"batch": "offline (large)", "throughput_per_s": "100", "latency_ms": ""},
    {"gmacs_per_item": "", "params_m": "", "macts_m_per_item": ""},
    {"gmacs_per_item": "", "params_m": "", "macts_m_per_item": "", "model": "never heard of", "family": "unheard"},
    {"device": "Jetson Nobody Knows", "power_mode": "99W", "fit_ok": "0"},
    {"device": "H200-SXM-141GB"},
    {"device": "RTX 6000 Ada"},
    {"device": "Jetson AGX Orin 32GB", "power_mode": "MaxQ submission: gpu 726.75 MHz, emc 2133 MHz"},
    {"device": "Jetson AGX Orin", "runtime": "TensorRT on DLA core 0", "batch": "per csv (1-8)", "precision": "int8"},
    {"device": "STM32N6 (Cortex-M55)", "core_clock_mhz": "800", "model": "resnet8 (ic)", "family": "resnet8"},
    {"device": "Some FPGA (RISC-V)", "core_clock_mhz": "", "gmacs_per_item": "", "precision": "int8"},
    {"runtime": "a runtime of one's own", "precision": "fp8", "task": "", "power_mode": ""},
    {"input_shape": "not stated", "batch": "0"},
)


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    """A table with these rows."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_score_of_five_rows_worked_by_hand() -> None:
    measured = np.array([1.0, 2.0, 4.0, 8.0, 10.0])
    told = [1.1, 1.0, 4.0, 10.0, 9.0]  # off by 10 %, 50 %, 0 %, 25 %, 10 %
    ends = [(1.05, 1.2), (0.5, 3.0), (3.0, 5.0), (7.0, 14.0), (9.5, 11.0)]  # the first does not hold 1.0; the others do
    predictions = [Prediction(ms, low, high, 0.1) for ms, (low, high) in zip(told, ends, strict=True)]
    score = score_latency.score(predictions, measured)
    assert score.rows == 5
    assert score.median_error == pytest.approx(0.10)
    assert score.p90_error == pytest.approx(0.25 + 0.6 * 0.25)  # 0.6 of the way from the fourth to the fifth
    assert score.inside_interval == pytest.approx(0.8)
    # ranks 2 1 3 5 4 against 1 2 3 4 5: 1 - 6 * 4 / (5 * 24)
    assert score.spearman == pytest.approx(0.8)
    assert score.unpredicted == 0


def test_missing_predictions_are_counted_and_missing_times_are_not() -> None:
    one = Prediction(1.0, 0.5, 2.0, 0.1)
    score = score_latency.score([one, None, replace(one, ms=float("nan")), one], np.array([1.0, 1.0, 1.0, np.nan]))
    assert (score.rows, score.unpredicted) == (3, 2)


def test_equal_values_share_their_rank() -> None:
    # ranks 1.5 1.5 3 against 1 2 3
    assert score_latency.spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(0.75**0.5)
    assert np.isnan(score_latency.spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])))


def test_wrong_columns_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "t.csv", [{"device": "A100", "speed": "3"}])
    with pytest.raises(TableError, match=r"lacks the columns .*runtime"):
        latency_rows.read_table(path)
    assert score_latency.main([str(path)]) == 2
    assert "published_latency.csv" in capsys.readouterr().err


def test_a_word_where_a_number_belongs_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [PUBLISHED, PUBLISHED | {"params_m": "many"}])
    with pytest.raises(TableError, match=r"line 3: params_m is 'many'"):
        latency_rows.read_table(path)


def test_an_absent_table_is_refused(tmp_path: Path) -> None:
    assert score_latency.main([str(tmp_path / "none.csv")]) == 2


def test_every_row_is_predicted_whatever_is_missing(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", [PUBLISHED | {"row_id": f"X{i}"} | gap for i, gap in enumerate(GAPS)])
    timm = write(tmp_path / "u.csv", [TIMM, TIMM | {"device": "RTX 5090", "batch": "", "params_m": "", "macts_m": ""}])
    for path in (table, timm):
        rows, _ = latency_rows.read_table(path)
        for row, prediction in zip(rows, latency_memory.load().predict(rows), strict=True):
            assert 0 < prediction.low < prediction.ms < prediction.high < float("inf"), row


def test_predictions_do_not_see_the_times(tmp_path: Path) -> None:
    rows = [PUBLISHED | {"row_id": f"X{i}"} | gap for i, gap in enumerate(GAPS)]
    other = {
        "latency_ms": "777", "throughput_per_s": "3", "ms_per_item": "99", "avg_power_w": "5", "energy_uj": "8",
        "latency_stat": "p99", "notes": "p90 12345 ms",
    }  # fmt: skip
    first, _ = latency_rows.read_table(write(tmp_path / "a.csv", rows))
    second, times = latency_rows.read_table(write(tmp_path / "b.csv", [row | other for row in rows]))
    assert set(times) == {99.0}
    assert latency_memory.load().predict(first) == latency_memory.load().predict(second)


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    rows, _ = latency_rows.read_table(
        write(tmp_path / "t.csv", [PUBLISHED | {"row_id": f"X{i}"} | gap for i, gap in enumerate(GAPS)])
    )
    memory = latency_memory.load()
    forwards = [p.ms for p in memory.predict(rows)]
    backwards = [p.ms for p in memory.predict(rows[::-1])][::-1]
    assert forwards == pytest.approx(backwards, rel=1e-9)


def test_a_graph_that_the_table_counts_otherwise_is_not_used(tmp_path: Path) -> None:
    row = latency_rows.read_table(write(tmp_path / "t.csv", [PUBLISHED]))[0][0]
    known = latency_model._graph(row)
    assert known is not None
    assert known.dense == pytest.approx(4.09, rel=0.01)
    assert latency_model._graph(replace(row, gmacs=8.2)) is None


def test_a_stored_row_is_predicted_without_its_device_and_model() -> None:
    memory = latency_memory.load()
    at = next(i for i, row in enumerate(memory.rows) if row.line == "MCU")
    row = memory.rows[at]
    changed = memory.measured.copy()
    changed[[i for i, other in enumerate(memory.rows) if other.cell == row.cell]] *= 10
    assert memory.holds([row]) == [True]
    assert replace(memory, measured=changed).predict([row]) == memory.predict([row])


def test_two_rows_of_a_protocol_move_its_other_rows() -> None:
    memory = latency_memory.load()
    row = Row(
        "n", "published", "STM32X (Cortex-M33)", "", 100.0, "their engine", "1", "", "resnet8 (ic)", "resnet8",
        "image classification", "1x32x32x3", 1, "int8", 0.08, 0.0125, None, "their/table", "", True,
    )  # fmt: skip
    others = [replace(row, identity=f"n{i}", model=m, family=m) for i, m in enumerate(("dscnn", "fcae"))]
    fitted = memory.fitted[latency_model.MCU]
    seen = [at for at, known in enumerate(memory.rows) if latency_model.group_of(known) == latency_model.MCU]
    given, times = [memory.rows[at] for at in seen], memory.measured[seen]
    plain = latency_model.predict(latency_model.MCU, given, times, [row, *others], fitted)
    slow = np.array([4 * plain[1].ms, 4 * plain[2].ms])
    moved = latency_model.predict(
        latency_model.MCU, [*given, *others], np.concatenate([times, slow]), [row], fitted
    )[0]  # fmt: skip
    assert 2 * plain[0].ms < moved.ms < 4.5 * plain[0].ms
    assert moved.high / moved.low < plain[0].high / plain[0].low


def test_the_printed_and_the_json_result_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "t.csv", [PUBLISHED | {"row_id": f"X{i}"} | gap for i, gap in enumerate(GAPS[:4])])
    assert score_latency.main([str(table), "--by", "family", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["stored_rows"] == 0
    assert result["by"]["line"]["A100"]["unpredicted"] == 0
    assert sum(s["rows"] for s in result["by"]["family"].values()) == 4
    assert score_latency.main([str(table)]) == 0
    median = result["by"]["line"]["A100"]["median_error"]
    assert f"{median:.1%}" in capsys.readouterr().out


def test_stored_tables_read_back_as_they_were_written() -> None:
    rows, measured = latency_memory.stored()
    assert len(rows) == len(measured) == len({(row.identity, row.line) for row in rows})
    assert np.isfinite(measured).all()
    assert {row.table for row in rows} == {"published", "timm"}
