"""Writes evaluations until it is killed: `python -m tests.compress.writer_of_evaluations FILE NAME COUNT`.

Prints each key after it was put. What it prints is on the disk.
"""

import sys
import time
from pathlib import Path

from compress.evaluations import Evaluation, open_evaluations


def main() -> None:
    """Claim, put, say so."""
    file, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    evaluations = open_evaluations(file)
    print("open", flush=True)
    for number in range(count):
        key = f"{name}{number}"
        if evaluations.claim(key):
            evaluations.put(key, Evaluation(number / 7, 0.5, number, 1.0, "a", "b", "here", extra={"text": "x" * 3000}))
            print(key, flush=True)
            time.sleep(0.003)  # leaves the file to others
    print("waiting", flush=True)
    evaluations.claim("held")
    sys.stdin.read()


if __name__ == "__main__":
    main()
