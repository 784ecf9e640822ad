"""Students of a ResNet-18 by masks and multipliers, the search inside a problem, its budget, its answers."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.selector import Candidate, Outcome, Problem, Trial, identity_of
from compress.contracts.space import SpaceContext
from compress.contracts.task import Task
from compress.errors import RecipeError
from compress.residual_network import ResidualNetwork
from compress.selection.n2n_layers import CHANNELS, KERNEL
from compress.selection.n2n_policy import MULTIPLIERS, UNCHANGED
from compress.selection.n2n_reward import DEGENERATE, n2n_reward
from compress.selection.n2n_search import Judge, Size, Worth
from compress.selectors.n2n import N2N, SELECTOR, Cutter
from compress.spaces.derived import Derived, Plan
from profiles.cost import Cost

WIDTHS, DEPTHS = (16, 24, 32, 40), (2, 2, 2, 2)
SHAPE = (1, 16, 16)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class Toy(Task):
    name = "toy"
    labels = tuple("abcd")
    input_shape = SHAPE

    def load(self, data: Any) -> Splits:
        examples = TensorExamples(torch.zeros(4, *SHAPE), torch.arange(4), "toy")
        return Splits(examples, examples, examples)

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Identity()


@final
class Students(Problem):
    """Students cut out of a ResNet-18 of narrow stages; their scores are a function of the plan.

    Attributes:
        asked: every trial as (plan, share).
    """

    def __init__(
        self,
        space: Derived,
        score: Callable[[Plan, float], float],
        *,
        training: float,
        seed: int = 0,
        limit: int | None = None,
        backwards: bool = False,
        shrink: int = 1,
    ) -> None:
        self.seed, self.training, self.pool, self.spaces = seed, training, (), {"derived": space}
        self.space, self.score, self.limit, self.backwards = space, score, limit, backwards
        self.shrink = shrink  # at least, or out
        self.epochs = 20
        self.task = Toy()
        self.splits = self.task.load(None)
        self.teacher = None
        self.asked: list[tuple[Plan, float]] = []

    @property
    def spent(self) -> float:
        return math.fsum(share for _, share in self.asked)

    def admit(self, space: str, plan: Plan) -> Candidate:
        params = PARAMS.get((id(self.space), plan)) or count(self.space.build(plan))
        PARAMS[id(self.space), plan] = params
        latency = params / 1e6
        cost = Cost("t", "r", 1, "int8", params, params, params, 1, latency, (latency, latency), "predicted")
        over = self.limit is not None and params > self.limit
        sharp = plan.shrink < self.shrink
        return Candidate(space, plan, cost, "too many parameters" if over else "too many pixels" if sharp else None)

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Outcome]]:
        for trial in trials:
            assert trial.candidate.rejected is None
            self.asked.append((trial.candidate.plan, trial.share))
        assert self.spent <= self.training * (1 + 1e-9)
        places = range(len(trials))
        for place in reversed(places) if self.backwards else places:
            trial = trials[place]
            yield place, Outcome(self.score(trial.candidate.plan, trial.share), 0.0)

    def student(self, candidate: Candidate, seed: int = 0) -> nn.Module:
        return self.space.build(candidate.plan)

    def charge(self, share: float, what: str) -> None:
        raise AssertionError("nothing is trained beside the trials")


PARAMS: dict[tuple[int, Plan], int] = {}  # building a student takes longer than all the rest


@pytest.fixture(scope="module")
def teacher() -> ResidualNetwork:
    torch.manual_seed(0)
    network = ResidualNetwork(1, WIDTHS, DEPTHS, 4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def space(teacher: ResidualNetwork) -> Derived:
    return Derived(SpaceContext(teacher, torch.randn(2, *SHAPE), 4, 8, "nvidia-gpu"))


def by_size(plan: Plan, share: float) -> float:
    """A score that grows with what is kept, and with training."""
    return (0.9 - 0.02 * len(plan.dropped) + 0.05 * math.log(sum(width for _, width in plan.widths) / 500)) * (
        0.9 + 0.1 * share
    )


def cutter(space: Derived, **settings: Any) -> Cutter:
    return Cutter.of(Students(space, by_size, training=1.0), N2N(**settings))


def conv_block(inputs: int, inner: int, outputs: int, shortcut: bool) -> int:
    """Parameters of a basic block, by hand: two 3x3 convolutions, their norms, and a 1x1 projection with its own."""
    own = 9 * inputs * inner + 2 * inner + 9 * inner * outputs + 2 * outputs
    return own + (inputs * outputs + 2 * outputs if shortcut else 0)


def resnet_params(plan: Plan) -> int:
    """Counted from the plan alone."""
    widths, kept = dict(plan.widths), [[True] * depth for depth in DEPTHS]
    for name in plan.dropped:
        _, stage, block = name.split(".")
        kept[int(stage)][int(block)] = False
    streams = [widths["stem.0"], *(widths[f"stages.{stage}.0.conv2"] for stage in (1, 2, 3))]
    total = 9 * streams[0] + 2 * streams[0]
    previous = streams[0]
    for stage, (stream, blocks) in enumerate(zip(streams, kept, strict=True)):
        for block, there in enumerate(blocks):
            if there:
                inner = widths[f"stages.{stage}.{block}.conv1"]
                total += conv_block(previous, inner, stream, shortcut=stage > 0 and block == 0)
                previous = stream
    return total + previous * 4 + 4


def test_any_mask_of_a_resnet18_is_a_network_of_the_teacher_s_shape(space: Derived, teacher: ResidualNetwork) -> None:
    cut = cutter(space)
    layers = cut.removable()
    assert [name for name, place in layers.decides.items() if layers.removable[place]] == list(space.blocks)
    assert int(layers.removable.sum()) == 5  # both of the first stage, the second of each other
    generator, x = torch.Generator().manual_seed(0), torch.randn(3, *SHAPE)
    seen = set()
    for number in range(12):
        mask = torch.randint(0, 2, (len(layers),), generator=generator)
        mask[:] = mask if number else 0  # the first one removes whatever it can
        plan = cut.shorter(layers, mask)
        student = cut.space.build(plan)
        assert student(x).shape == (3, 4)
        assert count(student) == resnet_params(plan)
        names = dict(student.named_modules())
        for fixed in ("stem.0", "stages.1.0.conv1", "stages.2.0.conv1", "stages.3.0.conv1", "head"):
            assert count(names[fixed]) == count(teacher.get_submodule(fixed))  # whatever the mask says of them
        for place, name in enumerate(layers.names):
            for block in space.blocks:
                if layers.decides[block] == place:
                    assert (block in plan.dropped) == (int(mask[place]) == 0), name
        seen.add(plan.dropped)
    assert len(seen) > 5
    assert count(cut.space.build(cut.shorter(layers, torch.zeros(len(layers))))) == resnet_params(
        space.plan(dict(cut.whole.widths), space.blocks)
    )


def test_the_mask_that_keeps_everything_is_degenerate(space: Derived) -> None:
    cut = cutter(space)
    layers = cut.removable()
    plan = cut.shorter(layers, torch.ones(len(layers)))
    assert plan == cut.whole

    def never(plans: Sequence[Plan]) -> list[float]:
        raise AssertionError("it is the teacher: nothing to train")

    judge = Judge(never, cut.size, Worth(cut.size(cut.whole), 0.9))
    (episode,) = judge([plan], 0) or []
    assert episode.reward == DEGENERATE
    assert episode.accuracy is None


def test_any_multipliers_are_a_network_that_runs_and_counts(space: Derived) -> None:
    cut = cutter(space)
    dropped = (space.blocks[0],)
    layers = cut.shrinkable(dropped)
    assert not any(name.startswith(space.blocks[0]) for name in layers.names)
    generator, x = torch.Generator().manual_seed(0), torch.randn(2, *SHAPE)
    for _ in range(6):
        actions = torch.randint(0, len(MULTIPLIERS), (len(layers), 5), generator=generator)
        plan = cut.narrower(layers, dropped, actions)
        student = cut.space.build(plan)
        assert student(x).shape == (2, 4)
        assert count(student) == resnet_params(plan)
        for group in space.present(dropped):
            wanted = MULTIPLIERS[int(actions[layers.decides[group.name], CHANNELS])] * group.channels
            assert dict(plan.widths)[group.name] == space.nearest(group, wanted / group.channels)
    unchanged = torch.full((len(layers), 5), UNCHANGED)
    assert cut.narrower(layers, dropped, unchanged) == space.plan(dict(cut.whole.widths), dropped)


def test_layers_of_one_width_have_one_decision(space: Derived) -> None:
    """The stream of a residual stage: the stem decides for every block's last convolution and norm."""
    layers = cutter(space).shrinkable(())
    stream = [place for place in range(len(layers)) if int(layers.leader[place]) == 0]
    assert {layers.names[place] for place in stream} >= {"stem.0", "stem.1", "stages.0.0.bn2", "stages.0.1.conv2"}
    assert layers.decides["stem.0"] == 0
    assert not layers.shrinkable[stream[1:]].any()
    assert int(layers.shrinkable.sum()) == len(space.groups)
    assert not layers.shrinkable[:, [entry for entry in range(5) if entry != CHANNELS]].any()


