"""Fixtures that the whole tree shares."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


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
