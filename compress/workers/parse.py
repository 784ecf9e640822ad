"""`--workers serial | processes[:N] | ray:local | ray:auto | ray:HOST:PORT | ray://HOST:PORT`, in words of the user."""

import functools
import re
from collections.abc import Callable

from compress.contracts.workers import Call, Workers
from compress.errors import RecipeError
from compress.workers.on_ray import OnRay
from compress.workers.processes import Processes
from compress.workers.serial import Serial

FORMS = "serial, processes, processes:N, ray:local, ray:auto, ray:HOST:PORT, ray://HOST:PORT"


def parse(text: str) -> Callable[[Call | None], Workers]:
    """What opens the workers that `text` names, given the setup of each: `with parse(text)(setup) as workers`.

    Nothing is started or connected to here.

    Raises:
        RecipeError: there are no such workers.
    """
    kind, _, rest = text.partition(":")
    if text == "serial":
        return Serial
    if text == "processes":
        return Processes
    if kind == "processes" and rest.isdigit() and int(rest) > 0:
        return functools.partial(Processes, count=int(rest))
    if kind == "ray" and rest.removeprefix("//") in ("local", "auto"):
        return functools.partial(OnRay, address=rest.removeprefix("//"))
    if kind == "ray" and re.fullmatch(r"(//)?[^\s/:]+:\d+", rest):
        return functools.partial(OnRay, address=text if rest.startswith("//") else rest)
    raise RecipeError(f"there are no workers {text!r}; there are {FORMS}", fix="pass one of these to --workers")
