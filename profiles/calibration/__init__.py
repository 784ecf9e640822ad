"""Fit the latency model of a target to a live device, and write what was found as a target file of the user's own.

    path = profiles.calibration.calibrate(profiles.target("x86"), Path("my_project"))
    cost = profiles.profile("student.onnx", profiles.target("x86", search=Path("my_project")))

On a processor the constants are measured with onnxruntime on a generated suite. Devices that this machine is not are
calibrated from anchors: times that were measured there of models whose files are here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiles.target import Target

__all__ = ["calibrate"]


def calibrate(
    target: "Target",
    out: Path,
    *,
    remote: str | None = None,
    seconds: float = 120.0,
    anchors: Path | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Measure, fit, and write `<out>/targets/<name>.toml`, which takes the place of the target of that name.

    Args:
        out: the project folder; an older calibration of the target there is replaced, and ends as it was on any error.
        remote: "user@host" of a processor that is reached by ssh; None measures this machine.
        seconds: > 0, of measuring, about.
        anchors: a CSV or JSON file of measured times, see `profiles.calibration.anchors`; then nothing is measured.
        say: called with lines about the progress.

    Returns:
        The file's path.

    Raises:
        ProfileError: the target cannot be calibrated here, the machine is too busy, the fit is no better than none,
            or the anchors are too few or contradict each other.
    """
    from profiles.calibration import anchors as from_anchors
    from profiles.calibration import processor, write

    if anchors is not None:
        return write.target_file(target, out, from_anchors.calibrated(target, Path(anchors)))
    found = processor.calibrated(target, remote=remote, seconds=seconds, say=say)
    return write.target_file(target, out, found)
