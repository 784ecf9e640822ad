"""Every builder file keeps the shared signature, and importing one loads neither torch nor a vendor's library."""

import inspect
import subprocess
import sys

import pytest

from exporters import builder
from exporters.errors import ExportError


@pytest.mark.parametrize("name", builder.names())
def test_every_builder_has_the_two_functions(name: str) -> None:
    module = builder.load(name)
    for function, expected in (("can_run", ["target", "remote"]), ("convert", ["model", "target", "out", "options"])):
        parameters = inspect.signature(getattr(module, function)).parameters
        assert list(parameters)[: len(expected)] == expected, f"{name}.{function}"
        more = [parameters[one] for one in list(parameters)[len(expected) :]]  # a builder's own, which nobody must give
        assert all(one.kind is one.KEYWORD_ONLY and one.default is not one.empty for one in more), f"{name}.{function}"
        assert parameters[expected[-1]].kind is inspect.Parameter.KEYWORD_ONLY


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ExportError, match=r"there are .*onnx_to_rtx_engine"):
        builder.load("onnx_to_gold")


def test_importing_builders_is_cheap() -> None:
    names = ", ".join(f"exporters.{name}" for name in builder.names())
    program = f"import sys, {names}; print([m for m in ('torch', 'tensorrt', 'tensorrt_rtx') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_options_are_checked() -> None:
    assert builder.BuildOptions().batches == (1, 8, 64)
    with pytest.raises(ExportError, match="smallest <= typical <= largest"):
        builder.BuildOptions(batches=(8, 1, 64))
    with pytest.raises(ExportError, match="purpose 'gift'"):
        builder.BuildOptions(purpose="gift")
