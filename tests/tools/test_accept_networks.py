"""Every network through the path, and the bars that its row is held to."""

from pathlib import Path

import pytest
import torch

from compress.qat import prepare as qat
from tools import accept_networks, networks
from tools.accept_networks import Agreement, Row

# One network of each kind, with one quantiser: both see every kind of operator between them. The tool runs all pairs.
PAIRS = [
    ("ds_cnn_1d", "tensorrt"),
    ("dynamic_length", "onnxruntime_x86"),
    ("mobilenet_v3", "onnxruntime_x86"),
    ("text_encoder", "tensorrt"),
    ("two_inputs", "onnxruntime_x86"),
    ("unet", "tensorrt"),
    ("wav2small", "tensorrt"),
]
FLOAT = {  # module path -> why it stays float; everything else with weights is quantised
    "dynamic_length": {"gru": "recurrent"},
    "unet": {"up1": "transposed", "up2": "transposed"},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "quantizer"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_prepares_and_converts_with_the_same_numbers(name: str, quantizer: str) -> None:
    network = networks.load(name)
    x = network.inputs(16)
    model = qat.prepare(network.build(), x, quantizer, input_names=network.input_names, dynamic=network.dynamic)
    qat.calibrate(model, [x])
    kept = {site.module: site.reason for site in model.sites if not site.quantized and "depthwise" not in site.reason}
    expected = FLOAT.get(name, {})
    assert kept.keys() == expected.keys()
    assert all(word in kept[module] for module, word in expected.items())
    converted = qat.convert(model)
    with torch.no_grad():
        for one, other in zip(networks.outputs(model, x), networks.outputs(converted, x), strict=True):
            step = float(one.abs().max()) / 127
            assert float(((one - other).abs() <= step).double().mean()) >= 0.999


def test_onnxruntime_agrees_also_at_another_length(tmp_path: Path) -> None:
    quantizer = "onnxruntime_x86"
    network = networks.load("text_encoder")
    x = network.inputs(32)
    model = qat.prepare(network.build(), x, quantizer, input_names=network.input_names, dynamic=network.dynamic)
    qat.calibrate(model, [x])
    path = tmp_path / "model.onnx"
    accept_networks.export(network, model, path)
    axes = network.dynamic.get(network.input_names[0], {})
    cut = [x, *(tuple(tensor.narrow(axis, 0, tensor.shape[axis] // 2) for tensor in x) for axis in axes)]
    assert len(cut) == 2
    for as_written in (True, False):
        run = accept_networks.session(network, path, as_written=as_written)
        for inputs in cut:
            with torch.no_grad():
                expected = networks.outputs(model, inputs)
            for one, other in zip(expected, run(*inputs), strict=True):
                assert one.shape == other.shape
                step = float(one.abs().max()) / 127
                assert float(((one - other).abs() <= step).double().mean()) >= 0.99  # of 160 to 320 values
    assert accept_networks.integer_operators(path) == accept_networks.intended_integers(model)


def row(**changed: object) -> Row:
    good = Agreement(1.0, 0.5, 0.9)
    values = {"intended": 3, "sites": 4, "int8": 3, "engines": {"8.0": "accepted"}, "default": good, "written": good}
    return Row("mlp", "tensorrt", **{**values, "fake_quant": 0.9, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"engines": {"8.0": "no kernel"}}, "SM80: no kernel"),
        ({"int8": 2}, "int8 2 of 3 intended"),
        ({"missed": ("conv",)}, "conv"),
        ({"default": Agreement(0.9989, 1.1, 0.9)}, "default session: 99.89 % within one step"),
        ({"written": Agreement(1.0, 0.5, 0.897)}, "graph as written: -0.30 points"),
        ({"refused": "ExportError"}, "refused: ExportError"),
    ],
)
def test_each_bar_can_be_missed(changed: dict[str, object], sentence: str) -> None:
    assert row().misses() == []
    (found,) = row(**changed).misses()
    assert sentence in found
