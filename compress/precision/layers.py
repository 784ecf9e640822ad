"""What gets a precision of its own: the layers of a prepared student, and which of them go together."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch.fx import Node

from compress.qat.prepared import Prepared
from compress.qat.quantizer import Site


@dataclass(frozen=True)
class Layer:
    """Operators that share one precision.

    Attributes:
        name: the first module's path; the first operator's name where it stands in the student's own forward.
        modules: paths that `qat.prepare(..., float_modules=...)` keeps in float with it.
        nodes: its quantised operators in the exported graph, in order.
        operators: their kinds, in the same order.
    """

    name: str
    modules: tuple[str, ...]
    nodes: tuple[str, ...]
    operators: tuple[str, ...]


def layers(prepared: Prepared) -> tuple[Layer, ...]:
    """The quantised layers in graph order.

    Operators share a precision where they stand in one module (a module is kept in float as a whole, with all that is
    inside it), and where they read one weight (it is stored once, in one type).
    """
    sites = [site for site in prepared.sites if site.quantized]
    reads = _weights(prepared)
    together = list(range(len(sites)))

    def head(index: int) -> int:
        while together[index] != index:
            index = together[index]
        return index

    for later, site in enumerate(sites):
        for earlier in range(later):
            if _joined(sites[earlier], site) or reads.get(sites[earlier].node, set()) & reads.get(site.node, set()):
                first, second = sorted((head(earlier), head(later)))
                together[second] = first
    groups: dict[int, list[Site]] = {}
    for index, site in enumerate(sites):
        groups.setdefault(head(index), []).append(site)
    return tuple(_layer(group) for _, group in sorted(groups.items()))


def modules_of(found: Iterable[Layer], names: Iterable[str]) -> tuple[str, ...]:
    """The modules of the layers called `names`, sorted: an assignment as `qat.prepare` takes it."""
    wanted = set(names)
    return tuple(sorted({module for layer in found if layer.name in wanted for module in layer.modules}))


def every_module(prepared: Prepared) -> tuple[str, ...]:
    """Paths that keep the whole student in float: "" is what stands in its own forward."""
    paths = {_path(node).split(".")[0] for node in prepared.graph.graph.nodes if node.op == "call_function"}
    return tuple(sorted(paths | {""}))


def _layer(sites: list[Site]) -> Layer:
    modules = tuple(dict.fromkeys(site.module for site in sites))
    name = next((module for module in modules if module), sites[0].node)
    return Layer(name, modules, tuple(site.node for site in sites), tuple(site.operator for site in sites))


def _joined(one: Site, other: Site) -> bool:
    """Whether keeping one in float keeps the other in float."""
    first, second = sorted((one.module, other.module), key=len)
    return first == second or (first != "" and second.startswith(f"{first}."))


def _weights(prepared: Prepared) -> dict[str, set[str]]:
    """Operator -> the parameters that it reads, through their fake quantisers."""
    found: dict[str, set[str]] = {}
    for site in prepared.sites:
        node = next((item for item in prepared.graph.graph.nodes if item.name == site.node), None)
        if node is not None:
            found[site.node] = {name for source in node.all_input_nodes[1:] for name in _parameter(source)}
    return found


def _parameter(node: Node) -> tuple[str, ...]:
    while node.op == "call_module":
        node = node.all_input_nodes[0]
    return (str(node.target),) if node.op == "get_attr" else ()


def _path(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]) if paths else ""
