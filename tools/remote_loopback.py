"""Build an engine over a real ssh connection on a machine that has no torch: this one, by its loopback address.

Starts an ssh server of this user on a free port with keys made for it, makes a virtual environment that holds numpy,
onnx and TensorRT for RTX (full TensorRT installs nowhere offline; this one builds without a GPU) and nothing else, and
lets the product build there as `compress build RUN --remote user@host` does. Prints each step with its time.

    python tools/remote_loopback.py                       a small int8 network
    python tools/remote_loopback.py MODEL.onnx --target a100
    python tools/remote_loopback.py --keep FOLDER         keep the engine and its reports there
    python tools/remote_loopback.py --linked              no download: link those packages out of this environment

The environment is made once, in the cache folder (--environment), and used again.
"""

import argparse
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import profiles
from exporters import onnx_to_rtx_engine
from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.device import identity
from exporters.remote import Machine
from profiles import atomic

PACKAGES = ("numpy", "onnx", "tensorrt-rtx-cu13>=1.7")
LINKED = (  # those packages, and what they import, as they lie in site-packages
    "numpy",
    "numpy.libs",
    "onnx",
    "google",
    "ml_dtypes",
    "typing_extensions.py",
    "tensorrt_rtx",
    "tensorrt_rtx_libs",
    "tensorrt_rtx_bindings",
)
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "compress" / "device-environment"
NEEDED = ("sshd", "ssh", "scp", "ssh-keygen")
SEARCH = "/usr/sbin:/usr/bin:" + os.environ.get("PATH", "")


def missing() -> str | None:
    """Why there can be no server here; None where there can."""
    absent = [name for name in NEEDED if shutil.which(name, path=SEARCH) is None]
    return f"{', '.join(absent)} not installed (openssh-server, openssh-client)" if absent else None


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """An ssh server on a free port of the loopback address: its host, and options for ssh. Keys live in `folder`."""
    daemon = shutil.which("sshd", path=SEARCH)
    assert daemon is not None
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kind, key, *_ = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": folder / "pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "Subsystem": "sftp internal-sftp",
    }
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where the daemon drops its rights
    command = [daemon, "-D", "-f", str(folder / "config"), "-E", str(folder / "log")]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        options = (
            f"Port={port}",
            f"IdentityFile={folder / 'user'}",
            "IdentitiesOnly=yes",
            f"UserKnownHostsFile={folder / 'known'}",
        )
        yield f"{getpass.getuser()}@127.0.0.1", options
    finally:
        process.terminate()
        process.wait()


def environment(folder: Path) -> Path:
    """The Python of a virtual environment with `PACKAGES` alone; made where it is missing or holds something else."""
    python = folder / "bin" / "python"
    mark = folder / "packages.txt"
    wanted = "\n".join((*PACKAGES, f"{sys.version_info[0]}.{sys.version_info[1]}"))
    if python.exists() and mark.is_file() and mark.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *PACKAGES]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(install, check=True, env=plain)
    mark.write_text(wanted)
    return python


