"""How good the teacher is, for selectors that compare students with it."""

import torch

from compress.contracts.selector import Problem
from compress.errors import RecipeError

BATCH = 256


def teacher_score(problem: Problem, selector: str) -> float:
    """Mean score of the teacher on validation data; 1 where the problem has no teacher to ask.

    Args:
        selector: who divides by it, for the error.

    Raises:
        RecipeError: it is not positive, so that no ratio to it means anything.
    """
    if problem.teacher is None:
        return 1.0
    examples, total = problem.splits.val, 0.0
    device = next((parameter.device for parameter in problem.teacher.parameters()), torch.device("cpu"))
    with torch.no_grad():
        for start in range(0, len(examples), BATCH):
            batch = examples.batch(torch.arange(start, min(start + BATCH, len(examples)))).to(device)
            assert batch.labels is not None
            total += float(problem.task.score(problem.teacher(*batch.inputs), batch.labels).double().sum())
    score = total / len(examples)
    if not score > 0.0:
        raise RecipeError(
            f"the selector {selector} divides by the teacher's {problem.task.metric}, which is {score:.4g} on"
            " validation data",
            fix="choose another selector, or a metric that is positive for a good network",
        )
    return score
