"""Options of `compress build`, as the builders take them."""

import argparse
from pathlib import Path
from typing import Any, get_args

from exporters.builder import Hardware
from profiles.errors import UserError

HELP = """\
What is given here is remembered in the run (build.json) and used when verify or report build again; --default forgets
it. TensorRT engines are built where the GPU is (here, or by --remote); --capability compiles one with TensorRT for RTX
anywhere, without a GPU.
"""


def add(command: argparse.ArgumentParser) -> None:
    """Everything that changes the artifact; no default here, so that what was not given is not there."""
    absent = argparse.SUPPRESS
    shapes = command.add_argument_group("shapes", "ranges that an engine is built for")
    shapes.add_argument("--batches", type=_three, default=absent, metavar="MIN,TYPICAL,MAX", help="(default 1,8,64)")
    shapes.add_argument(
        "--dim", type=_dim, action="append", default=absent, metavar="NAME=MIN,TYPICAL,MAX", help="a dynamic dimension"
    )
    shapes.add_argument(
        "--profile",
        type=_profile,
        action="append",
        default=absent,
        metavar="INPUT=1x16,8x64,8x128;...",
        help="a whole optimisation profile; again for several",
    )
    engine = command.add_argument_group("engine", HELP)
    engine.add_argument(
        "--capability",
        type=_capabilities,
        default=absent,
        metavar="8.0,8.6",
        help="one engine for these, without a GPU",
    )
    engine.add_argument("--workspace-mib", type=int, default=absent, metavar="N", help="for kernels (default 1024)")
    engine.add_argument("--memory-mib", type=int, default=absent, metavar="N", help="limit of the building process")
    engine.add_argument("--seconds", type=float, default=absent, metavar="S", help="time limit (default 1800)")
    engine.add_argument("--tf32", action="store_true", default=absent, help="let float layers compute in TF32")
    engine.add_argument("--hardware", choices=get_args(Hardware), default=absent, help="run on further GPUs; slower")
    engine.add_argument(
        "--version-compatible", action="store_true", default=absent, help="run with later TensorRT releases; slower"
    )
    engine.add_argument(
        "--strip-weights", action="store_true", default=absent, help="leave the weights to the ONNX file"
    )
    engine.add_argument("--optimisation-level", type=int, choices=range(6), default=absent, help="TensorRT's effort")
    engine.add_argument("--timing-cache", default=absent, metavar="FOLDER", help="where kernel timings are kept")
    engine.add_argument(
        "--only-cached-timings", action="store_true", default=absent, help="time nothing anew: repeatable"
    )
    engine.add_argument("--dla-core", type=int, default=absent, metavar="N", help="of a Xavier or an AGX Orin")
    engine.add_argument(
        "--gpu-fallback", action="store_true", default=absent, help="what the DLA lacks runs on the GPU"
    )
    engine.add_argument("--default", action="store_true", help="forget the options that were remembered")
    command.add_argument("--remote-python", default="python3", metavar="PATH", help="python to use there")
    command.add_argument(
        "--ssh-option", action="append", default=[], metavar="NAME=VALUE", help="such as Port=2222; again for several"
    )
    command.add_argument(
        "--trust", action="store_true", help="build although the run's manifest does not list the model"
    )


def choices(options: argparse.Namespace) -> dict[str, Any]:
    """What was given, as plain values."""
    given = vars(options)
    names = (
        "batches",
        "workspace_mib",
        "memory_mib",
        "seconds",
        "tf32",
        "hardware",
        "version_compatible",
        "strip_weights",
        "optimisation_level",
        "only_cached_timings",
        "dla_core",
        "gpu_fallback",
    )
    found = {name: given[name] for name in names if name in given}
    if "timing_cache" in given:
        found["timing_cache"] = str(Path(given["timing_cache"]).resolve())
    if "capability" in given:
        found["capabilities"] = given["capability"]
    if "dim" in given:
        found["dims"] = dict(given["dim"])
    if "profile" in given:
        found["profiles"] = given["profile"]
    return found


def _capabilities(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(len(word.split(".")) == 2 and word.replace(".", "").isdigit() for word in words):
        raise UserError(f"--capability {text!r} is not a list of compute capabilities", fix="write for example 8.0,8.6")
    return words


def _three(text: str) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not 1 <= numbers[0] <= numbers[1] <= numbers[2]:
        raise UserError(f"{text!r} is not smallest,typical,largest", fix="write for example 1,8,64")
    return numbers


def _dim(text: str) -> tuple[str, list[int]]:
    name, equals, numbers = text.partition("=")
    if not name or not equals:
        raise UserError(f"--dim {text!r} names no dimension", fix="write for example --dim length=1,64,512")
    return name, _three(numbers)


def _profile(text: str) -> dict[str, list[list[int]]]:
    made = {}
    for part in text.split(";"):
        name, _, shapes = part.rpartition("=")
        try:
            three = [[int(size) for size in shape.split("x")] for shape in shapes.split(",")]
        except ValueError:
            three = []
        if not name or len(three) != 3:
            raise UserError(
                f"--profile {text!r} does not give each input its smallest, typical and largest shape",
                fix="write for example --profile 'ids=1x16,8x64,8x128'",
            )
        made[name.strip()] = three
    return made
