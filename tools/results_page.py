"""Write what `compress reproduce` found into the documentation.

    python tools/results_page.py

`docs/reproduced/NAME.json` are files that the command wrote; their tables go between two marks in `docs/results.md`.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.reproduction import table
from compress.reproduction.verdict import said

DOCS = Path(__file__).resolve().parents[1] / "docs"
RULE = (
    "A difference that a criterion asks for *holds* where its mean reaches the bar and a paired t test over the seeds"
    " tells it from none, one-sided at 5 % (the p beside it is two-sided); where the mean reaches the bar and the test"
    " does not tell, it is *undecided*. Where the criterion itself says that the mean decides, it then holds *by its"
    " mean alone*; where it names a number of standard errors, or asks for every seed, that decides. One criterion that"
    " fails makes the claim *not reproduced at this scale*, else one that is undecided makes it *inconclusive*."
)
BEGIN, END = "<!-- from docs/reproduced: tools/results_page.py -->", "<!-- end of docs/reproduced -->"


def section(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of verdicts, then a section for each experiment, by name."""
    lines = [RULE, "", "| claim of | verdict | seeds | CPU seconds |", "|---|---|---|---|"]
    for name, told in sorted(found.items()):
        lines.append(f"| [{name}](#{_anchor(told)}) | {said(told)} | {len(told['used'])} | {told['cpu_s']:.0f} |")
    return "\n\n".join(["\n".join(lines), *(table.markdown(told) for _, told in sorted(found.items()))])


def page(text: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with the part between the marks made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{section(found)}\n\n{END}{after}"


def read(folder: Path) -> dict[str, Any]:
    """Every experiment's file by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


def _anchor(told: Mapping[str, Any]) -> str:
    heading = f"{told['experiment']} {said(told)}"
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def main() -> int:
    path = DOCS / "results.md"
    path.write_text(page(path.read_text(encoding="utf-8"), read(DOCS / "reproduced")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
