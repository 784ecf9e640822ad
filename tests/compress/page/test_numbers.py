import pytest

from compress.page import numbers


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1.23456, "1.23"), (123456, "123,456"), (0.000123456, "0.000123"), (-2.5, "-2.5"), (1e-6, "0.000001")],
)
def test_significant(value: float, shown: str) -> None:
    assert numbers.significant(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (9_999, "9,999"), (12_345, "12.3 k"), (2_660_000, "2.66 M"), (4.1e9, "4.1 G")]
)
def test_count(value: float | None, shown: str) -> None:
    assert numbers.count(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(None, "–"), (999, "999 B"), (35_500, "35.5 kB"), (1_312_448, "1.31 MB")])
def test_size(value: float | None, shown: str) -> None:
    assert numbers.size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (0.404, "0.404 ms"), (0.0042, "4.2 µs"), (5.0, "5 ms"), (12_000, "12 s")]
)
def test_milliseconds(value: float | None, shown: str) -> None:
    assert numbers.milliseconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.0079, "−0.79 points"), (0.01, "+1.00 points"), (0.00001, "0.00 points"), (None, "–")]
)
def test_points(value: float | None, shown: str) -> None:
    assert numbers.points(value) == shown


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (240.0, 10.0, "24× fewer"),
        (10.0, 13.0, "1.3× more"),
        (10.0, 10.0, "the same"),
        (12_340.0, 10.0, "1,234× fewer"),
        (0.0, 1.0, ""),
        (None, 1.0, ""),
        (1.0, None, ""),
    ],
)
def test_fewer(before: float | None, after: float | None, said: str) -> None:
    assert numbers.fewer(before, after, "fewer", "more") == said


@pytest.mark.parametrize(
    ("value", "unit", "scale", "shown"),
    [
        (5.9, "ms", None, "5.9 ms"),
        (64_000.0, "bytes", None, "64 kB"),
        (0.99995, "", 0.999, "100.00 %"),
        (2_660_000.0, "", None, "2.66 M"),
        (1.2, "", 0.99, "120.00 %"),
        (3.0, "mW", None, "3 mW"),
        (None, "ms", None, "not a number"),
    ],
)
def test_quantity(value: float | None, unit: str, scale: float | None, shown: str) -> None:
    assert numbers.quantity(value, unit, scale) == shown


def test_every_origin_is_explained() -> None:
    for name in numbers.ORIGINS:
        assert f'class="origin {name}"' in numbers.origin(name)
    assert numbers.origin("") == ""
    assert "<script>" not in numbers.origin("<script>")


def test_an_interval_has_one_unit() -> None:
    assert numbers.span((0.27, 0.56)) == "0.27 to 0.56 ms"
    assert numbers.span((0.0011, 0.0022)) == "1.1 to 2.2 µs"
    assert numbers.span(None) == ""


def test_a_metric_that_is_no_fraction_has_no_percent_sign() -> None:
    assert (numbers.score(0.912, "%"), numbers.score(0.912, ""), numbers.score(None, "")) == ("91.20 %", "0.912", "–")
    assert numbers.score(-0.05, "") == "\u22120.050"
    assert (numbers.gap(-0.012, "%"), numbers.gap(-0.012, "")) == ("\u22121.20 points", "\u22120.012")
    assert (numbers.gap(0.0, ""), numbers.gap(None, "")) == ("0.000", "–")
    assert (numbers.scaled(0.5, "%"), numbers.scaled(0.5, "")) == (50.0, 0.5)
    assert (numbers.axis("concordance", ""), numbers.axis("accuracy", "%")) == ("concordance", "accuracy, %")