def test_kernels_shrink_where_they_may(space: Derived) -> None:
    cut = cutter(space, shrinkable=("channels", "kernel"))
    layers = cut.shrinkable(())
    assert int(layers.shrinkable[:, KERNEL].sum()) == len(space.kernels) > 0
    actions = torch.full((len(layers), 5), UNCHANGED)
    name = next(iter(space.kernels))
    actions[layers.names.index(name), KERNEL] = 0  # a quarter of 3 is nearest to 1
    assert dict(cut.narrower(layers, (), actions).kernels) == {name: 1}


def test_the_search_keeps_to_its_budget_and_answers_in_order(space: Derived) -> None:
    problem = Students(space, by_size, training=2.0)
    found = N2N(share=0.1)(problem)
    assert problem.spent <= 2.0
    assert problem.spent > 1.5
    brief = [plan for plan, share in problem.asked if share == 0.1]
    assert len(brief) == len(set(brief))  # nobody twice
    assert all(candidate.rejected is None for candidate in found.ranked[: len(brief)])
    first = found.ranked[0]
    assert first.fidelity == pytest.approx((2.0 - 0.1 * len(brief)) / 3)
    assert [candidate.fidelity > 0.1 for candidate in found.ranked[:4]] == [True, True, True, False]
    whole = problem.admit("derived", cutter(space).whole)
    for candidate in found.ranked[:10]:
        assert candidate.score is not None
        expected = n2n_reward(candidate.score, candidate.cost.params, 1.0, whole.cost.params)
        assert found.notes["rewards"][candidate.identity] == pytest.approx(expected)
    for part in (found.ranked[:3], found.ranked[3 : len(brief)]):
        rewards = [found.notes["rewards"][candidate.identity] for candidate in part]
        assert rewards == sorted(rewards, reverse=True)
    history = found.notes["history"]
    assert {len(history[stage]) % 5 for stage in ("removal", "shrinkage")} == {0}
    assert all(len(history[stage]) >= 5 for stage in history)
    front = found.notes["pareto"]
    assert all(
        not (other["params"] < row["params"] and other["accuracy"] >= row["accuracy"])
        for row in front
        for other in front
    )


