"""The form of a model that TensorRT's parser takes, and the rules that it must keep.

The exported file stays as it is (onnxruntime and the C exporter read that one); builders of TensorRT engines write this
form of it. The rules are those of `exporters.lint`, checked here because the parser's answer names neither the rule nor
a way out, accepts some breaches silently, and crashes on one of them.
"""

from pathlib import Path

from onnx import ModelProto

from exporters import check_onnx
from exporters.errors import ExportError
from exporters.lint.rules import PARSER, RULES, find
from exporters.lint.view import Device, view
from exporters.tensorrt_form import Profile, profile, rewrite

__all__ = ["Profile", "check_rules", "prepare", "profile", "weighted_nodes"]

_CHECKED = tuple(rule for rule in RULES if rule.id in PARSER)
_TENSORRT = Device("tensorrt")


def prepare(path: Path) -> ModelProto:
    """Read the model and rewrite it for TensorRT.

    Raises:
        ExportError: the file cannot be used, or breaks a rule that no rewrite mends.
    """
    model = rewrite(check_onnx.load(path))
    check_rules(model)
    return model


def check_rules(model: ModelProto) -> None:
    """Refuse quantisation that TensorRT refuses, or accepts and gets wrong.

    Raises:
        ExportError: names the first node and its rule.
    """
    for finding in find(_CHECKED, model, _TENSORRT):
        if finding.level in ("refused", "wrong"):
            raise ExportError(
                f"{finding.where() or 'the model'} breaks rule {finding.rule}: {finding.what}", fix=finding.fix
            )


def weighted_nodes(model: ModelProto) -> tuple[list[str], list[str]]:
    """Names of the nodes with weights, and of those whose data and weights both come from DequantizeLinear."""
    products = view(model, _TENSORRT).products
    return [p.node.name for p in products], [p.node.name for p in products if p.quantised]
