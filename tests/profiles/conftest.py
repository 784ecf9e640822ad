"""Exported networks, made once."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _nets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("profiles_nets", Path(__file__).parent / "nets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def nets() -> ModuleType:
    """tests/profiles/nets.py; needs torch."""
    pytest.importorskip("torch")
    return _nets()
