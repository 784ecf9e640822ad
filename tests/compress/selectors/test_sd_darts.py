"""The differentiable search on a task of its own: what it charges, what it answers, what it refuses."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import pytest
import torch
from torch import nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.selector import Candidate, Outcome, Problem, Selection, Trial
from compress.contracts.space import SpaceContext
from compress.contracts.task import Task
from compress.errors import RecipeError
from compress.selection.skeletons import multiply_accumulates
from compress.selectors.sd_darts import SELECTOR
from compress.spaces.cells import Cells, Plan
from profiles.cost import Cost

SHAPE = (1, 8, 8)
QUICK: dict[str, Any] = {"epochs": 3, "batch_size": 40, "search_channels": 8, "alpha_rate": 0.05}
SPACE = Cells(SpaceContext(None, torch.zeros(1, *SHAPE), 4, 4, "cortex-m"))


@functools.cache
def cost_of(plan: Plan) -> Cost:
    """Multiply-accumulates, a millionth of which is the latency in ms."""
    with torch.random.fork_rng(devices=[]):
        network = SPACE.build(plan)
    macs = multiply_accumulates(network, torch.zeros(1, *SHAPE))
    params = sum(p.numel() for p in network.parameters())
    latency = macs / 1e6
    return Cost("t", "r", 1, "int8", macs, params, params, 1, latency, (latency, latency), "predicted")


class Corners(Task):
    """In which corner the bright square is."""

    name = "corners"
    labels = ("0", "1", "2", "3")
    input_shape = SHAPE

    def load(self, data: Any) -> Splits:
        source = torch.Generator().manual_seed(1)
        y = torch.arange(240) % 4
        x = 0.5 * torch.randn(240, *SHAPE, generator=source)
        for corner in range(4):
            row, column = 4 * (corner // 2), 4 * (corner % 2)
            x[y == corner, :, row : row + 4, column : column + 4] += 1.0
        train, val = TensorExamples(x[:160], y[:160], "train"), TensorExamples(x[160:], y[160:], "val")
        return Splits(train, val, TensorExamples(x[:0], y[:0], "test"))

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Flatten()


@final
class Boards(Problem):
    """Costs are multiply-accumulates, the budget is a number of them, and the score is a function of the plan."""

    def __init__(
        self,
        most_macs: float = 400e3,
        training: float = 100.0,
        score: Callable[[Plan], float] = lambda plan: plan.channels / 100,
        seed: int = 0,
        pool: Sequence[Candidate] = (),
        epochs: int = 3,
    ) -> None:
        self.task: Task = Corners()
        self.splits = self.task.load(None)
        self.spaces = {"cells": SPACE}
        self.teacher = None
        self.seed, self.training, self.pool, self.epochs = seed, training, tuple(pool), epochs
        self.most, self.score = most_macs, score
        self.charged: list[tuple[float, str]] = []
        self.asked: list[Trial] = []

    @property
    def spent(self) -> float:
        return sum(trial.share for trial in self.asked) + sum(share for share, _ in self.charged)

    def admit(self, space: str, plan: Plan) -> Candidate:
        assert SPACE.wrong_with(plan) is None
        cost = cost_of(plan)
        return Candidate(space, plan, cost, "too dear" if cost.macs > self.most else None)

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Outcome]]:
        assert self.spent + sum(trial.share for trial in trials) <= self.training * (1 + 1e-9)
        assert all(trial.candidate.rejected is None for trial in trials)
        self.asked += trials
        for place in reversed(range(len(trials))):
            yield place, Outcome(self.score(trials[place].candidate.plan), 1.0)

    def student(self, candidate: Candidate, seed: int = 0) -> nn.Module:
        return SPACE.build(candidate.plan)

    def charge(self, share: float, what: str) -> None:
        assert self.spent + share <= self.training * (1 + 1e-9)
        self.charged.append((share, what))


@pytest.fixture(scope="module")
def searched() -> tuple[Boards, Selection]:
    """One search that several tests look at."""
    problem = Boards()
    return problem, SELECTOR(**QUICK)(problem)


def test_it_answers_with_admitted_cells_the_best_trained_one_first(searched: tuple[Boards, Selection]) -> None:
    problem, found = searched
    scores = [c.score for c in found.ranked if c.score is not None]
    assert 2 <= len(scores) <= 4
    assert scores == sorted(scores, reverse=True)
    assert [c.score for c in found.ranked[: len(scores)]] == scores
    assert found.ranked[0].rejected is None
    rejected = [c.rejected is not None for c in found.ranked]
    assert rejected == sorted(rejected)
    assert len({c.identity for c in found.ranked}) == len(found.ranked)
    assert {trial.share for trial in problem.asked} == {0.1}
    notes = found.notes["sd_darts"]
    assert notes["gap"] == pytest.approx(notes["supernet_score"] - notes["discrete_score"])
    assert notes["weights_examples"] + notes["alpha_examples"] == notes["examples"] == 160
    assert 0.0 < notes["epochs_log"][-1]["entropy"] <= math.log(9) + 1e-6
    assert notes["epochs_log"][-1]["train_loss"] < notes["epochs_log"][0]["train_loss"]
    assert notes["epochs_log"][0]["self_loss"] == 0.0 < notes["epochs_log"][-1]["self_loss"]


def test_the_same_problem_gives_the_same_answer_and_torch_keeps_its_random_state(
    searched: tuple[Boards, Selection],
) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert SELECTOR(**QUICK)(Boards()) == searched[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_supernet_is_charged_by_its_work(searched: tuple[Boards, Selection]) -> None:
    problem, notes = searched[0], searched[1].notes["sd_darts"]
    ((share, what),) = problem.charged
    assert what == "supernet"
    # 3 epochs of 80 pairs, each 3 passes for a step of either kind and 3 voters; then 80 passes of judging and
    # sharpness on the same: 2 * (3 + 1) for two figures, 3 + 2 * 3 * 10 for the power iteration.
    passes = 3 * 80 * (3 + 3 + 3) + 80 + 80 * (8 + 63)
    assert share == pytest.approx(notes["supernet_macs"] * passes / (notes["reference_macs"] * 3 * 160 * 3))
    assert notes["charged"] == share


def test_a_small_budget_shrinks_the_trials() -> None:
    cost = Cost("t", "r", 1, "int8", 209_456, 10, 10, 1, 0.1, (0.1, 0.1), "predicted")
    other = Candidate("elsewhere", SPACE.corners()[0], cost)
    problem = Boards(training=1.6, pool=[other], epochs=30)
    found = SELECTOR(**QUICK, share=1.0)(problem)
    assert problem.charged[0][0] <= 0.6 * 1.6
    assert problem.spent == pytest.approx(1.6)  # all that is left goes into the trials, alike
    assert len({trial.share for trial in problem.asked}) == 1
    assert found.notes["sd_darts"]["reference_macs"] == 209_456  # the median of what the pool affords
    assert problem.asked[-1].candidate == other, "the pool's largest is tried beside the cells"
    assert other.identity in {c.identity for c in found.ranked[: len(problem.asked)]}


def test_the_largest_of_the_pool_is_tried_beside_the_cells() -> None:
    small, large, dear = (
        Candidate(
            "elsewhere",
            Plan(SPACE.strides[-1], 8, (depth,), SPACE.corners()[0].nodes),
            Cost("t", "r", 1, "int8", 200_000, params, 10, 1, 0.1, (0.1, 0.1), "predicted"),
            "too dear" if params > 2_000 else None,
        )
        for depth, params in ((1, 1_000), (2, 2_000), (3, 3_000))
    )
    problem = Boards(pool=[small, dear, large])
    cells = [problem.admit("cells", replace(SPACE.corners()[0], channels=width)) for width in (8, 12, 16, 24)]
    assert SELECTOR().contenders(problem, cells) == [*cells[:3], large]
    assert SELECTOR().contenders(Boards(pool=[cells[0]]), cells) == cells
    assert SELECTOR(finalists=2).contenders(problem, cells) == [cells[0], large]
    assert SELECTOR(finalists=1).tried(problem, SELECTOR(finalists=1).contenders(problem, cells)) == []


def test_without_sharpness_none_of_it_is_charged_or_told() -> None:
    problem = Boards()
    notes = SELECTOR(**QUICK, sharp=0)(problem).notes["sd_darts"]
    passes = 3 * 80 * (3 + 3 + 3) + 80
    assert problem.charged[0][0] == pytest.approx(notes["supernet_macs"] * passes / (notes["reference_macs"] * 1440))
    assert not [name for name in notes if "sharpness" in name or "eigenvalue" in name]
    assert "gap" in notes


def test_too_small_a_budget_is_refused_with_what_it_would_need() -> None:
    with pytest.raises(RecipeError, match=r"may spend 0\.01 full trainings") as refusal:
        SELECTOR(**QUICK)(Boards(training=0.01))
    assert "needs" in refusal.value.what


def test_a_narrow_budget_walks_down_to_what_is_admitted() -> None:
    wires = Plan(SPACE.strides[-1], 8, (1,), (((0, "skip"),), ((0, "skip"), (1, "skip")), ((0, "skip"), (1, "skip"))))
    least = Boards().admit("cells", wires).cost.macs
    found = SELECTOR(**QUICK)(Boards(most_macs=least + 1000, training=1e4))
    best = found.ranked[0]
    assert best.rejected is None
    assert best.cost.macs <= least + 1000
    assert SELECTOR(**QUICK)(Boards(most_macs=least - 1)).ranked[0].rejected == "too dear"


def test_latency_pushes_the_mixtures_away_from_dear_operations(searched: tuple[Boards, Selection]) -> None:
    notes = SELECTOR(**QUICK, latency_weight=1000.0)(Boards()).notes["sd_darts"]
    latencies = notes["operation_latencies_ms"]
    assert latencies["none"] == latencies["skip"] == latencies["max_3x3"] == 0.0
    assert 0.0 < latencies["conv_1x1"] < latencies["separable_3x3"] < latencies["conv_3x3"]

    def dear(notes: dict[str, Any]) -> float:
        columns = [notes["mixture"]["operations"].index(name) for name in ("conv_3x3", "separable_5x5")]
        return float(torch.tensor(notes["mixture"]["shares"])[:, columns].sum())

    assert dear(notes) < 0.9 * dear(searched[1].notes["sd_darts"])


def test_a_problem_without_the_space_or_without_classes_is_refused() -> None:
    problem = Boards()
    problem.spaces = {}
    with pytest.raises(RecipeError, match="'cells' alone; here there are none") as refusal:
        SELECTOR()(problem)
    assert "select.spaces" in refusal.value.fix

    class Regression(Corners):
        kind = "regression"

    problem = Boards()
    problem.task = Regression()
    with pytest.raises(RecipeError, match="regression"):
        SELECTOR()(problem)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"snapshots": -1}, {"share": 1.5}, {"rate": math.inf}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        SELECTOR(**wrong)
