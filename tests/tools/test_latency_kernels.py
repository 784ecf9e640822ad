import builtins
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import latency_kernels
import latency_memory
import latency_model
import numpy as np
import pytest
from latency_kernels import Timed
from latency_rows import gpus

from profiles.fuse import fuse
from profiles.latency import nvidia_gpu
from profiles.latency.nvidia_gpu import Constants

USUAL = np.log([0.7, 0.75, 0.3, 0.1, 0.2, 0.35, 230.0, 0.78, 1.5, 0.6, 12.0, 5.0, 30.0])


@pytest.fixture
def fresh() -> Iterator[None]:
    latency_kernels._built.cache_clear()
    yield
    latency_kernels._built.cache_clear()


def hardware(name: str) -> Any:
    return latency_kernels.hardware_of(next(gpu for gpu in gpus() if gpu.name == name))


@pytest.mark.parametrize(
    ("model", "shape", "precision"),
    [("resnet50-v1.5", "3x224x224", "int8"), ("bert-large", "seq 128", "fp16"), ("yolo11n", "3x640x640", "fp16")],
)
def test_stored_kernels_are_those_of_the_architecture(model: str, shape: str, precision: Any) -> None:
    pytest.importorskip("torch")
    stored = latency_kernels._stored()
    found = next((key for key in stored if key[0] == model and key[2] == precision), (model, shape, precision))
    assert stored[found] == latency_kernels._built(*found)


def test_merged_kernels_of_a_batch_take_as_long_as_its_graph() -> None:
    pytest.importorskip("torch")
    import architectures

    batch, orin = 8, hardware("Jetson AGX Orin 64GB")
    constants = Constants(*np.exp(USUAL).tolist())
    plan = fuse(architectures.graph_of("mobilenet_v2", "3x224x224", batch), "nvidia-gpu", "int8")
    times = [nvidia_gpu.kernel_ms(k.once, orin, constants)[0] * k.repeats for k in plan.kernels]
    kernels = latency_kernels.kernels_of("mobilenet_v2", "3x224x224", "int8")
    assert kernels is not None
    assert len(kernels) < len(plan.kernels)
    row = Timed(latency_kernels.at_batch(kernels, batch), orin, "jetson", batch)
    found = latency_kernels.log_ms([row], {"jetson": USUAL})
    assert np.exp(found[0]) == pytest.approx((sum(times) + 0.030) / batch)


def test_one_kernel_worked_by_hand() -> None:
    # 1e9 multiply-accumulates of depth 230 on 312 tera-operations per second at 0.7 / (1 + 230 / 230), all blocks busy:
    # 2e9 / (312e12 * 0.35) = 18.315 us; 10.8 MB of weights at 1555 GB/s * 0.78 = 8.904 us, 0.6 of which hides; launch
    # 12 us at 1 GHz is 8.511 us at 1.41 GHz; 30 us once.
    kernel = latency_kernels._kernel("dense", False, "fp16", 10**9, 230, 64, 108 * 4096, 0, 10_800_000, 1.0)
    row = Timed((kernel,), hardware("A100-SXM4-40GB"), "a100", 1)
    found = float(np.exp(latency_kernels.log_ms([row], {"a100": USUAL})[0]))
    assert found == pytest.approx((18.315 + 0.4 * 8.904 + 8.511 + 30.0) / 1e3, rel=1e-4)


def test_a_row_without_kernels_or_without_constants_has_no_time() -> None:
    row = Timed((), hardware("Jetson TX2"), "jetson-cuda-cores", 1)
    assert np.isnan(latency_kernels.log_ms([None, row], {"a100": USUAL})).all()


def test_without_torch_an_unknown_model_has_no_kernels(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name in ("torch", "architectures"):
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "architectures", raising=False)
    assert latency_kernels.kernels_of("resnet34", "3x160x160", "fp16") is None
    assert latency_kernels.kernels_of(*next(iter(latency_kernels._stored()))) is not None


def test_a_device_that_is_not_listed_is_left_to_the_totals() -> None:
    memory = latency_memory.load()
    row = next(row for row in memory.rows if row.device.startswith("A100") and row.model.startswith("resnet50"))
    assert latency_model.row_kernels(row, gpus()) is not None
    assert latency_model.row_kernels(replace(row, device="Tesla T4"), gpus()) is None


def test_constants_read_back_as_they_were_written() -> None:
    path = latency_memory.FACTS / "fitted.toml"
    fitted = latency_memory.read_fitted(path)["gpu"]
    assert set(fitted.constants) == {"a100", "jetson", "jetson-xavier", "jetson-cuda-cores"}
    old = path.read_text(encoding="utf-8")
    head = old[: old.index("[")]
    assert head + latency_memory.replaced(old, {}) == old
    text = latency_memory.fitted_text("gpu", fitted, "as it was")
    assert latency_memory.replaced(old, {"gpu": text}).count('["gpu"]\n') == 1