def linked_environment(folder: Path) -> Path:
    """As `environment`, without a download: the packages and what they need are links to those of this Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    goal = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    for name in LINKED:
        for source in {Path(path) for path in sys.path if path.endswith("site-packages")}:
            if (source / name).exists() and not (goal / name).exists():
                (goal / name).symlink_to(source / name)
    return python


def small_network(path: Path) -> Path:
    """An int8 network of two convolutions and a product: (B, 3, 16, 16) -> (B, 4)."""
    rng = np.random.default_rng(0)
    nodes, stored = [], {}

    def constant(name: str, value: np.ndarray) -> str:
        stored[name] = numpy_helper.from_array(value, name)
        return name

    def quantised(tensor: str, step: float) -> str:
        scale = constant(f"{tensor}_scale", np.array(step, np.float32))
        zero = constant(f"{tensor}_zero", np.array(0, np.int8))
        nodes.append(helper.make_node("QuantizeLinear", [tensor, scale, zero], [f"{tensor}_q"], name=f"q_{tensor}"))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"{tensor}_q", scale, zero], [f"{tensor}_dq"], name=f"dq_{tensor}")
        )
        return f"{tensor}_dq"

    def weight(name: str, *shape: int) -> str:
        codes = constant(f"{name}_codes", rng.integers(-127, 128, shape).astype(np.int8))
        step = 1.0 / (73.0 * np.sqrt(np.prod(shape[1:])))  # codes spread by 73, so outputs spread as inputs do
        scale = constant(f"{name}_scale", np.full(shape[0], step, np.float32))
        zero = constant(f"{name}_zero", np.zeros(shape[0], np.int8))
        nodes.append(helper.make_node("DequantizeLinear", [codes, scale, zero], [name], name=f"dq_{name}", axis=0))
        return name

    tensor = "x"
    for index, (inputs, outputs) in enumerate(((3, 16), (16, 32))):
        read = quantised(tensor, 0.05)
        nodes.append(
            helper.make_node(
                "Conv", [read, weight(f"w{index}", outputs, inputs, 3, 3)], [f"c{index}"], name=f"conv{index}"
            )
        )
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"))
        tensor = f"r{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [tensor], ["pooled"], name="pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"))
    read = quantised("flat", 0.05)
    nodes.append(helper.make_node("Gemm", [read, weight("head", 4, 32)], ["y"], name="head", transB=1))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        list(stored.values()),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def build(machine: Machine, model: Path, target: str, out: Path) -> Artifact:
    """The product's own way: builder, options, remote machine."""
    options = BuildOptions(remote=machine, batches=(1, 1, 8), seconds=300.0, progress=lambda line: print(f"  | {line}"))
    return onnx_to_rtx_engine.convert(model, profiles.target(target), out, options=options)


def main() -> int:
    """Run every step; 1 where one fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", help="an ONNX file; a small int8 network where it is left out")
    parser.add_argument("--target", default="a100", help="gives the compute capability")
    parser.add_argument("--environment", type=Path, default=CACHE, help="folder of the device's virtual environment")
    parser.add_argument("--linked", action="store_true", help="link the packages of this Python instead of installing")
    parser.add_argument("--keep", type=Path, help="folder for the engine and its reports")
    given = parser.parse_args()
    why = missing()
    if why is not None:
        print(f"cannot start an ssh server: {why}", file=sys.stderr)
        return 1
    started = time.monotonic()

    def step(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="loopback-") as name:
        folder = Path(name)
        python = linked_environment(folder / "device") if given.linked else environment(given.environment)
        step(f"virtual environment {python.parents[1]} with {', '.join(PACKAGES)}")
        with server(folder) as (host, options):
            machine = Machine(host, options, str(python))
            told = machine.run([str(python), "-c", _WITHOUT], seconds=60)
            step(f"ssh to {host} answers: {told.stdout.strip()}")
            model = given.model or small_network(folder / "model.onnx")
            out = given.keep or folder / "built"
            step(f"building {model.name} there")
            found = build(machine, model, given.target, out)
            step(f"{found.path.name} is back, {found.path.stat().st_size} bytes, by {found.facts['tensorrt_rtx']}")
            record = identity.read(found.path)
            wrong = identity.misfits(record, engine=found.path, onnx=atomic.sha256(model))
            step(f"its record {'fits' if not wrong else 'does not fit: ' + '; '.join(wrong)}")
            for path in sorted(out.iterdir()):
                step(f"  {path.name}: {path.stat().st_size} bytes")
            step(
                f"int8 share {found.facts['int8_share']:.2f}, for {found.facts['capability']}; not run: {_not_run(out)}"
            )
    return 1 if wrong else 0


_WITHOUT = """
import importlib.util, sys
absent = [name for name in ("torch", "compress", "exporters", "profiles") if importlib.util.find_spec(name) is None]
print("Python %d.%d without " % sys.version_info[:2] + ", ".join(absent))
"""


def _not_run(out: Path) -> str:
    result = json.loads(next(out.glob("*.result.json")).read_text("utf-8"))
    return str(result.get("not_run", "it was run"))


if __name__ == "__main__":
    sys.exit(main())
