"""A network with its preprocessing, which is trained, quantised and exported as one."""

from collections.abc import Sequence
from operator import getitem

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen


class Model(nn.Module):
    """Raw inputs -> `frontend` (stays float) -> `network` -> outputs.

    Attributes:
        frontend: the task's preprocessing: normalisation, log-mel. It has no trainable parameters.
        network: what is distilled and quantised. It takes what the front-end gives, in order where that is a tuple.
    """

    def __init__(self, frontend: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.frontend = frontend
        self.network = network

    def forward(self, *raw: Tensor) -> Tensor:
        """Raw inputs, (B, ...) each -> (B, ...) outputs."""
        output: Tensor = self.network(*features_of(self.frontend, raw))
        return output


def features_of(frontend: nn.Module, raw: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """What the network behind `frontend` takes for raw inputs, (B, ...) each."""
    found = frontend(*raw)
    return tuple(found) if isinstance(found, tuple | list) else (found,)


class Postprocessed(nn.Module):
    """A model with what its task makes of the output, beside it: how a float model is exported.

    Its parts keep the model's names, which the exported nodes carry.

    Args:
        model: raw inputs -> output, (B, ...).
        postprocess: output -> one tensor, or a tuple of them, batch first.
    """

    def __init__(self, model: Model, postprocess: nn.Module) -> None:
        super().__init__()
        self.frontend = model.frontend
        self.network = model.network
        self.postprocess = postprocess

    def forward(self, *raw: Tensor) -> tuple[Tensor, ...]:
        """Raw inputs, (B, ...) each -> (output, what `postprocess` gives...)."""
        output = self.network(*features_of(self.frontend, raw))
        more = self.postprocess(output)
        return (output, *more) if isinstance(more, tuple) else (output, more)


def with_postprocess(graph: GraphModule, postprocess: nn.Module, count: int) -> GraphModule:
    """The same for a captured graph of one output, as quantisation leaves it; the graph given is changed and returned.

    Args:
        graph: raw inputs -> output.
        postprocess: output -> one tensor where `count` is 1, else a tuple of `count`.
    """
    graph.add_submodule("postprocess", postprocess)
    end = graph.graph.output_node()
    (output,) = end.all_input_nodes
    with graph.graph.inserting_before(end):
        made = graph.graph.call_module("postprocess", (output,))
        parts = [made] if count == 1 else [graph.graph.call_function(getitem, (made, i)) for i in range(count)]
    end.args = ((output, *parts),)
    graph.graph.set_codegen(CodeGen())  # the old one unpacks the outputs that the graph had
    graph.recompile()
    return graph
