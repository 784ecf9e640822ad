"""Score predicted latencies against a table of published ones.

    python tools/score_latency.py TABLE.csv [TABLE.csv ...] [--by protocol] [--json]

TABLE has the columns of `published_latency.csv` or of `timm_throughput.csv`; the header says which. Every row is
predicted from what was run on what; its own times are read only to score it. Per device class (and per table of timm)
it prints how many rows there are, the median and the 90th percentile of the absolute percentage error, how many are
inside the 90 % interval, Spearman's rank correlation, and how many rows were left unpredicted.

Predictions rest on the rows and constants under tools/latency, which fit_protocols.py wrote. A row of TABLE that is one
of those is predicted with every stored row of its device and model set aside, in folds; how many there were is printed.
Needs no more than `profiles` does; with torch, architectures that are not stored are rebuilt. Nothing is fetched.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import latency_memory
import numpy as np
from latency_model import Prediction
from latency_rows import Array, Row, TableError, engine, read_table

FOLDS = 5  # rows that were stored are predicted without a fifth of the devices' models at a time
KEYS: Mapping[str, Callable[[Row], str]] = {
    "line": lambda row: row.line,
    "protocol": lambda row: f"{row.source} | {row.runtime} | {row.precision}",
    "device": lambda row: row.device,
    "family": lambda row: row.family,
    "model": lambda row: row.model,
    "engine": lambda row: engine(row.runtime),
    "precision": lambda row: row.precision,
    "batch": lambda row: str(row.batch or "not stated"),
    "source": lambda row: row.source,
    "task": lambda row: row.task,
    "usual": lambda row: "fixed shape, one engine" if row.usual else "variable shape, several engines or a framework",
}


@dataclass(frozen=True)
class Score:
    """How far predictions are off on some rows. Errors are fractions: 0.12 is 12 %."""

    rows: int
    median_error: float
    p90_error: float
    inside_interval: float  # share of the measured times that the 90 % interval holds
    spearman: float
    width: float  # median of the interval's upper end over its lower end
    unpredicted: int


def score(predictions: Sequence[Prediction | None], measured: Array) -> Score:
    """Compare predictions with measured times; rows without a measured time are left out.

    Args:
        predictions: None, or one that is not finite and positive, counts as unpredicted.
        measured: (rows,), milliseconds per item; NaN where there is none.
    """
    pairs = [(p, float(m)) for p, m in zip(predictions, measured, strict=True) if np.isfinite(m)]
    told = [(p, m) for p, m in pairs if p is not None and np.isfinite(p.ms) and p.ms > 0]
    if not told:
        nan = float("nan")
        return Score(len(pairs), nan, nan, nan, nan, nan, len(pairs))
    errors = np.array([abs(p.ms / m - 1) for p, m in told])
    inside = np.mean([p.low <= m <= p.high for p, m in told])
    rank = spearman(np.array([p.ms for p, _ in told]), np.array([m for _, m in told]))
    width = float(np.median([p.high / p.low for p, _ in told]))
    return Score(
        len(pairs), float(np.median(errors)), float(np.percentile(errors, 90)), float(inside), rank, width,
        len(pairs) - len(told),
    )  # fmt: skip


def spearman(a: Array, b: Array) -> float:
    """Pearson's correlation of the ranks; equal values share the mean of their ranks. NaN where one is constant."""
    if len(a) < 2 or np.all(a == a[0]) or np.all(b == b[0]):
        return float("nan")
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def scores(
    rows: Sequence[Row], predictions: Sequence[Prediction | None], measured: Array, by: str = "line"
) -> dict[str, Score]:
    """One score per value of a key, sorted by the value."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(KEYS[by](row), []).append(index)
    return {
        name: score([predictions[i] for i in members], measured[members]) for name, members in sorted(groups.items())
    }


def table(found: Mapping[str, Score], title: str) -> str:
    """The scores as text."""
    wide = max([len(title), *(len(name) for name in found)])
    lines = [f"{title:{wide}}   rows  median     p90  inside  spearman  width  unpredicted"]
    for name, s in found.items():
        lines.append(
            f"{name:{wide}}  {s.rows:5d}  {s.median_error:6.1%}  {s.p90_error:6.1%}  {s.inside_interval:6.1%}  "
            f"{s.spearman:8.3f}  {s.width:4.1f}x  {s.unpredicted:11d}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", metavar="TABLE.csv")
    parser.add_argument("--by", choices=sorted(KEYS), action="append", default=[], help="a further breakdown")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--usual", action="store_true", help="only rows of fixed shape on one engine (fit_ok = 1)")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    times: list[float] = []
    try:
        for path in options.tables:
            more, measured = read_table(path)
            rows += more
            times += measured.tolist()
    except TableError as error:
        print(f"score_latency: {error}", file=sys.stderr)
        return 2
    kept = [index for index, row in enumerate(rows) if row.usual or not options.usual]
    rows, measured = [rows[index] for index in kept], np.array([times[index] for index in kept], float)
    memory = latency_memory.load()
    stored = memory.holds(rows)
    predictions = memory.predict(rows, FOLDS)
    by = ["line", *options.by]
    if options.json:
        result = {key: {name: asdict(s) for name, s in scores(rows, predictions, measured, key).items()} for key in by}
        print(json.dumps({"stored_rows": sum(stored), "by": result}, indent=1))
    else:
        print("\n\n".join(table(scores(rows, predictions, measured, key), key) for key in by))
        if any(stored):
            print(
                f"\n{sum(stored)} of {len(rows)} rows are among those that the constants were learned from. Each was "
                "predicted with all stored rows of its device and model set aside."
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
