"""Small networks that several tests cost."""

from pathlib import Path

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Identity() if same else skip

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm1(self.first(x)))
        return torch.relu(self.norm2(self.second(y)) + self.skip(x))


class Residual(nn.Module):
    """A ResNet for 32x32 images: (B, 3, 32, 32) -> (B, 10)."""

    def __init__(self, blocks: int = 1, width: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(Block(channels, width << stage, stride))
                channels = width << stage
        self.body = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.body(x)).flatten(1))


class LogMel(nn.Module):
    """Log-mel features and one convolution: (B, 4000) samples -> (B, 8, frames - 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(256))
        self.register_buffer("mel", torch.rand(129, 20))
        self.conv = nn.Conv1d(20, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 256, 128, window=self.window, center=False, return_complex=True)
        power = torch.view_as_real(spectrum).pow(2).sum(-1)
        return self.conv(torch.log(power.transpose(1, 2) @ self.mel + 1e-5).transpose(1, 2))


def trained(module: nn.Module) -> nn.Module:
    """The module in evaluation mode with batch statistics that do not vanish when they are folded."""
    generator = torch.Generator().manual_seed(0)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (child.running_mean, child.bias.data):
                assert tensor is not None
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return module.eval()


def exported(module: nn.Module, example: Tensor, path: Path) -> Path:
    """The module as an ONNX file with a dynamic batch dimension."""
    torch.onnx.export(
        module,
        (example,),
        str(path),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=512)},),
        opset_version=20,
        verbose=False,
        external_data=False,
    )
    return path
