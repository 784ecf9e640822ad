"""What a run shall do: a shipped recipe, a user's project file, and the command line's options, in that order."""

import dataclasses
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import profiles
from compress import catalog
from compress.errors import RecipeError
from compress.strict import read

FOLDER = Path(__file__).parent / "recipes"
Scalar = float | int | str | bool


@dataclass(frozen=True)
class TaskPart:
    """Which task, and where its data are."""

    name: str | None = None  # a file of compress/tasks
    file: Path | None = None  # the user's own, ending in TASK = ...
    data: Path | None = None


@dataclass(frozen=True)
class TeacherPart:
    """Which teacher; without any, the task's reference teacher is trained once and cached."""

    file: Path | None = None  # Python, with a function build() that gives the network
    weights: Path | None = None  # safetensors, or a .pt that weights_only can read
    onnx: Path | None = None  # a black box
    epochs: int | None = None  # of the reference teacher; None for the task's own number


@dataclass(frozen=True)
class BudgetPart:
    """Limits at batch 1; the target gives those that are absent."""

    latency_ms: float | None = None
    peak_activation_bytes: int | None = None
    weight_bytes: int | None = None
    macs: int | None = None
    energy_mj: float | None = None
    accuracy_drop: float | None = None  # a fraction: 0.01 is one point
    macs_reduction: float | None = None  # at least this many times fewer than the teacher
    weight_reduction: float | None = None


@dataclass(frozen=True)
class SelectPart:
    """How the student is searched for."""

    spaces: tuple[str, ...] = ("derived", "int8_conv")
    candidates: int = 240
    selector: str = "halving"
    settings: Mapping[str, Any] = field(default_factory=dict)  # the selector's own
    training: float = 1.4  # full trainings that telling students apart may take
    finalists: int = 2  # students that are distilled fully before one is chosen
    caution: float = 1.0  # where in its interval a cost that was not measured is judged: 0 median, 1 upper end
    measured: int = 4  # students that straddle the budget and are built and costed to know, where that is possible
    rounds: int = 3  # students that are built at most; one that misses its budget sends the search back


@dataclass(frozen=True)
class DistillPart:
    """How the student is trained."""

    method: str = "vanilla_kd"
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    clip: float | None = None  # largest norm of an update's gradient, over all that it moves; None for no limit
    keep: Literal["last", "best"] = "last"  # epoch whose weights go on; "best" is by validation score
    objectives: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> weight and numbers
    strategy: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class QuantizePart:
    """How the student learns to live with 8 bits."""

    # What ships. "target" is the format that the target's quantizer writes.
    format: Literal["target", "fp32", "fp16", "bf16", "int8", "fp8", "int4"] = "target"
    epochs: int = 4
    learning_rate: float = 5e-4
    calibration_batches: int = 8
    ranges: Literal["minmax", "percentile", "mse", "magnitude"] = "minmax"  # of activations
    percentile: float = 99.99  # percent of the values inside the range, for ranges = "percentile"
    weight_ranges: Literal["max", "mse"] = "max"  # of each channel of a weight
    steps: Literal["observed", "learned"] = "observed"
    equalize: Literal["none", "weights", "activations"] = "none"  # channels of neighbouring layers, before all else
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    mixed: bool = True  # whether layers may stay in float where int8 alone exceeds the accuracy budget
    accuracy_budget: float | None = None  # what quantising may cost, a fraction; None: half of budget.accuracy_drop
    sensitivity_samples: int = 512  # validation examples at most for the analysis of layers; 0 leaves it out
    float_modules: tuple[str, ...] = ()  # paths in the student that are never quantised


