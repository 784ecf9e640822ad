"""Every node gets a name of its own."""

from onnx import helper

from exporters.passes import name_nodes


def test_name_nodes_keeps_good_names(model_of) -> None:
    model = model_of(
        [
            helper.make_node("Relu", ["x"], ["a"], name="one"),
            helper.make_node("Relu", ["a"], ["b"], name="one"),
            helper.make_node("Relu", ["b"], ["y"]),
        ],
        {"x": [2]},
        {"y": [2]},
    )
    names = [node.name for node in name_nodes.apply(model).graph.node]
    assert names == ["one", "one_1", "Relu_y"]
