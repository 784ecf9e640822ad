"""What runs on the other machine: unpack what was sent, run each job, write the answers as JSON.

    python3 remote_main.py FOLDER      with request.zip in FOLDER; leaves result.json there

It needs nothing but Python at first, an old one too, so that every lack is answered in words. It ends, and removes
FOLDER, as soon as its standard input ends: then the connection is gone and nobody waits for an answer.
"""

import json
import os
import shutil
import sys
import threading
import types

NEEDS = (3, 10)
LOST = 3  # exit status where the connection went away


def main(folder: str) -> None:
    """Answer the request in a folder."""
    threading.Thread(target=_watch, args=(folder,), daemon=True).start()
    try:
        answer = _answer(folder)
    except Exception as error:
        # Whatever it is, the user must read it on the other side. A traceback goes to standard error.
        import traceback

        traceback.print_exc()
        answer = _refusal(type(error).__name__ + ": " + str(error), "see what that machine printed")
    part = os.path.join(folder, "result.json.part")
    with open(part, "w") as handle:
        json.dump(answer, handle)
    os.replace(part, os.path.join(folder, "result.json"))


def _answer(folder: str) -> "dict[str, object]":
    here = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < NEEDS:
        return _refusal("its " + sys.executable + " is Python " + here, "name a Python of 3.10 or later")
    import importlib.util

    if importlib.util.find_spec("numpy") is None:
        return _refusal(
            "numpy is not installed for its " + sys.executable + " (Python " + here + ")",
            "install it there (pip install numpy), or name another Python there",
        )
    import zipfile

    with zipfile.ZipFile(os.path.join(folder, "request.zip")) as archive:
        archive.extractall(os.path.join(folder, "sent"))
    sent = os.path.join(folder, "sent")
    sys.path.insert(0, os.path.join(sent, "package"))
    _make_sure_of_tomli()
    os.chdir(sent)
    from profiles.remote_jobs import run_all

    return run_all(sent)


def _refusal(what: str, fix: str) -> "dict[str, object]":
    return {"refused": {"kind": "ProfileError", "what": what, "fix": fix}}


def _make_sure_of_tomli() -> None:
    """Python 3.10 has no TOML reader. Targets arrive as JSON, so one that reads nothing is enough to start with."""
    if sys.version_info >= (3, 11):
        return
    try:
        import tomli  # noqa: F401
    except ImportError:
        stand_in = types.ModuleType("tomli")

        def loads(text: str) -> "dict[str, object]":
            raise ImportError("tomli is not installed there: pip install tomli")

        stand_in.loads = loads
        stand_in.TOMLDecodeError = ValueError
        sys.modules["tomli"] = stand_in


def _watch(folder: str) -> None:
    while os.read(0, 4096):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(LOST)


if __name__ == "__main__":
    main(sys.argv[1])
