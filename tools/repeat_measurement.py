"""Measure one model again and again, each time in a new process: does the interval contain what comes next?

    python tools/repeat_measurement.py student.onnx --runner on_onnxruntime --times 20

Prints every median with its interval, the standard deviation between starts, and the share of pairs (one, another)
where the other's median lies in the one's interval: 90 % is what `Measurement.interval_ms` promises.
"""

import argparse
import json
import subprocess
import sys

import numpy as np

CHILD = """
import json, sys
from pathlib import Path
from profiles.errors import ProfileError
from profiles.runners import runner
path, name, seconds, batch = json.loads(sys.argv[1])
try:
    found = runner(name).measure(Path(path), None, None, batch=batch, seconds=seconds)
    print(json.dumps([found.median_ms, *found.interval_ms, list(found.notes)]))
except ProfileError as error:
    print(json.dumps(error.what))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--runner", default="on_onnxruntime")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one round of measuring")
    options = parser.parse_args()
    asked = json.dumps([options.model, options.runner, options.seconds, options.batch])
    rows: list[list[float]] = []
    for _ in range(options.times):
        done = subprocess.run([sys.executable, "-c", CHILD, asked], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        if isinstance(found, str):
            print(f"refused: {found}")
            continue
        median, low, high, notes = found
        print(f"{median:.5g} ms ({low:.5g} to {high:.5g}); {'; '.join(notes)}")
        rows.append([median, low, high])
    if len(rows) < 2:
        sys.exit("fewer than two measurements were accepted")
    medians, lows, highs = np.array(rows).T
    inside = (lows[:, None] <= medians[None, :]) & (medians[None, :] <= highs[:, None])
    others = ~np.eye(len(rows), dtype=bool)
    width = float(np.median((highs - lows) / medians))
    print(
        f"{len(rows)} of {options.times} accepted; standard deviation between starts "
        f"{medians.std(ddof=1) / np.median(medians):.2%}; median width of the interval {width:.1%}; "
        f"{inside[others].mean():.0%} of the other medians inside"
    )


if __name__ == "__main__":
    main()
