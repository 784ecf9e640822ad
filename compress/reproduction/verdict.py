"""From findings to one of three words."""

from collections.abc import Sequence

from compress.contracts.experiment import Finding, Verdict


def verdict(findings: Sequence[Finding]) -> Verdict:
    """Reproduced where every deciding criterion holds; not, where one fails; else inconclusive.

    Raises:
        ValueError: no criterion decides.
    """
    deciding = [finding.holds for finding in findings if finding.decides]
    if not deciding:
        raise ValueError("an experiment needs at least one criterion that decides")
    if "no" in deciding:
        return "not reproduced at this scale"
    return "inconclusive" if "undecided" in deciding else "reproduced"
