"""Nothing of the exporter's own debugging stays but module names."""

import numpy as np
import pytest
from onnx import helper

from exporters.passes import strip_traces

RNG = np.random.default_rng(0)
IMAGES = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}


def test_strip_traces_keeps_module_names_only(model_of, unchanged_by) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], doc_string="File /home/me/model.py, line 3")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'blocks', 'blocks.0', 'relu']")
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/me/model.py")
    model = model_of([node], {"x": [2, 3, 5, 5]}, {"y": [2, 3, 5, 5]})
    model.doc_string = "made by me"
    after = strip_traces.apply(model)
    assert b"me" not in after.SerializeToString().replace(b"name", b"")
    assert [(p.key, p.value) for p in after.graph.node[0].metadata_props] == [("module", "blocks.0")]
    assert model.doc_string == "made by me", "a pass does not change its argument"
    unchanged_by(model, after, IMAGES)


@pytest.mark.parametrize("text", ["['', 'x'", "3", "['']", "__import__('os').abort()"])
def test_strip_traces_survives_odd_scopes(text: str) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    node.metadata_props.add(key=strip_traces.SCOPES, value=text)
    assert strip_traces.module_name(node) == ""
