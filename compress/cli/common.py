"""Options that several commands share."""

import argparse


def add_output(command: argparse.ArgumentParser) -> None:
    """`--json` and `--quiet`."""
    command.add_argument("--json", action="store_true", help="print the result as JSON on stdout, all else on stderr")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")
