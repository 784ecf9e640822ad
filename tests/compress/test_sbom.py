"""The bill of materials names every model with its hash, validates, and repeats to the byte."""

import json
import os
from pathlib import Path

import pytest

from compress.cli.main import main
from compress.errors import RunError
from compress.manifest import RUN, read_manifest
from compress.sbom import bill_of_materials
from compress.store import open_store
from profiles.atomic import write_bytes, write_text

CONTENT = {
    "name": 'a "name" <b>',
    "task": {"name": "digits"},
    "target": {"name": "jetson", "runtime": "tensorrt", "runtime_version": "10.3"},
    "provenance": {
        "compress": "0.1.0",
        "seed": 0,
        "environment": {"torch": "2.13.0", "numpy": "2.4.6", "compress": "0.1.0"},
        "identities": {"data": "ab" * 32, "target": "jetson 3"},
    },
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    with open_store(folder) as store:
        write_text(folder / RUN, "{}")
        for stage, names in (("export", ["model.onnx", "golden.npz"]), ("build", ["model.engine", "a.log"])):

            def work(place: Path, names: list[str] = names) -> object:
                for name in names:
                    write_bytes(place / name, name.encode())
                return {("log" if "log" in name else f"the {name}"): place / name for name in names}, {}

            store.once(stage, {}, work)  # type: ignore[arg-type]

        def report(place: Path) -> object:
            write_text(place / "report.json", json.dumps(CONTENT))
            return {"report": place / "report.json"}, {}

        store.once("report", {}, report)  # type: ignore[arg-type]
    return folder


def test_components_are_what_is_shipped_where_it_is_from_and_what_made_it(run: Path) -> None:
    content = json.loads(bill_of_materials(run))
    by_name = {row["name"]: row for row in content["components"]}
    assert set(by_name) == {
        "4_export/model.onnx",
        "4_export/golden.npz",
        "5_build/model.engine",
        "data",
        "target",
        "torch",
        "numpy",
        "compress",
    }
    known = read_manifest(run)["4_export/model.onnx"].sha256
    assert by_name["4_export/model.onnx"]["hashes"] == [{"alg": "SHA-256", "content": known}]
    assert by_name["4_export/model.onnx"]["type"] == "machine-learning-model"
    assert by_name["torch"]["purl"] == "pkg:pypi/torch@2.13.0"
    assert by_name["data"]["hashes"][0]["content"] == "ab" * 32
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    assert content["metadata"]["component"]["name"] == 'a "name" <b>'


def test_it_repeats_to_the_byte_and_changes_with_the_run(run: Path) -> None:
    first = bill_of_materials(run)
    assert bill_of_materials(run) == first
    with open_store(run) as store:
        store.once("verify", {}, lambda folder: ({}, {}))
    assert json.loads(bill_of_materials(run))["serialNumber"] != json.loads(first)["serialNumber"]


def test_it_follows_the_published_schema(run: Path) -> None:
    from cyclonedx.exception import MissingOptionalDependencyException
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    try:
        wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill_of_materials(run))
    except MissingOptionalDependencyException as missing:
        pytest.skip(str(missing))
    assert wrong is None


def test_the_command_refuses_a_damaged_and_an_unfinished_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sbom", str(run), "--out", str(tmp_path / "sbom.json")]) == 0
    assert "8 components" in capsys.readouterr().out
    assert json.loads((tmp_path / "sbom.json").read_text())["bomFormat"] == "CycloneDX"
    os.truncate(run / "4_export/model.onnx", 2)
    assert main(["sbom", str(run)]) == 2
    assert "is not as it was made" in capsys.readouterr().err
    with open_store(tmp_path / "new") as store:
        store.once("export", {}, lambda folder: ({}, {}))
    with pytest.raises(RunError, match="no report yet"):
        bill_of_materials(tmp_path / "new")
