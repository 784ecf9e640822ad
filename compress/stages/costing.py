"""What the students of a run cost on its target, before one of them is built for good."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from compress.contracts.space import Space
from compress.job import Job
from compress.selection.quick_costs import QuickCosts
from compress.stages.students import NETWORK, dressed
from profiles.cost import Cost


def costing(job: Job, spaces: Mapping[str, Space[Any]]) -> Callable[[str, Any], Cost]:
    """(space, plan) -> what `profiles.profile` predicts of that student, preprocessing included.

    The more plans of one structure are asked for, the less the next one takes: see `compress.selection.quick_costs`.
    Random numbers that building takes are put back.
    """
    quick = {
        name: QuickCosts(space, partial(dressed, job, name), NETWORK, job.one_example, job.target, job.target.precision)
        for name, space in spaces.items()
    }
    return lambda name, plan: quick[name](plan)
