"""Well-known networks, rebuilt from their papers to give published latencies their graphs.

Only shapes matter here: nothing is trained, and everything is built on the meta device. Names are those of the tables;
they are read by family, so that a size which no table lists is found as well.
"""

import re
from collections.abc import Callable
from functools import lru_cache, partial

import torch
from torch import nn

import profiles
from architectures import convnets, detectors, efficientvit, yolo
from architectures.transformers import Transformer, Vit
from profiles.graph import Graph

SQUAD_TOKENS = 177  # mean length of SQuAD v1.1's validation questions with their contexts, where nothing is padded
Maker = Callable[[], nn.Module]

_TASKS: dict[str, yolo.Task] = {"": "detect", "seg": "segment", "pose": "pose", "obb": "oriented", "oiv7": "detect"}


def _yolo(version: str, size: str, task: str | None) -> nn.Module:
    make = yolo.yolov8 if version == "v8" else yolo.yolo11
    if task == "cls":
        return make(size, None)
    return make(size, _TASKS[task or ""], 601 if task == "oiv7" else None)


_RESNETS = {  # groups and base width
    "resnet": (1, 64), "wide_resnet50_2": (1, 128), "wide_resnet101_2": (1, 128), "resnext50_32x4d": (32, 4),
    "resnext101_32x4d": (32, 4), "resnext101_32x8d": (32, 8), "resnext101_64x4d": (64, 4),
}  # fmt: skip


def _resnet(squeeze: str | None, depth: str) -> nn.Module:
    return convnets.resnet(int(depth), squeeze=16 if squeeze else 0)


def _resnext(squeeze: str | None, name: str) -> nn.Module:
    groups, base = _RESNETS[name]
    return convnets.resnet(int(re.findall(r"(?:net|next)(\d+)", name)[0]), groups, base, 16 if squeeze else 0)


def _vit(size: str, patch: str) -> nn.Module:
    return Vit(size, int(patch))


# A pattern over the whole name, and the network of its groups.
_FAMILIES: tuple[tuple[str, Callable[..., nn.Module]], ...] = (
    (r"(se)?resnet(18|34|50|101|152)(?:[-_]?v1\.5)?(?:_\d+x\d+)?", _resnet),
    (r"(se)?((?:wide_resnet|resnext)(?:50|101)_(?:2|32x4d|32x8d|64x4d))", _resnext),
    (r"vgg(11|13|16|19)(_bn)?(?:_N\d+)?", lambda d, norm: convnets.vgg(int(d), bool(norm))),
    (r"alexnet", convnets.alexnet),
    (r"googlenet", convnets.googlenet),
    (r"squeezenet(1_[01])", convnets.squeezenet),
    (r"mnasnet(\d)_(\d+)", lambda a, b: convnets.mnasnet(float(f"{a}.{b}"))),
    (r"mobilenet_?v2", convnets.mobilenet_v2),
    (r"mobilenet_?v3_(large|small)", lambda size: convnets.mobilenet_v3(size == "large")),
    (r"shufflenet_v2_x([012]_[05])", convnets.shufflenet),
    (r"densenet(121|161|169|201)", lambda d: convnets.densenet(int(d))),
    (r"efficientnet[-_]?b([0-7])", lambda size: convnets.efficientnet(int(size))),
    (r"efficientnet_?v2[-_]([sml])", convnets.efficientnet_v2),
    (r"efficientvit-([bl][0-3])", efficientvit.Classifier),
    (r"efficientvit-sam-(x?l[0-2])(?:-.*)?", efficientvit.sam_encoder),
    (r"fcn-resnet18(?:-.*)?", detectors.fcn_resnet18),
    (r"ssd-mobilenet(?:-v1)?", detectors.ssd_mobilenet),
    (r"ssd-mobilenet-v2", detectors.ssd_mobilenet_v2),
    (r"ssd-resnet34(?:-1200)?", detectors.ssd_resnet34),
    (r"retinanet-resnext50", lambda: detectors.retinanet(32, 4, detectors.OPEN_IMAGES)),
    (r"retinanet-r(?:esnet)?50(?:-fpn)?", lambda: detectors.retinanet(classes=80)),
    (r"trt_pose (resnet\d+|densenet\d+)_baseline_att", detectors.trt_pose),
    (r"(?:open)?(?:clip-)?(?:vit|deit)[-_]?(ti|[sblhg])[-_/]?(\d\d)(?:[-_]\d+)?", _vit),
    (r"owl-?vit-([sblh])(\d\d)", lambda size, patch: Vit(size, int(patch), 0)),
    (r"yolo(v8|11)([nsmlx])(?:-(seg|pose|obb|oiv7|cls))?", _yolo),
)  # fmt: skip


def find(model: str, shape: str) -> tuple[Maker, tuple[int, ...]] | None:
    """How to build the network of one table row, and its input shape at batch 1; None where it is not known here."""
    if model.startswith("bert-"):
        layers, width = (24, 1024) if "large" in model else (12, 768)
        tokens = SQUAD_TOKENS if "variable-length" in shape else _tokens(shape)
        return (lambda: Transformer(layers, width, width // 64), (1, tokens, width)) if tokens else None
    size = _image(shape)
    if size is None:
        return None
    if found := re.fullmatch(r"efficientvit-([bl][0-3])-segmentation", model):
        return lambda: efficientvit.segmentation(found[1], size[0] != size[1]), (1, 3, *size)
    for pattern, make in _FAMILIES:
        if match := re.fullmatch(pattern, model):
            return partial(make, *match.groups()), (1, 3, *size)
    return None


@lru_cache(maxsize=512)
def graph_of(model: str, input_shape: str, batch: int = 1) -> Graph | None:
    """The graph of one table row.

    Args:
        model: as the table calls it.
        input_shape: "3x224x224", with a batch in front or without; "seq 384" for text.

    Returns:
        None where the architecture is not known here.
    """
    found = find(model, input_shape)
    if found is None:
        return None
    make, shape = found
    with torch.device("meta"):
        module = make()
    return profiles.read(module, batch, torch.zeros(shape, device="meta"))


def _tokens(shape: str) -> int | None:
    match = re.fullmatch(r"seq(?:uence)?[ =]*(\d+)", shape)
    return int(match[1]) if match else None


def _image(shape: str) -> tuple[int, int] | None:
    parts = shape.split("x")
    return (int(parts[-2]), int(parts[-1])) if len(parts) in (3, 4) and all(part.isdigit() for part in parts) else None
