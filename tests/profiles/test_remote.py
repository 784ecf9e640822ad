"""Measuring through a real ssh server on this machine, in a process that has none of this package but what is sent."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import profiles
from profiles import measured, records, remote, remote_main
from profiles.errors import ProfileError
from profiles.measure import Measurement
from profiles.measured import NothingMeasuredError
from profiles.remote import Remote
from profiles.runners import on_onnxruntime
from profiles.target import Target

ROOT = Path(__file__).resolve().parents[2]
Server = tuple[str, tuple[str, ...]]


@pytest.fixture
def x86() -> Target:
    """Any processor that onnxruntime runs on."""
    target = profiles.target("x86")
    return replace(target, hardware=replace(target.hardware, core="any"), runners=("on_onnxruntime",))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """x (n, 64) float32 -> y = x W, in a file whose name a shell would take apart, with W in a file beside it."""
    folder = tmp_path / '$(touch pwned) it\'s "a" folder'
    folder.mkdir()
    weight = numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    return saved(folder / "-o; reboot\n.onnx", nodes, weight)


@pytest.fixture
def slow_model(tmp_path: Path) -> Path:
    """The same with every sample repeated 50 000 times: 5000 of its runs take longer than any test."""
    constants = [
        numpy_helper.from_array(np.array([50_000, 1], np.int64), "times"),
        numpy_helper.from_array(np.eye(64, dtype=np.float32), "w"),
    ]
    nodes = [helper.make_node("Tile", ["x", "times"], ["many"]), helper.make_node("MatMul", ["many", "w"], ["y"])]
    return saved(tmp_path / "slow.onnx", nodes, *constants)


def saved(path: Path, nodes: list[onnx.NodeProto], *constants: TensorProto) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 64])],
        list(constants),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(made, str(path), save_as_external_data=True, location="w.bin", size_threshold=1024)
    return path


def there(server: Server, python: str = sys.executable, seconds: float = 120) -> Remote:
    return Remote(server[0], python, server[1], seconds)


def leftovers() -> set[Path]:
    return set(Path("/tmp").glob("compress-*"))


def running() -> list[int]:
    """Processes that answer a remote request."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(words) > 2 and words[1].endswith(b"/remote_main.py"):
            found.append(int(folder.name))
    return found


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def test_a_visit_gives_what_a_run_here_gives(ssh_server: Server, model: Path, x86: Target) -> None:
    pytest.importorskip("onnxruntime")
    before = leftovers()
    x = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    host, options = ssh_server
    try:
        cost = remote.measure_cost(
            model, x86, host, None, {"x": x}, sys.executable, options=options, seconds=0.2, threads=1
        )
    except NothingMeasuredError as error:
        assert "spread" in error.what or "anywhere" in error.what  # noqa: PT017  # a machine too busy to measure
        return
    assert cost.origin == "measured"
    assert cost.batch == 4
    assert cost.macs == 4 * 64 * 64
    assert cost.interval_ms[0] <= cost.latency_ms <= cost.interval_ms[1]
    assert any(note.startswith(f"measured by ssh on {host} (") for note in cost.notes)
    try:
        here = measured.run(model, x86, {"x": x}, seconds=0.2)
    except NothingMeasuredError:
        return
    assert isinstance(here, Measurement)
    assert cost.runtime == here.runtime
    assert here.device in " ".join(cost.notes)
    assert 0.1 < cost.latency_ms / here.median_ms < 10  # the same matrix product, on a machine with other work
    assert leftovers() == before
    assert not list(ROOT.rglob("pwned"))


def test_what_the_other_machine_refuses_is_read_here(ssh_server: Server, model: Path, x86: Target) -> None:
    wrong, right = {"x": np.zeros((1, 3), np.float32)}, {"x": np.ones((2, 64), np.float32)}
    first, second = remote.run_each([(model, wrong), (model, right)], x86, there(ssh_server), seconds=0.1)
    assert isinstance(first, ProfileError)
    assert "@127.0.0.1: input 'x' takes float32 (any, 64)" in first.what
    assert isinstance(second, Measurement | NothingMeasuredError)  # of a machine too busy to measure


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("$(reboot)", r"\$\(reboot\) is not there"),
    ],
)
def test_a_python_that_is_none(ssh_server: Server, model: Path, x86: Target, python: str, said: str) -> None:
    before = leftovers()
    with pytest.raises(ProfileError, match=said):
        remote.run([(model, None)], x86, there(ssh_server, python))
    assert leftovers() == before


