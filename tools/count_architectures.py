"""Counts of published architectures beside ours: `python tools/count_architectures.py [--onnx [NAME ...]]`.

Columns: multiply-accumulates (GMACs) and parameters (millions) as published and as `profiles` counts them, and the
error. Published figures are timm's (huggingface/pytorch-image-models, results/benchmark-infer-amp-nchw-pt240-cu124-
rtx3090.csv), rounded there to two decimals: half a unit of the last one is 0.005. They come from fvcore, which adds
what norms and global pools do to the multiply-accumulates of products: two operations per element of a batch norm, five
of a layer or group norm, one of a global pool. Ours are those of products alone, so that FLOPs are 2 * MACs. The column
"fvcore" is our count with those added, for whoever compares.

With --onnx the networks named, or eight of them, are exported, and the file's counts are compared with the traced ones.
Parameters are then those of the deployed network: exporters fold a batch norm, and of its scale and offset one bias
per channel is left.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

import architectures
import published_networks

import profiles
from profiles.graph import Graph, totals

# name, image size, parameters in millions, GMACs
PUBLISHED: tuple[tuple[str, int, float, float], ...] = (
    ("resnet50", 224, 25.56, 4.11), ("resnet50", 288, 25.56, 6.80), ("seresnet50", 224, 28.09, 4.11),
    ("resnext50_32x4d", 224, 25.03, 4.26), ("resnext101_64x4d", 224, 83.46, 15.52),
    ("wide_resnet50_2", 224, 68.88, 11.43), ("wide_resnet101_2", 224, 126.89, 22.80), ("vgg11", 224, 132.86, 7.61),
    ("vgg13", 224, 133.05, 11.31), ("vgg13_bn", 224, 133.05, 11.33), ("vgg16", 224, 138.36, 15.47),
    ("vgg19", 224, 143.67, 19.63), ("densenet161", 224, 28.68, 7.79), ("densenet169", 224, 14.15, 3.40),
    ("densenet201", 224, 20.01, 4.34), ("mobilenetv2_100", 224, 3.50, 0.31), ("mobilenetv3_large_100", 224, 5.48, 0.23),
    ("mnasnet_100", 224, 4.38, 0.33), ("efficientnet_b0", 224, 5.29, 0.40), ("efficientnet_b3", 320, 12.23, 2.01),
    ("tf_efficientnetv2_s", 384, 21.46, 8.44), ("tf_efficientnetv2_m", 480, 54.14, 24.76),
    ("tf_efficientnetv2_l", 480, 118.52, 56.40),
    ("vit_tiny_patch16_224", 224, 5.72, 1.26), ("vit_tiny_patch16_384", 384, 5.79, 4.70),
    ("vit_small_patch16_384", 384, 22.20, 15.52), ("vit_small_patch32_224", 224, 22.88, 1.15),
    ("vit_base_patch16_224", 224, 86.57, 17.58), ("vit_base_patch16_384", 384, 86.86, 55.54),
    ("vit_base_patch32_224", 224, 88.22, 4.41), ("vit_base_patch32_384", 384, 88.30, 13.06),
    ("vit_large_patch14_224", 224, 304.20, 81.08), ("vit_large_patch16_224", 224, 304.33, 61.60),
    ("vit_large_patch32_224", 224, 305.51, 15.39), ("deit_small_patch16_224", 224, 22.05, 4.61),
    ("mixer_s32_224", 224, 19.10, 1.00), ("mixer_b16_224", 224, 59.88, 12.62), ("mixer_b32_224", 224, 60.29, 3.24),
    ("mixer_l16_224", 224, 208.20, 44.60), ("mixer_l32_224", 224, 206.94, 11.27), ("resmlp_12_224", 224, 15.35, 3.01),
    ("resmlp_36_224", 224, 44.69, 8.91), ("convnext_atto", 288, 3.70, 0.91), ("convnext_femto", 288, 5.22, 1.30),
    ("convnext_nano", 224, 15.59, 2.46), ("convnext_tiny", 224, 28.59, 4.47), ("convnext_tiny", 384, 28.59, 13.14),
    ("convnextv2_atto", 288, 3.71, 0.91), ("convnextv2_femto", 288, 5.23, 1.30), ("convnextv2_tiny", 224, 28.64, 4.47),
    ("swin_base_patch4_window7_224", 224, 87.77, 15.47), ("poolformer_s24", 224, 21.39, 3.41),
    ("poolformer_s36", 224, 30.86, 5.00), ("poolformer_m48", 224, 73.47, 11.59), ("cait_xxs24_224", 224, 11.96, 2.53),
    ("cait_xxs36_224", 224, 17.30, 3.77), ("cait_s24_224", 224, 46.92, 9.35), ("cait_xs24_384", 384, 26.67, 19.28),
    ("regnetx_002", 224, 2.68, 0.20), ("regnetx_004", 224, 5.16, 0.40), ("regnetx_006", 224, 6.20, 0.61),
    ("regnetx_016", 224, 9.19, 1.62), ("regnetx_032", 224, 15.30, 3.20), ("regnetx_040", 224, 22.12, 3.99),
    ("regnetx_120", 224, 46.11, 12.13), ("regnetx_160", 224, 54.28, 15.99), ("regnety_002", 224, 3.16, 0.20),
    ("regnety_004", 224, 4.34, 0.41), ("regnety_008", 224, 6.26, 0.81), ("regnety_016", 224, 11.20, 1.63),
    ("regnety_032", 224, 19.44, 3.20), ("regnety_040", 224, 20.65, 4.00), ("regnety_064", 224, 30.58, 6.39),
    ("regnety_080", 224, 39.18, 8.00), ("regnety_120", 224, 51.82, 12.14), ("regnety_160", 224, 83.59, 15.96),
    ("repvgg_a0", 224, 9.11, 1.52), ("repvgg_a1", 224, 14.09, 2.64), ("repvgg_a2", 224, 28.21, 5.70),
    ("repvgg_b0", 224, 15.82, 3.41), ("repvgg_b1", 224, 57.42, 13.16), ("repvgg_b2", 224, 89.02, 20.45),
    ("repvgg_b3", 224, 123.09, 29.16),
)  # fmt: skip

_OTHER_NAMES = {"mobilenetv2_100": "mobilenetv2", "mobilenetv3_large_100": "mobilenet_v3_large",
                "mnasnet_100": "mnasnet1_0", "efficientnet_b0": "efficientnet-b0", "efficientnet_b3": "efficientnet-b3",
                "tf_efficientnetv2_s": "efficientnetv2-s", "tf_efficientnetv2_m": "efficientnetv2-m",
                "tf_efficientnetv2_l": "efficientnetv2-l"}  # fmt: skip
EXPORTED = ("resnet50", "mobilenetv2_100", "vit_tiny_patch16_224", "convnext_atto", "regnety_002", "mixer_s32_224",
            "cait_xxs24_224", "repvgg_a0")  # fmt: skip


@dataclass(frozen=True)
class Count:
    """One network's counts beside the published ones."""

    name: str
    image: int
    published_params: float  # millions
    published_gmacs: float
    params: float
    gmacs: float
    fvcore: float  # GMACs with what fvcore adds

    @property
    def gmacs_error(self) -> float:
        """Relative, of the multiply-accumulates."""
        return self.gmacs / self.published_gmacs - 1

    @property
    def params_error(self) -> float:
        """Relative, of the parameters."""
        return self.params / self.published_params - 1

    @property
    def within(self) -> bool:
        """Both counts within 1 % of the published ones, whose own rounding is not allowed for."""
        return abs(self.gmacs_error) <= 0.01 and abs(self.params_error) <= 0.01


