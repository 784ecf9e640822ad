"""An engine is used again only where it fits: its file, model, settings, library, GPU and system."""

from pathlib import Path
from typing import Any

import pytest

from exporters.device import identity
from exporters.device.files import RefusedError

ORIN = {"name": "Orin", "capability": "8.7", "driver": 12060}
REQUEST: dict[str, Any] = {"profiles": [], "tf32": False, "hardware": "none", "version_compatible": False}


def record(path: Path, package: str = "tensorrt", version: str = "10.3.0", **changes: Any) -> dict[str, Any]:
    path.write_bytes(b"engine")
    request = {**REQUEST, **changes}
    facts = {"tensorrt": version, "flags": [], "tf32": False}
    device = None if package == "tensorrt_rtx" else ORIN
    content = identity.record(path, package, facts, device, request, onnx="a" * 64, exported="b" * 64)
    identity.write(path, content)
    return identity.read(path)


def misfit(content: dict[str, Any], **asked: Any) -> str:
    return "; ".join(identity.misfits(content, **asked))


def test_the_same_everything_fits(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    content = record(path)
    for onnx in ("a" * 64, "b" * 64):
        asked = {"package": "tensorrt", "version": "10.3.0", "device": ORIN, "request": REQUEST, "onnx": onnx}
        assert identity.misfits(content, engine=path, **asked) == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"onnx": "c" * 64}, "from another ONNX file"),
        ({"request": {**REQUEST, "tf32": True}}, "with other settings"),
        ({"package": "tensorrt_rtx"}, "by tensorrt, here is tensorrt_rtx"),
        ({"package": "tensorrt", "version": "10.3.1"}, "by tensorrt 10.3.0, here is 10.3.1"),
        ({"device": {"name": "Orin NX", "capability": "8.7"}}, "built on Orin (8.7), this GPU is Orin NX (8.7)"),
    ],
)
def test_each_difference_is_named(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    assert said in misfit(record(tmp_path / "model.engine"), **asked)


def test_another_system(tmp_path: Path) -> None:
    content = {**record(tmp_path / "model.engine"), "machine": "aarch64-of-old"}
    assert "it was built on Linux aarch64-of-old" in misfit(content, package="tensorrt", version="10.3.0")


def test_one_bit_of_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    content = record(path)
    path.write_bytes(b"engind")
    assert "SHA-256 differs" in misfit(content, engine=path)


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        ("8.6.1", "8.6.2", True),
        ("8.6.1", "8.6.0", False),  # never on an older one
        ("8.6.1", "10.3.0", True),
        ("8.6.1", "11.0.0", False),
        ("10.3.0", "10.7.0", True),
        ("10.3.0", "11.4.1", True),
        ("11.0.0", "10.9.0", False),
    ],
)
def test_version_compatible_engines_run_later_and_on_the_next_major(
    tmp_path: Path, built: str, here: str, runs: bool
) -> None:
    content = record(tmp_path / "model.engine", version=built, version_compatible=True)
    assert (misfit(content, package="tensorrt", version=here) == "") is runs


@pytest.mark.parametrize(
    ("level", "capability", "runs"),
    [
        ("ampere_plus", "8.0", True),
        ("ampere_plus", "12.0", True),
        ("ampere_plus", "7.5", False),
        ("same_compute_capability", "8.7", True),
        ("same_compute_capability", "8.9", False),
    ],
)
def test_hardware_compatible_engines(tmp_path: Path, level: str, capability: str, runs: bool) -> None:
    content = record(tmp_path / "model.engine", hardware=level)
    assert (misfit(content, device={"name": "another", "capability": capability}) == "") is runs


def test_ahead_of_time_engines_fit_the_capabilities_they_name(tmp_path: Path) -> None:
    content = record(tmp_path / "m.engine", "tensorrt_rtx", "1.7.1", capabilities=["SM80", "SM120"])
    assert misfit(content, device={"name": "any", "capability": "12.0"}) == ""
    assert "built for SM80, SM120" in misfit(content, device={"name": "any", "capability": "8.7"})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1}'])
def test_what_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.engine.json").write_text(text)
    with pytest.raises(RefusedError):
        identity.read(tmp_path / "m.engine")


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="nobody can say what it was built for"):
        identity.read(tmp_path / "m.engine")