def test_the_same_problem_gives_the_same_answer_whatever_arrives_first(space: Derived) -> None:
    answers = [
        N2N()(Students(space, by_size, training=1.0, seed=seed, backwards=backwards)).ranked
        for seed, backwards in ((0, False), (0, True), (1, False))
    ]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


@pytest.mark.parametrize("training", [0.0, 0.03, 0.3])
def test_a_small_budget_is_no_error(space: Derived, training: float) -> None:
    problem = Students(space, by_size, training=training)
    found = N2N(share=0.05)(problem)
    assert problem.spent <= training * (1 + 1e-9)
    assert len(found.ranked) >= 1


def test_students_over_the_budget_are_narrowed_until_they_fit(space: Derived) -> None:
    limit = 20_000
    problem = Students(space, by_size, training=1.0, limit=limit)
    found = N2N(iterations=4)(problem)
    assert problem.asked
    sizes = [problem.admit("derived", plan).cost.params for plan, _ in problem.asked]
    assert max(sizes) <= limit
    assert max(sizes) > 0.5 * limit
    assert found.ranked[0].rejected is None
    assert [c.rejected is None for c in found.ranked] == sorted(
        [c.rejected is None for c in found.ranked], reverse=True
    )


@pytest.mark.parametrize("shrink", [1, 2])
def test_the_resolution_is_lowered_where_no_width_fits_and_no_further(space: Derived, shrink: int) -> None:
    assert {1, 2} < set(space.shrinks[False])
    limit = 20_000
    problem = Students(space, by_size, training=1.0, limit=limit, shrink=shrink)
    plan = Cutter.of(problem, N2N()).within_budget((), {})
    assert (plan.shrink, plan.pooled) == (shrink, False)
    assert 0.5 * limit < problem.admit("derived", plan).cost.params <= limit  # and it is as wide as it may be


def test_without_that_they_are_punished_more_and_more(space: Derived) -> None:
    problem = Students(space, by_size, training=2.0, limit=20_000)
    found = N2N(fits=0, iterations=10)(problem)
    over = [row for row in found.notes["history"]["removal"] if row["violates"]]
    assert {row["iteration"] for row in over} > {0, 1, 2}
    assert all(row["accuracy"] is None for row in over)
    # 2.8 iterations would be paid for, which makes the horizon of 15 in 100 a single one.
    assert all((row["reward"] == DEGENERATE) == (row["iteration"] >= 1) for row in over)


