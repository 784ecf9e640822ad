"""What is laid over what, and that nobody looks at labels."""

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.errors import RecipeError
from compress.strategies.mixed_signals import MixedSignals, overlaid

CLOCK = Clock("distill", 0, 1, 0, 1)


def batch() -> Batch:
    signal = torch.eye(16)  # every signal has a place of its own, which tells what was mixed
    return Batch((signal,), torch.ones(16, 3), torch.arange(16), stream="train")


def shown(strategy: MixedSignals, seed: int = 0) -> Batch:
    return strategy.transform({"train": batch()}, {}, CLOCK, torch.Generator().manual_seed(seed))["train"]


def test_levels_by_hand() -> None:
    found = overlaid(
        torch.tensor([[1.0, -1.0], [0.5, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([0.5, 0.0])
    )
    torch.testing.assert_close(found, torch.tensor([[1 / 1.5, -0.5 / 1.5], [0.5, 0.0]]))


def test_labels_are_gone_and_a_cache_may_answer_only_for_unmixed_signals() -> None:
    plain, mixing = MixedSignals(share=0.0), MixedSignals(share=1.0)
    assert plain.deterministic
    assert not mixing.deterministic
    assert shown(plain).labels is None
    assert shown(plain).stream == "train"
    assert torch.equal(shown(plain).inputs[0], batch().inputs[0])
    assert shown(mixing).labels is None
    assert shown(mixing).stream == ""


def test_a_share_of_the_signals_gets_another_one_at_a_level_of_the_range() -> None:
    found = shown(MixedSignals(share=1.0, quietest_db=-20.0)).inputs[0]
    own = found.diagonal()
    assert torch.all((own >= 0.5) & (own <= 1.0))
    assert int((own < 1.0).sum()) >= 12  # all but those that met themselves
    torch.testing.assert_close(found.sum(dim=1), torch.ones(16))
    levels = (1.0 - own) / own
    assert torch.all((levels == 0) | (levels >= 0.0999))  # 0 where a signal met itself
    halves = [(shown(MixedSignals(share=0.5), seed).inputs[0].diagonal() < 1).float().mean() for seed in range(40)]
    assert 0.35 < float(torch.stack(halves).mean()) < 0.6


def test_half_of_the_signals_and_20_db_are_proposed() -> None:
    assert (MixedSignals()._share, MixedSignals()._quietest) == (0.5, -20.0)


def test_the_generator_alone_decides() -> None:
    assert torch.equal(shown(MixedSignals(), 3).inputs[0], shown(MixedSignals(), 3).inputs[0])
    assert not torch.equal(shown(MixedSignals(), 3).inputs[0], shown(MixedSignals(), 4).inputs[0])


@pytest.mark.parametrize("numbers", [{"share": 1.5}, {"quietest_db": 3.0}])
def test_refuses_numbers_out_of_range(numbers: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(numbers))):
        MixedSignals(**numbers)
