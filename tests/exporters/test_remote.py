"""The machine of `profiles.ssh`, with errors of exporting."""

from pathlib import Path

import pytest

from exporters import remote
from exporters.errors import ExportError
from exporters.remote import Machine
from profiles.errors import ProfileError
from profiles.ssh import Machine as Inner


@pytest.mark.parametrize("host", ["-oProxyCommand=touch /tmp/x", "a b", "$(reboot)", "x\n"])
def test_hosts_that_are_no_names(host: str) -> None:
    with pytest.raises(ExportError, match="not a machine's name"):
        Machine(host)


def test_refusals_are_errors_of_exporting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ProfileError("ssh cannot reach host", fix="wake it")

    for name in ("run", "send", "fetch", "scratch"):
        monkeypatch.setattr(Inner, name, refuse)
    machine = Machine("host")
    for attempt in (
        lambda: machine.run(["true"], seconds=1),
        lambda: machine.send([tmp_path], "/tmp/x", seconds=1),
        lambda: machine.fetch("/tmp/x", tmp_path, seconds=1),
        lambda: machine.scratch().__enter__(),
    ):
        with pytest.raises(ExportError, match="cannot reach") as caught:
            attempt()
        assert caught.value.fix == "wake it"


def test_a_visit(ssh_server: tuple[str, tuple[str, ...]], tmp_path: Path) -> None:
    machine = Machine(*ssh_server)
    assert remote.missing_tools() is None
    (tmp_path / "a b.bin").write_bytes(b"1234")
    with machine.scratch() as folder:
        machine.send([tmp_path / "a b.bin"], folder, seconds=30)
        assert machine.run(["cat", f"{folder}/a b.bin"], seconds=30).stdout == "1234"
        machine.fetch(f"{folder}/a b.bin", tmp_path / "back", seconds=30)
    assert (tmp_path / "back").read_bytes() == b"1234"
    assert machine.run(["test", "-e", folder], seconds=30).returncode == 1


def test_an_error_of_the_visitor_stays_what_it_is(ssh_server: tuple[str, tuple[str, ...]]) -> None:
    machine = Machine(*ssh_server)
    with pytest.raises(ZeroDivisionError), machine.scratch() as folder:
        raise ZeroDivisionError
    assert machine.run(["test", "-e", folder], seconds=30).returncode == 1
