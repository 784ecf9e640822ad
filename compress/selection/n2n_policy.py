"""The two recurrent policies of N2N learning: one leaves layers out, one makes the others narrower.

Source: arXiv:1709.06030, sections 3.1 (removal, a bidirectional LSTM), 3.2 (shrinkage, an autoregressive LSTM) and 3.4
(REINFORCE). Sizes, multipliers and rates are those of the authors' code; the shrinkage policy learns at 0.01 instead of
0.1, which saturates its softmax ("proposed"). No weight depends on how many layers a network has: a policy that was
trained on one teacher reads any other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.errors import RecipeError
from compress.selection.n2n_layers import ACTED_ON, CHANNELS, ENTRIES, Layers
from profiles.atomic import writing

HIDDEN = 30
DEPTH = 2  # LSTM layers, of both policies
KEEP = 1  # the first policy's action; 0 removes
MULTIPLIERS = (0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""What an action of the second policy multiplies an entry by."""
UNCHANGED = len(MULTIPLIERS) - 1
FORMAT = 1
KEY = "n2n_policies"  # of the file's metadata


@dataclass(frozen=True)
class Rollouts:
    """Some sampled sequences of actions.

    Attributes:
        actions: (N, L) of the first policy, (N, L, 5) of the second, int64; what was not to be decided keeps the layer.
        log_p: (N,) log-probability of the decisions, in nats, with gradient.
    """

    actions: Tensor
    log_p: Tensor


class Policy(Protocol):
    """Both policies, as the search uses them."""

    def sample(self, layers: Layers, count: int, generator: torch.Generator) -> Rollouts: ...

    def parameters(self) -> Any: ...


class RemovalPolicy(nn.Module):
    """Reads all layers in both directions, then decides each one on its own.

    Args:
        entries: numbers per layer: 7, or the paper's 5 for networks without shortcuts.
        hidden: size of the LSTM in each direction.
    """

    def __init__(self, entries: int = len(ENTRIES), hidden: int = HIDDEN) -> None:
        super().__init__()
        self.lstm = nn.LSTM(entries, hidden, num_layers=DEPTH, bidirectional=True)
        self.head = nn.Linear(2 * hidden, 2)

    def forward(self, entries: Tensor) -> Tensor:
        """(L, 1, entries) -> (L, 2) logits of removing and of keeping."""
        states, _ = self.lstm(entries)
        logits: Tensor = self.head(states.squeeze(1))
        return logits

    def log_p(self, layers: Layers, actions: Tensor) -> Tensor:
        """Log-probability of actions (N, L), (N,) in nats: the sum over the layers that are to be decided."""
        log_p = torch.log_softmax(self(layers.entries.unsqueeze(1)), dim=-1)
        chosen = torch.where(actions == KEEP, log_p[:, KEEP], log_p[:, 1 - KEEP])
        return (chosen * layers.removable).sum(dim=1)

    def sample(self, layers: Layers, count: int, generator: torch.Generator) -> Rollouts:
        """`count` masks; layers that cannot be removed are kept and do not count in the log-probability."""
        with torch.no_grad():
            keep = torch.softmax(self(layers.entries.unsqueeze(1)), dim=-1)[:, KEEP]
        drawn = torch.rand(count, len(layers), generator=generator) < keep
        actions = (drawn | ~layers.removable).to(torch.int64)
        return Rollouts(actions, self.log_p(layers, actions))