@dataclass(frozen=True)
class VerifyPart:
    """Bounds of the gates."""

    within_one_step: float = 0.999  # least share of values that export or build may change by at most one step
    mean_steps: float = 0.5  # largest mean change by a runtime, in quantisation steps: kernels round on their own
    # Of outputs that the task calls directions, in place of the two above: how far a runtime may change a vector, in
    # steps (root mean square over its values): any vector by one step, all together by 1 / sqrt(12) of one, which is
    # what storing them in 8 bits does.
    vector_steps: float = 1.0
    mean_vector_steps: float = 0.2887
    accuracy_change: float = 0.002  # between an artifact and the stage before it
    top1_agreement: float = 0.99  # between an artifact and the stage before it
    student_agreement: float | None = None  # least, of what ships with the float student; 0.98 is proposed
    student_kl: float | None = None  # largest, in nats, of what ships from the float student; 0.02 is proposed
    control: Path | None = None  # ONNX of a student that another teacher taught the same way: how much agreement says


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run's artifacts are."""

    name: str
    task: TaskPart = field(default_factory=TaskPart)
    teacher: TeacherPart = field(default_factory=TeacherPart)
    target: str = "jetson"
    budget: BudgetPart = field(default_factory=BudgetPart)
    select: SelectPart = field(default_factory=SelectPart)
    distill: DistillPart = field(default_factory=DistillPart)
    quantize: QuantizePart = field(default_factory=QuantizePart)
    verify: VerifyPart = field(default_factory=VerifyPart)
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return plain

    @staticmethod
    def from_json(data: Mapping[str, Any], where: str = "run.json") -> "Recipe":
        """The recipe that `to_json` gave."""
        return read(Recipe, _without_none(data), where)


def recipes() -> list[str]:
    """The shipped recipes' names."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(
    project: Path | None = None, *, recipe: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Merge a shipped recipe, a project file and options.

    Args:
        project: the user's TOML; its `recipe` key names the shipped one it starts from. Paths in it are relative to it.
        recipe: the shipped recipe; None for the one of the task's name, where there is one, else "default".
        overrides: nested, as TOML would give it; these win.

    Raises:
        RecipeError: an absent or garbled file, an unknown key, a value out of its range.
    """
    overrides = dict(overrides or {})
    own: dict[str, Any] = {}
    where = "the command line"
    if project is not None:
        where = project.name
        own = _absolute(_toml(project), project.resolve().parent)
        recipe = recipe or own.pop("recipe", None)
        own.pop("recipe", None)
        own.setdefault("name", project.stem)
    own = _merge(own, overrides)
    task = own.get("task", {})
    task_name = task.get("name") if isinstance(task, Mapping) else None
    if recipe is None:
        recipe = task_name if task_name in recipes() else "default"
    if recipe not in recipes():
        raise RecipeError(
            f"no recipe is called '{recipe}'; there are {', '.join(recipes())}",
            fix="pass one of these to --recipe, or give a project file of your own (compress init writes one)",
        )
    base = _toml(FOLDER / f"{recipe}.toml")
    base.setdefault("name", recipe)
    if isinstance(task, Mapping) and task.get("file") is not None and "name" not in task:
        base.get("task", {}).pop("name", None)
    merged = _merge(base, own)
    result = read(Recipe, merged, where)
    check(result, where)
    return result


