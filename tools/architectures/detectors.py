"""Detectors and dense predictors on the backbones of `convnets`."""

import torch
from torch import Tensor, nn

from architectures.blocks import conv
from architectures.convnets import DEPTHS, densenet, mobilenet_v2, resnet, resnet_stage, resnet_stem

COCO = 91  # classes with the background and the gaps in the numbering
OPEN_IMAGES = 264  # classes of the MLPerf RetinaNet


def fcn_resnet18(classes: int = 21) -> nn.Module:
    """jetson-inference's segNet: a ResNet-18 and one 1x1 classifier on its coarsest features."""
    return nn.Sequential(resnet(18, head=False), nn.Conv2d(512, classes, 1))


class Ssd(nn.Module):
    """Liu et al. 2016: boxes and classes from feature maps of several sizes, then the best candidates."""

    def __init__(
        self,
        stages: list[nn.Module],
        widths: list[int],
        anchors: list[int],
        classes: int,
        kernel: int,
        strides: list[int],
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.box = nn.ModuleList(
            nn.Conv2d(w, 4 * a, kernel, s, kernel // 2) for w, a, s in zip(widths, anchors, strides, strict=True)
        )
        self.cls = nn.ModuleList(
            nn.Conv2d(w, classes * a, kernel, s, kernel // 2) for w, a, s in zip(widths, anchors, strides, strict=True)
        )
        self.classes = classes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for stage, box, cls in zip(self.stages, self.box, self.cls, strict=True):
            x = stage(x)
            boxes.append(box(x).flatten(2).reshape(len(x), 4, -1))
            scores.append(cls(x).flatten(2).reshape(len(x), self.classes, -1))
        best = torch.softmax(torch.cat(scores, 2), 1).flatten(1).topk(200)
        return torch.cat(boxes, 2), best.values


def ssd_mobilenet() -> nn.Module:
    """MobileNetV1 (Howard et al. 2017) with six feature maps and 1x1 heads, at 300 x 300."""
    act = nn.ReLU6()
    layers = [conv(3, 32, 3, 2, act=act)]
    channels = 32
    stages: list[nn.Module] = []
    for width, stride in (
        (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2), (1024, 1)
    ):  # fmt: skip
        if width == 1024 and stride == 2:
            stages.append(nn.Sequential(*layers))
            layers = []
        layers += [conv(channels, channels, 3, stride, channels, act), conv(channels, width, 1, act=act)]
        channels = width
    stages.append(nn.Sequential(*layers))
    for inner, width in ((256, 512), (128, 256), (128, 256), (64, 128)):
        stages.append(nn.Sequential(conv(channels, inner, 1, act=act), conv(inner, width, 3, 2, act=act)))
        channels = width
    return Ssd(stages, [512, 1024, 512, 256, 256, 128], [3, 6, 6, 6, 6, 6], COCO, 1, [1] * 6)


def ssd_mobilenet_v2() -> nn.Module:
    """MobileNetV2 with the same extra maps; its first head is on the coarsest features here."""
    act = nn.ReLU6()
    stages: list[nn.Module] = [mobilenet_v2(head=False)]
    channels = 1280
    for inner, width in ((256, 512), (128, 256), (128, 256), (64, 128)):
        stages.append(nn.Sequential(conv(channels, inner, 1, act=act), conv(inner, width, 3, 2, act=act)))
        channels = width
    return Ssd(stages, [1280, 512, 256, 256, 128], [6] * 5, COCO, 1, [1] * 5)


def ssd_resnet34() -> nn.Module:
    """MLPerf Inference's SSD-large at 1200 x 1200: ResNet-34 up to its third stage, at a stride of 8."""
    layers, channels = resnet_stem(), 64
    for stage, count in enumerate(DEPTHS[34][:3]):
        made, channels = resnet_stage(channels, 64 << stage, count, 2 if stage == 1 else 1, deep=False)
        layers.append(made)
    stages: list[nn.Module] = [nn.Sequential(*layers)]
    act = nn.ReLU()
    for inner, width, stride, pad in (
        (256, 512, 2, 1), (256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0)
    ):  # fmt: skip
        stages.append(nn.Sequential(nn.Conv2d(channels, inner, 1), act, nn.Conv2d(inner, width, 3, stride, pad), act))
        channels = width
    return Ssd(stages, [256, 512, 512, 256, 256, 256], [4, 6, 6, 6, 4, 4], 81, 3, [3, 3, 2, 2, 2, 2])


class RetinaNet(nn.Module):
    """Lin et al. 2017: a feature pyramid and two heads of four convolutions that all levels share."""

    def __init__(self, groups: int, base: int, classes: int) -> None:
        super().__init__()
        stages, channels = [], 64
        for stage, count in enumerate(DEPTHS[50]):
            made, channels = resnet_stage(channels, 64 << stage, count, 2 if stage else 1, True, groups, base)
            stages.append(made)
        self.stem = nn.Sequential(*resnet_stem())
        self.stages = nn.ModuleList(stages)
        self.inner = nn.ModuleList(nn.Conv2d(c, 256, 1) for c in (512, 1024, 2048))
        self.outer = nn.ModuleList(nn.Conv2d(256, 256, 3, padding=1) for _ in range(3))
        self.p6, self.p7 = nn.Conv2d(256, 256, 3, 2, 1), nn.Conv2d(256, 256, 3, 2, 1)
        self.cls, self.box = self._head(9 * classes), self._head(36)

    @staticmethod
    def _head(out: int) -> nn.Module:
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(256, out, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        merged: list[Tensor] = []
        for maps, layer in zip(reversed(features[1:]), reversed(self.inner), strict=True):
            y = layer(maps)
            if merged:
                y = y + nn.functional.interpolate(merged[-1], size=y.shape[-2:])
            merged.append(y)
        levels = [layer(y) for layer, y in zip(self.outer, reversed(merged), strict=True)]
        levels.append(self.p6(levels[-1]))
        levels.append(self.p7(torch.relu(levels[-1])))
        scores = torch.cat([torch.sigmoid(self.cls(y)).flatten(1) for y in levels], 1)
        return torch.cat([self.box(y).flatten(1) for y in levels], 1), scores.topk(1000).values


def retinanet(groups: int = 1, base: int = 64, classes: int = COCO) -> nn.Module:
    """On ResNet-50, or with groups 32 and base 4 on ResNeXt-50 as in MLPerf."""
    return RetinaNet(groups, base, classes)


class TrtPose(nn.Module):
    """trt_pose's `baseline_att`: two upsampling branches, each weighted by an attention map of its own."""

    def __init__(self, backbone: nn.Module, channels: int) -> None:
        super().__init__()
        self.body = backbone
        self.up = nn.ModuleList(self._up(channels) for _ in range(2))
        self.attention = nn.ModuleList(nn.Conv2d(256, 256, 3, padding=1) for _ in range(2))
        self.last = nn.ModuleList(nn.Conv2d(256, out, 1) for out in (18, 42))

    @staticmethod
    def _up(channels: int) -> nn.Module:
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.ConvTranspose2d(channels, 256, 4, 2, 1), nn.BatchNorm2d(256), nn.ReLU()]
            channels = 256
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.body(x)
        outs = []
        for up, attention, last in zip(self.up, self.attention, self.last, strict=True):
            y = up(x)
            outs.append(last(y * torch.sigmoid(attention(y))))
        return outs


def trt_pose(name: str) -> nn.Module:
    if name.startswith("densenet"):
        return TrtPose(densenet(int(name[8:]), head=False), 1024)
    return TrtPose(resnet(int(name[6:]), head=False), 512 if int(name[6:]) < 50 else 2048)
