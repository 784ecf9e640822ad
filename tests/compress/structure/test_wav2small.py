"""Counts, shapes and invariances of the published network."""

import pytest
import torch
from torch import nn

from compress.frontends.decibel_mel import DecibelMel
from compress.network import Model
from compress.structure.wav2small import Wav2SmallNetwork, trainable_parameters


def published(channels: int = 13) -> Model:
    torch.manual_seed(0)
    return Model(DecibelMel(rate_hz=16_000, hop=32, mels=26), Wav2SmallNetwork(channels, 26, 3)).eval()


@pytest.mark.parametrize(("channels", "count", "with_all"), [(13, 10_806, 16_077), (33, 66_366, 71_917)])
def test_counts(channels: int, count: int, with_all: int) -> None:
    model = published(channels)
    assert sum(p.numel() for p in model.parameters()) == trainable_parameters(channels) == count
    assert count + sum(b.numel() for b in model.buffers()) == with_all  # the transform, the bank and batch norms' own


def test_shapes_on_the_way() -> None:
    model, found = published(), {}
    for name in ("before", "halve", "after", "pool.value"):
        model.network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: found.update({name: tuple(output.shape)})
        )
    with torch.no_grad():
        assert model(torch.randn(1, 16_000)).shape == (1, 3)
    # The release has time before frequency: (13, 499, 26), then (13, 250, 13).
    assert found == {
        "before": (1, 13, 26, 499), "halve": (1, 13, 13, 250), "after": (1, 13, 13, 250), "pool.value": (1, 13, 13, 250)
    }  # fmt: skip
    assert (len(model.network.before), len(model.network.after)) == (3, 4)
    head, gram = model.network.pool.head, model.network.pool.gram_head
    assert head.in_features + gram.in_features == 338


def test_the_max_pool_looks_at_three_places_with_a_border_on_every_side() -> None:
    impulse = torch.zeros(1, 1, 6, 6)
    impulse[0, 0, 1, 3] = 1.0  # a window of 3 with stride 2 sees it twice along each axis, one of 2 once
    found = published().network.halve(impulse)[0, 0]
    assert found.nonzero().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert set(found.unique().tolist()) == {0.0, 1.0}


def test_convolutions_have_no_bias_but_those_of_the_pooling() -> None:
    model = published()
    biased = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert biased == ["network.pool.value", "network.pool.weight"]
    for block in (*model.network.before, *model.network.after):
        assert [type(part) for part in block] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_pooling_is_a_softmax_over_time_and_a_gram_matrix() -> None:
    """By the definition, with a matrix product; time twice over changes nothing, so the softmax is over time."""
    pool = published().network.pool
    x = torch.randn(2, 13, 13, 9)
    with torch.no_grad():
        z = (pool.value(x) * pool.weight(x).softmax(dim=3)).sum(dim=3)
        both = torch.cat([z, z @ z.transpose(1, 2)], dim=2).flatten(1)
        weight = torch.cat([pool.head.weight.reshape(3, 13, 13), pool.gram_head.weight.reshape(3, 13, 13)], dim=2)
        expected = both @ weight.flatten(1).T + pool.head.bias
        torch.testing.assert_close(pool(x), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pool(torch.cat([x, x], dim=3)), pool(x), atol=1e-5, rtol=1e-5)


def test_gain_and_offset_change_nothing() -> None:
    model, signal = published(), torch.randn(2, 4000)
    with torch.no_grad():
        torch.testing.assert_close(model(2.5 * signal - 0.3), model(signal), atol=0, rtol=1e-5)


def test_every_second_frame_is_what_twice_the_hop_gives() -> None:
    torch.manual_seed(0)
    thin = Wav2SmallNetwork(5, 26, 3, every=2).eval()
    torch.manual_seed(0)
    plain = Wav2SmallNetwork(5, 26, 3).eval()
    signal = torch.randn(1, 4096)
    hops = [DecibelMel(rate_hz=16_000, hop=hop, mels=26) for hop in (32, 64)]
    with torch.no_grad():
        torch.testing.assert_close(thin(hops[0](signal)), plain(hops[1](signal)))
