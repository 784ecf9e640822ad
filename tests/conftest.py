"""Fixtures that the whole tree shares."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Files whose tests must not run beside each other, or that share what is dear: one process takes all of a group.
TOGETHER = {
    # One server of forks, begun by the first of them.
    "forks": (
        "tests/end_to_end/test_pipeline.py",
        "tests/compress/training/test_global_batchnorm.py",
        "tests/compress/training/test_checkpoint.py",
        "tests/compress/teachers/test_cached.py",
    ),
    # Each network is exported for each runtime once.
    "exported": (
        "tests/compress/qat/test_convert.py",
        "tests/compress/qat/test_tensorrt.py",
        "tests/compress/qat/test_onnxruntime_x86.py",
        "tests/compress/qat/test_cortex_m.py",
    ),
    # They count the processes and the folders that an ssh server of this user leaves.
    "ssh": (
        "tests/profiles/test_remote.py",
        "tests/profiles/test_ssh.py",
        "tests/exporters/test_remote.py",
        "tests/tools/test_remote_loopback.py",
    ),
}
# The longest first: whoever of several processes begins with one last makes the others wait.
FIRST = (
    *TOGETHER["forks"],
    "tests/compress/stages/test_select.py",
    "tests/compress/workers/test_on_ray.py",
    "tests/compress/workers/test_workers.py",
    "tests/compress/stages/test_quantize.py",
    *TOGETHER["exported"],
    *TOGETHER["ssh"],
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Heavy files first, the rest as it was found."""
    absent = [name for name in FIRST if not (REPOSITORY / name).is_file()]
    if absent:
        raise pytest.UsageError(f"tests/conftest.py orders files that are not there: {', '.join(absent)}")
    place = {name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `pytest -n`, a process takes whole files in the order above: what a file's tests share is made once."""
    from xdist.scheduler import LoadScopeScheduling

    group = {name: title for title, names in TOGETHER.items() for name in names}

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = nodeid.partition("::")[0]
            return group.get(name, name)

    config.option.loadscopereorder = False
    return Files(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets, where this checkout has one beside it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets (../shared/data) are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, tuple[str, ...]]]:
    """An ssh server of this user on the loopback address, with a key made for it: its host, and options for ssh."""
    daemon = shutil.which("sshd", path="/usr/sbin:/usr/bin:" + os.environ["PATH"])
    if (
        daemon is None
        or shutil.which("ssh-keygen") is None
        or shutil.which("ssh") is None
        or shutil.which("scp") is None
    ):
        pytest.skip("no ssh server is installed (openssh-server)")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    public = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
    settings = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'authorized'}",
        f"PidFile {folder / 'pid'}",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "Subsystem sftp internal-sftp",
        "KexAlgorithms curve25519-sha256",  # the fastest to shake hands with
        "UseDNS no",
        "PrintMotd no",
    ]
    (folder / "config").write_text("\n".join(settings) + "\n")
    Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
    process = subprocess.Popen([daemon, "-D", "-f", str(folder / "config"), "-E", str(folder / "log")])
    host = f"{getpass.getuser()}@127.0.0.1"
    options = (
        f"Port={port}",
        f"IdentityFile={folder / 'user'}",
        "IdentitiesOnly=yes",
        f"UserKnownHostsFile={folder / 'known'}",
    )
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        flags = [word for option in ("BatchMode=yes", *options) for word in ("-o", option)]
        probe_run = subprocess.run(
            ["ssh", "-T", *flags, host, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        )
        if probe_run.returncode != 0:
            pytest.skip(f"the ssh server cannot be used here: {probe_run.stderr.decode(errors='replace').strip()}")
        yield host, options
    finally:
        process.terminate()
        process.wait()
