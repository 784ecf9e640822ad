"""The suite: every route of onnxruntime that the model knows, in models that onnxruntime runs."""

from collections import Counter

import numpy as np
import onnx
import pytest

from profiles.calibration.build import Net
from profiles.calibration.processor import ends_of, kernels_of
from profiles.calibration.suite import GENERATORS, Sample, suite
from profiles.latency.x86_calls import ROUTES, calls


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(suite())


def test_every_route_is_met_several_times(samples: list[Sample]) -> None:
    met: Counter[str] = Counter()
    for sample in samples:
        kernels = kernels_of(sample.model)
        made = [call for kernel in kernels for call in calls(kernel)] + ends_of(sample.model, kernels, 16)
        met.update({route for route, _ in made})
        for route, counts in made:
            assert len(counts) == len(ROUTES[route])
            assert min(counts) >= 0
            assert counts[0] > 0
    assert not {route for route in ROUTES if met[route] < 4}


def test_two_calibrations_time_the_same_models(samples: list[Sample]) -> None:
    again = list(suite())
    assert [sample.name for sample in samples] == [sample.name for sample in again]
    assert all(one.model == two.model for one, two in zip(samples[::20], again[::20], strict=True))
    assert suite.__defaults__ is not None
    other = next(iter(suite(seed=1)))
    assert other.model != samples[0].model


def test_a_smaller_suite_still_has_every_kind() -> None:
    names = {sample.name.removesuffix(" int8") for sample in suite(share=0.01)}
    assert names == set(GENERATORS)


def test_onnxruntime_runs_the_models() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    for sample in suite(share=0.01):
        onnx.checker.check_model(sample.model, full_check=True)
        session = onnxruntime.InferenceSession(sample.model.SerializeToString(), providers=["CPUExecutionProvider"])
        [source] = session.get_inputs()
        [result] = session.run(None, {"x": np.ones(source.shape, np.float32)})
        assert np.isfinite(result).all()
        [stated] = sample.model.graph.output
        assert list(result.shape) == [dim.dim_value for dim in stated.type.tensor_type.shape.dim]


def test_int8_chains_run_on_codes(tmp_path: "object") -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    net = Net((1, 16, 12, 12), np.random.default_rng(0), int8=True)
    x = net.conv(net.x, 16, 3)
    x = net.pool(net.conv(x, 16, 3, skip=x), "MaxPool")
    model = net.model(net.concat(x, x), coded=True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = f"{tmp_path}/optimised.onnx"
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(f"{tmp_path}/optimised.onnx").graph.node)
    assert found["QLinearConv"] == 2
    assert found["QLinearAdd"] == found["QLinearConcat"] == 1
    assert found["Conv"] == 0
