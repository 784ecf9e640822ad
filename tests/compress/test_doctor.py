import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from compress import doctor
from compress.doctor import Examination, Finding, Outlook, Package, ask, examine, render
from profiles.runners import ESTIMATORS
from profiles.target import names

GOOD = Package("json", "json", 'found["answer"] = [1, 2]', "tests", "nothing")


@pytest.fixture(scope="module")
def here() -> Examination:
    return examine()


def code(text: str) -> Package:
    return dataclasses.replace(GOOD, code=text)


def finding(name: str, examination: Examination) -> Finding:
    return next(found for found in examination.findings if found.name == name)


def test_everything_asked_for_is_looked_at(here: Examination) -> None:
    assert [found.name for found in here.findings] == [
        "python", "torch", "onnxruntime", "OpenVINO", "TensorRT", "TensorRT-RTX", "pycuda", "packages", "Ray",
        "NVIDIA GPU", "Arm cross-compiler", "QEMU", "C compiler", "ssh", "cores", "memory", "disk",
    ]  # fmt: skip
    assert [outlook.target for outlook in here.targets] == names()


def test_it_is_plain_json(here: Examination) -> None:
    plain = dataclasses.asdict(here)
    assert json.loads(json.dumps(plain)) == json.loads(json.dumps(plain, default=str))


def test_what_the_pipeline_runs_on_works_here(here: Examination) -> None:
    torch = finding("torch", here)
    assert torch.status in ("ready", "limited")
    assert "CPU capability" in torch.found
    assert "CPUExecutionProvider" in finding("onnxruntime", here).found
    assert finding("python", here).status == "ready"


def test_every_target_has_an_origin_and_reasons_for_what_it_lacks(here: Examination) -> None:
    for outlook in here.targets:
        assert outlook.cost in ("measured", "emulated", "predicted")
        assert (outlook.runner in ("", *ESTIMATORS)) == (outlook.cost == "predicted")
        if outlook.cost == "predicted" or not outlook.builder:
            assert outlook.reasons


def test_a_jetson_is_never_measured_on_a_server(here: Examination) -> None:
    if Path("/etc/nv_tegra_release").exists():
        pytest.skip("this machine is a Jetson")
    jetson = next(outlook for outlook in here.targets if outlook.target == "jetson")
    assert jetson.cost == "predicted"
    assert "on_tensorrt" in jetson.reasons


def test_people_read_every_finding_fix_and_reason(here: Examination) -> None:
    text = " ".join(render(here).split())
    for found in here.findings:
        assert found.name in text
        assert " ".join(found.found.split()) in text
        assert " ".join(found.fix.split()) in text
    for outlook in here.targets:
        assert outlook.target in text
        assert all(" ".join(reason.split()) in text for reason in outlook.reasons.values())


def test_lines_fit_a_terminal(here: Examination) -> None:
    assert max(map(len, render(here).splitlines())) <= doctor.EDGE


def test_a_package_answers() -> None:
    found, why = ask(GOOD)
    assert why == ""
    assert found is not None
    assert found["answer"] == [1, 2]


def test_what_a_library_prints_is_not_the_answer() -> None:
    found, _ = ask(code('print("[INFO] hello")\nprint({"answer": 0}, end="")\nfound["answer"] = 3'))
    assert found is not None
    assert found["answer"] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise OSError('libcuda.so.1: cannot open')", "importing it fails: OSError: libcuda.so.1: cannot open"),
        ("import os\nos.kill(os.getpid(), 11)", "importing it ends the process (signal 11)"),
        ("import os\nos._exit(0)", "importing it gives no answer"),
        ("import os\nos._exit(7)", "importing it fails: status 7"),
        ("import time\ntime.sleep(60)", "importing it did not end within 0.5 s"),
    ],
)
def test_a_broken_package_is_told_not_raised(text: str, said: str) -> None:
    found, why = ask(code(text), seconds=0.5 if "sleep" in text else 30)
    assert found is None
    assert why == said


def test_a_broken_package_is_a_finding_with_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brittle.py").write_text("raise RuntimeError('half installed')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = doctor._package(dataclasses.replace(GOOD, module="brittle"))
    assert (found.status, found.found) == ("broken", "installed, but importing it fails: RuntimeError: half installed")
    assert found.fix


def test_an_absent_package_is_a_finding_with_a_fix() -> None:
    found = doctor._package(dataclasses.replace(GOOD, module="no_such_module_here", fix="pip install it"))
    assert (found.status, found.fix) == ("absent", "pip install it")


def test_without_any_tool_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for look in (doctor._cross_compiler, doctor._emulator, doctor._host_compiler, doctor._ssh):
        found = look()
        assert found.status == "absent"
        assert "apt-get install" in found.fix
    hearing_aid = doctor._outlook("hearing_aid", None)
    assert hearing_aid.cost == "predicted"
    assert "qemu" in hearing_aid.reasons["on_cortex_m"] or "gcc" in hearing_aid.reasons["on_cortex_m"]


def test_a_tool_that_fails_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "qemu-system-arm"
    tool.write_text("#!/bin/sh\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert doctor._emulator().status == "broken"


def test_a_gpu_as_nvidia_smi_lists_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "NVIDIA H200, 9.0, 550.54.15, 143771 MiB"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = doctor._gpu()
    assert found.found == "NVIDIA H200, compute capability 9.0, driver 550.54.15, 143771 MiB"
    torch = Finding("torch", "ready", "2.13.0, built without CUDA; CPU only")
    assert doctor._with_gpu(torch, found).status == "limited"


def test_a_builder_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> object:
        raise RuntimeError(f"{str(name)[:30]} is half written")

    monkeypatch.setattr("exporters.builder.load", fails)
    monkeypatch.setattr("compress.doctor.ability", fails)
    outlook = doctor._outlook("jetson", None)
    assert (outlook.cost, outlook.builder, outlook.checks) == ("unknown", "", ())
    assert "is half written" in outlook.reasons["onnx_to_deploy_bundle"]
    assert "is half written" in outlook.reasons["runners"]


def test_a_users_garbled_target_is_told(tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "mine.toml").write_text('[target]\ndevice = "mine"\n[hardware]\n')
    outlook = doctor._outlook("mine", tmp_path)
    assert outlook.cost == "unknown"
    assert "mine.toml" in outlook.reasons["target file"]
    assert isinstance(outlook, Outlook)


@pytest.mark.parametrize(
    ("requirement", "name"), [("torch>=2.11", "torch"), ("plotly", "plotly"), ("a-b[x]>1; python_version<'4'", "a-b")]
)
def test_names_of_requirements(requirement: str, name: str) -> None:
    assert doctor._distribution(requirement) == name


def test_looking_imports_no_torch_here() -> None:
    script = (
        "import sys\nfrom compress import doctor\ndoctor.PACKAGES = ()\ndoctor.examine()\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
