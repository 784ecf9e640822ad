"""Toy data, networks and teachers."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


def load(name: str, path: Path) -> ModuleType:
    """A helper file of the tests, as a module."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """tests/contracts/toy.py."""
    return load("compress_tests_toy", Path(__file__).with_name("toy.py"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
