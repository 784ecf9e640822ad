"""A bundle does on a device what it says: everything of it that needs no GPU runs here, and the rest runs against a
small stand-in for TensorRT and the CUDA driver that computes with onnxruntime on host memory."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporters import build_engine, bundle, golden, onnx_to_deploy_bundle, parity
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles.target import Target

FAKES = Path(__file__).parent / "fakes"
Start = Callable[..., "subprocess.CompletedProcess[str]"]


def options(model, **more: object) -> BuildOptions:
    return BuildOptions(
        golden_inputs={"input": model.inputs.numpy()},
        golden_outputs={"logits": model.onnx_outputs()},
        batches=(1, 2, 4),
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture
def made(int8_model, orin: Target, tmp_path: Path):
    return onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path, options=options(int8_model))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make the stand-in for the CUDA driver with")
    folder = tmp_path_factory.mktemp("driver")
    command = [compiler, "-shared", "-fPIC", "-O1", str(FAKES / "cuda.c"), "-o", str(folder / "libcuda.so.1")]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def start(driver: Path) -> Start:
    """Start a bundle's script beside the stand-ins; words and environment as given."""

    def run(folder: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        child = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(FAKES),
            "LD_LIBRARY_PATH": str(driver),
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        command = [sys.executable, "-B", str(folder / "build_engine.py"), "--measure-seconds", "0.02", *words]
        return subprocess.run(command, env=child, capture_output=True, text=True, check=False)

    return run


def test_the_folder_holds_all_that_a_device_needs(made) -> None:
    assert made.facts["files"] == [
        "README.md",
        "build_engine.py",
        "bundle.json",
        "golden_inputs.npz",
        "golden_outputs.npz",
        "manifest.json",
        "model.onnx",
        "run.sh",
    ]
    assert os.access(made.path / "run.sh", os.X_OK)
    listed = json.loads((made.path / "manifest.json").read_text())["files"]
    assert set(listed) == set(made.facts["files"]) - {"manifest.json"}
    for name, entry in listed.items():
        assert hashlib.sha256((made.path / name).read_bytes()).hexdigest() == entry["sha256"]


def test_the_same_model_gives_the_same_bytes(made, int8_model, orin: Target, tmp_path: Path) -> None:
    again = onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path / "b", options=options(int8_model))
    for name in made.facts["files"]:
        assert (made.path / name).read_bytes() == (again.path / name).read_bytes(), name
    assert made.facts["manifest_sha256"] == again.facts["manifest_sha256"]


def test_a_bundle_that_is_there_is_replaced_whole(made, float_model, orin: Target, tmp_path: Path) -> None:
    (made.path / "result.json").write_text("{}")
    onnx_to_deploy_bundle.convert(float_model.path, orin, tmp_path, options=options(float_model))
    assert not (made.path / "result.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_refusals(int8_model, float_model, orin: Target, x86: Target, tmp_path: Path) -> None:
    assert onnx_to_deploy_bundle.can_run(orin) is None
    assert "runs onnxruntime" in str(onnx_to_deploy_bundle.can_run(x86))
    with pytest.raises(ExportError, match="needs golden inputs and outputs"):
        onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path, options=BuildOptions())
    wrong = BuildOptions(golden_inputs={"x": np.zeros((1, 3))}, golden_outputs={"logits": np.zeros((1, 3))})
    with pytest.raises(ExportError, match="golden arrays are named"):
        onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path, options=wrong)
    uneven = BuildOptions(golden_inputs={"input": np.zeros((2, 3))}, golden_outputs={"logits": np.zeros((1, 3))})
    with pytest.raises(ExportError, match="different numbers of samples"):
        onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path, options=uneven)
    assert list(tmp_path.iterdir()) == []


def test_the_script_stands_alone_and_is_old_enough() -> None:
    """Standard library, numpy and tensorrt only; Python 3.10 can parse it."""
    tree = ast.parse(bundle.SCRIPT.read_text(), feature_version=(3, 10))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"numpy"}


