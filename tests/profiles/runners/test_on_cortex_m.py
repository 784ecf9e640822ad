"""The emulated board: counts, sizes, time from counts, and what it refuses."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.onnx_to_c import convert
from profiles.errors import ProfileError
from profiles.latency import cortex_m
from profiles.runners import on_cortex_m
from profiles.runners.cortex_m import toolchain
from profiles.target import Target, target

needs_board = pytest.mark.skipif(on_cortex_m.available() is not None, reason=str(on_cortex_m.available()))

WIDTH, SIDE = 32, 10


@pytest.fixture(scope="module")
def hearing_aid() -> Target:
    return target("hearing_aid")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, hearing_aid: Target) -> Path:
    """C of a small network of depthwise and pointwise convolutions, (1, 10, 10) -> 10 logits."""
    out = tmp_path_factory.mktemp("c")
    return convert(separable(out / "separable.onnx"), hearing_aid, out).path


def separable(path: Path) -> Path:
    rng = np.random.default_rng(0)
    nodes, constants = [], []

    def const(value: object) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), f"c{len(constants)}"))
        return constants[-1].name

    def op(kind: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"t{len(nodes)}"], **attributes))
        return f"t{len(nodes) - 1}"

    def qdq(x: str) -> str:
        s, z = const(np.float32(0.05)), const(np.int8(-3))
        return op("DequantizeLinear", op("QuantizeLinear", x, s, z), s, z)

    def weights(*shape: int) -> str:
        codes = rng.integers(-127, 128, shape).astype(np.int8)
        scale = np.full(shape[0], 1 / (74 * np.sqrt(np.prod(shape[1:]))), np.float32)
        return op("DequantizeLinear", const(codes), const(scale), axis=0)

    x = qdq("x")
    x = qdq(op("Relu", op("Conv", x, weights(WIDTH, 1, 3, 3), pads=[1, 1, 1, 1])))
    for _ in range(2):
        x = qdq(op("Relu", op("Conv", x, weights(WIDTH, 1, 3, 3), pads=[1, 1, 1, 1], group=WIDTH)))
        x = qdq(op("Relu", op("Conv", x, weights(WIDTH, WIDTH, 1, 1))))
    x = op("Flatten", qdq(op("GlobalAveragePool", x)))
    x = qdq(op("Gemm", qdq(x), weights(10, WIDTH), transB=1))
    graph = helper.make_graph(
        nodes,
        "separable",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, None)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def inputs(count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).normal(0, 1, (count, 1, SIDE, SIDE)).astype(np.float32)}


@needs_board
def test_counts_are_the_same_every_time_and_for_every_input(folder: Path) -> None:
    with on_cortex_m.load(folder) as board:
        first, again = board.emulate(inputs(5)), board.emulate(inputs(5))
    np.testing.assert_array_equal(first.steps, again.steps)
    np.testing.assert_array_equal(first.instructions, first.steps.sum(axis=1))
    assert first.instructions.shape == (5,)
    spread = np.ptp(first.instructions)
    assert spread <= 0.01 * first.instructions.mean()  # loops have fixed lengths; a float compare may branch


@needs_board
def test_instructions_per_multiply_accumulate(folder: Path) -> None:
    with on_cortex_m.load(folder, "cortex-m33") as board:
        run = board.emulate(inputs(1))
        macs = board.facts["macs"]
        pixels = SIDE * SIDE
        assert macs == pixels * WIDTH * (9 + 2 * (9 + WIDTH)) + 10 * WIDTH  # by hand
        assert run.instructions[0] < 4.5 * macs
        for step, count in zip(board.facts["steps"], run.steps[0], strict=True):
            if step["macs"] == pixels * WIDTH * WIDTH:
                assert count < 2.0 * step["macs"]  # dual multiply-accumulates; without them it takes over 3


@needs_board
def test_one_process_runs_many_inputs_in_order(folder: Path) -> None:
    data = inputs(40)
    with on_cortex_m.load(folder) as board:
        together = board.run(data)
        alone = board.run({"x": data["x"][17:18]})
    (name,) = together
    assert together[name].shape == (40, 10)
    assert together[name].dtype == np.float32
    np.testing.assert_array_equal(together[name][17], alone[name][0])
    np.testing.assert_array_equal(together[name], on_cortex_m.run_on_host(folder, data)[name])


@needs_board
def test_cost_is_instructions_times_cycles_over_clock(folder: Path, hearing_aid: Target) -> None:
    data = inputs(2)
    with on_cortex_m.load(folder) as board:
        instructions = float(board.emulate(data).instructions.mean())
        arena, footprint = board.facts["arena_bytes"], board.footprint
    cost = on_cortex_m.measure(folder, hearing_aid, inputs=data)
    assert cost.origin == "emulated"
    cycles = cortex_m.cycles("cortex-m33")
    outputs = SIDE * SIDE * WIDTH * 5 + 10  # of five convolutions and the classifier
    expected = (instructions * cycles.per_instruction + outputs * cycles.per_output) / 96e3
    assert cost.latency_ms == pytest.approx(expected)
    assert cost.interval_ms == pytest.approx((expected * cycles.low, expected * cycles.high))
    assert cycles.source in " ".join(cost.notes)
    assert sum(layer.latency_ms for layer in cost.layers) == pytest.approx(cost.latency_ms)
    assert cost.peak_activation_bytes == arena + 4 * (SIDE * SIDE + 10)
    assert cost.params == WIDTH * (9 + 1) + 2 * WIDTH * (9 + 1 + WIDTH + 1) + 10 * (WIDTH + 1)
    assert cost.precision == "int8"
    assert cost.weight_bytes <= footprint.flash
    assert f"flash {footprint.flash} bytes" in " ".join(cost.notes)


@needs_board
@pytest.mark.parametrize("core", sorted(toolchain.CORES))
def test_every_core_has_its_own_count_and_the_same_bits(folder: Path, core: str) -> None:
    data = inputs(3)
    with on_cortex_m.load(folder, core) as board:
        run = board.emulate(data)
        macs = board.facts["macs"]
    (name,) = run.outputs
    np.testing.assert_array_equal(run.outputs[name], on_cortex_m.run_on_host(folder, data)[name])
    per_mac = float(run.instructions.mean()) / macs
    vectors, dual, plain = 2.0, 4.5, 12.0  # Helium; two products an instruction; one at a time, no float unit
    assert per_mac < {"cortex-m55": vectors, "cortex-m3": plain}.get(core, dual)


@needs_board
def test_a_model_that_is_larger_than_the_target_is_told(folder: Path, hearing_aid: Target) -> None:
    small = replace(hearing_aid, hardware=replace(hearing_aid.hardware, ram_kib=4, flash_kib=8))
    notes = on_cortex_m.measure(folder, small, inputs=inputs(1)).notes
    told = [note for note in notes if note.startswith("does not fit")]
    assert len(told) == 2
    assert "8192" in told[0]
    assert "4096" in told[1]
    assert not any(n.startswith("does not fit") for n in on_cortex_m.measure(folder, hearing_aid, inputs(1)).notes)


@needs_board
def test_a_model_that_is_larger_than_the_board_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tight = replace(toolchain.core_of("cortex-m33"), code=(0x10000000, 4096))
    monkeypatch.setattr(toolchain, "CORES", {"cortex-m33": tight})
    with pytest.raises(ProfileError, match=r"takes \d+ bytes of flash; the emulated mps2-an505 has 4096"):
        on_cortex_m.load(folder, "cortex-m33")


@pytest.mark.parametrize("core", sorted(toolchain.CORES))
def test_cycles_per_instruction_are_sourced(core: str) -> None:
    found = cortex_m.cycles(core)
    assert 0.5 <= found.per_instruction <= 2.0
    assert 0.0 <= found.per_output <= 60.0
    assert 0.3 < found.low < 1 < found.high < 2.5
    assert found.source.startswith("assumed: ") or "values" in found.source
    assert found.of(1000, 10) == 1000 * found.per_instruction + 10 * found.per_output


def test_a_core_without_cycles_is_refused() -> None:
    with pytest.raises(
        ProfileError, match=r"no cycles per instruction are known for 'cortex-m0'; there are cortex-m33"
    ):
        cortex_m.cycles("cortex-m0")


@needs_board
def test_files_are_gone_after_use(folder: Path) -> None:
    with on_cortex_m.load(folder) as board:
        where = board.folder
        assert where.is_dir()
    assert not where.exists()


@needs_board
def test_inputs_that_do_not_fit_are_refused(folder: Path) -> None:
    with on_cortex_m.load(folder) as board:
        for wrong in ({"y": np.zeros((1, 100), np.float32)}, {"x": np.zeros((2, 99), np.float32)}, {}):
            with pytest.raises(ProfileError, match=r"do not fit; the model takes \(N, elements\).*'x': 100"):
                board.run(wrong)


@needs_board
def test_a_board_that_takes_too_long_is_stopped(folder: Path) -> None:
    with (
        on_cortex_m.load(folder) as board,
        pytest.raises(ProfileError, match=r"qemu-system-arm did not finish within 0\.001 s"),
    ):
        board.run(inputs(1), timeout_s=0.001)


def test_an_unknown_core_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"no Cortex-M core is called 'cortex-a53'; there are cortex-m3, "):
        toolchain.core_of("cortex-a53")


def test_names_of_cores() -> None:
    assert toolchain.core_of("Cortex-M33F").name == "cortex-m33"
    assert toolchain.core_of("m4").name == "cortex-m4"
    assert toolchain.core_of("Cortex-M55+Helium").name == "cortex-m55"


def test_missing_tools_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install gcc-arm-none-eabi" in str(on_cortex_m.available())
    with pytest.raises(ProfileError, match="arm-none-eabi-gcc is not installed"):
        on_cortex_m.load(folder)
    with pytest.raises(ProfileError, match="no C compiler"):
        on_cortex_m.run_on_host(folder, inputs(1))


def test_a_folder_without_the_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"has no model\.c"):
        on_cortex_m.run_on_host(tmp_path, inputs(1))


def test_a_failing_compiler_is_quoted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "cc"
    fake.write_text("#!/bin/sh\necho 'disk is full' >&2\nexit 1\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    with pytest.raises(ProfileError, match="cc failed with status 1: disk is full"):
        on_cortex_m.run_on_host(folder, inputs(1))
