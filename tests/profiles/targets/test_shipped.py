"""Every target that ships: its figures have sources, its parts exist, and a network can be costed on it."""

import csv
import math
import sys
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

import profiles
from profiles.latency.models import latency_model
from profiles.target import FOLDER, OF_A_MODE, Budget, Hardware, Target, names, target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[3]
NUMBERS = {f.name for of in (Budget, Hardware) for f in fields(of)} - {"core", "power_mode"}
KEYS = {f.name for of in (Budget, Hardware, Target) for f in fields(of)}
MODES = [f"{name}:{mode}" for name in names() for mode in target(name).modes]
KEPT = {
    "a100": "a100",
    "jetson": "jetson",
    "jetson-orin-nano-8gb": "jetson",
    "hearing-aid": "hearing_aid",
    "x86": "x86",
    "a100-80gb": "a100_80gb",
    "cortex-m4f": "cortex_m4",
    "jetson-agx-orin": "jetson_agx_orin_64gb",
}


def raw(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two 3x3 convolutions of 16 channels on 3x32x32: 442,368 + 2,359,296 multiply-accumulates."""
    weights = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, [0.5] * math.prod(shape))
        for name, shape in (("first", (16, 3, 3, 3)), ("second", (16, 16, 3, 3)))
    ]
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["middle"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["middle"], ["active"]),
        helper.make_node("Conv", ["active", "second"], ["map"], pads=[1, 1, 1, 1]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, c, 32, 32)) for n, c in (("image", 3), ("map", 16))]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    path = tmp_path_factory.mktemp("net") / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.parametrize("name", names())
def test_a_file_names_the_source_of_every_figure_that_it_states(name: str) -> None:
    content = raw(name)
    stated = {key for table in ("hardware", "budget") for key in content.get(table, {})} & NUMBERS
    assert sorted(stated - set(content.get("source", {}))) == []
    assert set(content.get("source", {})) <= KEYS
    for mode, figures in content.get("mode", {}).items():
        assert figures["source"].strip(), mode


@pytest.mark.parametrize("name", [*names(), *MODES])
def test_every_figure_has_a_source_that_speaks_of_it(name: str) -> None:
    found = target(name)
    figures = [(of, f.name) for of in (found.budget, found.hardware) for f in fields(of) if f.name in NUMBERS]
    given = {key for of, key in figures if getattr(of, key)}
    if found.budget.default_period_ms == Budget().default_period_ms and found.budget.compute_share is None:
        given.discard("default_period_ms")  # nothing is measured by it
    assert sorted(key for key in given if not found.sources.get(key, "").strip()) == []


@pytest.mark.parametrize("name", [*names(), *MODES])
def test_figures_are_possible(name: str) -> None:
    hardware = target(name).hardware
    assert all(getattr(hardware, key) > 0 for key in OF_A_MODE)
    wide = [hardware.tops[key] for key in ("fp32", "tf32", "fp16", "int8") if key in hardware.tops]
    assert wide == sorted(wide)  # narrower numbers are never slower
    assert hardware.tops.get("fp8", 0.0) <= hardware.tops.get("int8", math.inf)
    if hardware.ram_kib:
        budget = target(name).budget
        assert (budget.peak_activation_bytes or 0) < hardware.ram_kib * 1024
        assert (budget.weight_bytes or 0) < hardware.flash_kib * 1024


@pytest.mark.parametrize("name", [name for name in names() if len(target(name).modes) > 1])
def test_a_lower_power_mode_is_never_faster(name: str) -> None:
    limits = sorted(target(name).modes.values(), key=lambda mode: (mode.power_w, mode.clock_mhz))
    for slow, fast in pairwise(limits):
        assert slow.units <= fast.units
        assert slow.clock_mhz <= fast.clock_mhz
        assert slow.bandwidth_gbs <= fast.bandwidth_gbs


@pytest.mark.parametrize("name", names())
def test_its_parts_exist(name: str) -> None:
    found = target(name)
    assert set(found.runners) <= {path.stem for path in (REPOSITORY / "profiles" / "runners").glob("on_*.py")}
    exporters = {path.stem for path in (REPOSITORY / "exporters").glob("*_to_*.py")}
    assert {*found.builders, *found.checks} <= exporters
    assert (REPOSITORY / "compress" / "qat" / f"{found.quantizer}.py").exists()
    assert found.device
    assert found.description
    assert latency_model(found).interval[0] > 0


def test_names_are_plain_and_no_other_target_answers_to_them() -> None:
    given = [alias.lower().replace("-", "_") for name in names() for alias in (name, *target(name).aliases)]
    assert len(given) == len(set(given))
    assert all(name.replace("_", "").isalnum() and name == name.lower() for name in given)
    for name in names():
        for alias in target(name).aliases:
            assert target(alias).name == name


@pytest.mark.parametrize(("said", "meant"), KEPT.items())
def test_documented_names_keep_their_meaning(said: str, meant: str) -> None:
    assert target(said).name == meant


@pytest.mark.parametrize("name", [*names(), *MODES])
def test_a_network_costs_something_finite_everywhere(name: str, network: Path) -> None:
    cost = profiles.profile(network, name, precision="int8", layers=False)
    low, high = cost.interval_ms
    assert 0 < low < cost.latency_ms < high < math.inf
    assert cost.macs == 442_368 + 2_359_296
    assert cost.target == target(name).name


@pytest.mark.parametrize("name", ["x86_avx2", "x86_avx512", "x86_amx"])
def test_a_processor_of_another_kind_than_the_measured_one_is_less_sure(name: str) -> None:
    known, unknown = latency_model(target("x86")), latency_model(target(name))
    assert not known.stretched
    assert unknown.stretched
    assert unknown.interval[0] < known.interval[0]
    assert unknown.interval[1] > known.interval[1]


# Worked by hand: processors x operations per clock x MHz.
PEAKS = [
    ("a100", "int8", 108 * 4096 * 1410e6),
    ("a100", "fp32", 108 * 128 * 1410e6),
    ("a100_mig_1g_10gb", "fp16", 14 * 2048 * 1410e6),
    ("h100", "fp8", 132 * 8192 * 1830e6),
    ("h100_pcie", "fp16", 756.5e12),
    ("rtx_3090", "fp16", 142e12),
    ("rtx_4090", "int8", 660.6e12),
    ("jetson", "int8", 20.48e12),
    ("jetson:25w", "int8", 8 * 4096 * 918e6),
    ("jetson_orin_nano_super", "int8", 33.42e12),
    ("jetson_agx_orin_64gb:30w", "fp16", 8 * 2048 * 624.75e6),
    ("jetson_xavier_nx", "int8", 6 * 2048 * 1109.25e6),
    ("jetson_nano", "fp16", 0.472e12),
    ("jetson_thor", "fp16", 257.2e12),
    ("cortex_m4", "int8", 4 * 120e6),
    ("cortex_m55", "int8", 16 * 220e6),
    ("x86", "int8", 256 * 2700e6),
    ("x86_amx", "bf16", 1024 * 2700e6),
]


@pytest.mark.parametrize(("name", "precision", "per_second"), PEAKS)
def test_peaks_are_those_worked_by_hand(name: str, precision: str, per_second: float) -> None:
    assert target(name).hardware.tops[precision] * 1e12 == pytest.approx(per_second, rel=3e-3)


ROWS = {  # name and power mode in hardware.csv
    ("A100-SXM4-40GB", "default"): "a100",
    ("A100-SXM4-80GB", "default"): "a100_80gb",
    ("A100-PCIe-40GB", "default"): "a100_pcie_40gb",
    ("A100-PCIe-80GB", "default"): "a100_pcie_80gb",
    ("A100 MIG 1g.10gb (80 GB part)", "MIG 1/7"): "a100_mig_1g_10gb",
    ("H100-SXM5-80GB", "default"): "h100",
    ("H200-SXM-141GB", "default"): "h200",
    ("Jetson Nano 4GB", "MAXN (10W)"): "jetson_nano",
    ("Jetson Nano 4GB", "5W"): "jetson_nano:5w",
    ("Jetson TX2", "Max-N"): "jetson_tx2",
    ("Jetson TX2", "Max-P Core-All"): "jetson_tx2:maxp",
    ("Jetson TX2", "Max-Q"): "jetson_tx2:maxq",
    ("Jetson Xavier NX 8GB", "20W (2/4/6-core)"): "jetson_xavier_nx",
    ("Jetson Xavier NX 8GB", "15W (2/4/6-core)"): "jetson_xavier_nx:15w",
    ("Jetson Xavier NX 8GB", "10W"): "jetson_xavier_nx:10w",
    ("Jetson AGX Xavier 32GB", "MAXN"): "jetson_agx_xavier",
    ("Jetson AGX Xavier 32GB", "30W"): "jetson_agx_xavier:30w",
    ("Jetson AGX Xavier 32GB", "15W"): "jetson_agx_xavier:15w",
    ("Jetson AGX Xavier 32GB", "10W"): "jetson_agx_xavier:10w",
    ("Jetson AGX Orin 64GB", "MAXN"): "jetson_agx_orin_64gb",
    ("Jetson AGX Orin 64GB", "50W"): "jetson_agx_orin_64gb:50w",
    ("Jetson AGX Orin 64GB", "30W"): "jetson_agx_orin_64gb:30w",
    ("Jetson AGX Orin 32GB", "40W"): "jetson_agx_orin_32gb",
    ("Jetson Orin NX 16GB", "25W"): "jetson_orin_nx_16gb",
    ("Jetson Orin NX 16GB (Super mode)", "MAXN_SUPER"): "jetson_orin_nx_16gb:maxn_super",
    ("Jetson Orin NX 8GB", "20W"): "jetson_orin_nx_8gb",
    ("Jetson Orin NX 8GB (Super mode)", "MAXN_SUPER"): "jetson_orin_nx_8gb:maxn_super",
    ("Jetson Orin Nano 8GB", "15W"): "jetson",
    ("Jetson Orin Nano 4GB", "10W"): "jetson_orin_nano_4gb",
    ("Jetson Orin Nano 4GB (Super)", "MAXN_SUPER"): "jetson_orin_nano_4gb_super",
    ("Jetson AGX Thor (T5000)", "MAXN"): "jetson_thor",
}


def test_figures_are_those_of_the_collected_table() -> None:
    path = REPOSITORY.parent / "shared" / "targets" / "hardware.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there: the collected figures are kept outside the repository")
    with path.open(newline="", encoding="utf-8") as handle:
        rows = {(row["name"], row["power_mode"]): row for row in csv.DictReader(handle)}
    columns = {"tf32_tflops": "tf32", "fp16_tflops": "fp16", "int8_tops": "int8", "fp8_tflops": "fp8"}
    for key, name in ROWS.items():
        row, hardware = rows[key], target(name).hardware
        assert hardware.clock_mhz == pytest.approx(float(row["core_clock_mhz"])), name
        assert hardware.units == int(row["sms_or_cores"].split()[0]), name
        assert hardware.bandwidth_gbs == pytest.approx(float(row["mem_bw_gbs"]), rel=0.01), name
        for column, precision in columns.items():
            stated = float(row[column]) if row[column] else None
            assert hardware.tops.get(precision) == (stated and pytest.approx(stated, rel=3e-3)), (name, precision)
