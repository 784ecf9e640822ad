"""The deepest stack that generated C can need, from the compiler's own figures: no function pointer, no recursion."""

import re
from pathlib import Path

from profiles.runners.cortex_m import toolchain
from profiles.runners.cortex_m.toolchain import Core

_NODE = re.compile(r'^node: \{ title: "([^"]+)" label: "[^"]*?(\d+) bytes \((static|dynamic[^)]*)\)"', re.MULTILINE)
_EDGE = re.compile(r'^edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"', re.MULTILINE)
ENTRY = "model_run"


def depth(core: Core, folder: Path) -> int | None:
    """Bytes of stack below `model_run`, with its own frame, of the model.c in `folder` compiled for `core`.

    The sum of frames along the deepest path of calls. Functions of the C library (memcpy, memset) count as nothing:
    newlib's keep at most 32 bytes more. None where a frame's size is not constant, or the paths form a loop.

    Raises:
        ProfileError: the compiler failed.
    """
    flags = (*core.flags, *toolchain.OPTIMISATION, "-fcallgraph-info=su")
    toolchain.run(["arm-none-eabi-gcc", *flags, "-c", "model.c", "-o", "stack.o"], folder)
    return deepest((folder / "stack.ci").read_text(encoding="utf-8"))


def deepest(graph: str) -> int | None:
    """The same from the text of GCC's call graph (-fcallgraph-info=su)."""
    found = list(_NODE.finditer(graph))
    frames = {node[1]: int(node[2]) for node in found}
    if any(node[3] != "static" for node in found):
        return None
    calls: dict[str, set[str]] = {}
    for source, target in _EDGE.findall(graph):
        calls.setdefault(source, set()).add(target)
    entry = next((name for name in frames if name.split(":")[-1] == ENTRY), None)
    if entry is None:
        return None
    return _below(entry, frames, calls, ())


def _below(name: str, frames: dict[str, int], calls: dict[str, set[str]], path: tuple[str, ...]) -> int | None:
    if name in path:
        return None
    depths = [_below(called, frames, calls, (*path, name)) for called in sorted(calls.get(name, ()))]
    known = [depth for depth in depths if depth is not None]
    return None if len(known) < len(depths) else frames.get(name, 0) + max(known, default=0)
