from dataclasses import replace
from pathlib import Path

import pytest

import profiles
from profiles.errors import ProfileError
from profiles.runners import WrongDeviceError, on_onnxruntime, processor
from profiles.target import Target

SERVER = "sse4_2 avx2 fma avx512f avx512_vnni"


@pytest.fixture
def x86() -> Target:
    return profiles.target("x86")


def cpuinfo(folder: Path, flags: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    return path


@pytest.mark.parametrize(
    ("core", "flags", "said"),
    [
        ("x86-64 with AVX-512 VNNI", SERVER, None),
        ("x86-64 with AVX-512 VNNI", "avx2 avx512f", "the target has AVX-512 VNNI, this processor has not"),
        ("x86-64 with AVX-512 VNNI and AMX", SERVER, "the target has AMX, this processor has not"),
        ("x86-64 with AVX-VNNI", "avx2 avx_vnni", None),
        ("x86-64 with AVX-VNNI", "avx2", "the target has AVX-VNNI"),
        ("x86-64 with AVX2", "sse2", "the target has AVX2"),
        ("x86-64 with AVX2, without VNNI or AVX-512", "avx2", None),
        (
            "x86-64 with AVX2",
            SERVER,
            "the target has no AVX-512 VNNI and no AVX-VNNI and no AVX-512, this processor has",
        ),
        ("x86-64 with AVX-512", SERVER, "the target has no AVX-512 VNNI"),
        ("x86-64 with AVX-512 VNNI", SERVER + " amx_tile amx_int8", None),
        ("x86-64 with AMX", SERVER + " amx_tile amx_int8", None),
        ("x86-64 with AVX2, without AVX-512", SERVER, "the target has no AVX-512 VNNI"),
        ("any", "", None),
    ],
)
def test_features_are_compared(x86: Target, tmp_path: Path, core: str, flags: str, said: str | None) -> None:
    target = replace(x86, hardware=replace(x86.hardware, core=core))
    found = processor.misfit(target, cpuinfo(tmp_path, flags), "x86_64")
    assert (found is None) if said is None else (found is not None and said in found)


def test_what_the_processor_has_beyond_the_target_is_said(x86: Target, tmp_path: Path) -> None:
    assert processor.surplus(x86, cpuinfo(tmp_path, SERVER)) is None
    said = processor.surplus(x86, cpuinfo(tmp_path, SERVER + " amx_tile"))
    assert said == "this processor has AMX, which the target has not; runtimes may use it"


def test_another_architecture_is_another_device(x86: Target, tmp_path: Path) -> None:
    said = processor.misfit(x86, cpuinfo(tmp_path, ""), "aarch64")
    assert said == "the target is an x86-64 processor, this one is aarch64"
    assert processor.misfit(profiles.target("jetson"), cpuinfo(tmp_path, SERVER), "x86_64") is not None


def test_a_processor_of_another_kind_is_not_measured(
    x86: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "features", lambda *_: frozenset({"sse2"}))
    with pytest.raises(WrongDeviceError, match="the target has AVX-512 VNNI"):
        on_onnxruntime.measure(tmp_path / "any.onnx", x86)


def test_the_batch_that_was_asked_for_is_the_one_that_runs() -> None:
    import numpy as np

    from profiles.runners import batch_of

    assert batch_of({"x": np.zeros((8, 3))}, 8) == 8
    assert batch_of({"x": np.zeros((8, 3)), "table": np.zeros((5,))}) == 8
    with pytest.raises(ProfileError, match="batch 8 was asked for; the model's own is fixed at 1"):
        batch_of({"x": np.zeros((1, 3))}, 8)
