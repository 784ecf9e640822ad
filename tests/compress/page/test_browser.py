"""The page in a real browser: everything drawn, nothing complained of, nothing fetched."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from compress import page
from compress.page import costs

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
EVIL = "<img src=x onerror=\"document.title='bad'\"></script><script>document.title='bad'</script>"
# Points at every mark of every plot and counts what the texts that appear have made of the content.
PROBE = """
<script>
addEventListener("load", async () => {
  const root = document.documentElement;
  while (!root.dataset.plots) await new Promise((done) => setTimeout(done, 50));
  let shown = 0;
  for (const box of document.querySelectorAll(".plot")) {
    for (let curve = 0; curve < box.data.length; curve++) {
      if (box.data[curve].hoverinfo === "skip") continue;
      const subplot = box.data[curve].yaxis ? "xy2" : "xy";
      Plotly.Fx.hover(box, [{ curveNumber: curve, pointNumber: 0 }], [subplot]);
      shown += box.querySelectorAll(".hovertext").length;
    }
  }
  for (const button of document.querySelectorAll("button[data-choice]")) button.click();
  root.dataset.hovered = shown;
  root.dataset.foreign = document.querySelectorAll("img, iframe, a[href^='javascript']").length;
  root.dataset.wide = root.scrollWidth - root.clientWidth;
  root.dataset.fetched = performance.getEntriesByType("resource").length;
});
</script>
"""


def opened(html: str, folder: Path, *, width: int = 1440) -> tuple[str, str]:
    """The page after its scripts have run, and what the browser logged."""
    file = folder / "report.html"
    file.write_text(html.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    assert BROWSER is not None
    ran = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            "--v=0",
            f"--window-size={width},1200",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=15000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return ran.stdout, ran.stderr


def root_data(dom: str) -> dict[str, str]:
    """data-* of the root element."""
    opening = re.search(r"<html[^>]*>", dom)
    assert opening is not None
    return dict(re.findall(r'data-(\w+)="([^"]*)"', opening.group()))


@pytest.mark.parametrize("width", [390, 1440])
def test_every_plot_draws_and_nothing_goes_wrong(measured: dict[str, Any], tmp_path: Path, width: int) -> None:
    dom, log = opened(page.render(measured), tmp_path, width=width)
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    drawn = re.findall(r'id="plot-[a-z]+"[^>]*data-drawn="(\d+)"', dom)
    data = root_data(dom)
    assert len(drawn) == int(data["plots"]) == 7  # two fronts, the search, two curves, precision and cost of each layer
    assert all(int(marks) > 0 for marks in drawn)
    assert data["fetched"] == "0"
    assert data["wide"] == "0"  # tables scroll in their own boxes, the page does not
    assert int(data["hovered"]) > 10


def test_hostile_content_stays_text(content: dict[str, Any], tmp_path: Path) -> None:
    for row in content["selection"]["candidates"]:
        row["plan"] = {EVIL: EVIL}
        row["space"] = EVIL
    for layer in content["verify"]["costs"]["shipped student"]["layers"]:
        layer["name"] = "".join(reversed(EVIL)) + EVIL
        layer["ops"] = [EVIL]
    for points in content["curves"].values():
        for n, point in enumerate(points):
            point["terms"] = {EVIL: point["loss"]}
            point["phase"] = f"{EVIL}{n // 3}"
    content["task"]["metric"] = EVIL
    content["name"] = EVIL
    dom, log = opened(page.render(content), tmp_path)
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    data = root_data(dom)
    assert data["foreign"] == "0"
    assert int(data["hovered"]) > 10
    assert "<title>bad" not in dom


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_of_profiles_draws(measured: dict[str, Any], tmp_path: Path, width: int) -> None:
    cost = measured["verify"]["costs"]["shipped student"]
    hardware = {"tops": {"int8": 20.0, "fp16": 10.0, "fp32": 1.0}, "bandwidth_gbs": 68.0}
    content = {
        "profiles": [{"model": f"{EVIL}{n}.onnx", "target": "jetson", "batch": 1, "cost": cost} for n in range(2)],
        "targets": {"jetson": {"device": EVIL, "runtime": EVIL, "hardware": hardware, "sources": {"tops": EVIL}}},
    }
    dom, log = opened(costs.render(content), tmp_path, width=width)
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    data = root_data(dom)
    drawn = re.findall(r'id="plot-[a-z0-9-]+"[^>]*data-drawn="(\d+)"', dom)
    assert len(drawn) == int(data["plots"]) == 5  # side by side; a roofline and bars for each
    assert all(int(marks) > 0 for marks in drawn)
    assert (data["fetched"], data["wide"], data["foreign"]) == ("0", "0", "0")
    assert "<title>bad" not in dom


def test_an_empty_report_is_quiet(tmp_path: Path) -> None:
    dom, log = opened(page.render({}), tmp_path)
    assert [line for line in log.splitlines() if "CONSOLE" in line] == []
    assert root_data(dom)["plots"] == "0"
