"""A task's metric as people read it: what it is called, and how its values and differences are written."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """The name and the unit of `Task.metric`. Needs no torch, so that commands which only read files have it too.

    Attributes:
        name: such as "accuracy", "concordance", "Dice coefficient".
        unit: "%" where it is a fraction, which people read in percent; "" where it is a number of its own.
    """

    name: str = "accuracy"
    unit: Literal["%", ""] = "%"

    def value(self, score: float, error: float | None = None) -> str:
        """As "91.20 %", or "0.912" where it is no fraction; with a standard error "91.20 ± 0.4 %", "0.912 ± 0.004"."""
        told = f"{100 * score:.2f}" if self.unit else f"{score:.3f}"
        about = "" if error is None else f" ± {100 * error if self.unit else error:.2g}"
        return f"{told}{about} {self.unit}".rstrip()

    def gap(self, difference: float) -> str:
        """A difference of two, as "1.20 points", or "0.012"."""
        return f"{100 * difference:.2f} points" if self.unit else f"{difference:.3f}"


def read_metric(found: object) -> Metric:
    """The metric that a finished run's file names under "metric" and "metric_unit"; files of old have no unit.

    Args:
        found: a JSON object.
    """
    row = found if isinstance(found, dict) else {}
    return Metric(str(row.get("metric", "score")), "" if row.get("metric_unit", "%") == "" else "%")
