"""The latency models (x86: test_x86.py): one kernel worked by hand each, and published rows inside the interval."""

import csv
import importlib.util
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import profiles
from profiles.fuse import Kernel
from profiles.graph import Weight
from profiles.latency import cortex_m, nvidia_gpu
from profiles.latency.models import latency_model
from profiles.target import Hardware

REPOSITORY = Path(__file__).resolve().parents[3]
HARDWARE = Hardware(
    clock_mhz=1000, units=4, tops={"fp32": 1.0, "fp16": 2.0, "int8": 4.0}, bandwidth_gbs=10.0, cache_kib=1
)

# 1000 outputs of 16 channels, K = 100, int8: 1600 KMAC; 4 KB read, 16 KB written, 1600 B of weights.
KERNEL = Kernel(
    name="conv",
    kind="dense",
    operators=("Conv",),
    macs=1_600_000,
    depth=100,
    channels=16,
    elements=16_000,
    weights=(Weight("w", 1600, "int8"),),
    reads=("x",),
    writes=("y",),
    read_bytes=4_000,
    written_bytes=16_000,
    weight_bytes=1_600,
    precision="int8",
    vector_elements=0,
)


def test_a_gpu_kernel_by_hand() -> None:
    constants = nvidia_gpu.Constants(
        dense=0.5, gemm=1, matmul=1, grouped=1, depthwise=1, half_depth=100, bandwidth=0.5, cache_speedup=2,
        launch_us=3, light_launch_us=1, fixed_us=10,
    )  # fmt: skip
    latency, bound = nvidia_gpu.kernel_ms(KERNEL, HARDWARE, constants)
    # 16 tiles of 64 rows on 4 processors are 4 full waves. 3.2 MOP / (4 TOP/s * 0.5 * 100/200) = 3.2 us;
    # 21.6 KB at half of 10 GB/s = 4.32 us, none of it cached; 3 us to launch at 1 GHz.
    assert latency == pytest.approx((3.2 + 4.32 + 3.0) / 1e3)
    assert bound == "memory"
    cached = replace(HARDWARE, cache_kib=64)
    assert nvidia_gpu.kernel_ms(KERNEL, cached, constants)[0] == pytest.approx((3.2 + 0.32 + 2.0 + 3.0) / 1e3)
    fp16 = replace(KERNEL, precision="fp16")
    assert nvidia_gpu.kernel_ms(fp16, HARDWARE, constants)[0] == pytest.approx((6.4 + 4.32 + 3.0) / 1e3)


def test_the_last_wave_of_blocks_is_not_full() -> None:
    four, five = (replace(KERNEL, elements=16 * 64 * blocks) for blocks in (4, 5))
    assert nvidia_gpu.occupancy(four, HARDWARE) == 1.0
    assert nvidia_gpu.occupancy(five, HARDWARE) == 5 / 8


def test_a_microcontroller_layer_by_hand() -> None:
    plain = {field.name: 0.0 for field in fields(cortex_m.Constants)}
    constants = cortex_m.Constants(
        **{
            **plain,
            "dense": 2.0,
            "element": 10.0,
            "call": 100.0,
            "float_mac": 5.0,
            "pooled_byte": 3.0,
            "cycles_per_instruction": 1.25,
            "cycles_per_output": 2.0,
        }
    )
    assert cortex_m.instructions(KERNEL, constants) == 100 + 3_200_000 + 160_000
    assert cortex_m.instructions(replace(KERNEL, precision="fp32"), constants) == 100 + 8_000_000 + 160_000
    assert cortex_m.instructions(replace(KERNEL, kind="pool", macs=0), constants) == 100 + 12_000
    latency, _ = cortex_m.kernel_ms(KERNEL, HARDWARE, constants)
    assert latency == pytest.approx((3_360_100 * 1.25 + 16_000 * 2.0) / 1e6)


@pytest.mark.parametrize("name", ["a100", "jetson", "hearing_aid", "x86"])
def test_constants_say_where_they_are_from(name: str) -> None:
    model = latency_model(profiles.target(name))
    assert "median" in model.origin
    assert model.interval[0] < 1 < model.interval[1]
    assert not model.stretched


@pytest.fixture(scope="module")
def fitting() -> ModuleType:
    """tools/fit_latency.py."""
    pytest.importorskip("scipy")
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("fit_latency", REPOSITORY / "tools" / "fit_latency.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fit_latency"] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_published_latencies_are_inside_the_interval_about_as_often_as_it_says(
    fitting: ModuleType, tmp_path: Path
) -> None:
    folder = REPOSITORY.parent / "shared" / "targets"
    if not (folder / "published_latency.csv").is_file():
        pytest.skip("the published latencies (../shared/targets) are not beside this checkout")
    families = {"resnet", "vgg", "squeezenet", "fcn-resnet18", "mnasnet", "alexnet", "ssd"}
    with (folder / "published_latency.csv").open(newline="", encoding="utf-8") as handle:
        table = [row for row in csv.DictReader(handle) if row["family"] in families]
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, table[0].keys())
        writer.writeheader()
        writer.writerows(table)
    rows = fitting.read(tmp_path / "rows.csv", folder / "hardware.csv")
    assert len(rows) > 80
    inside = []
    for row in rows:
        name = "a100" if row.capability == "8.0" else "jetson"
        if row.capability not in ("8.0", "7.2", "8.7"):
            continue
        model = latency_model(profiles.target(name))
        kernels = (model.kernel_ms(kernel, row.hardware, model.constants)[0] for kernel in row.kernels)
        ratio = row.latency_ms / (sum(kernels) + model.fixed_ms)
        inside.append(model.interval[0] <= ratio <= model.interval[1])
    assert np.mean(inside) > 0.85  # said: 90 % of unseen families; these were seen


def test_the_fit_uses_the_formula_that_predicts(fitting: ModuleType) -> None:
    row = fitting.Row("m", "f", "d", "s", "8.0", HARDWARE, 1, 1.0, (KERNEL, replace(KERNEL, kind="pool", macs=0)))
    logs = np.log([fitting.BOUNDS[name][0] for name in fitting.NAMES])
    assert fitting.agrees([row], logs)
