"""From a plan to a network: the spaces that a run's teacher and target allow."""

from typing import Any

import torch
from torch import nn

import profiles
from compress import catalog
from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError
from compress.job import Job
from compress.network import Model, features_of
from compress.stages.learned import Choice
from compress.structure.decisions import made_for

UNIT = 1e-3  # how far from 1 the length of a unit vector may be: answers may come from a half-precision file
NETWORK = "network"  # of a `Model`: what a space builds


def build_student(job: Job, choice: Choice, number: int = 0) -> Model:
    """The chosen network, untrained or with inherited weights; the same weights for the same seed and number."""
    space = open_space(job, choice.space)
    return student(job, choice.space, space, space.from_json(choice.plan), number)


def student(job: Job, name: str, space: Space[Any], plan: Any, number: int = 0) -> Model:
    """The network of one plan with its preprocessing; `number` is added to the run's seed."""
    torch.manual_seed(job.recipe.seed + number)
    return dressed(job, name, space.build(plan))


def dressed(job: Job, name: str, network: nn.Module) -> Model:
    """A network of that space with its preprocessing; the network is the model's submodule `NETWORK`."""
    return Model(_frontend(job, name), network)


def open_space(job: Job, name: str) -> Space[Any]:
    """The space of that name for this run.

    Raises:
        RecipeError: it does not go with this teacher, task or target.
    """
    return made_for(name, catalog.load("compress.spaces", name).SPACE, _context(job, name))


def open_spaces(job: Job) -> tuple[dict[str, Space[Any]], dict[str, str]]:
    """The recipe's spaces that this teacher and target allow, and why the others are absent.

    Raises:
        RecipeError: none is left.
    """
    spaces: dict[str, Space[Any]] = {}
    absent: dict[str, str] = {}
    for name in job.recipe.select.spaces:
        try:
            spaces[name] = open_space(job, name)
        except RecipeError as error:
            absent[name] = error.what
            job.progress.say(f"select: space {name} is left out: {error.what}")
    if not spaces:
        raise RecipeError(
            f"no student space fits this teacher: {'; '.join(absent.values())}",
            fix="name other spaces in select.spaces: compress list spaces",
        )
    return spaces, absent


def frontend_macs(job: Job, space: str) -> int:
    """Multiply-accumulates of what stands before every student of a space, for one example."""
    return profiles.profile(_frontend(job, space).eval(), target=job.target, example=job.one_example, layers=False).macs


def _frontend(job: Job, space: str) -> nn.Module:
    """Derived students stand where the teacher's network stands; others get the task's own preprocessing."""
    return job.teacher.frontend() if space == "derived" else job.task.frontend()


def _context(job: Job, space: str) -> SpaceContext:
    with torch.no_grad():
        features = features_of(_frontend(job, space).eval(), job.example)
    answer = job.teacher.teacher.observe(job.splits.train.batch(torch.arange(len(job.example[0])))).output
    return SpaceContext(
        job.teacher.network,
        features[0],
        len(job.task.labels),
        job.target.width_multiple,
        job.target.family,
        tuple(answer.shape[1:]),
        features[1:],
        tuple(one.values for one in job.task.inputs),
        answer.ndim == 2 and torch.allclose(answer.norm(dim=1), torch.ones(len(answer)), atol=UNIT),
    )