@pytest.mark.parametrize("python", ["", "-c", "~/bin/python", "a\nb", "a\x00b", "--help"])
def test_what_cannot_be_a_python_is_refused_here(python: str) -> None:
    with pytest.raises(ProfileError, match="is not a Python on host"):
        Remote("host", python)


@pytest.mark.parametrize("host", ["-oProxyCommand=reboot", "a b", "me@$(id)", "x\n"])
def test_what_cannot_be_a_host_is_refused_here(host: str) -> None:
    with pytest.raises(ProfileError, match="not a machine's name"):
        remote.measure_cost("net.onnx", profiles.target("x86"), host)


def session_of(pid: int) -> int:
    """The ssh server's process that a remote command belongs to."""
    while True:
        text = Path(f"/proc/{pid}/status").read_text()
        pid = int(next(line.split()[1] for line in text.splitlines() if line.startswith("PPid")))
        if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
            return pid


@pytest.fixture
def nobody_else() -> Iterator[None]:
    if running():
        pytest.skip("another remote measurement runs on this machine")
    yield
    for pid in running():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("nobody_else")
def test_a_lost_connection_is_said_and_leaves_nothing_there(ssh_server: Server, slow_model: Path, x86: Target) -> None:
    before = leftovers()
    errors: list[BaseException] = []

    def visit() -> None:
        try:
            remote.run([(slow_model, None)], x86, there(ssh_server), seconds=60)
        except ProfileError as error:
            errors.append(error)

    thread = threading.Thread(target=visit)
    thread.start()
    pid = wait_for(running)[0]
    os.kill(session_of(pid), signal.SIGKILL)
    thread.join(60)
    assert "the connection to" in str(errors[0])
    assert "was lost" in str(errors[0])
    wait_for(lambda: not running())
    wait_for(lambda: leftovers() == before)


@pytest.mark.usefixtures("nobody_else")
def test_an_interrupt_from_the_keyboard_cleans_up(ssh_server: Server, slow_model: Path, tmp_path: Path) -> None:
    before = leftovers()
    host, options = ssh_server
    code = (
        "import sys, json; import profiles; from dataclasses import replace; from profiles import remote\n"
        "path, host, options = json.loads(sys.argv[1])\n"
        "target = replace(profiles.target('x86'), runners=('on_onnxruntime',))\n"
        "target = replace(target, hardware=replace(target.hardware, core='any'))\n"
        "there = remote.Remote(host, sys.executable, tuple(options))\n"
        "remote.run([(remote.Path(path), None)], target, there, seconds=60)\n"
    )
    command = [sys.executable, "-c", code, json.dumps([str(slow_model), host, list(options)])]
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background are deaf to it
    )
    wait_for(running)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert b"KeyboardInterrupt" in said
    wait_for(lambda: not running())
    wait_for(lambda: leftovers() == before)


@pytest.mark.usefixtures("nobody_else")
def test_a_visit_that_takes_too_long_is_ended(ssh_server: Server, slow_model: Path, x86: Target) -> None:
    with pytest.raises(ProfileError, match="did not end within 2 s"):
        remote.run([(slow_model, None)], x86, there(ssh_server, seconds=2), seconds=60)
    wait_for(lambda: not running())


