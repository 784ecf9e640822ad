"""Fit the x86 latency model of the package on this machine, for people who have not calibrated their own.

    python tools/fit_x86.py --mhz 3700 --fp32-per-clock 32 --int8-per-clock 128 --gbs 20 > profiles/latency/x86_cpu.toml

The same suite and the same fit as `compress targets calibrate`; the figures of the core that is measured go in with the
constants, and predictions for other cores are scaled by the ratio of their figures to these. Takes two minutes.

The interval is for those other cores. On two processors of timm's benchmark tables, an i9-10940X and an i7-12700H, 937
networks in one runtime have times whose ratio lies within 0.61 to 2.27 of its median for 90 % of them (--table prints
this), and peaks only guess that median: 0.4 to 2.5.
"""

import argparse
import csv
import json
import math
import sys
from pathlib import Path

import numpy as np

from profiles.calibration import processor, write
from profiles.calibration.suite import suite
from profiles.calibration.timing import time_models
from profiles.target import Hardware

ELSEWHERE = (0.4, 2.5)  # factors on a prediction for a core that was not measured


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def spread(table: Path) -> None:
    """How the times of one network on two processors compare, over all networks that both have."""
    rates: dict[str, dict[tuple[str, str], float]] = {}
    with table.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            if row["device"].startswith("Intel"):
                key = (row["model"], row["img_size"])
                rates.setdefault(f"{row['device']}, {row['runtime']}", {})[key] = float(row["samples_per_s"])
    names = sorted(rates)
    for first in names:
        for second in names[names.index(first) + 1 :]:
            common = sorted(set(rates[first]) & set(rates[second]))
            ratios = np.log([rates[first][key] / rates[second][key] for key in common])
            if len(ratios) < 20:
                continue
            middle = float(np.median(ratios))
            low, high = np.percentile(ratios - middle, [5, 95])
            say(
                f"{first} against {second}: {len(common)} networks, ratio {math.exp(middle):.2f}, "
                f"90 % within {math.exp(low):.2f} to {math.exp(high):.2f} of it"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mhz", type=float, required=True, help="clock of the core under load")
    parser.add_argument("--fp32-per-clock", type=float, default=32, help="operations; 32: two 256-bit FMA ports")
    parser.add_argument("--int8-per-clock", type=float, default=128, help="operations; 128: VNNI on 256-bit ports")
    parser.add_argument("--gbs", type=float, required=True, help="memory bandwidth of one core")
    parser.add_argument("--cache-kib", type=int, default=1024, help="of one core")
    parser.add_argument("--seconds", type=float, default=110.0)
    parser.add_argument("--table", type=Path, help="timm_throughput.csv: print how processors differ, and stop")
    options = parser.parse_args()
    if options.table is not None:
        spread(options.table)
        return
    tera = options.mhz * 1e6 / 1e12
    hardware = Hardware(
        clock_mhz=options.mhz,
        units=1,
        tops={"fp32": options.fp32_per_clock * tera, "int8": options.int8_per_clock * tera},
        bandwidth_gbs=options.gbs,
        cache_kib=options.cache_kib,
    )
    samples = list(suite())
    found = processor.fitted(hardware, samples, time_models(samples, options.seconds, say=say), say)
    print("# Written by tools/fit_x86.py; what the constants mean is in x86_calls.py and x86_cpu.py.")
    print(
        "# interval: factors on the predicted median that contain 90 % of unseen cases on other processors of the kind;"
    )
    print("# `compress targets calibrate` makes it that of your own.\n")
    print("[default]")
    print(f"origin = {json.dumps(found.origin + '; scaled by clock and peaks to other processors')}")
    print("\n".join(write.table(found.constants)))
    print(f"interval = [{ELSEWHERE[0]}, {ELSEWHERE[1]}]")


if __name__ == "__main__":
    main()
