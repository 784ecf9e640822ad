"""An ONNX graph as C for one Cortex-M core: by `onnx_to_c`, or by emx-onnx-cgen where an operator has no kernel there.

The second generator is slower and wider (floats, tensors on the stack), so the artifact's note begins with the operator
that asked for it, and its facts name the generator.
"""

from dataclasses import replace
from pathlib import Path

from exporters import onnx_to_c, onnx_to_emx_c
from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles.target import Target

GENERATOR = "generator"  # a fact of an artifact that the second generator wrote


def can_run(target: Target, *, remote: str | None = None) -> str | None:
    """Why no C can be made for `target` here; None where it can."""
    return onnx_to_c.can_run(target, remote=remote)


def convert(model: Path, target: Target, out: Path, *, options: BuildOptions | None = None) -> Artifact:
    """Write a folder `c` below `out`; see `onnx_to_c.convert` for what it takes.

    Returns:
        The folder, kind "c-library". From the second generator its facts also hold `generator` and `refused`, the
        node without a kernel.

    Raises:
        ExportError: neither generator takes the graph (the message has both reasons), or the second is not installed.
        ProfileError: the target's core is unknown, or the cross-compiler fails.
    """
    try:
        return onnx_to_c.convert(model, target, out, options=options)
    except ExportError as error:
        refused = error
    missing = onnx_to_emx_c.can_run(target)
    if missing is not None:
        raise ExportError(f"{refused.what}; {missing}", fix=refused.fix) from refused
    given = options or BuildOptions()
    try:
        made = onnx_to_emx_c.convert(model, target, out, options=replace(given, name=given.name or onnx_to_c.FOLDER))
    except ExportError as error:
        raise ExportError(f"{refused.what}; {error.what}", fix=refused.fix) from error
    facts = {**made.facts, GENERATOR: onnx_to_emx_c.PROGRAM, "refused": refused.what}
    return replace(made, note=f"{refused.what}; {made.note}", facts=facts)