def test_a_budget_that_nothing_meets_trains_nothing(space: Derived) -> None:
    problem = Students(space, by_size, training=1.0, limit=10)
    found = N2N(iterations=3)(problem)
    assert not problem.asked
    assert all(candidate.rejected for candidate in found.ranked)


def test_accuracy_alone_is_the_wish_where_the_exponent_is_zero(space: Derived) -> None:
    problem = Students(space, by_size, training=1.0)
    found = N2N(params_exponent=0.0)(problem)
    trained = [c for c in found.ranked if c.fidelity == 0.05]
    assert [c.score for c in trained] == sorted([c.score or 0.0 for c in trained], reverse=True)


def test_a_diverged_training_is_out(space: Derived) -> None:
    def sometimes(plan: Plan, share: float) -> float:
        return math.nan if hash(plan) % 3 == 0 or share > 0.2 else 0.5

    problem = Students(space, sometimes, training=1.0)
    found = N2N(share=0.05)(problem)
    lost = {plan for plan, share in problem.asked if math.isnan(sometimes(plan, share))}
    assert lost
    for candidate in found.ranked:
        assert (candidate.rejected is not None) == (candidate.plan in lost)
    names = [candidate.identity for candidate in found.ranked]
    assert len(names) == len(set(names))


def test_policies_are_saved_and_carried_to_a_deeper_teacher(space: Derived, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    N2N(save_policy=str(path))(Students(space, by_size, training=1.0))
    torch.manual_seed(1)
    deeper = ResidualNetwork(1, (16, 24), (3, 4), 4).eval()
    larger = Derived(SpaceContext(deeper, torch.randn(2, *SHAPE), 4, 8, "nvidia-gpu"))
    fresh, carried = (
        N2N(policy=policy)(Students(larger, by_size, training=1.0)).notes["history"] for policy in ("", str(path))
    )
    assert carried["removal"]
    assert carried != fresh
    with pytest.raises(RecipeError, match="no file of policies"):
        N2N(policy=str(tmp_path / "absent"))(Students(space, by_size, training=1.0))


def test_it_wants_students_cut_out_of_the_teacher(space: Derived) -> None:
    problem = Students(space, by_size, training=1.0)
    problem.spaces = {}
    with pytest.raises(RecipeError, match="'derived' is not among none"):
        N2N()(problem)


@pytest.mark.parametrize(
    "settings",
    [
        {"rollouts": 0},
        {"share": 0.0},
        {"longer": 1.0},
        {"shrink_rate": 0.0},
        {"least_ratio": 2.0},
        {"shrinkable": ("x",)},
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="selector n2n"):
        SELECTOR(**settings)


def test_the_teacher_is_asked_on_validation_data(space: Derived) -> None:
    class HalfRight(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(torch.tensor([0, 1, 0, 0])[: len(x)], 4).float()

    problem = Students(space, by_size, training=0.3)
    problem.teacher = HalfRight()
    problem.splits = Splits(problem.splits.train, problem.splits.val, None)  # type: ignore[arg-type]  # test is not read
    found = N2N()(problem)
    assert found.notes["teacher"]["accuracy"] == 0.5
    problem.splits = Splits(problem.splits.train, TensorExamples(torch.zeros(1, *SHAPE), torch.tensor([3]), "x"), None)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="0 on validation"):
        N2N()(problem)


def test_identity_and_space_name_go_through(space: Derived) -> None:
    found = N2N()(Students(space, by_size, training=0.3))
    assert found.ranked[0].identity == identity_of("derived", found.ranked[0].plan)


def test_alone_without_a_problem() -> None:
    """Masks over a list of numbers: the search learns to remove what is worth nothing."""
    from compress.selection.n2n_layers import Layers
    from compress.selection.n2n_policy import RemovalPolicy

    torch.manual_seed(0)
    entries = torch.eye(6, 7)
    every = torch.ones(6, dtype=torch.bool)
    layers = Layers(tuple("abcdef"), entries, every, torch.zeros(6, 5, dtype=torch.bool), torch.arange(6))

    def decode(actions: Tensor) -> tuple[int, ...]:
        return tuple(actions.tolist())

    judge: Judge[tuple[int, ...]] = Judge(
        lambda masks: [0.9 if mask[2] else 0.1 for mask in masks],  # only the third layer matters
        lambda mask: Size(1 + sum(mask)),
        Worth(Size(7), 0.9),
    )
    found = N2N(iterations=60).search(RemovalPolicy(), layers, decode, judge, 0.03, 0)
    assert sum(found.means[-10:]) / 10 > sum(found.means[:10]) / 10 + 0.2
    best = found.best
    assert best is not None
    assert best.plan == (0, 0, 1, 0, 0, 0)
    assert len(found.trained) == len(judge.known)
