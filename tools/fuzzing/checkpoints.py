"""Weights of a teacher: safetensors headers, torch archives, archives that unpack to far more than they are."""

import io
import json
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

from tools.fuzzing import mutations
from tools.fuzzing.kind import Kind, Rng

BOMB = 1 << 30  # bytes that one archive member would unpack to


def _prepare(folder: Path) -> Any:
    import torch
    from safetensors.torch import save_file

    tensors = {"layer.weight": torch.ones(4, 3), "layer.bias": torch.zeros(4), "steps": torch.tensor(3)}
    save_file(tensors, folder / "a.safetensors")
    torch.save({"state_dict": tensors, "epoch": 3}, folder / "a.pt")
    torch.save(tensors, folder / "old.pt", _use_new_zipfile_serialization=False)
    return [(folder / name).read_bytes() for name in ("a.safetensors", "a.pt", "old.pt")]


def _examine(samples: Any, rng: Rng, folder: Path) -> None:
    from compress.teachers.loading import read_weights

    safe, archive, old = samples
    kind = rng.randrange(6)
    if kind <= 1:
        path, content = folder / "case.safetensors", mutations.of_bytes(safe, rng)
    elif kind == 2:
        path, content = folder / "case.safetensors", _header(safe, rng)
    elif kind == 3:
        path, content = folder / "case.pt", _members(archive, rng)
    else:
        path, content = folder / "case.pt", mutations.of_bytes(rng.choice((archive, old)), rng)
    path.write_bytes(content)
    read_weights(path)


def _header(content: bytes, rng: Rng) -> bytes:
    """A well-formed header that says other things."""
    (length,) = struct.unpack("<Q", content[:8])
    tree = mutations.of_tree(json.loads(content[8 : 8 + length]), rng)
    text = json.dumps(tree).encode("utf-8", "surrogatepass")
    said = len(text) if rng.random() < 0.9 else rng.choice(mutations.INTEGERS) % (1 << 64)
    return struct.pack("<Q", said) + text + content[8 + length :]


def _members(content: bytes, rng: Rng) -> bytes:
    """An archive with a member damaged, missing, renamed, doubled, or made of zeros without end."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        members = [(info.filename, source.read(info)) for info in source.infolist()]
    number = rng.randrange(len(members))
    name, inner = members[number]
    match rng.randrange(5):
        case 0:
            members[number] = (name, mutations.of_bytes(inner, rng))
        case 1:
            members.pop(number)
        case 2:
            members[number] = (rng.choice(mutations.TEXTS) or "x", inner)
        case 3:
            members.append(members[number])
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(stream, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as goal,
    ):
        warnings.simplefilter("ignore")  # of names that stand there twice, on purpose
        for member, data in members:
            goal.writestr(zipfile.ZipInfo(member.replace("\0", "0")), data)
        if rng.random() < 0.01:
            bomb = zipfile.ZipInfo("archive/data/0")
            bomb.compress_type = zipfile.ZIP_DEFLATED
            with goal.open(bomb, "w", force_zip64=True) as handle:
                for _ in range(BOMB >> 20):
                    handle.write(bytes(1 << 20))
    return stream.getvalue()


KIND = Kind("checkpoints", _prepare, _examine)
