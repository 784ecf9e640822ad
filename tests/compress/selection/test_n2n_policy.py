"""The gradient against its exact value, independence of length, what is decided and what is not, files."""

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.errors import RecipeError
from compress.selection.n2n_layers import CHANNELS, ENTRIES, KERNEL, Layers
from compress.selection.n2n_policy import (
    MULTIPLIERS,
    UNCHANGED,
    RemovalPolicy,
    ShrinkPolicy,
    improve,
    load_policies,
    save_policies,
)
from compress.selection.n2n_reward import per_rollout

FIVE_SIGMA = 5.0  # over 121 frequencies


def layers_of(length: int, *, fixed: tuple[int, ...] = (), seed: int = 0, entries: int = len(ENTRIES)) -> Layers:
    """Layers with random numbers; all can be removed but those that are fixed, all can be narrowed."""
    numbers = torch.rand(length, entries, generator=torch.Generator().manual_seed(seed))
    removable = torch.tensor([place not in fixed for place in range(length)])
    shrinkable = torch.zeros(length, 5, dtype=torch.bool)
    shrinkable[removable, CHANNELS] = True
    names = tuple(f"layer{place}" for place in range(length))
    return Layers(names, numbers, removable, shrinkable, torch.arange(length))


def flat(policy: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in policy.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_the_sampled_gradient_is_the_exact_one_with_any_baseline(baseline: float) -> None:
    """All 8 masks of 3 layers with given rewards: -sum_a pi(a) R(a) grad log pi(a)."""
    torch.manual_seed(0)
    policy, layers = RemovalPolicy(hidden=4), layers_of(3)
    masks = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    rewards = torch.tensor([0.1, 0.9, -1.0, 0.4, 0.3, 0.7, 0.2, 0.6])
    log_p = policy.log_p(layers, masks)
    assert float(log_p.detach().exp().sum()) == pytest.approx(1.0, abs=1e-6)
    gradients = []
    for one in log_p:
        policy.zero_grad()
        one.backward(retain_graph=True)
        gradients.append(flat(policy).double())
    scores = torch.stack(gradients)  # grad log pi of each mask
    p = log_p.detach().exp().double()
    exact = -(p * rewards.double()) @ scores

    count, generator = 20_000, torch.Generator().manual_seed(1)
    rolled = policy.sample(layers, count, generator)
    values = rewards[(rolled.actions * torch.tensor([4, 2, 1])).sum(dim=1)]
    policy.zero_grad()
    improve(torch.optim.SGD(policy.parameters(), lr=0.0), rolled.log_p, per_rollout(values, baseline))
    sampled = flat(policy).double()

    terms = (rewards.double() - baseline).unsqueeze(1) * scores
    variance = (p.unsqueeze(1) * terms.square()).sum(dim=0) - (p.unsqueeze(1) * terms).sum(dim=0).square()
    error = (variance / count).sqrt()
    assert float(exact.abs().max()) > 1e-3
    # The scores of 8 masks span at most 3 dimensions, the logits': many parameters, few independent comparisons.
    wrong = (sampled - exact).abs() > 3.0 * error + 1e-7
    assert not bool(wrong.any()), f"{int(wrong.sum())} of {len(wrong)}"


def test_one_step_credits_the_better_student_and_blames_the_worse() -> None:
    """With the mean reward as everybody's advantage (0 here) nothing would move."""
    torch.manual_seed(0)
    policy, layers = RemovalPolicy(), layers_of(3)
    actions = torch.tensor([[1, 1, 1], [0, 0, 0]])
    before = policy.log_p(layers, actions).detach()
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    improve(optimizer, policy.log_p(layers, actions), per_rollout(torch.tensor([1.0, 0.0]), 0.5))
    after = policy.log_p(layers, actions).detach()
    assert after[0] > before[0]
    assert after[1] < before[1]
    averaged = torch.full((2,), 0.5 - 0.5)
    improve(optimizer, policy.log_p(layers, actions), averaged)
    torch.testing.assert_close(policy.log_p(layers, actions).detach(), after)


def test_a_step_is_the_mean_over_the_rollouts() -> None:
    torch.manual_seed(0)
    policy, layers = RemovalPolicy(), layers_of(3)
    once = torch.tensor([[1, 0, 1]])
    for count in (1, 7):
        policy.zero_grad()
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
        improve(optimizer, policy.log_p(layers, once.expand(count, 3)), torch.ones(count))
        if count == 1:
            alone = flat(policy)
    torch.testing.assert_close(flat(policy), alone)


@pytest.mark.parametrize("kind", [RemovalPolicy, ShrinkPolicy])
def test_a_policy_of_8_layers_reads_12(kind: type[RemovalPolicy | ShrinkPolicy], tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = kind()
    optimizer = torch.optim.Adam(small.parameters(), lr=0.01)
    rolled = small.sample(layers_of(8), 4, torch.Generator().manual_seed(0))
    improve(optimizer, rolled.log_p, torch.tensor([1.0, -1.0, 0.5, 0.0]))
    save_policies(tmp_path / "policy.safetensors", {"it": small}, {"layers": 8})
    large = kind()
    assert load_policies(tmp_path / "policy.safetensors", {"it": large})["layers"] == 8
    twelve = layers_of(12, seed=1)
    one, other = (policy.sample(twelve, 3, torch.Generator().manual_seed(5)) for policy in (small, large))
    assert one.actions.shape[:2] == (3, 12)
    assert torch.equal(one.actions, other.actions)
    torch.testing.assert_close(one.log_p, other.log_p)


def test_fixed_layers_stay_and_do_not_count() -> None:
    torch.manual_seed(0)
    policy, layers = RemovalPolicy(), layers_of(6, fixed=(0, 3, 5))
    rolled = policy.sample(layers, 200, torch.Generator().manual_seed(0))
    assert bool(rolled.actions[:, [0, 3, 5]].all())
    assert set(rolled.actions[:, 1].tolist()) == {0, 1}
    log_p = torch.log_softmax(policy(layers.entries.unsqueeze(1)), dim=-1).detach()
    by_hand = [sum(float(log_p[place, int(mask[place])]) for place in (1, 2, 4)) for mask in rolled.actions[:5]]
    assert rolled.log_p[:5].tolist() == pytest.approx(by_hand, abs=1e-5)


def test_the_paper_s_five_numbers_do_as_well() -> None:
    layers = layers_of(4, entries=5)
    assert RemovalPolicy(5)(layers.entries.unsqueeze(1)).shape == (4, 2)
    assert ShrinkPolicy(5).sample(layers, 2, torch.Generator()).actions.shape == (2, 4, 5)


def test_the_second_policy_changes_only_what_may_shrink() -> None:
    torch.manual_seed(0)
    policy, layers = ShrinkPolicy(), layers_of(4, fixed=(0, 2))
    layers.shrinkable[3, KERNEL] = True
    actions = policy.sample(layers, 300, torch.Generator().manual_seed(0)).actions
    fixed = ~layers.shrinkable
    assert bool((actions[:, fixed] == UNCHANGED).all())
    for entry in layers.shrinkable.nonzero().tolist():
        assert set(actions[:, entry[0], entry[1]].tolist()) == set(range(len(MULTIPLIERS)))


def test_the_second_policy_s_probabilities_sum_to_one_and_agree_with_sampling() -> None:
    torch.manual_seed(0)
    policy, layers = ShrinkPolicy(hidden=5), layers_of(3, fixed=(1,))
    actions = torch.full((121, 3, 5), UNCHANGED)
    pairs = torch.tensor(list(itertools.product(range(11), repeat=2)))
    actions[:, 0, CHANNELS], actions[:, 2, CHANNELS] = pairs[:, 0], pairs[:, 1]
    p = policy.log_p(layers, actions).detach().exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-5)
    drawn = policy.sample(layers, 20_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.log_p, policy.log_p(layers, drawn.actions))
    often = torch.bincount(drawn.actions[:, 0, CHANNELS] * 11 + drawn.actions[:, 2, CHANNELS], minlength=121) / 20_000
    assert bool(((often - p).abs() < FIVE_SIGMA * (p * (1 - p) / 20_000).sqrt()).all())


@pytest.mark.parametrize("led", [False, True])
def test_what_was_decided_is_read_by_later_layers(led: bool) -> None:
    """Autoregressive: an early multiplier changes the odds of a later one, more so through a layer that follows it."""
    torch.manual_seed(0)
    policy, layers, alone = ShrinkPolicy(), layers_of(3, fixed=(1,)), layers_of(1)
    given = torch.full((2, 3, 5), UNCHANGED)
    given[0, 0, CHANNELS] = 0  # 0.25
    later = [policy.log_p(layers, one[None]) - policy.log_p(alone, one[None, :1]) for one in given]
    assert abs(float((later[0] - later[1]).detach())) > 1e-5
    if led:
        layers.leader[1] = 0
        more = [policy.log_p(layers, one[None]) - policy.log_p(alone, one[None, :1]) for one in given]
        assert float((more[0] - later[0]).detach()) != 0.0
        torch.testing.assert_close(more[1], later[1])  # a multiplier of 1 changes nothing that is shown


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no file of policies"):
        load_policies(tmp_path / "absent.safetensors", {})
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_policies(tmp_path / "text.safetensors", {})
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(RecipeError, match="holds no policies"):
        load_policies(tmp_path / "weights.safetensors", {})
    save_policies(tmp_path / "small.safetensors", {"removal": RemovalPolicy(hidden=4)}, {})
    with pytest.raises(RecipeError, match=r"'removal'.*other sizes"):
        load_policies(tmp_path / "small.safetensors", {"removal": RemovalPolicy()})
    with pytest.raises(RecipeError, match=r"'shrink'.*absent"):
        load_policies(tmp_path / "small.safetensors", {"shrink": ShrinkPolicy()})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, policy = tmp_path / "p.safetensors", RemovalPolicy()
    save_policies(path, {"removal": policy}, {"run": 1})

    def broken(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("compress.selection.n2n_policy.save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save_policies(path, {"removal": policy}, {"run": 2})
    assert load_policies(path, {"removal": policy})["run"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["p.safetensors"]
