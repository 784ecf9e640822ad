"""Train every student of a protocol and write the table. Interrupted, it goes on where it stopped.

python -m tools.student_table fashion_mnist ../shared/data/fashion_mnist --work FOLDER --out TABLE.json
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from compress.contracts.selector import identity_of
from profiles.atomic import write_text
from tools.student_table.bed import PROTOCOLS, Bed, Protocol, all_students, plain_cost


def finished(log: Path) -> dict[tuple[str, float, int], dict[str, float]]:
    """Trainings that are done; a line that a kill cut off is not one."""
    done = {}
    if log.is_file():
        for line in log.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            done[row["identity"], row["share"], row["seed"]] = row["trained"]
    return done


def make(protocol: Protocol, data: Path | None, work: Path, out: Path, spaces: Sequence[str]) -> None:
    work.mkdir(parents=True, exist_ok=True)
    bed = Bed(protocol, data, work / "teacher")
    students = all_students(bed, work / "students.json", spaces or list(protocol.spaces))
    log = work / "trainings.jsonl"
    done = finished(log)
    wanted = [
        (space, plan, share, seed)
        for space, plan in students
        for share, seeds in protocol.seeds.items()
        for seed in range(seeds)
        if (identity_of(space, plan), share, seed) not in done
    ]
    print(f"{len(students)} students, {len(wanted)} trainings to do, {len(done)} done", flush=True)
    with log.open("a") as handle:
        for number, (space, plan, share, seed) in enumerate(wanted):
            trained = asdict(bed.train(space, plan, share, seed))
            identity = identity_of(space, plan)
            done[identity, share, seed] = trained
            handle.write(json.dumps({"identity": identity, "share": share, "seed": seed, "trained": trained}) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
            if number % 20 == 0:
                print(number, space, share, seed, trained, flush=True)
    write_text(out, json.dumps(table(bed, students, done), indent=None, separators=(",", ":")))
    print(f"wrote {out}")


def table(
    bed: Bed, students: Sequence[tuple[str, Any]], done: dict[tuple[str, float, int], dict[str, float]]
) -> dict[str, Any]:
    """The table as plain data."""
    rows = []
    for space, plan in students:
        identity = identity_of(space, plan)
        network = bed.network_cost(space, plan)
        rows.append(
            {
                "space": space,
                "plan": plan.to_json(),
                "identity": identity,
                "macs": network.macs,
                "params": network.params,
                "costs": {target: plain_cost(bed.cost(space, plan, target)) for target in bed.targets},
                "scores": {
                    str(share): {
                        str(seed): {key: round(value, 5) for key, value in done[identity, share, seed].items()}
                        for seed in range(seeds)
                        if (identity, share, seed) in done
                    }
                    for share, seeds in bed.protocol.seeds.items()
                },
            }
        )
    return {
        "format": 1,
        "protocol": asdict(bed.protocol),
        "examples": {"test": len(bed.splits.test)},
        "teacher": {"test": bed.teacher_test, "params": sum(p.numel() for p in bed.teacher.parameters())},
        "torch": torch.__version__,
        "students": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("protocol", choices=sorted(PROTOCOLS))
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--spaces", default="", help="only these, separated by commas")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [name for name in arguments.spaces.split(",") if name]
    make(PROTOCOLS[arguments.protocol], arguments.data, arguments.work, arguments.out, chosen)


if __name__ == "__main__":
    main()
