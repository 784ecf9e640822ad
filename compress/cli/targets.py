"""`compress targets list | show NAME | calibrate NAME`: the devices there are, and how sure their figures are."""

import argparse
import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.cli.common import add_output, folder
from profiles.errors import ProfileError, UserError

if TYPE_CHECKING:
    from profiles.target import Hardware, Target

EPILOG = """\
examples:
  compress targets list
  compress targets show jetson-agx-orin-64gb:30w
  compress targets calibrate x86
  compress targets calibrate x86 --remote me@server
  compress targets calibrate jetson --anchors measured.csv

A target of your own is a file targets/NAME.toml in your project folder; its first line may be inherit = "jetson".
"""
TITLES = {
    "nvidia-gpu": "NVIDIA GPUs",
    "cortex-m": "Microcontrollers",
    "ethos-u": "Microcontroller NPUs",
    "riscv-cluster": "RISC-V clusters",
    "x86-cpu": "Server processors",
}
HEADINGS = ("name", "int8", "GB/s", "memory", "here", "interval", "device")
FIGURES = {  # of Hardware, in the order of `show` -> words and unit
    "tops": ("peak", ""),
    "units": ("processors", ""),
    "clock_mhz": ("clock", "MHz"),
    "bandwidth_gbs": ("bandwidth", "GB/s"),
    "cache_kib": ("last cache", "KiB"),
    "memory_gb": ("memory", "GB"),
    "ram_kib": ("RAM", "KiB"),
    "flash_kib": ("flash", "KiB"),
    "flash_gbs": ("flash rate", "GB/s"),
    "power_w": ("power limit", "W"),
    "uw_per_mhz": ("active power", "uW/MHz"),
    "dla_tops": ("DLA, not used", "int8 TOPS"),
}
BUDGETS = {
    "latency_ms": ("latency", "ms"),
    "compute_share": ("latency", "of each decision period"),
    "default_period_ms": ("period", "ms where the task names none"),
    "peak_activation_bytes": ("activations", "bytes at their peak"),
    "weight_bytes": ("weights", "bytes"),
    "macs": ("work", "multiply-accumulates"),
    "energy_mj": ("energy", "mJ"),
    "accuracy_drop": ("metric", "lost at most; 0.01 is one point of a metric in %"),
}
LEVELS = {"measure": "measured", "emulate": "emulated", "estimate": "estimated", "predict": "predicted"}
NARROW, WIDE = 80, 110  # columns: what every terminal has, and from where the device's name fits beside the figures
INDENT = 17


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "targets",
        help="the devices there are, the source of each figure, and calibrating one",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="one line per target")
    listing.set_defaults(run=lambda options: listed(folder(options.project)))
    showing = actions.add_parser("show", help="everything about one target, each figure with its source")
    showing.add_argument("name", metavar="NAME", help="a target, or target:mode for one of its power modes")
    showing.set_defaults(run=lambda options: shown(options.name, folder(options.project)))
    calibrating = actions.add_parser("calibrate", help="measure small networks and fit the latency model to a device")
    calibrating.add_argument("name", metavar="NAME", help="the target that the device is")
    calibrating.add_argument("--remote", metavar="USER@HOST", help="measure there, by ssh; without it, on this machine")
    calibrating.add_argument(
        "--anchors", type=Path, metavar="FILE", help="a CSV or JSON file of times that were measured there"
    )
    calibrating.add_argument(
        "--seconds", type=float, default=120.0, metavar="S", help="of measuring, about (default 120)"
    )
    calibrating.set_defaults(run=calibrated)
    for action in (listing, showing, calibrating):
        action.add_argument(
            "--project", type=Path, default=Path(), metavar="FOLDER", help="where your own targets are (default here)"
        )
        add_output(action)


def listed(project: Path) -> tuple[dict[str, Any], str]:
    """Every target with its figures, what this machine can do for it, and how sure a prediction is.

    Args:
        project: the user's folder; its targets come with the package's.
    """
    from profiles.target import names, target

    found: dict[str, dict[str, Any]] = {}
    for name in names(project):
        try:
            found[name] = _facts(target(name, project))
        except ProfileError as error:  # a broken file of the user's is told, and does not hide the others
            found[name] = {"error": {"what": error.what, "fix": error.fix}}
    return {"targets": found}, _table(found)


def shown(name: str, project: Path) -> tuple[dict[str, Any], str]:
    """One target with the source of each figure.

    Args:
        name: a target, or target:mode.
        project: the user's folder; its targets are found before the package's.

    Raises:
        ProfileError: there is none of that name, or its file is not valid.
    """
    from profiles.target import target

    found = target(name, project)
    facts = _facts(found)
    result = dataclasses.asdict(found) | {key: facts[key] for key in ("here", "prediction", "energy")}
    return result, _page(found, facts)


