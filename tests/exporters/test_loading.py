"""One call runs what was made, whatever it is, and only what somebody vouches for.

Engines run against stand-ins for TensorRT and the CUDA driver that compute with onnxruntime on host memory; everything
else is the real thing: onnxruntime, this machine's C compiler, the emulated core.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import exporters
from exporters import onnx_to_c, onnx_to_deploy_bundle
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles import atomic
from profiles.errors import ProfileError
from profiles.runners import on_cortex_m
from profiles.runners.cortex_m import toolchain
from profiles.target import Target
from profiles.target import target as target_of
from profiles.trust import UntrustedError


def list_in(folder: Path, *names: str) -> None:
    """Write a run's manifest that lists files as they are now."""
    rows = [{"path": name, "sha256": atomic.sha256(folder / name)} for name in names]
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "artifacts": rows}))


def outside(path: Path, location: str) -> Path:
    """y = x + k, with k in a file of its own."""
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "k")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "k"], ["y"])], "g", ends[:1], ends[1:], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def run(int8_model, tmp_path: Path) -> Path:
    (tmp_path / "4_export").mkdir()
    shutil.copy(int8_model.path, tmp_path / "4_export" / "model.onnx")
    list_in(tmp_path, "4_export/model.onnx")
    return tmp_path


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import exporters, sys; print(sorted({'numpy', 'onnx', 'torch', 'profiles'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = exporters.lode


def test_an_onnx_file_of_a_run(run: Path, int8_model) -> None:
    with exporters.load(run / "4_export" / "model.onnx") as model:
        assert [(spec.name, spec.shape, spec.dtype) for spec in model.inputs] == [
            ("input", (None, 3, 16, 16), np.dtype(np.float32))
        ]
        assert [spec.name for spec in model.outputs] == ["logits"]
        assert model.runtime.startswith("onnxruntime 1.")
        found = model.run({"input": int8_model.inputs.numpy()})
        assert found["logits"].shape == (9, 3)
        np.testing.assert_allclose(found["logits"], int8_model.onnx_outputs(), atol=0.2)
        with pytest.raises(ExportError, match="starts nothing in the background"):
            model.submit({"input": int8_model.inputs.numpy()})
    with pytest.raises(ExportError, match="is closed"):
        model.run({})


@pytest.mark.parametrize(
    ("given", "said", "fix"),
    [
        ({}, r"input 'input' is missing; the model's inputs are 'input' float32 \(any, 3, 16, 16\)", "exactly these"),
        (np.zeros(1), "inputs are a ndarray, not arrays by name", "array}"),
        ({"x": np.zeros(1)}, "input 'input' is missing and there is no input 'x'", "exactly these"),
        ({"input": np.zeros((1, 3, 16, 16))}, "takes float32, given was float64", r"array.astype\(np.float32\)"),
        (
            {"input": np.zeros((3, 16, 16), np.float32)},
            r"takes \(any, 3, 16, 16\), given was \(3, 16, 16\)",
            r"array\[None",
        ),
        ({"input": np.zeros((1, 3, 8, 8), np.float32)}, r"given was \(1, 3, 8, 8\)", "of that shape"),
        ({"input": [[1.0]]}, "input 'input' is a list", "np.asarray"),
    ],
)
def test_what_does_not_fit_is_said(run: Path, given: dict[str, np.ndarray], said: str, fix: str) -> None:
    with exporters.load(run / "4_export" / "model.onnx") as model, pytest.raises(ExportError, match=said) as caught:
        model.run(given)
    assert re.search(fix, caught.value.fix)


def test_a_model_that_nobody_vouches_for(int8_model, run: Path) -> None:
    with pytest.raises(UntrustedError, match=r"nobody vouches for model\.onnx"):
        exporters.load(int8_model.path)
    exporters.load(int8_model.path, trust=True).close()
    exporters.load(int8_model.path, sha256=atomic.sha256(int8_model.path)).close()
    path = run / "4_export" / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(UntrustedError, match="is not the file that was made"):
        exporters.load(path)


def test_data_of_a_model_must_be_listed_and_lie_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "k.bin").write_bytes(np.array([1, 2], np.float32).tobytes())
    path = outside(folder / "m.onnx", "k.bin")
    list_in(folder, "m.onnx")
    with pytest.raises(UntrustedError, match=r"does not list k\.bin"):
        exporters.load(path)
    list_in(folder, "m.onnx", "k.bin")
    with exporters.load(path) as model:
        assert model.run({"x": np.zeros((1, 2), np.float32)})["y"].tolist() == [[1.0, 2.0]]
    (folder / "k.bin").rename(tmp_path / "k.bin")
    (folder / "k.bin").symlink_to(tmp_path / "k.bin")
    with pytest.raises(ProfileError, match="which is no file in its folder"):
        exporters.load(path)
    for location in ("../k.bin", str(tmp_path / "k.bin"), "a/../../k.bin"):
        outside(folder / "m.onnx", location)
        with pytest.raises(ProfileError, match="which is no file in its folder"):
            exporters.load(path, trust=True)


def test_what_is_nothing_that_runs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ExportError, match=r"notes\.txt is nothing that can be run; there are \.onnx, \.engine"):
        exporters.load(tmp_path / "notes.txt")
    with pytest.raises(ExportError, match="there is nothing at"):
        exporters.load(tmp_path / "absent.onnx")
    with pytest.raises(ExportError, match=r"has no model\.c"):
        exporters.load(tmp_path)


@pytest.fixture(scope="module")
def c_folder(depthwise_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = onnx_to_c.convert(depthwise_model.path, target_of("hearing_aid"), tmp_path_factory.mktemp("c"))
    list_in(made.path.parent, *[f"c/{name}" for name in ("model.c", "model.h", "model.json")])
    return made.path


@pytest.mark.skipif(toolchain.host_compiler() is None, reason="this machine has no C compiler")
def test_c_for_a_core_runs_on_this_machine_and_emulated_with_the_same_bits(c_folder: Path, depthwise_model) -> None:
    inputs = {"input": depthwise_model.inputs.numpy()[:2]}
    with exporters.load(c_folder, core="host") as model:
        assert model.runtime == "C compiled for this machine"
        assert [(spec.name, spec.shape) for spec in model.inputs] == [("input", (None, 3 * 16 * 16))]
        host = model.run(inputs)["logits"]
        np.testing.assert_array_equal(model.run(inputs)["logits"], host)  # compiled once, run again
        with pytest.raises(ExportError, match="takes float32, given was float64"):
            model.run({"input": np.zeros((1, 768))})
        with pytest.raises(ExportError, match=r"given was \(1, 12\)"):
            model.run({"input": np.zeros((1, 12), np.float32)})
    np.testing.assert_allclose(host, depthwise_model.onnx_outputs()[:2], atol=0.05)
    if on_cortex_m.available() is not None:
        pytest.skip(str(on_cortex_m.available()))
    with exporters.load(c_folder) as model:
        assert model.runtime == "C on an emulated cortex-m33"
        np.testing.assert_array_equal(model.run(inputs)["logits"], host)
        folder = model._loaded.folder  # type: ignore[union-attr]
    assert not folder.exists()


def test_changed_c_is_not_compiled(c_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(c_folder.parent, tmp_path / "copy")
    source = tmp_path / "copy" / "c" / "model.c"
    source.write_text(source.read_text() + "/* */")
    with pytest.raises(UntrustedError, match=r"model\.c is not the file that was made"):
        exporters.load(tmp_path / "copy" / "c", core="host")


# ---------------------------------------------------------------------------------------------------------------------
# Engines, against the stand-ins

USE = """
import json, sys
import numpy as np
import exporters
path, inputs, more = sys.argv[1], np.load(sys.argv[2]), json.loads(sys.argv[3])
with exporters.load(path, **more) as model:
    first = model.submit({"input": inputs[:4]})
    second = model.run({"input": inputs[4:6]})["logits"]
    print(json.dumps({"runtime": model.runtime, "logits": [*first.result()["logits"].tolist(), *second.tolist()]}))
    try:
        model.run({"input": inputs[:9]})
    except exporters.loading.ExportError as error:
        raise
    except Exception as error:
        print(json.dumps([type(error).__name__, error.what, error.fix]))
"""


@pytest.fixture
def use(fakes: Path, driver: Path, tmp_path: Path, int8_model) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Load and run an engine in a process that finds the stand-ins."""
    np.save(tmp_path / "inputs.npy", int8_model.inputs.numpy())
    (tmp_path / "use.py").write_text(USE)

    def start(path: Path, version: str = "10.3.0", **more: object) -> "subprocess.CompletedProcess[str]":
        root = Path(__file__).resolve().parents[2]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(fakes), str(root)]),
            "LD_LIBRARY_PATH": str(driver),
            "OMP_NUM_THREADS": "1",
            "FAKE_TENSORRT": version,
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "HOME": str(tmp_path),
        }
        words = [
            sys.executable,
            "-B",
            str(tmp_path / "use.py"),
            str(path),
            str(tmp_path / "inputs.npy"),
            json.dumps(more),
        ]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    return start


def test_an_engine_runs_through_the_same_call(
    int8_model, orin: Target, tmp_path: Path, start: Callable[..., object], use: Callable[..., object]
) -> None:
    options = BuildOptions(
        golden_inputs={"input": int8_model.inputs.numpy()},
        golden_outputs={"logits": int8_model.onnx_outputs()},
        batches=(1, 2, 4),
    )
    made = onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path, options=options)
    with pytest.raises(ExportError, match="has no engine yet"):
        exporters.load(made.path)
    assert start(made.path).returncode == 0  # type: ignore[attr-defined]
    found = use(made.path)
    assert found.returncode == 0, found.stderr  # type: ignore[attr-defined]
    told, refused = map(json.loads, found.stdout.splitlines())  # type: ignore[attr-defined]
    assert told["runtime"] == "tensorrt 10.3.0"
    np.testing.assert_allclose(told["logits"], int8_model.onnx_outputs()[:6], atol=0.2)
    assert refused[0] == "ProfileError"
    assert "profile 0: (1, 3, 16, 16) to (4, 3, 16, 16)" in refused[1]
    assert refused[2].startswith("pass at most 4 rows at a time")
    # Another release is refused by name, before TensorRT sees the file; with the ONNX file it is built again there.
    other = use(made.path, "10.4.0")
    assert "it was built by tensorrt 10.3.0, here is 10.4.0" in other.stderr  # type: ignore[attr-defined]
    again = use(made.path / "model.engine", "10.4.0", onnx=str(made.path / "model.onnx"), target="jetson")
    assert again.returncode == 0, again.stderr  # type: ignore[attr-defined]
    assert json.loads(again.stdout.splitlines()[0])["runtime"] == "tensorrt 10.4.0"  # type: ignore[attr-defined]
    assert len(list((tmp_path / "cache" / "compress" / "engines").glob("*.engine"))) == 1
    # One bit of the engine.
    engine = made.path / "model.engine"
    content = bytearray(engine.read_bytes())
    content[-3] ^= 1
    engine.write_bytes(content)
    assert "is not the file that was made" in use(engine).stderr  # type: ignore[attr-defined]


def test_without_a_gpu_an_engine_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"plan")
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    with pytest.raises(ProfileError, match=r"no NVIDIA GPU|neither TensorRT"):
        exporters.load(tmp_path / "model.engine", trust=True)


def test_no_model_is_opened_that_onnx_refuses(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    with pytest.raises(ProfileError, match="is not an ONNX file"):
        exporters.load(tmp_path / "m.onnx", trust=True)
    onnx.save(onnx.ModelProto(ir_version=10), tmp_path / "m.onnx")
    with pytest.raises(ProfileError, match="onnxruntime refuses"):
        exporters.load(tmp_path / "m.onnx", trust=True)
