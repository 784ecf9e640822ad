"""Files whose lengths are free, also through recurrent layers."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from exporters import torch_to_onnx
from exporters.errors import ExportError

pytestmark = pytest.mark.filterwarnings("ignore:The tensor attribute")  # of torch's own export of recurrent layers


class Strided(nn.Module):
    """(B, 2, samples) -> (B, states, 8): half as many states as samples."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3, 2, 1)
        self.gru = nn.GRU(4, 4, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.conv(x).transpose(1, 2))[0]


def write(module: nn.Module, x: Tensor, path: Path, dynamic: dict[str, dict[int, str]]) -> None:
    torch_to_onnx.convert(
        module.eval(), (x,), path, opset=18, input_names=["x"], output_names=["y"], metadata={}, dynamic=dynamic
    )


def test_a_recurrent_layer_keeps_its_operator_and_any_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = Strided(), tmp_path / "model.onnx"
    write(model, torch.randn(1, 2, 12), path, {"x": {2: "samples"}})
    loaded = onnx.load(path)
    (given,), (made,) = loaded.graph.input, loaded.graph.output
    assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["batch", 2, "samples"]
    shape = [d.dim_param or d.dim_value for d in made.type.tensor_type.shape.dim]
    assert shape[0] == "batch"
    assert shape[2] == 8
    assert "GRU" in [node.op_type for node in loaded.graph.node]
    session = ort.InferenceSession(str(path))
    for batch, samples in ((1, 12), (3, 31), (2, 2)):
        x = torch.randn(batch, 2, samples)
        with torch.no_grad():
            np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], model(x).numpy(), atol=1e-6)


def test_a_length_that_cannot_be_free_is_refused(tmp_path: Path) -> None:
    path, x = tmp_path / "model.onnx", torch.randn(2, 2, 12)
    with pytest.raises(ExportError, match="one size only"):
        write(nn.Sequential(nn.Flatten(), nn.Linear(24, 3)), x, path, {"x": {2: "samples"}})
    with pytest.raises(ExportError, match="dynamic names the input 'wave', but there are x"):
        write(Strided(), x, path, {"wave": {2: "samples"}})
    with pytest.raises(ExportError, match=r"axis 0 of 'x', shape \(2, 2, 12\)"):
        write(Strided(), x, path, {"x": {0: "samples"}})
    with pytest.raises(ExportError, match="'length' would name sizes 2 and 12"):
        write(Strided(), x, path, {"x": {1: "length", 2: "length"}})
    assert not path.exists()
