import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import profiles
from profiles import energy
from profiles.cost import Cost
from profiles.graph import Graph, Op, edge
from profiles.predict import predict
from profiles.target import names, target

PARTS = {
    "STM32U385": "hearing_aid",
    "STM32U575": "cortex_m33",
    "STM32L4R5": "cortex_m4",
    "STM32H7A3": "stm32h7a3",
    "GreenWaves GAP9": "gap9",
}
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_energy", REPOSITORY / "tools" / "fit_energy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fit_energy"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def test_a_core_draws_its_microwatts_per_megahertz() -> None:
    """STM32U385, DS-CNN of MLPerf Tiny v1.3: 55 uW/MHz x 96 MHz = 5.28 mW; over 10 ms that is 52.8 uJ."""
    found = energy.estimate(target("hearing-aid"), 10.0, (10.0, 10.0))
    assert found is not None
    assert found.mj == pytest.approx(0.0528)
    low, high = (edge / found.mj for edge in found.interval_mj)
    assert (low, high) == pytest.approx(energy.power(target("hearing-aid")).interval)  # type: ignore[union-attr]


def test_a_published_inference_is_inside() -> None:
    """DS-CNN on the STM32L4R5: 43 ms and 1,430 uJ."""
    found = energy.estimate(target("cortex-m4"), 43.0, (43.0, 43.0))
    assert found is not None
    assert found.interval_mj[0] < 1.430 < found.interval_mj[1]


def test_a_jetson_draws_a_base_and_a_share_per_processor_and_clock() -> None:
    power = energy.power(target("jetson-agx-orin-64gb:30w"))
    assert power is not None
    assert power.watts == pytest.approx(4.0 + 1.36 * 8 * 0.62475)
    found = energy.estimate(target("jetson-agx-orin-64gb:30w"), 2.0, (1.0, 4.0))
    assert found is not None
    assert found.mj == pytest.approx(2.0 * power.watts)  # watts times milliseconds


def test_errors_of_power_and_latency_add_as_squares() -> None:
    sure = energy.estimate(target("jetson"), 2.0, (2.0, 2.0))
    wide = energy.estimate(target("jetson"), 2.0, (1.0, 4.0))
    assert sure is not None
    assert wide is not None
    for end, of_latency in zip((0, 1), (0.5, 2.0), strict=True):
        of_power = sure.interval_mj[end] / sure.mj
        both = math.hypot(math.log(of_power), math.log(of_latency))
        assert abs(math.log(wide.interval_mj[end] / wide.mj)) == pytest.approx(both)


def test_a_generation_without_a_row_is_less_sure() -> None:
    known, unknown = energy.power(target("jetson")), energy.power(target("jetson-thor"))
    assert known is not None
    assert unknown is not None
    assert unknown.interval == pytest.approx((known.interval[0] / 1.5, known.interval[1] * 1.5))
    assert "none of them of this generation" in unknown.origin


def test_a_lower_power_mode_draws_less() -> None:
    watts = [energy.power(target(f"jetson-agx-orin-64gb:{mode}")).watts for mode in ("15w", "30w", "50w", "maxn")]  # type: ignore[union-attr]
    assert watts == sorted(set(watts))


def test_an_emulated_cost_gets_its_energy_and_a_measured_one_keeps_its_own() -> None:
    cost = Cost("hearing_aid", "c", 1, "int8", 1, 1, 1, 1, 10.0, (9.0, 11.0), "emulated", notes=("first",))
    found = energy.added(cost, target("hearing-aid"))
    assert found.energy_mj == pytest.approx(0.0528)
    assert found.energy_interval_mj is not None
    assert found.energy_interval_mj[0] < 0.0528 < found.energy_interval_mj[1]
    assert found.notes[0] == "first"
    assert "STM32U385" in found.notes[1]
    assert energy.added(found, target("hearing-aid")) == found
    none = energy.added(cost, target("hearing-aid-m55"))
    assert none.energy_mj is None
    assert "no published energy" in none.notes[1]


def test_a_prediction_carries_energy_or_says_why_not() -> None:
    ops = (Op("conv", "Conv", "conv", ("a",), ("b",), 90_000, (), 9, 1, 10),)
    edges = {name: edge(name, (1, 10, 10, 100), "float32") for name in "ab"}
    graph = Graph(ops, edges, ("a",), ("b",), 1)
    jetson = predict(graph, target("jetson"), "int8")
    assert jetson.energy_mj == pytest.approx(jetson.latency_ms * (4.0 + 1.36 * 8 * 0.625))
    a100 = predict(graph, target("a100"), "int8")
    assert (a100.energy_mj, a100.energy_interval_mj) == (None, None)
    assert any("no published power" in note for note in a100.notes)
    assert any("no int8" in note for note in predict(graph, target("jetson-nano"), "int8").notes)
    assert not any("no int8" in note for note in jetson.notes)


@pytest.mark.parametrize("name", ["a100", "h200", "x86", "cortex-m55"])
def test_nothing_is_guessed_where_no_source_says_it(name: str) -> None:
    assert energy.power(target(name)) is None
    assert energy.estimate(target(name), 1.0, (0.5, 2.0)) is None
    assert "published" in energy.unknown(target(name))


