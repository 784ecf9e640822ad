"""The networks that everything is tried on."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tools import networks


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_the_kinds_that_there_must_be() -> None:
    assert len(networks.names()) == 13
    with pytest.raises(ValueError, match="there are ds_cnn_1d, "):
        networks.load("resnet1000")


@pytest.mark.parametrize("name", networks.names())
def test_network_and_data_fit(name: str) -> None:
    network = networks.load(name)
    split = network.samples(8, 3, "train")
    assert len(split.inputs) == len(network.input_names)
    model = network.build()
    outputs = networks.outputs(model, split.inputs)
    assert len(outputs) == len(network.output_names)
    correct = network.correct(outputs, split.labels)
    assert correct.shape == (8,)
    assert bool(((correct >= 0) & (correct <= 1)).all())
    assert torch.isfinite(network.loss(outputs, split.labels))
    assert 10_000 <= sum(p.numel() for p in model.parameters()) <= 200_000
    again = network.samples(8, 3, "train")
    assert all(torch.equal(a, b) for a, b in zip(split.inputs, again.inputs, strict=True))
    other = network.samples(8, 3, "test")
    assert not torch.equal(split.inputs[0], other.inputs[0])
    twin = network.build()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("name", ["text_encoder", "dynamic_length"])
def test_a_free_length_is_free(name: str) -> None:
    network = networks.load(name)
    (x,) = network.inputs(4)
    ((axis, _),) = network.dynamic[network.input_names[0]].items()
    half = x.narrow(axis, 0, x.shape[axis] // 2)
    assert network.build()(half).shape == network.build()(x).shape


def test_training_learns_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path))
    network = networks.load("mlp")
    model = networks.trained("mlp")
    assert networks.score(network, network.build()) < 0.2
    assert 0.75 < networks.score(network, model) < 0.99

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr(networks, "train", forbidden)
    again = networks.trained("mlp")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_perfect_answer_scores_one() -> None:
    network = networks.load("plain_cnn")
    labels = iter(network.data("test").labels.split(500))

    def knows(*_: object) -> torch.Tensor:
        return nn.functional.one_hot(next(labels), 10).float()

    assert networks.score(network, knows) == 1.0
