"""The project file that `compress init` writes: every key of a recipe, its default, its unit, one line on each.

The defaults are those of the shipped recipe that the file starts from, read when it is written, so that they cannot
differ from what a run would take.
"""

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compress import catalog
from compress.recipe import Recipe, load, recipes
from profiles.target import names as target_names

WIDTH = 100  # characters of a line
TASK = "digits"  # the embedded default: nothing to download

HEAD = """
A project for compress: run it with `compress pipeline project.toml`. It works as it is, with nothing to download.
Every key there is stands here. A key behind '#' is off: its line shows the value that holds without it, or, where it
ends in "example", there is none. Remove the '#' to change it. Paths are relative to this file.
"""


@dataclass(frozen=True)
class Key:
    """One key of the file.

    Attributes:
        path: with dots, as errors name it.
        about: what it is, in which unit, and what holds without it.
        example: shown where it has no value by default.
        on: whether it is set, rather than shown.
    """

    path: str
    about: str
    example: Any = None
    on: bool = False


OWN = ("recipe", "name")  # what they are by default depends on the file itself
SECTIONS = {
    "task": "What is learned, and from which data.",
    "teacher": "Who teaches. Without any of these the task's own reference teacher is trained once and kept.",
    "budget": "What the result must keep to, at batch 1. Where a limit is absent the target's own holds; see "
    "`compress list targets`.",
    "select": "How the student is searched for.",
    "select.settings": "Numbers of the selector, by the names that its file explains.",
    "distill": "How the student learns from the teacher.",
    "distill.objectives": "Parts of the method's loss by name, each with its weight and the numbers it takes.",
    "distill.strategy": "Numbers for the method's way of going through the data.",
    "quantize": "How the student learns to live with few bits.",
    "verify": "Bounds of the checks between stages. One that fails ends the run with a report that says where.",
}


