"""Compare the kernels that `profiles` groups a network into with those that TensorRT-RTX builds. Needs no GPU.

    python tools/count_kernels.py [resnet18 ...] [--shape 3x128x128] [--capability SM80]

Every network is exported, built ahead of time by tensorrt_rtx in a child process, and its build log is read: one line
with the number of kernels of both, and of the heavy ones (convolutions and products) among them. Signals between
streams are not counted. TensorRT itself has another back end: agreement is a strong hint for it and no proof.
"""

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import architectures
import torch

import profiles
from exporters import build_log, child, for_tensorrt, rtx_build
from profiles.fuse import Kernel, fuse

NETWORKS = (
    "resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet-b0", "densenet121", "googlenet",
    "squeezenet1_0", "shufflenet_v2_x1_0", "efficientvit-b0", "yolov8n",
)  # fmt: skip
HEAVY = (
    "correlation",
    "gemm",
    "deconv",
    "runtime_fusion",
    "runtime_function",
)  # the last two hold a convolution or product
NOT_KERNELS = ("wait", "signal")
SECONDS, MEMORY_BYTES = 300, 8 << 30


def built(name: str, shape: str, capability: str, folder: Path) -> tuple[list[build_log.Kernel], list[Kernel]] | None:
    """The kernels of TensorRT-RTX and of `profiles`; None where the network is not known or was refused."""
    found = architectures.find(name, shape)
    if found is None:
        return None
    make, dims = found
    source = folder / "exported.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            make().eval(), (torch.zeros(dims),), str(source), dynamo=True, opset_version=20, verbose=False,
            external_data=False,
        )  # fmt: skip
    graph = for_tensorrt.prepare(source)
    (folder / rtx_build.MODEL).write_bytes(graph.SerializeToString(deterministic=True))
    (folder / rtx_build.REQUEST).write_text(json.dumps({"capability": capability, "profile": {}}), "utf-8")
    outcome = child.run(
        child.python("exporters.rtx_build"),
        folder=folder,
        seconds=SECONDS,
        memory_bytes=MEMORY_BYTES,
        environment=child.plain_environment(),
    )
    if outcome.why() is not None:
        return None
    log = (folder / rtx_build.LOG).read_text("utf-8")
    theirs = [kernel for kernel in build_log.kernels(log) if kernel.type not in NOT_KERNELS]
    return theirs, list(fuse(profiles.read(folder / rtx_build.MODEL), "nvidia-gpu").kernels)


def main() -> None:
    """Print a line per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--shape", default="3x128x128")
    parser.add_argument("--capability", default="SM80")
    given = parser.parse_args()
    print(f"{'network':22}     all: built  here   off      heavy: built  here")
    for name in given.networks:
        with tempfile.TemporaryDirectory() as folder:
            both = built(name, given.shape, given.capability, Path(folder))
        if both is None:
            print(f"{name:22}     not known here, or refused")
            continue
        theirs, ours = both
        heavy = sum(kernel.type in HEAVY for kernel in theirs), sum(kernel.macs > 0 for kernel in ours)
        off = len(ours) / len(theirs) - 1
        print(f"{name:22} {len(theirs):14} {len(ours):5} {off:+6.0%} {heavy[0]:17} {heavy[1]:5}")


if __name__ == "__main__":
    main()
