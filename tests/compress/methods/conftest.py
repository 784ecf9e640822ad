"""Toy data, networks and teachers, shared with the contract tests."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

TOY = Path(__file__).resolve().parents[2] / "contracts" / "toy.py"


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """tests/contracts/toy.py."""
    name = "compress_tests_toy"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TOY)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
