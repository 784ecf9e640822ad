"""Errors of a run that its user can mend."""

from profiles.atomic import FULL
from profiles.errors import UserError


class RecipeError(UserError):
    """A project file, a recipe or an option that cannot be used."""


class TaskError(UserError):
    """Data that does not fit the task: absent, empty, out of range, not finite."""


class TeacherError(UserError):
    """A teacher that cannot be loaded, or whose output does not fit the task."""


class RunError(UserError):
    """A run folder that is locked, foreign, incomplete, or cannot be written."""


class IntegrityError(UserError):
    """A run whose files are not those that were made, or whose signature does not hold."""


class BudgetError(UserError):
    """A budget that nothing meets; says which constraint binds and by how much."""


class GateError(UserError):
    """A check of the verify stage that failed: the stage, the number, the bound."""


class TrainingError(UserError):
    """A training that cannot go on: a loss that is not finite, a checkpoint of another run."""


def full_disk(error: OSError, kept: str) -> RunError | None:
    """The error that a user reads where the disk is full; None where the error is another.

    Args:
        kept: what is not lost, such as "finished stages".
    """
    if error.errno not in FULL:
        return None
    name = error.filename2 or error.filename  # of a copy the second one is being written
    return RunError(
        f"the disk is full{'' if name is None else f' (writing {name})'}",
        fix=f"free some space, then give the same command again: {kept} are kept",
    )
