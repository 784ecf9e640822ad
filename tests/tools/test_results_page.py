"""The documentation says what the files of `compress reproduce` say."""

from pathlib import Path

import pytest

from compress import catalog
from tools import results_page

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_what_the_files_give() -> None:
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    assert results_page.page(text, results_page.read(DOCS / "reproduced")) == text, "run: python tools/results_page.py"


@pytest.mark.parametrize("name", catalog.names("compress.experiments"))
def test_every_experiment_was_run_with_all_its_seeds(name: str) -> None:
    told = results_page.read(DOCS / "reproduced")[name]
    experiment = catalog.load("compress.experiments", name).EXPERIMENT
    assert told["used"] == list(range(experiment.seeds))
    assert (told["bed"], told["claim"], told["reference"]) == (experiment.bed, experiment.claim, experiment.reference)
    assert told["columns"] == list(experiment.columns)
