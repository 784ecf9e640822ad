"""What every file of compress/experiments must do. A new file is tested with no edit here."""

import pytest

from compress import catalog
from compress.contracts.experiment import Experiment

NAMES = catalog.names("compress.experiments")


@pytest.mark.parametrize("name", NAMES)
def test_is_complete(name: str) -> None:
    module = catalog.load("compress.experiments", name)
    experiment: Experiment = module.EXPERIMENT
    assert isinstance(experiment, Experiment)
    assert "Source" in (module.__doc__ or "")
    assert experiment.source
    assert experiment.claim.endswith(".")
    assert experiment.seeds >= 2, "a spread needs two"
    assert experiment.columns
    assert name in catalog.names("compress.methods") or name in catalog.names("compress.diagnostics")
