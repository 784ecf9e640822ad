import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import profiles
from profiles.fuse import Kernel
from profiles.latency.models import latency_model
from profiles.latency.riscv_cluster import Constants, kernel_ms

REPOSITORY = Path(__file__).parents[3]
TOOLS = REPOSITORY / "tools"
CONSTANTS = Constants(dense=100.0, depthwise=10.0, float_mac=4.0, bytes_per_cycle=8.0, layer_cycles=500.0)


def layer(kind: str, macs: int, precision: str = "int8", repeats: int = 1) -> Kernel:
    """A layer that reads 3,000 bytes of activations and 1,000 of weights, and writes 4,000."""
    return Kernel(
        "layer", kind, (), macs, 1, 1, 1, (), (), (), 3000, 4000, 1000, precision, 0, repeats=repeats,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        spec = importlib.util.spec_from_file_location("fit_riscv_cluster", TOOLS / "fit_riscv_cluster.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["fit_riscv_cluster"] = module
        spec.loader.exec_module(module)
        return module


@pytest.mark.parametrize(
    ("kernel", "cycles", "bound"),
    [
        (layer("dense", 400_000), 4000 + 1000 + 500, "compute"),
        (layer("depthwise", 400_000), 40_000 + 1000 + 500, "compute"),
        (layer("dense", 10_000), 100 + 1000 + 500, "memory"),
        (layer("pointwise", 0), 1000 + 500, "memory"),
        (layer("dense", 400_000, "fp16"), 100_000 + 1000 + 500, "compute"),
        (layer("recurrent", 400_000, "fp16", 2), 100_000 + 2000 + 1000, "compute"),
    ],
)
def test_cycles_worked_by_hand(kernel: Kernel, cycles: float, bound: str) -> None:
    hardware = profiles.target("gap9").hardware
    ms, by = kernel_ms(kernel, hardware, CONSTANTS)
    assert ms == pytest.approx(cycles / 240e3)
    assert by == bound


def test_cycles_do_not_depend_on_the_clock() -> None:
    slow, fast = profiles.target("gap9"), profiles.target("gap9:370mhz")
    times = [kernel_ms(layer("dense", 1000), found.hardware, CONSTANTS)[0] for found in (slow, fast)]
    assert times[0] / times[1] == pytest.approx(370 / 240)
    assert latency_model(slow) == latency_model(fast)


def test_constants_are_found_again(tool: ModuleType) -> None:
    """Three made networks, timed by the model itself with constants on the grid."""
    truth = list(tool._grid())[5000]
    nets = {
        "wide": [layer("dense", 9_000_000)],
        "thin": [layer("depthwise", 900_000)],
        "deep": [layer("pointwise", 0)] * 50,
    }
    measured = {name: tool.cycles_of(kernels, truth) for name, kernels in nets.items()}
    found = tool.fit(measured, nets)
    for name, kernels in nets.items():
        assert tool.cycles_of(kernels, found) == pytest.approx(measured[name], rel=0.02)


def test_published_latencies_are_inside(tool: ModuleType) -> None:
    table = REPOSITORY.parent / "shared" / "targets" / "published_latency.csv"
    if not table.exists():
        pytest.skip(f"{table} is not there: published latencies are kept outside the repository")
    pytest.importorskip("onnxruntime", reason="the networks are quantised with it")
    model = latency_model(profiles.target("gap9"))
    measured = tool.published(table)
    assert len(measured) == 4
    for name, kernels in tool.networks().items():
        share = measured[name] / tool.cycles_of(kernels, model.constants)
        assert model.interval[0] < share < model.interval[1], name