def keys() -> tuple[Key, ...]:
    """Every key, in the order of the file."""
    return (
        Key(
            "recipe",
            f"shipped recipe with all that is not set here: {_list(recipes())}. Without it, the one of the "
            "task's name, else default",
            "default",
        ),
        Key("name", "of the run; its folder is runs/<name>-<target>. Without it, this file's name", "project"),
        Key("target", f"device: {_list(target_names())}; or the path of your own .toml", on=True),
        Key("seed", "of everything random: the same seed gives the same weights again on the same machine", on=True),
        Key("task.name", f"one of {_list(catalog.names('compress.tasks'))}", on=True),
        Key("task.file", "your own task in place of a name: a Python file that ends in TASK = ...", "my_task.py"),
        Key("task.data", "folder with the task's data, for tasks that do not bring their own", "data"),
        Key("teacher.file", "Python file with a function build() that gives the network", "my_teacher.py"),
        Key("teacher.weights", "its weights: .safetensors, or a .pt with nothing but tensors", "teacher.safetensors"),
        Key("teacher.onnx", "a teacher as ONNX, in place of both: it is asked, not looked into", "teacher.onnx"),
        Key("teacher.epochs", "passes over the data for the reference teacher; without it, the task's number", 30),
        Key("budget.latency_ms", "milliseconds, median, at most", 5.0),
        Key(
            "budget.peak_activation_bytes",
            "bytes of activations at the fullest moment, without weights, at most",
            196_608,
        ),
        Key("budget.weight_bytes", "bytes of weights as stored on the device, at most", 64_000),
        Key("budget.macs", "multiply-accumulates of one inference, at most", 2_000_000),
        Key("budget.energy_mj", "millijoules of one inference, at most, where the target's power is known", 0.5),
        Key(
            "budget.accuracy_drop", "of the metric, teacher minus result, at most; a fraction: 0.01 is one point", 0.01
        ),
        Key("budget.macs_reduction", "times fewer multiply-accumulates than the teacher, at least", 4.0),
        Key("budget.weight_reduction", "times fewer weight bytes than the teacher, at least", 16.0),
        Key(
            "select.spaces",
            "where students come from: derived scales the teacher's network, int8_conv is a family made "
            "for int8 kernels",
        ),
        Key("select.candidates", "students that are costed, over all spaces"),
        Key("select.selector", f"how those that are trained are picked: {_list(catalog.names('compress.selectors'))}"),
        Key("select.training", "full trainings that telling students apart may take, in all its short ones together"),
        Key("select.finalists", "students that are distilled fully before one is chosen"),
        Key(
            "select.caution",
            "where in its interval a cost that was not measured is held against the budget: 0 the median, 1 the upper "
            "end, which assumes nothing",
        ),
        Key("select.measured", "students straddling the budget that are built and costed to know, where possible"),
        Key(
            "select.rounds",
            "students that are built at most: one that misses the budget, in cost or metric, sends the search back",
        ),
        Key("select.settings", "", {"share": 0.1}),
        Key("distill.method", f"one of {_list(catalog.names('compress.methods'))}"),
        Key("distill.epochs", "passes over the training data"),
        Key("distill.batch_size", "examples per step"),
        Key("distill.learning_rate", "peak, of AdamW"),
        Key("distill.weight_decay", "of AdamW, per step and unit of learning rate"),
        Key("distill.precision", "fp32, bf16, or auto: bf16 where the machine multiplies it natively"),
        Key("distill.clip", "largest norm of an update's gradient; without it there is no limit", 5.0),
        Key("distill.keep", "epoch whose weights go on: last, or best by its validation score"),
        Key("distill.objectives", "", {"soft_targets": {"weight": 0.9, "temperature": 4.0}, "labels": {"weight": 0.1}}),
        Key("distill.strategy", "", {"augment": False}),
        Key(
            "quantize.format",
            "what ships: fp32, fp16, bf16, int8, fp8, int4 (weights alone); target: what the device does best",
        ),
        Key("quantize.epochs", "passes over the training data with simulated 8-bit arithmetic"),
        Key("quantize.learning_rate", "peak, of AdamW; a tenth of the distillation's is a good start"),
        Key("quantize.calibration_batches", "batches that set the first ranges of activations"),
        Key(
            "quantize.ranges",
            "of activations: minmax, the mean of the batches' extremes; or from the histogram of all calibration "
            "batches: percentile, mse (least squared error), magnitude (twice the mean magnitude times the root of the "
            "largest code, as LSQ's paper starts)",
        ),
        Key("quantize.percentile", "percent of the values inside the range, in (50, 100], for ranges = percentile"),
        Key("quantize.weight_ranges", "of each channel of a weight: max, its largest magnitude, or mse"),
        Key("quantize.steps", "observed: ranges follow the data; learned: step sizes train with the weights (LSQ)"),
        Key(
            "quantize.equalize",
            "rescale channels between neighbouring layers first: none; weights, for scales per tensor; activations, "
            "for depthwise networks with weight scales per channel",
        ),
        Key("quantize.precision", "as in [distill]; bf16 blurs the small steps that ranges need"),
        Key(
            "quantize.mixed",
            "whether single layers may stay in float, where int8 alone loses more than its budget or is slower",
        ),
        Key(
            "quantize.accuracy_budget",
            "of the metric that quantising may cost, a fraction; without it, half of budget.accuracy_drop",
            0.005,
        ),
        Key(
            "quantize.sensitivity_samples",
            "validation examples at most that say what each layer costs; 0 leaves that analysis out, and with it mixed",
        ),
        Key(
            "quantize.float_modules",
            "paths of the student's modules that are never quantised; `compress sensitivity` prints them",
            ["head"],
        ),
        Key(
            "verify.within_one_step",
            "share of outputs that differ by no more than one step of the output's quantisation, at least",
        ),
        Key("verify.mean_steps", "largest mean change of outputs by the target's own kernels, in quantisation steps"),
        Key(
            "verify.vector_steps",
            "of outputs that are directions, such as embeddings: largest change of one vector by a runtime, root mean"
            " square over its values, in steps; takes the place of the two above",
        ),
        Key("verify.mean_vector_steps", "the same over all vectors together; 1 / sqrt(12) is what 8 bits do"),
        Key("verify.accuracy_change", "of the metric between an artifact and the stage before it, a fraction, at most"),
        Key("verify.top1_agreement", "share of examples with the same answer as the stage before, at least"),
        Key(
            "verify.student_agreement",
            "share of examples with the same answer of what ships and of the float student, at least; without it, the"
            " report gives the figure and nothing fails",
            0.98,
        ),
        Key("verify.student_kl", "divergence of what ships from the float student, in nats, at most", 0.02),
        Key(
            "verify.control",
            "ONNX file of a student that an independent teacher taught the same way: the report then says how much of"
            " the agreement with this teacher is more than shared competence",
            "other_run/4_export/model.onnx",
        ),
    )


def project() -> str:
    """The file's text. It is valid TOML, loads through `compress.recipe.load`, and so it does with any '#' removed."""
    values = load(overrides={"task": {"name": TASK}})
    lines = _comment(HEAD.strip().replace("\n", " "))
    section = ""
    for key in keys():
        table, _, name = key.path.rpartition(".")
        value = _value(values, key.path)
        nested = isinstance(key.example, Mapping)
        if nested:
            table, name = key.path, ""
        if table != section:
            lines += ["", *_comment(SECTIONS[table]), f"[{table}]"]
            section = table
        if nested:
            given = value or key.example
            mark = "" if value else "  # example"
            lines += [f"# {part} = {_toml(item)}{mark}" for part, item in given.items()]
            continue
        lines += ["", *_comment(key.about)]
        if key.path in OWN:
            lines.append(f"# {name} = {_toml(key.example)}")
            continue
        setting = f"{name} = {_toml(key.example if value is None else value)}"
        lines.append(setting if key.on else f"# {setting}{'  # example' if value is None else ''}")
    return "\n".join(lines) + "\n"


def _value(values: Recipe, path: str) -> Any:
    """What the recipe says at `path`; None where it says nothing."""
    found: Any = values.to_json()
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, int):
        return f"{value:_}" if value >= 10_000 else str(value)
    if isinstance(value, float):
        return repr(value)
    return json.dumps(str(value))


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )


def _list(names: list[str]) -> str:
    return ", ".join(names)
