"""`compress verify RUN`: whether every file is as it was made, who signed it, and every artifact run again."""

import argparse
from pathlib import Path
from typing import Any

from compress.cli.common import add_output


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "verify",
        help="check every file of a run against its hash, then run every artifact again",
        description="Check every file of a run against its hash and, with a key, its signature; "
        "then run every artifact and check it again.",
    )
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of a run, as compress pipeline wrote it")
    command.add_argument("--key", type=Path, metavar="PUBLIC", help="who must have signed it: an Ed25519 public key")
    command.add_argument("--only-hashes", action="store_true", help="run nothing; needs no torch")
    command.add_argument("--remote", metavar="USER@HOST", help="measure there, by ssh")
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Check; (result for --json, text)."""
    from compress.integrity import examine
    from compress.signing import SIGNATURE

    found = examine(options.folder)
    found.require(options.folder)
    result: dict[str, Any] = {"folder": str(options.folder), "files": found.files, "bytes": found.size}
    lines = [f"{found.files} artifacts, {found.size / 1e6:.1f} MB: each as it was made (SHA-256)"]
    if options.key is not None:
        from compress import signing

        result["signed_by"] = signing.check(options.folder, signing.read_public_key(options.key))
        lines.append(f"signed by {result['signed_by']}")
    signed = (options.folder / SIGNATURE).is_file()
    if options.only_hashes or signed or "export" in found.unfinished:
        if found.unfinished:
            lines.append(f"not finished yet: {', '.join(found.unfinished)}")
        if signed and options.key is None:
            lines.append(f"signed, but by whom was not asked: --key PUBLIC checks {SIGNATURE}")
        if signed and not options.only_hashes:
            lines.append(f"nothing was run, which would change what is signed; without {SIGNATURE} it is run")
        return result | {"unfinished": list(found.unfinished), "signed": signed}, "\n".join(lines)
    from compress.cli import stage

    again, text = stage.again(options.folder, "verify", options)
    return (result | again, "\n".join([*lines, text])) if again else ({}, "")
