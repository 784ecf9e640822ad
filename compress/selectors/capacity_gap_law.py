"""The student whose size suits the teacher: neither so small that the gap is in the way, nor larger than it need be.

Source: Zhang et al., "Towards the Law of Capacity Gap in Distilling Language Models", ACL 2025, arXiv:2311.07052: the
best teacher has about 2.5 times the student's parameters; for a given teacher that reads S = (T - c) / k.

The law gives a size, not a network. So the budget's candidates are ordered by how far their size is from that one, the
nearest are distilled briefly, and the best of these again for longer. Where every candidate is smaller than the size,
the largest come first: of sizes below it the law prefers the nearest. The constants are a prior from language models
(`selection/capacity_gap.py`); with `pilot` above 0, small runs of the pool's own networks are fitted instead, and the
prior stands where their fit says nothing.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from compress.contracts.selector import Candidate, Problem, Selection
from compress.errors import RecipeError
from compress.selection import pilots
from compress.selection.capacity_gap import PRIOR, Law, LawFit, choose_student, doubt, fit_pilots
from compress.selection.ranking import capacity
from compress.selection.short_trials import Spending, finals, opening, ranking, refuse, scored, short_trials

MILLION = 1e6


@final
@dataclass(frozen=True)
class CapacityGapLaw:
    """Tries students near the size that the law gives for the teacher.

    Attributes:
        slope, intercept_m: of T* = slope x S + intercept, in millions of parameters.
        teacher_m: the teacher's size in millions; 0 to count its parameters, which a black box does not show.
        pilot: share of the trainings that small runs may take to fit the law anew; 0 to use the numbers above.
        pilot_epochs: of each small run.
        alpha: weight of the teacher's probabilities beside the labels, in small runs.
        share: of the full training, of a short trial.
        trials: short trials at most.
        finalists: compared again at the end, with longer trainings.
        reserve: of the trainings, kept for that.
    """

    slope: float = PRIOR.slope
    intercept_m: float = PRIOR.intercept_m
    teacher_m: float = 0.0
    pilot: float = 0.0
    pilot_epochs: int = 1
    alpha: float = 0.5
    share: float = 0.0625
    trials: int = 64
    finalists: int = 4
    reserve: float = 0.4

    @property
    def spending(self) -> Spending:
        """What of the problem's trainings goes where, after small runs."""
        return Spending(self.share, self.trials, self.finalists, self.reserve)

    def __post_init__(self) -> None:
        self.spending.check("capacity_gap_law")
        wrong = [
            (not self.slope > 1.0, f"slope = {self.slope}; write a teacher over student size above 1, such as 2.5"),
            (not math.isfinite(self.intercept_m), f"intercept_m = {self.intercept_m}; write millions, such as 0"),
            (not self.teacher_m >= 0.0, f"teacher_m = {self.teacher_m}; write millions of parameters, or 0 to count"),
            (not 0.0 <= self.pilot < 1.0, f"pilot = {self.pilot}; write a share of the trainings from 0 to below 1"),
            (self.pilot_epochs < 1, f"pilot_epochs = {self.pilot_epochs}; train for at least 1 epoch"),
            (not 0.0 <= self.alpha <= 1.0, f"alpha = {self.alpha}; write a weight from 0 to 1"),
        ]
        refuse("capacity_gap_law", [sentence for found, sentence in wrong if found])

    def __call__(self, problem: Problem) -> Selection:
        """The best score of those near the law's size first; `notes` say which size, and what the law rests on.

        Raises:
            RecipeError: nobody knows the teacher's size, or the law gives no student for it.
        """
        teacher_m = self._teacher_m(problem)
        pool = opening(problem, random.Random(f"{problem.seed}/opening"))
        law, fitted = self._law(problem)
        try:
            student_m = choose_student(teacher_m, law)
        except ValueError as error:
            raise RecipeError(
                f"the selector capacity_gap_law finds no student size: {error}",
                fix="in select.settings give slope and intercept_m of a fit at this scale, or leave both out",
            ) from error
        admitted = [candidate for candidate in pool if candidate.rejected is None]
        near = sorted(admitted, key=lambda candidate: self._far(candidate, student_m))
        count = short_trials(problem, self.spending)
        order = finals(problem, scored(problem, near[:count], self.share), self.spending) if count else []
        notes = {
            "teacher_m": teacher_m,
            "student_m": student_m,
            "law": {"slope": law.slope, "intercept_m": law.intercept_m, "source": law.source},
            "nearest_m": near[0].cost.params / MILLION if near else None,
            "tried": len(order),
            **fitted,
        }
        tried = {candidate.identity for candidate in order}
        untried = [candidate for candidate in near if candidate.identity not in tried]
        return Selection(ranking(pool, (*order, *untried)), notes)

    def _far(self, candidate: Candidate, student_m: float) -> tuple[float, float, str]:
        """By ratio; among equals the one that computes more."""
        distance = abs(math.log(max(1, candidate.cost.params) / MILLION / student_m))
        return (distance, -capacity(candidate.cost), candidate.identity)

    def _teacher_m(self, problem: Problem) -> float:
        if self.teacher_m > 0.0:
            return self.teacher_m
        if problem.teacher is None:
            raise RecipeError(
                "the selector capacity_gap_law needs the teacher's size, and this teacher is a black box",
                fix="write teacher_m, in millions of parameters, in select.settings",
            )
        return sum(parameter.numel() for parameter in problem.teacher.parameters()) / MILLION

    def _law(self, problem: Problem) -> tuple[Law, Mapping[str, Any]]:
        """The law to use, and what the report should say of small runs."""
        given = Law(self.slope, self.intercept_m, PRIOR.source if self.slope == PRIOR.slope else "select.settings")
        if self.pilot == 0.0:
            return given, {}
        cost = self.pilot_epochs / problem.epochs
        allowed = min(self.pilot * problem.training, problem.training - problem.spent)
        grid = pilots.grid(problem.pool, int(min(allowed / cost + 1e-9, 1e6)))
        if problem.task.kind != "classification" or grid is None:
            why = (
                f"the task is {problem.task.kind}, and small runs are for classification"
                if problem.task.kind != "classification"
                else f"small runs take {pilots.runs(1)} trainings of {self.pilot_epochs} of {problem.epochs} epochs"
                f" and several sizes; {allowed:.3g} full trainings were allowed, for {len(problem.pool)} candidates"
            )
            return given, {"pilot": {"used": False, "why": why}}
        problem.charge(grid.runs * cost, "small runs for the law of capacity gap")
        rows = pilots.run(problem, grid, self.pilot_epochs, self.alpha)
        try:
            fit, why_not = fit_pilots(rows, seed=problem.seed), None
        except ValueError as error:  # runs that diverged left holes in the grid
            fit, why_not = None, str(error)
        why_not = why_not or doubt(fit)
        summary = {"used": why_not is None, "why": why_not, "runs": grid.runs, **_summary(fit)}
        return (given if fit is None or why_not else fit.law), {"pilot": summary}


def _summary(fit: LawFit | None) -> dict[str, Any]:
    if fit is None:
        return {}
    return {
        "slope": fit.slope,
        "intercept_m": fit.intercept_m,
        "r2": fit.r2,
        "slope_interval": list(fit.ci.slope) if fit.ci else None,
        "boundary_hits": fit.boundary_hits,
        "students": len(fit.per_student_optimum),
    }


SELECTOR = CapacityGapLaw