def calibrated(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Measure, fit, and write the user's own target file."""
    if not 0 < options.seconds < float("inf"):
        raise UserError(f"--seconds is {options.seconds:g}", fix="give a positive number, such as --seconds 120")
    from profiles import calibration
    from profiles.target import target

    chosen = target(options.name, folder(options.project))

    def say(line: str) -> None:
        if not options.quiet:
            print(line, file=sys.stderr, flush=True)

    path = calibration.calibrate(
        chosen, options.project, remote=options.remote, seconds=options.seconds, anchors=options.anchors, say=say
    )
    made = target(path.stem, options.project)
    facts = _facts(made)
    sure = facts["prediction"]
    there = "" if options.project == Path() else f" --project {options.project}"
    text = (
        f"wrote {path}: {sure['origin']}\n"
        f"the latency is now {_factors(sure['interval'])} times the predicted one in 90 % of cases; "
        f"see: compress targets show {made.name}{there}"
    )
    return {"path": str(path), "target": made.name, "prediction": sure}, text


def _facts(target: "Target") -> dict[str, Any]:
    """What both tables tell of a target; plain JSON."""
    from profiles import energy
    from profiles.abilities import ability
    from profiles.latency.models import latency_model

    can = ability(target)
    model = latency_model(target)
    drawn = energy.power(target)
    return {
        "device": target.device,
        "aliases": list(target.aliases),
        "family": target.family,
        "runtime": f"{target.runtime} {target.runtime_version}".strip(),
        "precision": target.precision,
        "mode": target.mode,
        "modes": list(target.modes),
        "hardware": dataclasses.asdict(target.hardware),
        "here": {"level": can.level, "runner": can.runner, "missing": dict(can.missing)},
        "prediction": {"interval": list(model.interval), "origin": model.origin, "stretched": model.stretched},
        "energy": {"why_not": energy.unknown(target)}
        if drawn is None
        else {"watts": drawn.watts, "interval": list(drawn.interval), "origin": drawn.origin},
    }


def _table(found: dict[str, dict[str, Any]]) -> str:
    columns = shutil.get_terminal_size((NARROW, 24)).columns
    width = max(map(len, found))
    blocks: list[str] = []
    families = dict.fromkeys(row["family"] for row in found.values() if "family" in row)
    for family in families:
        of_family = {name: row for name, row in found.items() if row.get("family") == family}
        runtimes = ", ".join(dict.fromkeys(row["runtime"].split()[0] for row in of_family.values()))
        lines = [f"{TITLES.get(family, family)} ({runtimes})"]
        lines += [_line(name, row, width, columns) for name, row in of_family.items()]
        blocks.append("\n".join(lines))
    head = f"{HEADINGS[0]:<{width}} {HEADINGS[1]:>9} {HEADINGS[2]:>6} {HEADINGS[3]:>11} {HEADINGS[4]:<8} {HEADINGS[5]}"
    head += f"      {HEADINGS[6]}" if columns >= WIDE else ""
    broken = [
        f"{name}: {row['error']['what']}\n  fix: {row['error']['fix']}" for name, row in found.items() if "error" in row
    ]
    legend = textwrap.fill(
        "here: how this machine finds a latency. interval: factors on a predicted latency that contain 90 % of unseen "
        "networks. memory: of the GPU, or RAM/flash. '*': has other power modes, as name:mode. More about one: "
        "compress targets show NAME",
        max(40, min(columns, 100)),
    )
    return "\n\n".join(["\n".join([head, blocks[0]]) if blocks else head, *blocks[1:], *broken, legend])


def _line(name: str, row: dict[str, Any], width: int, columns: int) -> str:
    hardware = row["hardware"]
    peak = hardware["tops"].get("int8")
    sure = _factors(row["prediction"]["interval"])
    line = (
        f"{name + ('*' if len(row['modes']) > 1 else ''):<{width}} {'-' if peak is None else _rate(peak):>9} "
        f"{_number(hardware['bandwidth_gbs']):>6} {_memory(hardware):>11} {row['here']['level']:<8} {sure:<13}"
    )
    return (f"{line} {row['device']}" if columns >= WIDE else line).rstrip()


def _page(target: "Target", facts: dict[str, Any]) -> str:
    columns = max(min(shutil.get_terminal_size((NARROW, 24)).columns, 100), 60)
    lines = [f"{target.name}: {target.device}", *_wrap(target.description, columns)]
    if target.aliases:
        lines += _wrap(f"also called {', '.join(target.aliases)}", columns)
    mode = f" (power mode {target.mode})" if target.mode else ""
    lines += ["", f"Hardware{mode}"]
    lines += _figure("core", target.hardware.core, columns) if target.hardware.core else []
    lines += _figures(target, columns)
    if len(target.modes) > 1:
        plain = target.name.split(":")[0]
        lines += ["", f"Power modes ({plain}:MODE)"]
        lines += [_mode(name, hardware, name == target.mode) for name, hardware in target.modes.items()]
    lines += ["", "Budget at batch 1"]
    for key, (words, unit) in BUDGETS.items():
        value = getattr(target.budget, key)
        if value is not None and not (key == "default_period_ms" and target.budget.compute_share is None):
            lines += [*_figure(words, f"{_number(value)} {unit}", columns), *_source(target.sources.get(key), columns)]
    lines += ["", "Software"]
    lines += _figure("runtime", facts["runtime"], columns)
    lines += _source(target.sources.get("runtime_version", ""), columns)
    lines += _figure("precision", f"{target.precision}, channels in multiples of {target.width_multiple}", columns)
    lines += _figure("ONNX opset", str(target.opset), columns) + _source(target.sources.get("opset", ""), columns)
    lines += _figure("built by", ", ".join(target.builders) or "nothing", columns)
    lines += ["", "Latency"]
    here = facts["here"]
    lines += _figure("here", LEVELS[here["level"]] + (f" by {here['runner']}" if here["runner"] else ""), columns)
    for runner, why in here["missing"].items():
        lines += _source(f"{runner}: {why}", columns)
    sure = facts["prediction"]
    times = f"{_factors(sure['interval'])} times the predicted one in 90 % of cases"
    lines += _figure("true latency", times, columns)
    wider = "; no figure of its generation was there to fit on, so the interval is wider" if sure["stretched"] else ""
    lines += _source(f"{sure['origin']}{wider}", columns)
    lines += ["", "Energy"]
    drawn = facts["energy"]
    if "watts" in drawn:
        times = f"{_power(drawn['watts'])}, {_factors(drawn['interval'])} times that in 90 % of cases"
        lines += _figure("drawn at work", times, columns)
        lines += _source(drawn["origin"], columns)
    else:
        lines += _wrap(drawn["why_not"], columns)
    return "\n".join(lines)


def _figures(target: "Target", columns: int) -> list[str]:
    """What is known of the hardware; a source stands once, below all figures that it is of."""
    of_source: dict[str | None, list[str]] = {}
    for key, (words, unit) in FIGURES.items():
        value = getattr(target.hardware, key)
        if value:
            text = _peaks(value) if key == "tops" else f"{_number(value, 5)} {unit}".strip()
            of_source.setdefault(target.sources.get(key), []).extend(_figure(words, text, columns))
    return [line for source, lines in of_source.items() for line in (*lines, *_source(source, columns))]


def _figure(words: str, value: str, columns: int) -> list[str]:
    return textwrap.wrap(f"  {words:<{INDENT - 3}} {value}", columns, subsequent_indent=" " * INDENT)


def _source(text: str | None, columns: int) -> list[str]:
    """None, which is no source, is said; "" is nothing to say."""
    return _wrap("no source is given" if text is None else text, columns, " " * INDENT + "| ")


def _wrap(text: str, columns: int, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, columns, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _mode(name: str, hardware: "Hardware", chosen: bool) -> str:
    peak = hardware.tops.get("int8", hardware.tops.get("fp16", 0.0))
    kind = "int8" if "int8" in hardware.tops else "FP16"
    limit = f"{_number(hardware.power_w)} W" if hardware.power_w else ""
    return (
        f"{'*' if chosen else ' ':>3} {name:<11} {hardware.units:>3} x {_number(hardware.clock_mhz, 5):>7} MHz "
        f"{_number(hardware.bandwidth_gbs, 5):>6} GB/s {limit:>6} {_rate(peak):>9} {kind}"
    )


def _peaks(tops: dict[str, float]) -> str:
    return ", ".join(f"{name} {_rate(value)}" for name, value in tops.items())


def _rate(tops: float) -> str:
    """Dense operations per second."""
    return f"{_number(tops)} TOPS" if tops >= 1 else f"{_number(1e3 * tops)} GOPS"


def _memory(hardware: dict[str, Any]) -> str:
    if hardware["ram_kib"]:
        return f"{_number(hardware['ram_kib'])}/{_number(hardware['flash_kib'])} K"
    return f"{_number(hardware['memory_gb'])} GB" if hardware["memory_gb"] else "-"


def _factors(interval: Sequence[float]) -> str:
    return " to ".join(f"{factor:.2f}" for factor in interval)


def _power(watts: float) -> str:
    return f"{_number(watts)} W" if watts >= 1 else f"{_number(1e3 * watts)} mW"


def _number(value: float, digits: int = 3) -> str:
    """No exponent, and no digit of a whole number lost: 2039, 85.2, 0.384."""
    return f"{value:.0f}" if value == int(value) or abs(value) >= 10**digits else f"{value:.{digits}g}"
