"""How good the teacher is, for selectors that compare students with it."""

import torch

from compress.contracts.selector import Problem
from compress.errors import RecipeError
from compress.tally import Tally

BATCH = 256


def teacher_score(problem: Problem, selector: str) -> float:
    """Score of the teacher on validation data; 1 where the problem has no teacher to ask.

    Args:
        selector: who divides by it, for the error.

    Raises:
        RecipeError: it is not positive, so that no ratio to it means anything.
    """
    if problem.teacher is None:
        return 1.0
    examples, found = problem.splits.val, Tally(problem.task)
    device = next((parameter.device for parameter in problem.teacher.parameters()), torch.device("cpu"))
    with torch.no_grad():
        for start in range(0, len(examples), BATCH):
            batch = examples.batch(torch.arange(start, min(start + BATCH, len(examples)))).to(device)
            found.add(problem.teacher(*batch.inputs), batch.labels)
    score = found.value()
    if not score > 0.0:
        raise RecipeError(
            f"the selector {selector} divides by the teacher's {problem.task.metric}, which is {score:.4g} on"
            " validation data",
            fix="choose another selector, or a metric that is positive for a good network",
        )
    return score
