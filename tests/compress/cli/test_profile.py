"""`compress profile`: its figures are those of the API, and wrong words get one message."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import profiles
from compress.cli.main import main
from compress.page import numbers


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two convolutions over (batch, 3, 8, 8)."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w1", (8, 3, 3, 3)), ("w2", (4, 8, 1, 1)))
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["y"], name="second"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 8, 8])],
        weights,
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def test_the_figures_are_those_of_the_api(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(model), "--target", "jetson", "--batch", "2", "--predict", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["profiles"]
    cost = profiles.profile(model, "jetson", batch=2)
    # By hand: 2 items x 64 places x (8 x 27 + 4 x 8).
    assert row["cost"]["macs"] == cost.macs == 2 * 64 * (8 * 27 + 4 * 8)
    assert row["cost"]["flops"] == 2 * cost.macs
    assert row["cost"]["latency_ms"] == pytest.approx(cost.latency_ms)
    assert row["cost"]["origin"] == "predicted"
    assert "layers" not in row["cost"]


def test_every_model_target_and_batch_has_its_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = model.with_name("other.onnx")
    other.write_bytes(model.read_bytes())
    words = ["profile", "--compare", str(model), str(other), "--target", "a100", "--target", "jetson", "--batch", "1,8"]
    assert main([*words, "--predict"]) == 0
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if "predicted" in line and ".onnx" in line]
    assert len(lines) == 8
    assert all("the same" in line for line in lines if line.startswith("other.onnx"))


def test_layers_are_listed_in_the_order_of_execution(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(model), "--target", "a100", "--layers", "--predict"]) == 0
    said = capsys.readouterr().out
    assert said.index("first") < said.index("second")
    assert "Conv Relu" in said


def test_a_precision_that_is_asked_for_is_predicted(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {}
    for precision in ("fp32", "fp16", "int8"):
        assert main(["profile", str(model), "--target", "a100", "--precision", precision, "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["profiles"]
        assert (row["cost"]["precision"], row["cost"]["origin"]) == (precision, "predicted")
        sizes[precision] = row["cost"]["weight_bytes"]
    weights = 8 * 27 + 4 * 8
    assert [sizes[name] for name in ("fp32", "fp16", "int8")] == [4 * weights, 2 * weights, weights]


def test_what_this_machine_can_run_is_run(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(model), "--target", "x86", "--json", "--layers"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["profiles"]
    cost = row["cost"]
    if cost["origin"] == "predicted":  # a machine that is too busy, or of another kind, must say so
        assert cost["notes"][0].startswith("predicted, because")
    else:
        assert cost["origin"] == "measured"
        assert cost["interval_ms"][0] <= cost["latency_ms"] <= cost["interval_ms"][1]
        assert cost["layers_origin"] == "predicted"
    assert [layer["name"] for layer in cost["layers"]]


def test_the_page_is_written_whole(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "profile.html"
    assert main(["profile", str(model), "--target", "jetson", "--predict", "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "plot-roofline-0" in text
    assert str(page) in capsys.readouterr().out


def test_a_target_of_ones_own_is_found_in_the_project(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "bench.toml").write_text('inherit = "jetson"\n[hardware]\nclock_mhz = 312.5\n')
    costs = {}
    for name in ("jetson", "bench"):
        words = ["profile", str(model), "--target", name, "--project", str(tmp_path), "--predict", "--json"]
        assert main(words) == 0
        costs[name] = json.loads(capsys.readouterr().out)["profiles"][0]["cost"]["latency_ms"]
    assert costs["bench"] > costs["jetson"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "no model"),
        (["nowhere.onnx"], "nowhere.onnx"),
        (["net.onnx", "--target", "jetsn"], "jetson"),
        (["net.onnx", "--batch", "0"], "--batch"),
        (["net.onnx", "--batch", "a"], "--batch"),
        (["net.onnx", "--shape", "x"], "--shape"),
        (["net.onnx", "--shape", "x=0,1"], "--shape"),
        (["net.onnx", "--precision", "int3"], "int3"),
        (["net.onnx", "--predict", "--html", "none/page.html"], "no folder"),
    ],
)
def test_wrong_words_get_one_message(
    words: list[str], what: str, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model.parent)
    assert main(["profile", *words]) == 2
    said = capsys.readouterr().err
    assert what in said
    assert "fix:" in said
    assert "Traceback" not in said


def wide_open(model: Path, name: str) -> Path:
    """The same network for images of any size, its input called `name`."""
    proto = onnx.load(str(model))
    proto.graph.input[0].name = name
    proto.graph.node[0].input[0] = name
    for index, size in ((2, "h"), (3, "w")):
        proto.graph.input[0].type.tensor_type.shape.dim[index].dim_param = size
    path = model.with_name(f"{name}.onnx")
    onnx.save(proto, str(path))
    return path


def test_a_dynamic_size_is_asked_for_in_the_words_of_the_command(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = wide_open(model, "image")
    assert main(["profile", str(path), "--predict"]) == 2
    assert "--shape image=1,3,h,w" in capsys.readouterr().err
    assert main(["profile", str(path), "--predict", "--json", "--shape", "image=1,3,4,4"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["profiles"]
    assert row["cost"]["macs"] == 16 * (8 * 27 + 4 * 8)


def test_shapes_go_to_the_models_that_have_the_input(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["profile", str(wide_open(model, "left")), str(wide_open(model, "right")), "--predict", "--json"]
    assert main([*words, "--shape", "left=1,3,4,4", "--shape", "right=1,3,2,2"]) == 0
    rows = json.loads(capsys.readouterr().out)["profiles"]
    assert [row["cost"]["macs"] for row in rows] == [16 * 248, 4 * 248]
    assert main([*words, "--shape", "c=1,3,4,4"]) == 2
    assert "no input is called 'c'; there are left, right" in capsys.readouterr().err


def test_a_shape_that_contradicts_the_model_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(model), "--predict", "--shape", "x=1,3,16,16"]) == 2
    assert "has 16 in dimension 2, and the model is made for 8" in capsys.readouterr().err


def test_places_that_are_not_there(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(model), "--predict", "--html", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    assert main(["profile", str(model), "--predict", "--project", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_the_table_of_kernels_says_what_is_outside_of_them(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(model), "--predict", "--layers", "--target", "jetson"]) == 0
    said = capsys.readouterr().out
    cost = profiles.profile(model, "jetson")
    around = cost.latency_ms - sum(layer.latency_ms for layer in cost.layers)
    assert f"{numbers.milliseconds(around)} more of each pass is outside of the kernels" in said


@pytest.mark.parametrize(("limit", "verdict"), [(1e3, "held"), (1e-6, "missed"), (None, "not certain")])
def test_the_budget_of_the_target_is_judged_by_the_whole_interval(
    limit: float | None, verdict: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    middle = profiles.profile(model, "jetson").latency_ms
    (tmp_path / "targets").mkdir()
    text = f'inherit = "jetson"\n[budget]\nlatency_ms = {middle if limit is None else limit}\nweight_bytes = 10\n'
    (tmp_path / "targets" / "bench.toml").write_text(text)
    assert main(["profile", str(model), "--target", "bench", "--project", str(tmp_path), "--predict"]) == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("budget")]
    assert line.endswith(verdict)
    assert "weights 10 B: missed" in said
