"""The build stage: what it builds, what it remembers, and what it refuses to build from."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest

import exporters
import profiles
from compress.cli.main import main
from compress.errors import RunError
from compress.progress import Quiet
from compress.stages import build_choices
from compress.stages.build import build
from compress.store import open_store
from exporters.device import identity
from exporters.errors import ExportError
from profiles.trust import UntrustedError
from tools.remote_loopback import small_network

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has got as far as its export."""

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        model = small_network(folder / "model.onnx")
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
        np.savez(folder / "golden.npz", **{"input:x": x, "output:y": session.run(None, {"x": x})[0]})
        return {"quantised ONNX": model, "golden": folder / "golden.npz"}, {}

    folder = tmp_path / "run"
    with open_store(folder) as store:
        store.once("export", {}, work)
    (folder / "run.json").write_text(json.dumps({"recipe": {"target": "a100"}}))
    return folder


def built(run: Path) -> dict[str, Any]:
    return {row["path"]: row for row in json.loads((run / "5_build" / "stage.json").read_text())["values"]["artifacts"]}


@needs_rtx
def test_engines_for_several_capabilities_are_built_and_remembered(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["build", str(run), "--quiet", "--capability", "8.0,8.6", "--batches", "1,1,4", "--workspace-mib", "64"]
    assert main(words) == 0
    rows = built(run)
    assert set(rows) == {"model.engine", "model_sm80_sm86.engine"}
    record = identity.read(run / "5_build" / "model_sm80_sm86.engine")
    assert record["capabilities"] == ["SM80", "SM86"]
    assert record["profiles"] == [{"x": [[1, 3, 16, 16], [1, 3, 16, 16], [4, 3, 16, 16]]}]
    assert record["flags"] == ["workspace:64MiB"]
    listed = {row["path"] for row in json.loads((run / "manifest.json").read_text())["artifacts"]}
    assert {f"5_build/{name}" for name in ("model.engine", "model.engine.json", "model.build.log")} <= listed
    before = (run / "5_build" / "stage.json").read_bytes()
    with open_store(run) as store:  # as verify does: the choices are those of before, so nothing is built again
        build(store, profiles.target("a100"), None, Quiet())
        assert store.repeated == []
    assert (run / "5_build" / "stage.json").read_bytes() == before
    assert build_choices.recall(run)["capabilities"] == ["8.0", "8.6"]
    assert main(["build", str(run), "--quiet", "--default"]) == 0
    assert set(built(run)) == {"model.engine"}
    assert build_choices.recall(run) == {}
    # A swapped engine is noticed, and built again instead of being run.
    engine = run / "5_build" / "model.engine"
    good = engine.read_bytes()
    engine.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(UntrustedError, match="is not the file that was made"):
        exporters.load(engine)
    with open_store(run) as store:
        build(store, profiles.target("a100"), None, Quiet())
        assert store.repeated == ["build"]
    assert identity.misfits(identity.read(engine), engine=engine) == []
    # So is one that another release of the compiler made.
    record = identity.read(engine)
    identity.write(engine, {**record, "tensorrt": "1.6.0"})
    heard = Heard()
    with open_store(run) as store:
        build(store, profiles.target("a100"), None, heard)
        assert store.repeated == ["build"]
    assert any("model.engine: it was built by tensorrt_rtx 1.6.0, here is 1.7" in line for line in heard.lines)


class Heard(Quiet):
    """Remembers what was said."""

    lines: ClassVar[list[str]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_choices_that_no_builder_takes_are_not_remembered(run: Path) -> None:
    """Else every later `compress verify` of the run would be refused, too."""
    build_choices.remember(run, {"batches": [1, 1, 4]})
    assert main(["build", str(run), "--quiet", "--capability", "9.9"]) == 2
    assert build_choices.recall(run) == {"batches": [1, 1, 4]}


def test_the_format_is_the_one_that_was_exported(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line knows the target's own format only, and the recipe may have asked for another."""
    record = run / "4_export" / "stage.json"
    content = json.loads(record.read_text())
    content["values"] |= {"quantizer": "tensorrt_fp8", "precision": "int8"}
    record.write_text(json.dumps(content))
    seen: list[str] = []

    class Builder:
        def can_run(self, target: profiles.Target, *, remote: object = None) -> str:
            seen.append(target.quantizer)
            return "it is only asked"

    monkeypatch.setattr("compress.stages.build.builder.load", lambda name: Builder())
    assert profiles.target("a100").quantizer != "tensorrt_fp8"
    assert main(["build", str(run), "--quiet"]) == 0
    assert set(seen) == {"tensorrt_fp8"}


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_nothing_is_built_from_files_that_the_export_did_not_write(run: Path, name: str) -> None:
    path = run / "4_export" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with open_store(run) as store, pytest.raises(UntrustedError, match=f"{name} is not the file that was made"):
        build(store, profiles.target("a100"), None, Quiet())
    assert main(["build", str(run), "--quiet"]) == 2


def test_a_run_without_an_export(tmp_path: Path) -> None:
    with open_store(tmp_path / "run") as store, pytest.raises(RunError, match="has no finished export"):
        build(store, profiles.target("a100"), None, Quiet())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--capability", "ampere"], "not a list of compute capabilities"),
        (["--batches", "8,1,4"], "not smallest,typical,largest"),
        (["--dim", "3,4,5"], "names no dimension"),
        (["--profile", "x=1x3"], "smallest, typical and largest shape"),
        (["--gpu-fallback"], "without a DLA"),
        (["--workspace-mib", "0"], "too little"),
    ],
)
def test_options_are_refused_before_anything_is_written(
    run: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", str(run), "--quiet", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (run / "build.json").exists()
    assert not (run / "5_build").exists()


def test_choices_become_options(tmp_path: Path) -> None:
    given = {
        "dims": {"length": [1, 64, 512]},
        "profiles": [{"x": [[1, 4], [2, 4], [3, 4]]}],
        "dla_core": 1,
        "gpu_fallback": True,
        "hardware": "ampere_plus",
        "timing_cache": "/tmp/kept",
    }
    build_choices.remember(tmp_path, given)
    made = build_choices.options(build_choices.recall(tmp_path))
    assert made.dims == {"length": (1, 64, 512)}
    assert made.profiles == ({"x": ((1, 4), (2, 4), (3, 4))},)
    assert (made.engine.dla_core, made.engine.gpu_fallback, made.engine.hardware) == (1, True, "ampere_plus")
    assert made.engine.timing_cache == Path("/tmp/kept")
    (tmp_path / "build.json").write_text('{"shell": "rm"}')
    with pytest.raises(RunError, match="holds no choices"):
        build_choices.recall(tmp_path)
    with pytest.raises(ExportError, match="is unknown"):
        build_choices.options({"hardware": "any"})
