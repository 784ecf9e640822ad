"""Sums of two int8 tensors in generated C: onnxruntime's codes on ties too, for every pair of codes."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from exporters import onnx_to_c
from profiles.runners import on_cortex_m
from profiles.runners.cortex_m import toolchain
from profiles.target import Target, target

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import c_graphs

Array = NDArray[Any]
needs_host = pytest.mark.skipif(toolchain.host_compiler() is None, reason="this machine has no C compiler")
needs_board = pytest.mark.skipif(on_cortex_m.available() is not None, reason=str(on_cortex_m.available()))
WAYS = {"floats": ("-O1",), "integers": ("-O1", "-DMODEL_FIXED"), "portable": ("-O1", "-DMODEL_PORTABLE")}

STEPS = {  # scale and zero point of the two tensors and of their sum; the first four have many ties
    "halves": ((0.05, 3), (0.025, -7), (0.05, 11)),
    "thirds of sixteenths": ((0.13 / 16, 100), (0.13 * 3 / 16, -128), (0.13, -128)),
    "the same": ((0.02, 1), (0.02, 1), (0.04, -5)),
    "rounded ratios": ((0.07 * 1.37 / 8, -31), (0.07 * 1.11 / 4, 90), (0.07, 3)),
    "no ties": ((0.0213, -20), (0.0377, 17), (0.0451, 4)),
    "too wide for integers": ((3.0, 120), (0.002, -3), (0.001, 0)),
    "one is nearly nothing": ((1e-4, 5), (0.02, 8), (0.021, 9)),
}


@pytest.fixture(scope="module")
def aid() -> Target:
    return target("hearing_aid")


def sum_of(steps: Any, codes: tuple[Array, Array], relu: bool = False) -> tuple[c_graphs.Builder, str]:
    """A graph that adds two tensors of these codes; and its output."""
    net = c_graphs.Builder(0)
    parts = []
    for (scale, zero), values in zip(steps[:2], codes, strict=True):
        name = f"x{len(net.inputs)}"
        net.inputs.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(values.shape)))
        net.feeds[name] = (np.float32(scale) * (values.astype(np.int32) - zero)).astype(np.float32)
        net.steps["given"] = (np.float32(scale), zero)
        parts.append(net.pair(name, like="given"))
    made = net.op("Add", *parts)
    net.steps["given"] = (np.float32(steps[2][0]), steps[2][1])
    return net, net.pair(net.op("Relu", made) if relu else made, like="given")


def sources(net: c_graphs.Builder, at: str, folder: Path, aid: Target) -> Path:
    onnx.save(net.model([at]), str(folder / "net.onnx"))
    return onnx_to_c.sources(folder / "net.onnx", aid, folder / "c")


def codes_apart(net: c_graphs.Builder, at: str, ours: Any) -> int:
    """How many codes differ from onnxruntime's."""
    (theirs,) = c_graphs.session(net.model([at]), integers=True).run(None, net.feeds)
    return int((np.abs(ours[at].reshape(theirs.shape) - theirs) > net.steps[at][0] / 2).sum())


def every_pair() -> tuple[Array, Array]:
    a, b = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    return a.reshape(1, 1, 256, 256).astype(np.int8), b.reshape(1, 1, 256, 256).astype(np.int8)


@needs_host
@pytest.mark.parametrize("name", STEPS)
def test_every_pair_of_codes(name: str, tmp_path: Path, aid: Target) -> None:
    net, at = sum_of(STEPS[name], every_pair())
    folder = sources(net, at, tmp_path, aid)
    for flags in WAYS.values():
        assert codes_apart(net, at, c_graphs.on_host(folder, net.feeds, flags)) == 0


@needs_host
@pytest.mark.parametrize("name", ["halves", "the same", "no ties"])
def test_every_pair_before_a_clamp_that_stays(name: str, tmp_path: Path, aid: Target) -> None:
    """The zero point leaves codes below zero, so onnxruntime keeps the Relu and adds decoded floats."""
    net, at = sum_of(STEPS[name], every_pair(), relu=True)
    folder = sources(net, at, tmp_path, aid)
    assert "model_add_decoded(&p" in (folder / "model.c").read_text()
    assert codes_apart(net, at, c_graphs.on_host(folder, net.feeds, ("-O1",))) == 0


@needs_host
@pytest.mark.parametrize(
    "shapes",
    [((1, 8, 6, 7), (1, 8, 1, 1)), ((1, 8, 1, 1), (1, 8, 6, 7)), ((1, 1, 6, 7), (1, 8, 6, 7)), ((1, 5), (1, 5))],
    ids=str,
)
@pytest.mark.parametrize("name", ["halves", "rounded ratios"])
def test_operands_that_repeat(name: str, shapes: Any, tmp_path: Path, aid: Target) -> None:
    """onnxruntime swaps the operands where the first has one value per row, which moves a rounding."""
    rng = np.random.default_rng(3)
    drawn = [rng.integers(-128, 128, shape).astype(np.int8) for shape in shapes]
    net, at = sum_of(STEPS[name], (drawn[0], drawn[1]))
    folder = sources(net, at, tmp_path, aid)
    for flags in WAYS.values():
        assert codes_apart(net, at, c_graphs.on_host(folder, net.feeds, flags)) == 0


@needs_host
@pytest.mark.parametrize("seed", [360, 375, 490])
def test_random_graphs_with_ties(seed: int) -> None:
    assert c_graphs.compare([seed])["differ"] == []


@needs_board
@pytest.mark.parametrize("core", ["cortex-m3", "cortex-m4", "cortex-m55"])
def test_the_board(core: str, tmp_path: Path, aid: Target) -> None:
    rng = np.random.default_rng(4)
    net, at = sum_of(
        STEPS["rounded ratios"],
        (rng.integers(-128, 128, (1, 4, 33, 31)).astype(np.int8), rng.integers(-128, 128, (1, 4, 33, 31), np.int8)),
    )
    with on_cortex_m.load(sources(net, at, tmp_path, aid), core) as board:
        assert codes_apart(net, at, board.run(net.feeds)) == 0
