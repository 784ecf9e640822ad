import copy
import dataclasses
import html as html_module
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from compress import page
from compress.page import SECTIONS, checks, fronts, layers, shell
from compress.page.html import Markup
from exporters.parity import Parity

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&</script><!--"
PARTS = (
    "selection",
    "choice",
    "verify",
    "curves",
    "quantize",
    "stages",
    "files",
    "provenance",
    "task",
    "target",
    "failed",
)


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library stays out: it is the same in every page, and 5 MB of it take their time."""
    monkeypatch.setattr(shell, "_plotly", lambda: Markup("/* plotly.js */"))


def without_libraries(html: str) -> str:
    """The page less its scripts' and its style sheet's text; figures stay."""
    return re.sub(r"<(script|style)>.*?</\1>", "", html, flags=re.DOTALL)


def words(html: str) -> str:
    """What a reader sees, tags taken out."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", without_libraries(html)))


def figures(html: str) -> dict[str, Any]:
    """Every plot's data by its id."""
    found = re.findall(r'<script type="application/json" data-plot="([^"]*)">(.*?)</script>', html, flags=re.DOTALL)
    return {name: json.loads(text) for name, text in found}


class Outline(HTMLParser):
    """Elements with their attributes; whether each one that opens also closes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(html: str) -> Outline:
    reader = Outline()
    reader.feed(without_libraries(html))
    assert reader.open == []
    return reader


def test_every_section_is_there(content: dict[str, Any]) -> None:
    html = page.render(content)
    found = [attributes["id"] for tag, attributes in outline(html).elements if tag == "section"]
    assert found == [name for name, _, _ in SECTIONS]
    assert "Nothing to show" not in words(html)
    plots = ("pareto", "search", "costs", "distill", "quantize", "precision", "layers")
    assert set(figures(html)) == {f"plot-{name}" for name in plots}


def test_the_top_says_what_holds(content: dict[str, Any]) -> None:
    text = words(page.render(content))
    top = text[: text.index("Teacher and students side by side")]
    assert "A mixed-precision student for NVIDIA Jetson Orin Nano 8 GB" in top
    assert "All 6 gates hold" in top
    assert "91.57 %" in top
    assert "−0.79 points against the teacher; run as " in top
    assert "built, not run here" in top


def test_a_failed_gate_is_said_once_with_number_and_bound(measured: dict[str, Any]) -> None:
    sentence = "select: latency of shipped student is 5.9 ms (measured), above the bound of 5 ms"
    text = words(page.render(measured))
    assert "1 of 6 gates failed" in text
    assert text.count(sentence) == 1
    measured["failed"] = []  # misses of the budget go back to select and may not be listed
    assert "select: latency of shipped student is 5.9 ms (measured), the bound is 5 ms" in words(page.render(measured))


def test_ratios_are_worked_out_by_hand(content: dict[str, Any]) -> None:
    costs = content["verify"]["costs"]
    costs["teacher"].update(macs=240_000_000, weight_bytes=4_000_000, latency_ms=8.0)
    costs["shipped student"].update(macs=10_000_000, weight_bytes=100_000, latency_ms=0.5)
    text = words(page.render(content))
    assert "24× fewer than the teacher" in text
    assert "40× smaller than the teacher" in text
    assert "16× faster" in text


def test_a_measurement_is_held_against_its_prediction(measured: dict[str, Any]) -> None:
    measured["verify"]["costs"]["shipped student, predicted"].update(latency_ms=5.0, interval_ms=[4.0, 6.0])
    assert "had predicted 5 ms for the shipped student; the measured figure is 5.9 ms, inside" in words(
        page.render(measured)
    )


def test_layers_that_were_predicted_are_not_called_measured(measured: dict[str, Any]) -> None:
    made = layers.per_layer(measured)
    assert made is not None
    assert "latency (predicted)" in made
    own = copy.deepcopy(measured["verify"]["costs"]["shipped student"]["layers"])
    own[0]["latency_ms"] *= 1.5
    measured["verify"]["costs"]["shipped student"]["layers"] = own
    made = layers.per_layer(measured)
    assert made is not None
    assert "latency (measured)" in made


def test_all_rejected_candidates_with_their_reasons(content: dict[str, Any]) -> None:
    text = words(page.render(content))
    rejected = [row for row in content["selection"]["candidates"] if row["rejected"] is not None]
    assert rejected
    assert f"All {len(rejected)} rejected candidates" in text
    assert all(row["rejected"] in text for row in rejected)


def test_the_plots_hold_every_candidate(content: dict[str, Any]) -> None:
    every = content["selection"]["candidates"]
    pareto, costs = fronts.pareto(content), fronts.costs(content)
    assert pareto is not None
    assert costs is not None
    drawn = [trace for trace in pareto.traces if trace["name"] != "Pareto front" and "(test)" not in trace["name"]]
    assert sum(len(trace["x"]) for trace in drawn) == len(every)
    assert sum(len(trace["x"]) for trace in costs.traces) == len(every) + 1  # and the teacher
    for choice in costs.choices.values():
        assert [len(y) for y in choice["y"]] == [len(trace["x"]) for trace in costs.traces]


def test_the_pareto_line_is_the_front_by_latency(content: dict[str, Any]) -> None:
    content["selection"]["front"].reverse()
    figure = fronts.pareto(content)
    assert figure is not None
    line = next(trace for trace in figure.traces if trace["name"] == "Pareto front")
    assert line["x"] == sorted(line["x"])
    assert line["y"] == sorted(line["y"])  # of the generator's front: slower is better


def test_whiskers_reach_the_interval(content: dict[str, Any]) -> None:
    content["selection"]["candidates"] = [
        {"id": 1, "score": 0.5, "latency_ms": 2.0, "interval_ms": [1.5, 4.0], "plan": {}, "origin": "predicted"}
    ]
    figure = fronts.pareto(content)
    assert figure is not None
    trace = next(trace for trace in figure.traces if trace["name"].startswith("trained"))
    assert (trace["error_x"]["arrayminus"], trace["error_x"]["array"]) == ([0.5], [2.0])


def test_nothing_of_the_content_becomes_an_element_or_an_attribute(content: dict[str, Any]) -> None:
    clean = outline(page.render(content)).elements

    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poisoned(item) for key, item in value.items()}
        if isinstance(value, list):
            return [poisoned(item) for item in value]
        keep = {"artifact", "ONNX", "skipped", "measured", "emulated", "predicted", "counted"}
        return value + EVIL if isinstance(value, str) and value not in keep else value

    bad = poisoned(content)
    bad["verify"]["final"] = "ONNX"
    bad["target"]["sources"] = {EVIL: EVIL}
    bad["selection"]["candidates"][0]["plan"] = {EVIL: {EVIL: [EVIL, {EVIL: EVIL}]}}
    html = page.render(bad)
    found = outline(html).elements
    dangerous = {"img", "iframe", "object", "embed", "svg", "base", "form", "input", "link"}
    assert not dangerous & {tag for tag, _ in found}
    assert sum(tag == "script" for tag, _ in found) == sum(tag == "script" for tag, _ in clean)
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]
    for figure in figures(html).values():  # plotly reads tags in texts: there may be none but line breaks
        for text in re.findall(r'"[^"]*<[^"]*"', json.dumps(figure)):
            assert not re.search(r"<(?!br>)", text)


def test_no_reference_leads_out_of_the_page(content: dict[str, Any]) -> None:
    html = page.render(content)
    for _, attributes in outline(html).elements:
        assert not {"src", "srcset", "action", "data"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    for style in re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL):
        assert "@import" not in style
        assert "url(" not in style
    assert "http://" not in without_libraries(html)
    assert "https://" not in without_libraries(html)
    assert "default-src &#x27;none&#x27;; " in html


def test_links_lead_to_sections(content: dict[str, Any]) -> None:
    found = outline(page.render(content)).elements
    targets = {attributes.get("id") for _, attributes in found}
    links = [attributes["href"] for tag, attributes in found if tag == "a"]
    assert len(links) == len(SECTIONS)
    assert all(link is not None and link.removeprefix("#") in targets for link in links)


def test_the_same_content_gives_the_same_bytes(content: dict[str, Any]) -> None:
    before = copy.deepcopy(content)
    assert page.render(content) == page.render(json.loads(json.dumps(before)))
    assert content == before


@pytest.mark.parametrize("part", PARTS)
def test_a_part_may_be_absent_or_odd(content: dict[str, Any], part: str) -> None:
    for odd in (
        None,
        [],
        {},
        "text",
        [None, 3],
        {"candidates": [{}], "gates": [{}], "artifacts": [{}], "parity": [{}]},
    ):
        content[part] = odd
        outline(page.render(content))
    del content[part]
    outline(page.render(content))


def test_an_empty_report_says_that_there_is_nothing() -> None:
    text = words(page.render({}))
    assert text.count("Nothing to show") == len(SECTIONS)
    assert "No gate was checked" in text


def test_without_a_shipped_student(content: dict[str, Any]) -> None:
    del content["verify"]["costs"]["shipped student"]
    content["verify"]["accuracy"] = {"teacher": 0.9}
    html = page.render(content)
    assert "plot-layers" not in figures(html)
    assert "A mixed-precision student" in words(html)


def test_numbers_that_are_not_finite_are_said_not_drawn(content: dict[str, Any]) -> None:
    content["verify"]["gates"][0].update(value=float("nan"), passed=False)
    content["selection"]["candidates"][5].update(score=float("nan"), latency_ms=float("inf"))
    content["curves"]["distill"][3].update(loss=float("inf"), score=float("nan"))
    html = page.render(content)
    assert "not a number" in words(html)
    assert "NaN" not in json.dumps(figures(html))


def test_long_networks_draw_the_longest_kernels_and_list_all(content: dict[str, Any]) -> None:
    layer = content["verify"]["costs"]["shipped student"]["layers"][0]
    many = [layer | {"name": f"kernel {n}", "latency_ms": 0.01 + n / 1000} for n in range(100)]
    content["verify"]["costs"]["shipped student"]["layers"] = many
    html = page.render(content)
    drawn = [text for trace in figures(html)["plot-layers"]["data"] for text in trace["hovertext"]]
    assert len(drawn) == layers.MOST
    assert any("kernel 99" in text for text in drawn)
    assert not any("kernel 7<" in text for text in drawn)
    assert "All 100 kernels in numbers" in words(html)


def test_what_was_only_built_says_so_and_what_was_run_too(content: dict[str, Any], measured: dict[str, Any]) -> None:
    text = words(page.render(content))
    assert "built, not run here: proves that the graph compiles for Ampere; it does not run on Orin" in text
    assert "not built: this machine has no NVIDIA GPU" in text
    assert "run by on_tensorrt" in words(page.render(measured))


def test_hashes_stand_beside_the_artifacts_they_belong_to(content: dict[str, Any]) -> None:
    html = page.render(content)
    row = next(row for row in re.findall(r"<tr>.*?</tr>", html) if "<b>check_sm86.engine</b>" in row)
    digest = next(f["sha256"] for f in content["files"] if f["path"].endswith("check_sm86.engine"))
    assert digest in row
    bundle = next(row for row in re.findall(r"<tr>.*?</tr>", html) if "<b>model.bundle</b>" in row)
    assert "2 files" in bundle
    assert digest not in bundle
    exported = next(f["sha256"] for f in content["files"] if f["path"] == "4_export/model.onnx")
    content["verify"]["artifacts"] = [{"name": "model.onnx", "purpose": "artifact", "run": "run by on_onnxruntime"}]
    content["files"].append({"path": "5_build/model.onnx", "sha256": "5" * 64, "size": 9, "origin": "build: artifact"})
    row = next(row for row in re.findall(r"<tr>.*?</tr>", page.render(content)) if "<b>model.onnx</b>" in row)
    assert "5" * 16 in row
    assert exported[:16] not in row


def test_every_figure_of_a_parity_has_a_column(content: dict[str, Any]) -> None:
    fields = {field.name for field in dataclasses.fields(Parity)}
    assert fields | {"explained_steps"} == {*checks.PARITY, "step", "histogram", "worst", "width"}
    text = words(page.render(content))
    assert all(title in text for title in checks.PARITY.values())
    assert "One step is 0.1312 (the output's own)" in html_module.unescape(text)


def test_the_limit_of_a_core_is_a_share_of_the_decision_period(content: dict[str, Any]) -> None:
    content["selection"]["budget"] = {"compute_share": 0.5, "latency_limit_ms": 50.0, "default_period_ms": 8.0}
    content["selection"]["absent_spaces"] = {"derived": "the teacher is a black box"}
    text = words(page.render(content))
    assert "latency at batch 1: at most 50 ms" in text
    assert "share of a decision period: at most 50.00 %" in text
    assert "derived: the teacher is a black box" in text
    figure = fronts.pareto(content)
    assert figure is not None
    assert figure.layout["shapes"][0]["x0"] == 50.0


def test_what_the_search_learned_is_told(content: dict[str, Any]) -> None:
    content["selection"]["learned"] = [{"round": 1, "why": "measured 6.1 ms, predicted 4.2 ms"}]
    assert "measured 6.1 ms, predicted 4.2 ms" in words(page.render(content))


def test_the_lint_says_what_is_known_and_where(content: dict[str, Any]) -> None:
    text = words(page.render(content))
    assert "75.0 % run in int8" in text
    assert "P10 note network.stem.0 1 input channels (1 are padded to 4) choose widths that are multiples of 16" in text
    content["lint"] |= {"findings": [], "int8_share": None, "counts": {"note": 0}}
    text = words(page.render(content))
    assert "how many products run in int8 is not known" in text
    assert "Findings: none." in text
