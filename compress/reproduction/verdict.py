"""From findings to one of three words, and to a sentence."""

from collections.abc import Mapping, Sequence
from typing import Any

from compress.contracts.experiment import Finding, Verdict


def verdict(findings: Sequence[Finding]) -> Verdict:
    """Reproduced where every deciding criterion holds, if by its mean alone; not, where one fails; else inconclusive.

    Raises:
        ValueError: no criterion decides.
    """
    deciding = [finding.holds for finding in findings if finding.decides]
    if not deciding:
        raise ValueError("an experiment needs at least one criterion that decides")
    if "no" in deciding:
        return "not reproduced at this scale"
    return "inconclusive" if "undecided" in deciding else "reproduced"


def said(told: Mapping[str, Any]) -> str:
    """The verdict with how many of its criteria hold by their mean alone.

    Args:
        told: the content of `results.json`.
    """
    deciding = [finding["holds"] for finding in told["findings"] if finding["decides"]]
    weak = deciding.count("by mean alone")
    aside = f", {weak} of {len(deciding)} criteria by mean alone" if weak else ""
    return f"{told['verdict']}{aside}"
