from dataclasses import replace

import pytest

import profiles
from profiles.graph import Graph, Op, Weight, edge
from profiles.latency.models import latency_model
from profiles.predict import predict
from profiles.target import names

TARGETS = names()


def chain(channels: int, size: int = 32, layers: int = 4, batch: int = 1) -> Graph:
    """3x3 convolutions of one width, one after the other."""
    shape = (batch, channels, size, size)
    edges = {f"e{index}": edge(f"e{index}", shape, "float32") for index in range(layers + 1)}
    depth = channels * 9
    ops = tuple(
        Op(
            f"conv{index}", "Conv", "conv", (f"e{index}",), (f"e{index + 1}",), edges["e0"].elements * depth,
            (Weight(f"w{index}", channels * depth, "float32"),), depth, 1, channels,
        )
        for index in range(layers)
    )  # fmt: skip
    return Graph(ops, edges, ("e0",), (f"e{layers}",), batch)


@pytest.mark.parametrize("name", TARGETS)
def test_more_work_never_takes_less_time(name: str) -> None:
    target = profiles.target(name)
    times = [predict(chain(width), target, "int8").latency_ms for width in (16, 32, 64, 128, 256)]
    assert times == sorted(times)
    deeper = [predict(chain(32, layers=count), target, "int8").latency_ms for count in (1, 2, 4, 8)]
    assert deeper == sorted(set(deeper))
    batches = [predict(chain(32, batch=count), target, "int8").latency_ms for count in (1, 2, 4, 8)]
    assert batches == sorted(batches)


@pytest.mark.parametrize("name", TARGETS)
def test_layers_add_up_and_the_interval_holds_the_median(name: str) -> None:
    target = profiles.target(name)
    cost = predict(chain(64), target, "int8")
    fixed = latency_model(target).fixed_ms
    assert cost.latency_ms == pytest.approx(fixed + sum(layer.latency_ms for layer in cost.layers))
    assert cost.macs == sum(layer.macs for layer in cost.layers) == 4 * 64 * 32 * 32 * 576
    assert cost.interval_ms[0] < cost.latency_ms < cost.interval_ms[1]
    assert cost.origin == "predicted"
    assert predict(chain(64), target, "int8", layers=False) == replace(cost, layers=())


@pytest.mark.parametrize("name", ["a100", "jetson", "x86"])
def test_int8_is_never_slower_than_float_and_a_large_layer_gains(name: str) -> None:
    target = profiles.target(name)
    small = [predict(chain(16, 8), target, precision).latency_ms for precision in ("int8", "fp32")]
    assert small[0] <= small[1]
    large = [predict(chain(512, 64), target, precision).latency_ms for precision in ("int8", "fp32")]
    assert large[0] < 0.7 * large[1]


def test_small_layers_are_bound_by_launches_and_large_ones_by_compute() -> None:
    target = profiles.target("a100")
    small, large = predict(chain(16, 8), target, "int8"), predict(chain(1024, 64), target, "fp16")
    assert {layer.bound_by for layer in small.layers if layer.macs} == {"launch"}
    assert {layer.bound_by for layer in large.layers if layer.macs} == {"compute"}


def test_a_slower_clock_takes_longer() -> None:
    target = profiles.target("hearing_aid")
    slow = replace(target, hardware=replace(target.hardware, clock_mhz=48))
    assert predict(chain(8), slow).latency_ms == pytest.approx(2 * predict(chain(8), target).latency_ms)


def test_a_device_of_an_unknown_generation_has_a_wider_interval_and_says_so() -> None:
    known = predict(chain(64), profiles.target("jetson"), "int8")
    unknown = predict(chain(64), profiles.target("jetson_thor"), "int8")
    assert unknown.interval_ms[1] / unknown.latency_ms > known.interval_ms[1] / known.latency_ms
    assert any("the interval is wider" in note for note in unknown.notes)


def test_compare_gives_a_row_per_model_and_a_column_per_target() -> None:
    table = profiles.compare([chain(16), chain(32)], ["a100", "hearing-aid"])
    assert [[cost.target for cost in row] for row in table] == [["a100", "hearing_aid"]] * 2
    assert table[1][0].macs == 4 * table[0][0].macs
