"""Only what somebody vouches for is loaded: one bit, a swapped file, a link and a way out of the folder are refused."""

import json
import zipfile
from pathlib import Path

import pytest

from profiles import atomic, remote, trust
from profiles.errors import ProfileError


def manifest(folder: Path, *names: str) -> None:
    rows = [{"path": name, "sha256": atomic.sha256(folder / name)} for name in names]
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "artifacts": rows}))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "5_build").mkdir()
    (tmp_path / "5_build" / "model.engine").write_bytes(b"engine")
    (tmp_path / "5_build" / "other.engine").write_bytes(b"another")
    manifest(tmp_path, "5_build/model.engine")
    return tmp_path


def test_a_listed_file_is_taken(run: Path) -> None:
    path = run / "5_build" / "model.engine"
    assert trust.check(path) == atomic.sha256(path)


def test_one_bit_is_enough(run: Path) -> None:
    path = run / "5_build" / "model.engine"
    path.write_bytes(bytes([b"engine"[0] ^ 1]) + b"ngine")
    with pytest.raises(trust.UntrustedError, match="is not the file that was made"):
        trust.check(path)
    assert trust.check(path, trust=True) == atomic.sha256(path)


def test_a_swapped_engine_is_refused_even_with_a_record_of_its_own(run: Path) -> None:
    listed, other = run / "5_build" / "model.engine", run / "5_build" / "other.engine"
    trust.accept(other)
    with pytest.raises(trust.UntrustedError, match="does not list 5_build/other"):
        trust.check(other)
    other.replace(listed)
    trust.accept(listed)
    with pytest.raises(trust.UntrustedError, match="is not the file that was made"):
        trust.check(listed)


def test_a_link_is_refused(run: Path, tmp_path: Path) -> None:
    path = run / "5_build" / "model.engine"
    path.rename(run / "kept")
    path.symlink_to(run / "kept")
    with pytest.raises(trust.UntrustedError, match="is a link"):
        trust.check(path)


def test_a_manifest_does_not_reach_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    outside = tmp_path / "evil.engine"
    outside.write_bytes(b"evil")
    rows = [{"path": "../evil.engine", "sha256": atomic.sha256(outside)}]
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"artifacts": rows}))
    (tmp_path / "run" / "linked").symlink_to(tmp_path)
    for path in (outside, tmp_path / "run" / ".." / "evil.engine", tmp_path / "run" / "linked" / "evil.engine"):
        with pytest.raises(trust.UntrustedError):
            trust.check(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"artifacts": 3}', '{"files": {"a": 1}}', "\x00"])
def test_a_manifest_that_is_none_vouches_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.engine").write_bytes(b"x")
    (tmp_path / "manifest.json").write_text(text)
    trust.accept(tmp_path / "model.engine")
    with pytest.raises(trust.UntrustedError):
        trust.check(tmp_path / "model.engine")


def test_a_users_word_is_kept_as_a_checksum(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    path.write_bytes(b"from elsewhere")
    with pytest.raises(trust.UntrustedError, match="nobody vouches") as caught:
        trust.check(path)
    assert "trust=True" in caught.value.fix
    assert trust.accept(path).read_text() == f"{atomic.sha256(path)}  model.engine\n"
    trust.check(path)
    path.write_bytes(b"swapped")
    with pytest.raises(trust.UntrustedError):
        trust.check(path)


def test_a_sum_that_the_caller_knows_goes_before_everything(run: Path) -> None:
    path = run / "5_build" / "other.engine"
    trust.check(path, sha256=atomic.sha256(path).upper())
    with pytest.raises(trust.UntrustedError, match="has the SHA-256"):
        trust.check(run / "5_build" / "model.engine", sha256="0" * 64)


def test_what_a_device_built_in_its_bundle_has_a_record(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    files = {"model.onnx": {"sha256": atomic.sha256(tmp_path / "model.onnx")}}
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 2, "files": files}))
    (tmp_path / "bundle.json").write_text("{}")
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"engine")
    with pytest.raises(trust.UntrustedError, match="does not list it"):
        trust.check(engine)
    (tmp_path / "model.engine.json").write_text(json.dumps({"engine_sha256": atomic.sha256(engine)}))
    trust.check(engine)
    trust.check(tmp_path / "model.onnx")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is no file"):
        trust.check(tmp_path / "absent")


def test_an_engine_that_is_measured_elsewhere_goes_with_what_vouches_for_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.engine"
    path.write_bytes(b"engine")
    sent = zipfile.ZipFile(tmp_path / "sent.zip", "w")
    with sent as archive, pytest.raises(trust.UntrustedError, match=r"nobody vouches for mine\.engine"):
        remote._add(archive, path, "artifact0")
    trust.accept(path)
    with zipfile.ZipFile(tmp_path / "sent.zip", "w") as archive:
        assert remote._add(archive, path, "artifact0") == "model.engine"
    with zipfile.ZipFile(tmp_path / "sent.zip") as archive:
        archive.extractall(tmp_path / "there")
    trust.check(tmp_path / "there" / "artifact0" / "model.engine")
