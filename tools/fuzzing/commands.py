"""Command lines: words in any order, hostile values, numbers out of range."""

import contextlib
import io
import os
from pathlib import Path
from typing import Any
from unittest import mock

from tools.fuzzing import mutations
from tools.fuzzing.kind import Kind, Rng

COMMANDS = [
    "pipeline",
    "distill",
    "quantize",
    "export",
    "build",
    "verify",
    "sbom",
    "report",
    "sensitivity",
    "parity",
    "bisect",
    "profile",
    "lint",
    "targets",
    "init",
    "list",
    "reproduce",
    "doctor",
]
WORDS = [
    "--target",
    "jetson",
    "a100",
    "hearing-aid",
    "x86",
    "nowhere",
    "--recipe",
    "pld",
    "--task",
    "digits",
    "fashion_mnist",
    "--data",
    ".",
    "--teacher",
    "--weights",
    "--method",
    "vanilla_kd",
    "--budget",
    "latency_ms=2",
    "latency_ms=-1",
    "latency_ms=nan",
    "accuracy_drop=0.01",
    "macs_reduction=1e400",
    "=,,=",
    "--seed",
    "0",
    "-1",
    "99999999999999999999",
    "1e3",
    "--out",
    "--until",
    "select",
    "nothing",
    "--remote",
    "user@host",
    "-oProxyCommand=x",
    "--workers",
    "serial",
    "processes:0",
    "processes:-1",
    "processes:x",
    "ray:",
    "ray://host:0",
    "threads:4",
    "--evaluations",
    "--json",
    "--quiet",
    "--help",
    "--version",
    "methods",
    "targets",
    "tasks",
    "spaces",
    "show",
    "list",
    "--layers",
    "--html",
    "--compare",
    "--batch",
    "1",
    "0",
    "-3",
    "--sign",
    "--key",
    "--only-hashes",
    "--any",
    "--set",
    "a.b=c",
    "--trust",
    "--device",
    "--runs",
]


def _prepare(folder: Path) -> Any:
    from compress.cli.main import main

    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        main(["list", "targets"])
    return [*WORDS, *mutations.TEXTS, str(folder), str(folder / "none.onnx")]


def _examine(words: Any, rng: Rng, folder: Path) -> None:
    """Nothing long is begun: the work of whole commands is taken out, the reading of their words stays."""
    from compress import pipeline
    from compress.cli import doctor, reproduce
    from compress.cli.main import main

    line = [rng.choice(COMMANDS)] if rng.random() < 0.9 else []
    line += [rng.choice(words) for _ in range(rng.randrange(6))]
    os.chdir(folder)
    done = pipeline.Result(folder, "prepare", (), leads=False)
    said = io.StringIO()
    with (
        mock.patch.object(pipeline, "run", return_value=done),
        mock.patch.object(reproduce, "run", return_value=({}, "")),
        mock.patch.object(doctor, "run", return_value=({}, "")),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            status = main(line)
        except SystemExit as end:  # --help and --version
            status = int(end.code or 0)
    if status not in (0, 1, 2) or "Traceback" in said.getvalue():
        raise AssertionError(f"{line}: status {status}: {said.getvalue()[-200:]}")


KIND = Kind("commands", _prepare, _examine)