def test_the_self_test_needs_no_gpu(made) -> None:
    found = subprocess.run(
        ["sh", str(made.path / "run.sh"), "--self-test", "--manifest-sha256", str(made.facts["manifest_sha256"])],
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["golden"] == "9 samples"


@pytest.mark.parametrize("name", ["model.onnx", "golden_outputs.npz", "bundle.json", "run.sh", "build_engine.py"])
def test_a_changed_file_is_refused(made, name: str) -> None:
    path = made.path / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(build_engine.RefusedError, match=f"{name} is not the file that was exported"):
        build_engine.check_manifest(made.path, None)
    assert build_engine.main(["--folder", str(made.path)]) == 2, "and nothing is built"


def test_a_missing_or_linked_file_is_refused(made, tmp_path: Path) -> None:
    shutil.copy(made.path / "model.onnx", tmp_path / "elsewhere.onnx")
    (made.path / "model.onnx").unlink()
    with pytest.raises(build_engine.RefusedError, match=r"model\.onnx is missing"):
        build_engine.check_manifest(made.path, None)
    (made.path / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(build_engine.RefusedError, match=r"model\.onnx is missing"):
        build_engine.check_manifest(made.path, None)


def test_a_changed_manifest_is_refused_by_its_own_hash(made) -> None:
    manifest = json.loads((made.path / "manifest.json").read_text())
    (made.path / "model.onnx").write_bytes(b"evil")
    manifest["files"]["model.onnx"]["sha256"] = hashlib.sha256(b"evil").hexdigest()
    (made.path / "manifest.json").write_text(json.dumps(manifest))
    build_engine.check_manifest(made.path, None)
    with pytest.raises(build_engine.RefusedError, match=r"manifest\.json is not the one"):
        build_engine.check_manifest(made.path, str(made.facts["manifest_sha256"]))


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b", ".."])
def test_a_manifest_cannot_point_elsewhere(made, name: str) -> None:
    (made.path / "manifest.json").write_text(json.dumps({"files": {name: {"sha256": "0"}}}))
    with pytest.raises(build_engine.RefusedError, match="not a plain file name"):
        build_engine.check_manifest(made.path, None)


@pytest.mark.parametrize(
    ("version", "strongly_typed", "type_key"),
    [
        ("10.3.0", "STRONGLY_TYPED", "Format/Datatype"),
        ("10.16.1.11", "STRONGLY_TYPED", "Format/Datatype"),
        ("11.0.0", None, "Datatype"),
        ("11.4.1.106", None, "Datatype"),
    ],
)
def test_what_differs_between_versions(version: str, strongly_typed: str | None, type_key: str) -> None:
    api = build_engine.api_of(version)
    assert (api.strongly_typed, api.type_key) == (strongly_typed, type_key)


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2.0", "12.0.0", "unknown"])
def test_versions_that_are_refused(version: str) -> None:
    with pytest.raises(build_engine.RefusedError):
        build_engine.api_of(version)


@pytest.mark.parametrize(("version", "flags"), [("10.3.0", 2), ("11.4.1", 0)])
def test_the_whole_way_on_each_line_of_versions(made, start: Start, version: str, flags: int) -> None:
    found = start(made.path, "--manifest-sha256", str(made.facts["manifest_sha256"]), FAKE_TENSORRT=version)
    assert found.returncode == 0, found.stderr
    result = json.loads((made.path / "result.json").read_text())
    engine = (made.path / "model.engine").read_bytes()
    told = json.loads(engine.partition(b"\n")[0])
    assert told == {
        "flags": flags,
        "cleared": ["TF32"],
        "shapes": {"input": [[1, 3, 16, 16], [2, 3, 16, 16], [4, 3, 16, 16]]},
    }
    assert result["passed"] is True
    assert result["tensorrt"] == version
    assert result["engine_sha256"] == hashlib.sha256(engine).hexdigest()
    assert result["machine"]["device"] == {"name": "Fake Orin", "capability": "8.7", "driver": 12060}
    assert result["parity"]["logits"]["elements"] == 27
    assert result["parity"]["logits"]["top1_agreement"] == 1.0
    assert set(result["latency"]) == {"1", "2"}
    assert result["latency"]["1"]["origin"] == "measured"
    assert 0.0 < result["latency"]["1"]["median_ms"] <= result["latency"]["1"]["p95_ms"]
    assert result["int8_share"] == 6 / 7, "the stand-in says int8 of convolutions only"
    assert len(result["float_nodes"]) == 1
    assert (made.path / "build.log").read_text() == "VERBOSE parsing\n"


def test_another_gpu_is_refused_unless_asked_for(made, start: Start) -> None:
    found = start(made.path, FAKE_CAPABILITY="86")
    assert found.returncode == 2
    assert "this GPU is Fake Orin (8.6)" in found.stderr
    assert not (made.path / "model.engine").exists()
    assert start(made.path, "--any-device", FAKE_CAPABILITY="86").returncode == 0


def test_an_engine_that_computes_something_else_fails(made, start: Start) -> None:
    found = start(made.path, FAKE_WRONG="1")
    assert found.returncode == 1
    result = json.loads((made.path / "result.json").read_text())
    assert result["passed"] is False
    assert "mean_of_spread" in result["parity"]["logits"]["failed"]


def test_a_refused_graph_names_the_node(made, start: Start) -> None:
    found = start(made.path, FAKE_REFUSES="1")
    assert found.returncode == 2
    assert "node 'node_q' (QuantizeLinear): Non-zero zero point" in found.stderr
    assert not (made.path / "result.json").exists()


def test_a_crash_of_the_builder_is_survived(made, start: Start) -> None:
    found = start(made.path, FAKE_CRASHES="1")
    assert found.returncode == 3
    assert "the builder crashed" in found.stderr
    assert "tactic of node_bad" in (made.path / "build.log").read_text()


def test_a_machine_without_gpu_or_tensorrt_says_what_it_lacks(made, start: Start) -> None:
    found = start(made.path, FAKE_NO_GPU="1")
    assert found.returncode == 2
    assert "sees no GPU" in found.stderr
    told = json.loads(start(made.path, "--probe", PYTHONPATH="").stdout)
    assert any(word.startswith("tensorrt") for word in told["missing"])
    told = json.loads(start(made.path, "--probe", FAKE_TENSORRT="8.6.1").stdout)
    assert "too old" in told["missing"][0]


def test_a_timing_cache_is_kept(made, start: Start, tmp_path: Path) -> None:
    found = start(made.path, "--timing-cache", str(tmp_path / "cache.bin"))
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "cache.bin").read_bytes() == b"timings"
    result = json.loads((made.path / "result.json").read_text())
    assert result["timing_cache_sha256"] == hashlib.sha256(b"timings").hexdigest()


def test_the_script_judges_as_the_pipeline_does() -> None:
    """The script cannot import exporters.parity, so both are held against each other."""
    rng = np.random.default_rng(0)
    bounds = dict(bundle.BOUNDS)
    for step in (None, 0.05):
        first = rng.standard_normal((6, 5)).astype(np.float32)
        second = first + rng.normal(0, 0.03, (6, 5)).astype(np.float32)
        told, known = build_engine.judge(first, second, step, bounds), parity.compare(first, second, step)
        assert told["max_abs"] == known.max_abs
        assert told["mean_abs"] == known.mean_abs
        assert told["top1_agreement"] == known.top1_agreement
        assert told.get("within_one_step") == known.within_one_step
    assert build_engine.judge(first, first[:3], None, bounds)["passed"] is False
    assert build_engine.judge(first, np.full_like(first, np.nan), None, bounds)["failed"][0] == "not_a_number"


def test_golden_arrays_are_what_was_given(made, int8_model) -> None:
    stored = golden.read(made.path / "golden_outputs.npz")
    np.testing.assert_array_equal(stored["logits"], int8_model.onnx_outputs())


def test_percentiles_by_nearest_rank() -> None:
    found = build_engine.percentiles([float(value) for value in range(101)])
    assert (found["p5_ms"], found["median_ms"], found["p95_ms"], found["runs"]) == (5.0, 50.0, 95.0, 101)
