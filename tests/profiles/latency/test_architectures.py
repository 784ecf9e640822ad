"""tools/architectures: rebuilt networks have the multiply-accumulates and parameters that their papers print."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]

# Billions of multiply-accumulates and millions of parameters, as published beside the networks.
PUBLISHED = [
    ("resnet18", "3x224x224", 1.81, 11.7), ("resnet152", "1x3x224x224", 11.5, 60.2),
    ("resnext50_32x4d", "3x224x224", 4.23, 25.0), ("wide_resnet50_2", "3x224x224", 11.4, 68.9),
    ("vgg16", "3x224x224", 15.47, 138.4), ("densenet161", "3x224x224", 7.73, 28.7),
    ("googlenet", "3x224x224", 1.50, 6.6),
    ("mobilenet_v2", "3x224x224", 0.301, 3.5), ("mobilenet_v3_large", "3x224x224", 0.217, 5.5),
    ("efficientnet-b0", "3x224x224", 0.386, 5.3), ("efficientnetv2-s", "3x384x384", 8.37, 21.5),
    ("efficientnetv2-l", "3x480x480", 56.1, 118.5), ("shufflenet_v2_x1_0", "3x224x224", 0.145, 2.28),
    ("efficientvit-b1", "3x224x224", 0.52, 9.1), ("efficientvit-b3", "3x288x288", 6.5, 49.0),
    ("efficientvit-l2", "3x384x384", 20.0, 64.0), ("efficientvit-l2-segmentation", "3x1024x2048", 396.0, 53.0),
    ("efficientvit-sam-xl1-segment-anything", "3x1024x1024", 322.0, 199.0),
    ("yolo11n", "1x3x640x640", 3.25, 2.6), ("yolo11m-seg", "1x3x640x640", 56.6, 22.4),
    ("yolo11x", "1x3x640x640", 97.45, 56.9), ("yolov8s-pose", "1x3x640x640", 15.1, 11.6),
    ("yolov8x-oiv7", "1x3x640x640", 130.3, 68.7), ("ssd-resnet34-1200", "1x3x1200x1200", 216.5, 20.0),
    ("retinanet-resnext50", "1x3x800x800", 201.2, 37.1), ("bert-large", "seq 384", 123.2, 302.3),
]  # fmt: skip


@pytest.fixture(scope="module")
def architectures() -> Iterator[ModuleType]:
    pytest.importorskip("torch")
    sys.path.insert(0, str(REPOSITORY / "tools"))
    import architectures

    yield architectures
    sys.path.remove(str(REPOSITORY / "tools"))


@pytest.mark.parametrize(("model", "shape", "gmacs", "params"), PUBLISHED)
def test_counts_are_those_of_the_papers(
    architectures: ModuleType, model: str, shape: str, gmacs: float, params: float
) -> None:
    graph = architectures.graph_of(model, shape)
    assert not graph.uncounted
    assert sum(op.macs for op in graph.ops) / 1e9 == pytest.approx(gmacs, rel=0.03)
    weights = {weight.name: weight.elements for op in graph.ops for weight in op.weights}
    assert sum(weights.values()) / 1e6 == pytest.approx(params, rel=0.03)


def test_work_grows_with_the_batch(architectures: ModuleType) -> None:
    one, eight = (architectures.graph_of("yolo11n-obb", "3x1024x1024", batch) for batch in (1, 8))
    assert eight.batch == 8
    assert sum(op.macs for op in eight.ops) == 8 * sum(op.macs for op in one.ops)


def test_what_is_not_known_is_none(architectures: ModuleType) -> None:
    assert architectures.graph_of("resnet19", "3x224x224") is None
    assert architectures.graph_of("resnet18", "variable") is None
    assert architectures.graph_of("bert-base", "3x224x224") is None
    tokens = architectures.graph_of("bert-large-squad", "seq <=384, variable-length kernels")
    assert tokens.edges[tokens.inputs[0]].shape == (1, 177, 1024)
