"""The published table is whole, its sizes are counted right, and the figures that are made of it."""

import pytest

from tools.effects.diswot import Published, combined, control, network, published, right_pairs


@pytest.fixture(scope="module")
def rows() -> list[Published]:
    return published()


def test_the_table_is_the_published_one(rows: list[Published]) -> None:
    assert len({row.depths for row in rows}) == 64
    assert {depth for row in rows for depth in row.depths} == {1, 3, 5, 7}
    best = {name: max(rows, key=lambda row, name=name: getattr(row, name)) for name in ("plain", "distilled")}
    assert (best["plain"].depths, best["plain"].plain, best["plain"].distilled) == ((7, 7, 7), 72.56, 74.44)
    assert (best["distilled"].depths, best["distilled"].plain, best["distilled"].distilled) == ((5, 5, 7), 71.93, 74.86)
    assert min((row.distilled, row.plain) for row in rows) == (61.87, 60.20)


def test_resnet_20_for_100_classes_is_counted_by_hand() -> None:
    convolutions = 9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
    projections, norms = 16 * 32 + 32 * 64, 2 * 7 * (16 + 32 + 64)
    count = sum(parameter.numel() for parameter in network((3, 3, 3)).parameters())
    assert count == convolutions + projections + norms + 65 * 100 == 278_324


def test_the_control_of_size_is_the_published_tables(rows: list[Published]) -> None:
    found = control(rows)
    assert found["plain"] == pytest.approx(0.957, abs=5e-4)
    assert found["parameters"] == pytest.approx(0.968, abs=5e-4)
    assert found["depth"] == pytest.approx(0.814, abs=5e-4)
    assert found["macs"] == pytest.approx(0.814, abs=5e-4)
    assert (found["right_pairs"], found["pairs"]) == (113, 154)


def test_pairs_are_counted_by_size_and_accuracy(rows: list[Published]) -> None:
    assert right_pairs(rows, [row.distilled for row in rows]) == (154, 154)
    assert right_pairs(rows, [-row.distilled for row in rows]) == (0, 154)
    assert right_pairs(rows, [0.0] * 64) == (0, 154)


def test_combinations_keep_what_both_terms_agree_on() -> None:
    found = combined([1.0, 2.0, 4.0], [-3.0, -1.0, -0.5])
    assert found["rank sum"] == [0.0, 1.0, 2.0]
    assert sorted(found["z sum"]) == found["z sum"]
