"""Kill a run with SIGKILL inside each of its stages, go on with the same command, and compare with an undisturbed run.

    .venv/bin/python tools/kill_stages.py [--out FOLDER] [-- pipeline arguments]

Prints, per stage, when it was killed and what the next command repeated; at the end whether every artifact has the
same hash as in the undisturbed run. Exit status 1 where one differs or a finished stage was repeated.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from compress.manifest import read_manifest
from compress.records import STAGES, folder_name, read_record
from compress.store import BEGUN

QUICK = ("--target", "jetson", "--quiet")
# Hold times of measurements and of the run itself; everything else must be the same to the bit.
TIMED = ("1_select/search.json", "6_verify/", "7_report/", "5_build/build.log", "5_build/build.json")


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/kill"))
    parser.add_argument("--seed", type=int, default=0, help="of the moments of killing")
    parser.add_argument("arguments", nargs="*", default=list(QUICK), help="of compress pipeline")
    options = parser.parse_args()
    calm, hit = options.out / "undisturbed", options.out / "killed"
    finish(calm, options.arguments)
    seconds = {stage: record.seconds for stage in STAGES if (record := read_record(calm / folder_name(stage)))}
    rng = random.Random(options.seed)
    good = True
    for stage in STAGES:
        finished = {s: stamp(hit, s) for s in STAGES if read_record(hit / folder_name(s)) is not None}
        moment = rng.uniform(0.05, 0.9) * seconds[stage]
        where = kill_inside(hit, stage, moment, options.arguments)
        repeated = [s for s, before in finished.items() if stamp(hit, s) != before]
        good &= not repeated
        print(f"{stage:<9} killed {where}; finished stages repeated: {', '.join(repeated) or 'none'}", flush=True)
    finished = {s: stamp(hit, s) for s in STAGES if read_record(hit / folder_name(s)) is not None}
    finish(hit, options.arguments)
    good &= all(stamp(hit, s) == before for s, before in finished.items())
    good &= compare(calm, hit)
    print("kill -9 in each stage:", "same artifacts, nothing repeated" if good else "FAILED")
    return 0 if good else 1


def command(out: Path, arguments: list[str]) -> list[str]:
    """The pipeline as a process."""
    return [sys.executable, "-m", "compress.cli.main", "pipeline", *arguments, "--out", str(out)]


def finish(out: Path, arguments: list[str]) -> None:
    """Run to the end."""
    subprocess.run(command(out, arguments), check=True, stdout=subprocess.DEVNULL)


def stamp(run: Path, stage: str) -> tuple[int, int]:
    """Changes whenever the stage's record is written again."""
    found = (run / folder_name(stage) / "stage.json").stat()
    return found.st_ino, found.st_mtime_ns


def kill_inside(run: Path, stage: str, moment: float, arguments: list[str]) -> str:
    """Start the command and kill it `moment` seconds after the stage began."""
    process = subprocess.Popen(command(run, arguments), stdout=subprocess.DEVNULL)
    begun = run / folder_name(stage) / BEGUN
    while not begun.exists():
        if process.poll() is not None:
            return "never: the stage was over before it could be caught"
        time.sleep(0.002)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if read_record(run / folder_name(stage)) is not None:
        return f"{moment:.2f} s after its begin, when it had just finished"
    return f"{moment:.2f} s after its begin"


def compare(calm: Path, hit: Path) -> bool:
    """Whether both runs list the same files with the same hashes."""
    left, right = read_manifest(calm), read_manifest(hit)
    names = sorted(name for name in left.keys() | right.keys() if not name.startswith(TIMED))
    different = [
        name for name in names if name not in left or name not in right or left[name].sha256 != right[name].sha256
    ]
    print(json.dumps({"compared": len(names), "different": different}))
    strays = [str(path) for path in hit.rglob("*.part-*")]
    if strays:
        print("stray temporary files:", strays)
    return not different and not strays


if __name__ == "__main__":
    sys.exit(main())
