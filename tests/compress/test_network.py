"""What a task makes of the network's output travels in the exported file, beside the output itself."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from compress.errors import TaskError
from compress.frontends.unchanged import Unchanged
from compress.network import Model, Postprocessed, with_postprocess
from compress.qat import prepare as qat
from compress.residual_network import ResidualNetwork
from compress.tasks.digits import Digits
from exporters import torch_to_onnx
from profiles.runners import on_onnxruntime


class Ranking(nn.Module):
    """Probabilities and the two likeliest classes."""

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        return logits.softmax(dim=1), logits.topk(2, dim=1).indices


class Likeliest(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits.argmax(dim=1)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    network = ResidualNetwork(1, (8, 16), (1, 1), 5)
    return Model(nn.Identity(), network).eval()


def exported(module: nn.Module, pictures: Tensor, path: Path, names: list[str]) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    torch_to_onnx.convert(
        module, (pictures,), path, opset=20, metadata={}, input_names=["input"], output_names=["logits", *names]
    )
    return dict(on_onnxruntime.load(path, as_written=True).run({"input": pictures.numpy()}))


def test_float_model_answers_with_its_output_and_what_is_made_of_it(model: Model, tmp_path: Path) -> None:
    pictures = torch.rand(6, 1, 12, 12)
    found = exported(Postprocessed(model, Ranking()), pictures, tmp_path / "m.onnx", ["p", "best"])
    with torch.no_grad():
        logits = model(pictures)
    np.testing.assert_allclose(found["logits"], logits.numpy(), atol=1e-5)  # another order of float sums
    np.testing.assert_allclose(found["p"].sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(found["best"][:, 0], logits.argmax(1).numpy())


@pytest.mark.parametrize(("postprocess", "names"), [(Ranking(), ["p", "best"]), (Likeliest(), ["best"])])
def test_quantised_model_keeps_its_codes_and_its_modules_names(
    model: Model, tmp_path: Path, postprocess: nn.Module, names: list[str]
) -> None:
    pictures = torch.rand(6, 1, 12, 12)
    prepared = qat.prepare(model, (pictures,), "tensorrt")
    qat.calibrate(prepared, [pictures])
    alone = exported(qat.convert(prepared), pictures, tmp_path / "alone.onnx", [])
    graph = with_postprocess(qat.convert(prepared), postprocess, len(names))
    found = exported(graph, pictures, tmp_path / "m.onnx", names)
    np.testing.assert_array_equal(found["logits"], alone["logits"])
    best = found["best"] if found["best"].ndim == 1 else found["best"][:, 0]
    np.testing.assert_array_equal(best, alone["logits"].argmax(1))
    modules = {entry.value for node in onnx.load(tmp_path / "m.onnx").graph.node for entry in node.metadata_props}
    assert {"network.head", "postprocess"} <= modules


def test_names_without_what_makes_them_are_told() -> None:
    class Named(Digits):
        name = "named"
        postprocessed_names = ("probability",)

    with pytest.raises(TaskError, match="no postprocess") as refused:
        Named().postprocess()
    assert "leave postprocessed_names empty" in refused.value.fix


class Sum(nn.Module):
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return (ids * mask).sum(dim=1, keepdim=True).float()


class Swap(nn.Module):
    def forward(self, mask: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return ids, mask


@pytest.mark.parametrize("frontend", [Unchanged(), Swap()])
def test_a_front_end_of_several_inputs_feeds_a_network_of_several(frontend: nn.Module, tmp_path: Path) -> None:
    """Integers stay integers into the file, whose batch is free, with and without what the task makes of the output."""
    given = [torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1, 1, 0], [1, 0, 1]])]
    raw = tuple(given if isinstance(frontend, Unchanged) else given[::-1])
    model = Model(frontend, Sum()).eval()
    assert model(*raw).flatten().tolist() == [3.0, 10.0]
    for module, names in ((model, ["sum"]), (Postprocessed(model, Likeliest()), ["sum", "likeliest"])):
        path = tmp_path / "model.onnx"
        torch_to_onnx.convert(
            module, raw, path, opset=20, input_names=["a", "b"], output_names=names, metadata={}, dynamic_batch=True
        )
        three = {name: torch.cat([tensor, tensor[:1]]).numpy() for name, tensor in zip("ab", raw, strict=True)}
        assert on_onnxruntime.load(path).run(three)["sum"].flatten().tolist() == [3.0, 10.0, 3.0]