def answered(tmp_path: Path, *command: str) -> dict[str, Any]:
    process = subprocess.Popen([*command, str(remote_main.__file__), str(tmp_path)], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.wait(60)
    process.stdin.close()
    found: dict[str, Any] = json.loads((tmp_path / "result.json").read_text())
    return found


def test_without_numpy_it_says_what_to_install(tmp_path: Path) -> None:
    """An isolated Python without site packages stands for a bare one."""
    refused = answered(tmp_path, sys.executable, "-I", "-S")["refused"]
    assert "numpy is not installed" in refused["what"]
    assert "pip install numpy" in refused["fix"]


def test_an_old_python_can_still_answer() -> None:
    """Its file uses nothing that Python 3.6 could not read; the answer itself is about the version."""
    import ast

    text = Path(remote_main.__file__).read_text()
    ast.parse(text, feature_version=(3, 6))
    assert 'f"' not in text


def test_python_3_10_without_a_toml_reader_measures(model: Path, x86: Target, tmp_path: Path) -> None:
    """No module but numpy and onnxruntime: others are hidden, as on a device."""
    pytest.importorskip("onnxruntime")
    remote._pack(tmp_path / "request.zip", [(model, None)], x86, 2, 1, 0.1)
    hide = (
        "import sys, runpy\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('onnx', 'torch', 'tomli', 'profiles_elsewhere', 'scipy'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    answer = answered(tmp_path, sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", hide)
    [one] = answer["answers"]
    if "refused" in one:
        assert one["refused"]["kind"] == "NothingMeasuredError", one
        assert "spread" in one["refused"]["what"] or "anywhere" in one["refused"]["what"]
        return
    found = records.from_json(Measurement, one["measurement"])
    assert found.batch == 2
    assert found.runtime.startswith("onnxruntime")


def test_what_is_sent_has_names_of_its_own(model: Path, x86: Target, tmp_path: Path) -> None:
    inputs = {"../../x": np.zeros((1, 64), np.float32)}
    remote._pack(tmp_path / "request.zip", [(model, inputs)], x86, 1, 1, 0.1)
    with zipfile.ZipFile(tmp_path / "request.zip") as archive:
        names = archive.namelist()
        assert {"artifact0/model.onnx", "artifact0/w.bin", "inputs0.npz", "request.json"} <= set(names)
        assert "package/profiles/measure.py" in names
        assert all(name.isprintable() and not name.startswith(("/", "-")) and ".." not in name for name in names)


def test_data_outside_the_models_folder_is_not_sent(tmp_path: Path, x86: Target) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(16384))
    folder = tmp_path / "model"
    folder.mkdir()
    weight = TensorProto(name="w", dims=[64, 64], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../secret.bin")
    graph = helper.make_graph([], "net", [], [], [weight])
    (folder / "net.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ProfileError, match=r"'\.\./secret\.bin', which is no file in its folder"):
        remote._pack(tmp_path / "request.zip", [(folder / "net.onnx", None)], x86, 1, 1, 0.1)


def test_objects_are_never_sent(model: Path, x86: Target, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="array of Python objects"):
        remote._pack(tmp_path / "r.zip", [(model, {"x": np.array([{}], object)})], x86, 1, 1, 0.1)


GOOD = Measurement(
    1.0, 0.9, 1.1, 1.2, 1.3, 0.1, 100, 20, True, 1, 1, "cpu", "rt", "wall", ("a",), (0.98, 1.02), 1, (3,), 7, None
)


def given(tmp_path: Path, answer: Any) -> list[Any]:
    path = tmp_path / "result.json"
    path.write_text(answer if isinstance(answer, str) else json.dumps(answer))
    return remote._results(path, Remote("orin"), 1)


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    [found] = given(tmp_path, {"machine": "m", "answers": [{"measurement": records.to_json(GOOD)}]})
    assert replace(found, notes=found.notes[:-1]) == GOOD
    assert found.notes[-1] == "measured by ssh on orin (m)"


@pytest.mark.parametrize(
    "change",
    [
        {"median_ms": "1.0"},
        {"median_ms": None},
        {"median_ms": -1.0},
        {"median_ms": float("nan")},
        {"runs": 1.5},
        {"runs": True},
        {"notes": "text"},
        {"cores": [1, "2"]},
        {"interval_ms": [1.0]},
        {"unknown": 1},
        {"device": {"a": 1}},
    ],
)
def test_a_damaged_answer_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    sent = {**records.to_json(GOOD), **change}
    with pytest.raises(ProfileError):
        given(tmp_path, {"machine": "m", "answers": [{"measurement": sent}]})


def test_what_could_not_be_measured_there_keeps_its_reason(tmp_path: Path) -> None:
    refused = {"kind": "NothingMeasuredError", "what": "on_tensorrt: no GPU", "fix": "run on the device"}
    [found] = given(tmp_path, {"machine": "m", "answers": [{"refused": refused}]})
    assert isinstance(found, NothingMeasuredError)
    assert (found.what, found.fix) == ("orin: on_tensorrt: no GPU", "run on the device")
    with pytest.raises(ProfileError, match="orin: numpy is not installed"):
        given(tmp_path, {"refused": {"kind": "ProfileError", "what": "numpy is not installed", "fix": "x"}})


@pytest.mark.parametrize(
    "answer", ["", "{", "[]", "null", '{"answers": []}', '{"answers": [3]}', '{"answers": [{}]}', "[" * 100_000]
)
def test_what_is_no_answer_is_refused(tmp_path: Path, answer: str) -> None:
    with pytest.raises(ProfileError):
        given(tmp_path, answer)


def test_every_target_travels() -> None:
    for target in profiles.targets():
        assert records.from_json(Target, json.loads(json.dumps(records.to_json(target)))) == target


def test_the_runner_is_the_same_file(tmp_path: Path, model: Path, x86: Target) -> None:
    remote._pack(tmp_path / "request.zip", [(model, None)], x86, 1, 1, 0.1)
    with zipfile.ZipFile(tmp_path / "request.zip") as archive:
        assert archive.read("package/profiles/runners/on_onnxruntime.py") == Path(on_onnxruntime.__file__).read_bytes()