def build(name: str, image: int) -> nn.Module | None:
    """The network on the meta device; None where it is not known here."""
    make = published_networks.makers(image).get(name)
    if make is None:
        found = architectures.find(_OTHER_NAMES.get(name, name), f"3x{image}x{image}")
        if found is None:
            return None
        make = found[0]
    with torch.device("meta"):
        return make().eval()


def as_fvcore(graph: Graph) -> int:
    """Multiply-accumulates with the operations that fvcore counts of normalisations and global pools."""
    extra = {"batchnorm": 2, "norm": 5}
    total = 0
    for op in graph.ops:
        elements = graph.edges[op.inputs[0]].elements if op.inputs else 0
        pooled = op.operator == "_adaptive_avg_pool2d"
        total += op.macs + elements * (1 if pooled else extra.get(op.kind, 0))
    return total


def count(name: str, image: int, params: float, gmacs: float) -> Count | None:
    """Trace one network and compare."""
    module = build(name, image)
    if module is None:
        return None
    graph = profiles.read(module, 1, torch.zeros(1, 3, image, image, device="meta"))
    found = totals(graph)
    return Count(name, image, params, gmacs, found.params / 1e6, found.macs / 1e9, as_fvcore(graph) / 1e9)


def exported(name: str, image: int) -> tuple[Graph, Graph]:
    """The traced graph, and that of the network's ONNX export."""
    module = build(name, image)
    assert module is not None, name
    module = module.to_empty(device="cpu")
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = torch.rand(tensor.shape) if tensor.is_floating_point() else torch.zeros_like(tensor)
    example = torch.zeros(1, 3, image, image)
    traced = profiles.read(module, 1, example)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "net.onnx"
        torch.onnx.export(module, (example,), str(path), dynamo=True, opset_version=20, verbose=False)
        return traced, profiles.read(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--onnx", nargs="*", metavar="NAME", help="compare exports with traces, of these or of eight")
    args = parser.parse_args()
    images = {name: image for name, image, _, _ in reversed(PUBLISHED)}
    if args.onnx is not None:
        print(
            f"{'network':30} {'traced GMACs':>13} {'ONNX GMACs':>13} {'traced params':>14} {'ONNX params':>14}  agree"
        )
        for name in args.onnx or EXPORTED:
            traced, stored = (profiles.profile(graph, "a100") for graph in exported(name, images.get(name, 224)))
            same = traced.macs == stored.macs and traced.params == stored.params
            print(f"{name:30} {traced.macs / 1e9:13.6f} {stored.macs / 1e9:13.6f} {traced.params:14d} "
                  f"{stored.params:14d}  {same}")  # fmt: skip
        return
    counts = [count(*row) for row in PUBLISHED]
    print(f"{'network':30} {'image':>5} {'GMACs':>8} {'ours':>8} {'%':>6} {'fvcore':>8} {'%':>6} {'params':>8} "
          f"{'ours':>8} {'%':>6}")  # fmt: skip
    for row, found in zip(PUBLISHED, counts, strict=True):
        if found is None:
            print(f"{row[0]:30} {row[1]:5d} not built here")
            continue
        print(
            f"{found.name:30} {found.image:5d} {found.published_gmacs:8.2f} {found.gmacs:8.3f} "
            f"{100 * found.gmacs_error:6.2f} {found.fvcore:8.3f} "
            f"{100 * (found.fvcore / found.published_gmacs - 1):6.2f} "
            f"{found.published_params:8.2f} {found.params:8.3f} {100 * found.params_error:6.2f}"
        )
    built = [item for item in counts if item is not None]
    names = {item.name for item in built if item.within}
    print(f"\n{sum(item.within for item in built)} of {len(built)} rows within 1 % in both counts, "
          f"{len(names)} different networks")  # fmt: skip
    equal = sum(abs(item.fvcore - item.published_gmacs) <= 0.005 + 1e-9 for item in built)
    print(f"{equal} of {len(built)} equal the published GMACs to the last digit with what fvcore adds")


if __name__ == "__main__":
    main()
