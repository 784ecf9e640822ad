"""Precision by capability, images laid out for convolutions, the random state left alone."""

import pytest
import torch

from compress.contracts.batch import Batch
from compress.training.devices import laid_out, repeatable, resolved_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("avx", "amx", "chosen"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_auto_follows_the_processor(monkeypatch: pytest.MonkeyPatch, avx: bool, amx: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert resolved_precision("auto", CPU) == chosen
    assert resolved_precision("fp32", CPU) == "fp32"
    assert resolved_precision("bf16", CPU) == "bf16"


def test_images_alone_become_channels_last() -> None:
    batch = Batch((torch.randn(2, 3, 4, 4), torch.randn(2, 5)), None, torch.arange(2), stream="train")
    images, vectors = laid_out(batch).inputs
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, batch.inputs[0])
    assert vectors is batch.inputs[1]
    assert laid_out(batch).stream == "train"


def test_random_state_is_restored() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with repeatable(CPU):
        torch.rand(100)
    assert torch.equal(torch.rand(1), expected)