def test_a_users_own_figure_is_used(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('inherit = "cortex-m55"\n[hardware]\nuw_per_mhz = 20\n')
    power = energy.power(target(str(path)))
    assert power is not None
    assert power.watts == pytest.approx(20e-6 * 220)
    assert "uw_per_mhz in the file of mine" in power.origin


@pytest.mark.parametrize("name", names())
def test_power_scales_with_the_clock_and_is_below_the_limit_of_the_device(name: str) -> None:
    device = target(name)
    power = energy.power(device)
    if power is None:
        return
    slow = energy.power(replace(device, hardware=replace(device.hardware, clock_mhz=device.hardware.clock_mhz / 2)))
    assert slow is not None
    assert slow.watts < power.watts
    low, high = power.interval
    assert low < 1 < high
    if device.hardware.power_w:
        assert power.watts < device.hardware.power_w


def test_the_fit_takes_each_submission_once(tool: ModuleType) -> None:
    submissions = {"a": [100.0, 110.0, 120.0], "b": [200.0]}
    assert tool.part_median(submissions) == pytest.approx(155.0)  # of 110 and 200
    errors = tool.left_out(submissions)
    assert errors == pytest.approx([math.log(value / 200) for value in submissions["a"]] + [math.log(200 / 110)])
    assert tool.left_out({"a": [100.0, 110.0]}) == pytest.approx([math.log(100 / 110), math.log(110 / 100)])


def test_the_fit_finds_a_line(tool: ModuleType) -> None:
    draws = [tool.Draw(name, x, 3.0 + 1.5 * x) for name, x in (("a", 4.0), ("a", 5.0), ("b", 10.0), ("c", 16.0))]
    assert tool.fit(draws) == pytest.approx((3.0, 1.5))
    assert tool.without("b", draws) == pytest.approx([0.0], abs=1e-9)


def test_the_interval_is_of_order_statistics(tool: ModuleType) -> None:
    errors = [math.log(1 + index / 100) for index in range(1, 100)]  # 99: five of a hundred lie outside on each side
    assert tool.conformal(errors) == pytest.approx((1.05, 1.95))
    assert tool.conformal(errors[:5]) == pytest.approx((1.01, 1.05))  # too few: the widest seen


def test_the_constants_are_those_of_the_published_table(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    folder = REPOSITORY.parent / "shared" / "targets"
    if not (folder / "published_latency.csv").exists():
        pytest.skip(f"{folder} is not there: published latencies are kept outside the repository")
    with pytest.MonkeyPatch.context() as patch:
        given = ["fit_energy.py", str(folder / "published_latency.csv"), str(folder / "hardware.csv")]
        patch.setattr(sys, "argv", given)
        tool.main()
    assert capsys.readouterr().out == energy.CONSTANTS.read_text(encoding="utf-8")


def test_the_targets_figures_are_medians_of_the_published_table(tool: ModuleType) -> None:
    path = REPOSITORY.parent / "shared" / "targets" / "published_latency.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there: published latencies are kept outside the repository")
    parts = tool.microcontrollers(tool._read(path))
    of = {
        "gap9:370mhz": "GAP9",
        "cortex_m33": "STM32U575",
        "cortex_m4": "STM32L4R5",
        "stm32h7a3": "STM32H7A3",
        "hearing_aid": "STM32U385",
        "gap9": "GAP9",
    }
    for name, part in of.items():
        hardware = target(name).hardware
        (found,) = (value for (device, clock), value in parts.items() if part in device and clock == hardware.clock_mhz)
        assert hardware.uw_per_mhz == pytest.approx(tool.part_median(found), abs=0.5), name


def test_published_energies_are_inside_what_is_predicted_from_the_network_alone(tool: ModuleType) -> None:
    """Neither latency nor power of these rows is known to the prediction beyond what the constants were fitted on."""
    pytest.importorskip("onnxruntime", reason="the networks are quantised with it")
    path = REPOSITORY.parent / "shared" / "targets" / "published_latency.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there: published latencies are kept outside the repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPOSITORY / "tools")
        networks = importlib.import_module("mlperf_tiny")
    graphs = {}
    for name, build in networks.NETWORKS.items():
        rng = np.random.default_rng(0)
        graphs[name] = profiles.read(networks.quantised(build(rng), rng))
    inside = []
    for row in tool._read(path):
        of = [name for part, name in PARTS.items() if row["device"].startswith(part)]
        if row["energy_uj"] and of:
            mode = ":370mhz" if row["core_clock_mhz"] == "370" else ""
            cost = profiles.profile(graphs[row["model"]], of[0] + mode, precision="int8", layers=False)
            assert cost.energy_interval_mj is not None
            low, high = cost.energy_interval_mj
            inside.append(low < float(row["energy_uj"]) / 1e3 < high)
    assert len(inside) == 61
    assert sum(inside) >= 0.85 * len(inside)
