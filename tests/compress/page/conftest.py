"""Content of a report, made here; tests may change their copy."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def maker() -> ModuleType:
    """The module `content.py` beside this file."""
    spec = importlib.util.spec_from_file_location("report_content", Path(__file__).with_name("content.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def content(maker: ModuleType) -> dict[str, Any]:
    """A Jetson run with a bundle and a check, nothing of it run."""
    return maker.realistic()


@pytest.fixture
def measured(maker: ModuleType) -> dict[str, Any]:
    """A run whose engine was measured, and was too slow."""
    return maker.measured()