def check(recipe: Recipe, where: str) -> None:
    """Refuse numbers that cannot be meant."""
    positive = {
        "budget.latency_ms": recipe.budget.latency_ms,
        "budget.peak_activation_bytes": recipe.budget.peak_activation_bytes,
        "budget.weight_bytes": recipe.budget.weight_bytes,
        "budget.macs": recipe.budget.macs,
        "budget.energy_mj": recipe.budget.energy_mj,
        "budget.macs_reduction": recipe.budget.macs_reduction,
        "budget.weight_reduction": recipe.budget.weight_reduction,
        "select.candidates": recipe.select.candidates,
        "select.finalists": recipe.select.finalists,
        "select.rounds": recipe.select.rounds,
        "select.training": recipe.select.training,
        "distill.epochs": recipe.distill.epochs,
        "distill.batch_size": recipe.distill.batch_size,
        "distill.learning_rate": recipe.distill.learning_rate,
        "distill.clip": recipe.distill.clip,
        "quantize.epochs": recipe.quantize.epochs,
        "quantize.learning_rate": recipe.quantize.learning_rate,
    }
    for key, value in positive.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RecipeError(
                f"{where}: '{key}' must be greater than 0, and is {value}", fix=f"give {key} a positive number"
            )
    drop = recipe.budget.accuracy_drop
    if drop is not None and not -1 <= drop <= 1:
        raise RecipeError(
            f"{where}: 'budget.accuracy_drop' is a fraction, and is {drop}", fix="write one point as 0.01"
        )
    allowed = recipe.quantize.accuracy_budget
    if allowed is not None and not 0 <= allowed <= 1:
        raise RecipeError(
            f"{where}: 'quantize.accuracy_budget' is a fraction from 0 to 1, and is {allowed}",
            fix="write one point as 0.01",
        )
    if recipe.quantize.sensitivity_samples < 0:
        raise RecipeError(
            f"{where}: 'quantize.sensitivity_samples' is {recipe.quantize.sensitivity_samples}",
            fix="give a number of examples; 0 leaves the analysis out",
        )
    percentile = recipe.quantize.percentile
    if not 50 < percentile <= 100:
        raise RecipeError(
            f"{where}: 'quantize.percentile' is in percent, in (50, 100], and is {percentile}", fix="try 99.99"
        )
    if not 0 <= recipe.select.caution <= 1:
        raise RecipeError(
            f"{where}: 'select.caution' must be in [0, 1], and is {recipe.select.caution}",
            fix="write 1 to assume nothing, 0 to judge predicted costs by their median",
        )
    if recipe.select.measured < 0:
        raise RecipeError(
            f"{where}: 'select.measured' is {recipe.select.measured}", fix="give a number of students; 0 measures none"
        )
    catalog.require("compress.methods", recipe.distill.method)
    catalog.require("compress.selectors", recipe.select.selector)
    for space in recipe.select.spaces:
        catalog.require("compress.spaces", space)
    profiles.target(recipe.target, Path())  # the user's own are in the folder that the command is given in
    if recipe.task.name is not None:
        catalog.require("compress.tasks", recipe.task.name)
    if recipe.task.name is None and recipe.task.file is None:
        raise RecipeError(
            f"{where} names no task", fix='pass --task NAME (compress list tasks), or task.file = "my_task.py"'
        )


def parse_budget(text: str) -> dict[str, float | int]:
    """`latency_ms=5,accuracy_drop=0.01` as a table.

    Raises:
        RecipeError: an unknown name or a value that is no number.
    """
    names = [f.name for f in dataclasses.fields(BudgetPart)]
    whole = {f.name for f in dataclasses.fields(BudgetPart) if "int" in str(f.type)}
    values: dict[str, float | int] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, separator, number = part.partition("=")
        if not separator or key.strip() not in names:
            raise RecipeError(
                f"--budget does not know '{part}'; there are {', '.join(names)}",
                fix="write it as --budget latency_ms=5,accuracy_drop=0.01",
            )
        try:
            value = float(number)
            values[key.strip()] = int(value) if key.strip() in whole else value
        except (ValueError, OverflowError) as error:
            raise RecipeError(
                f"--budget {key.strip()} is '{number}', which is no number", fix=f"write {key.strip()}=5"
            ) from error
    return values


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"there is no file {path}", fix="write one with: compress init") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read: {error}", fix="give the path of a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path.name} is not valid TOML: {error}", fix="mend that line") from error


_PATHS = (
    ("task", "file"),
    ("task", "data"),
    ("teacher", "file"),
    ("teacher", "weights"),
    ("teacher", "onnx"),
    ("verify", "control"),
)


def _absolute(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Paths in a project file are relative to that file."""
    for section, key in _PATHS:
        table = data.get(section)
        if isinstance(table, dict) and isinstance(table.get(key), str):
            table[key] = str((folder / table[key]).resolve())
    return data


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if value is None:
            continue
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in data.items()
        if value is not None
    }