class ShrinkPolicy(nn.Module):
    """Goes through the layers and reads each as the decisions so far have changed it: once before each of its own
    decisions, and once behind the last.

    Of the five entries of a layer only those are decided that `Layers.shrinkable` names. A layer that has as many
    channels as an earlier one is shown with that one's multiplier.

    Args:
        entries: numbers per layer.
        hidden: size of the LSTM cells.
    """

    def __init__(self, entries: int = len(ENTRIES), hidden: int = HIDDEN) -> None:
        super().__init__()
        self.hidden = hidden
        self.cells = nn.ModuleList(nn.LSTMCell(entries if i == 0 else hidden, hidden) for i in range(DEPTH))
        self.head = nn.Linear(hidden, len(MULTIPLIERS))

    def log_p(self, layers: Layers, actions: Tensor) -> Tensor:
        """Log-probability of actions (N, L, 5), (N,) in nats."""
        return self.walk(layers, len(actions), actions, None).log_p

    def sample(self, layers: Layers, count: int, generator: torch.Generator) -> Rollouts:
        """`count` tables of actions, (count, L, 5)."""
        return self.walk(layers, count, None, generator)

    def read(self, shown: Tensor, state: list[tuple[Tensor, Tensor]]) -> Tensor:
        """One step of the cells, (N, entries) -> (N, hidden); `state` moves on."""
        signal = shown
        for depth, cell in enumerate(self.cells):
            state[depth] = cell(signal, state[depth])
            signal = state[depth][0]
        return signal

    def walk(self, layers: Layers, count: int, given: Tensor | None, generator: torch.Generator | None) -> Rollouts:
        """Go through the layers once, with the actions that are given, or with drawn ones."""
        table = torch.tensor(MULTIPLIERS)
        actions = torch.full((count, len(layers), ACTED_ON), UNCHANGED, dtype=torch.int64)
        total = torch.zeros(count)
        state = [(torch.zeros(count, self.hidden), torch.zeros(count, self.hidden)) for _ in self.cells]
        for i in range(len(layers)):
            shown = layers.entries[i].expand(count, -1).clone()
            if (leader := int(layers.leader[i])) != i:
                shown[:, CHANNELS] *= table[actions[:, leader, CHANNELS]]
            for entry in layers.shrinkable[i].nonzero().flatten().tolist():
                log_p = torch.log_softmax(self.head(self.read(shown, state)), dim=-1)
                if given is None:
                    chosen = torch.multinomial(log_p.detach().exp(), 1, generator=generator).squeeze(1)
                else:
                    chosen = given[:, i, entry]
                actions[:, i, entry] = chosen
                total = total + log_p.gather(1, chosen.unsqueeze(1)).squeeze(1)
                shown = shown.clone()
                shown[:, entry] *= table[chosen]
            self.read(shown, state)  # as it is now: later decisions know of the earlier ones
        return Rollouts(actions, total)


def improve(optimizer: torch.optim.Optimizer, log_p: Tensor, advantages: Tensor) -> None:
    """One step along the mean over the rollouts of advantage times grad log pi (REINFORCE with a baseline).

    Args:
        log_p: (N,), with gradient, of the policy as it is now.
        advantages: (N,); no gradient flows into them.
    """
    optimizer.zero_grad()
    (-(advantages.detach() * log_p).mean()).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def save_policies(path: Path, policies: Mapping[str, nn.Module], facts: Mapping[str, Any]) -> None:
    """Write policies into one safetensors file, as a whole or not at all; `facts` is plain data for its header."""
    tensors = {
        f"{name}.{key}": value.contiguous()
        for name, policy in policies.items()
        for key, value in policy.state_dict().items()
    }
    header = {KEY: json.dumps({"format": FORMAT, "policies": sorted(policies), **facts}, sort_keys=True)}
    with writing(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_policies(path: Path, policies: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Fill policies with what `save_policies` wrote; gives the facts of the header.

    Raises:
        RecipeError: there is no such file, it holds something else, or policies of another size.
    """
    fix = "name a file that the selector n2n wrote (its setting save_policy), or leave the setting policy empty"
    try:
        with safe_open(path, framework="pt") as handle:
            header = (handle.metadata() or {}).get(KEY)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118  (no mapping)
    except FileNotFoundError as error:
        raise RecipeError(f"there is no file of policies {path}", fix=fix) from error
    except (SafetensorError, OSError) as error:
        raise RecipeError(f"{path} cannot be read as safetensors: {error}", fix=fix) from error
    facts: dict[str, Any] = {} if header is None else json.loads(header)
    if facts.get("format") != FORMAT:
        raise RecipeError(f"{path} holds no policies of N2N learning in format {FORMAT}", fix=fix)
    for name, policy in policies.items():
        own = {key.removeprefix(name + "."): value for key, value in tensors.items() if key.startswith(name + ".")}
        wanted = {key: tuple(value.shape) for key, value in policy.state_dict().items()}
        if {key: tuple(value.shape) for key, value in own.items()} != wanted:
            raise RecipeError(f"the policy {name!r} in {path} is absent or has other sizes", fix=fix)
        policy.load_state_dict(own)
    return facts
