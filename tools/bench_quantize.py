"""int8 on this processor: ours beside onnxruntime's quantiser, Intel Neural Compressor and NNCF, on equal float models.

    python tools/bench_quantize.py FASHION_MNIST --peers PEERS/bin/python --folder CACHE [--rounds 300]

Three convolutional networks (plain, residual, inverted residual with depthwise convolutions) are trained in float on
Fashion-MNIST, once, and kept in CACHE. Every tool gets the same float ONNX file and the same calibration pictures; ours
is shown after calibration alone, which is what the peers do, and after fine-tuning, which they do not. Accuracy is that
of onnxruntime's default session on the 10,000 test pictures. Times are of one thread, all files and runtimes
interleaved (`tools/time_runtimes.py`, run by the peers' Python, where OpenVINO is); a ratio is how many times faster
than the float file in onnxruntime, with its 90 % interval. Without --peers only ours is shown.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions  # type: ignore[attr-defined]
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.examples import Examples
from compress.qat import prepare as qat
from compress.residual_network import ResidualNetwork
from compress.tasks.fashion_mnist import FashionMnist
from exporters import torch_to_onnx

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (1, 1, 28, 28)
BATCH = 128
CALIBRATION = 1_280  # pictures
BARS = {1: 1.6, 16: 2.5}  # batch -> how many times faster than float


class Inverted(nn.Module):
    """x + project(depthwise(expand(x))), as in MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381, figure 4)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int = 4) -> None:
        super().__init__()
        wide = inputs * expansion
        self.body = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.body(x)
        return x + inner if self.skips else inner


def plain() -> nn.Module:
    """Six 3x3 convolutions, 28.9 M multiply-accumulates."""
    layers: list[nn.Module] = []
    channels = 1
    for width, stride in ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        layers += [
            nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def residual() -> nn.Module:
    """Three residual blocks of 16, 32 and 64 channels, 78 k parameters."""
    return ResidualNetwork(1, (16, 32, 64), (1, 1, 1), 10)


def inverted() -> nn.Module:
    """A stem and six inverted residual blocks."""
    blocks = [(16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        *(Inverted(*block) for block in blocks),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {"plain": plain, "residual": residual, "inverted": inverted}


def train(model: nn.Module, data: Examples, epochs: int, rate: float, before: Callable[[float], None]) -> None:
    """Cross-entropy, AdamW, one cosine; `before` is told the share of steps done."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    steps = epochs * (len(data) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    done = 0
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(data), generator=generator)
        for index in torch.split(order, BATCH)[: len(data) // BATCH]:
            before(done / steps)
            batch = data.batch(index)
            assert batch.labels is not None
            loss = F.cross_entropy(model(batch.inputs[0]), batch.labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            done += 1
    model.eval()


def float_model(name: str, data: Examples, folder: Path, epochs: int) -> nn.Module:
    """Trained once."""
    torch.manual_seed(0)
    model, stored = NETWORKS[name](), folder / f"{name}.safetensors"
    if stored.is_file():
        model.load_state_dict(load_file(stored))
    else:
        train(model, data, epochs, 3e-3, lambda share: None)
        save_file(model.state_dict(), stored)
    return model.eval()


def export(model: nn.Module, path: Path) -> Path:
    """One input, logits out."""
    torch_to_onnx.convert(
        model, (torch.zeros(SHAPE),), path, opset=20, metadata={}, input_names=["input"], output_names=["logits"]
    )
    return path


def ours(model: nn.Module, data: Examples, folder: Path, epochs: int) -> None:
    """After calibration alone, and after fine-tuning."""
    prepared = qat.prepare(model, (torch.zeros(SHAPE),), "onnxruntime_x86")
    qat.calibrate(prepared, [data.batch(index).inputs for index in torch.split(torch.arange(CALIBRATION), BATCH)])
    export(qat.convert(prepared), folder / "ours_ptq.onnx")
    train(prepared, data, epochs, 5e-4, lambda share: qat.enter(prepared, qat.phase(share)))
    qat.enter(prepared, qat.phase(1.0))
    prepared.eval()
    export(qat.convert(prepared), folder / "ours_qat.onnx")


def accuracy(path: Path, inputs: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of right answers in onnxruntime's default session."""
    options = SessionOptions()
    options.log_severity_level = 3
    session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    right = 0
    for start in range(0, len(inputs), 500):
        scores: Any = session.run(None, {name: inputs[start : start + 500]})[0]
        right += int((scores.argmax(1) == labels[start : start + 500]).sum())
    return right / len(inputs)


def arrays(data: Examples, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The first pictures and their labels."""
    batch = data.batch(torch.arange(min(count, len(data))))
    assert batch.labels is not None
    return batch.inputs[0].numpy(), batch.labels.numpy()


def report(name: str, scores: Mapping[str, float], timed: list[dict[str, Any]]) -> None:
    """One network's table."""
    print(f"\n{name}: accuracy " + ", ".join(f"{file} {100 * score:.2f} %" for file, score in scores.items()))
    for part in timed:
        print(f"  batch {part['batch']}, one thread, {part['rounds']} rounds")
        for key, row in part["rows"].items():
            interval = f"({1 / row['high']:.2f} to {1 / row['low']:.2f})"
            print(f"    {key:32s} {row['ms']:8.4f} ms  {1 / row['median']:5.2f}x faster than float {interval}")
        for key, why in part["refused"].items():
            print(f"    {key:32s} refused: {why}")
        own = [key for key in part["rows"] if key.startswith("ours_qat")]
        one = part["rows"].get("ours_qat onnxruntime")
        best = max(own, key=lambda key: 1 / part["rows"][key]["median"])
        shown = "ours_qat onnxruntime" if part["batch"] == 1 and one is not None else best
        reached, bar = 1 / part["rows"][shown]["median"], BARS.get(part["batch"], 1.0)
        print(f"    bar {bar}x, {shown}: {reached:.2f}x {'reached' if reached >= bar else 'MISSED'}")


def main() -> int:
    """Print one table per network; the exit status is 0 whatever they say."""
    given = argparse.ArgumentParser(description="int8 on this processor beside other quantisers.")
    given.add_argument("data", type=Path)
    given.add_argument("--folder", type=Path, required=True, help="where trained models and files are kept")
    given.add_argument(
        "--peers", type=Path, help="a Python that has onnxruntime, openvino, nncf, onnx-neural-compressor"
    )
    given.add_argument("--rounds", type=int, default=300)
    given.add_argument("--epochs", type=int, default=5)
    given.add_argument("--fine", type=int, default=2, help="epochs of fine-tuning")
    given.add_argument("--networks", default=",".join(NETWORKS))
    options = given.parse_args()
    splits = FashionMnist().load(options.data)
    inputs, labels = arrays(splits.test, 10_000)
    result: dict[str, Any] = {}
    for name in options.networks.split(","):
        folder: Path = options.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        model = float_model(name, splits.train, options.folder, options.epochs)
        export(model, folder / "float.onnx")
        if not (folder / "ours_qat.onnx").is_file():
            ours(model, splits.train, folder, options.fine)
        python = options.peers or Path(sys.executable)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        files = ["float", "ours_ptq", "ours_qat"]
        if options.peers is not None:
            np.savez(folder / "calibration.npz", input=arrays(splits.train, CALIBRATION)[0])
            quantise = [str(ROOT / "tools/quantize_with_peers.py"), "float.onnx", "calibration.npz", "."]
            log = (folder / "peers.log").open("w")
            subprocess.run([str(python), *quantise], cwd=folder, env=environment, check=True, stdout=log, stderr=log)
            found = json.loads((folder / "peers.json").read_text())
            print(f"{name}: " + "; ".join(f"{peer}: {next(iter(what.values()))}" for peer, what in found.items()))
            files += [peer for peer, what in found.items() if "version" in what]
        scores = {file: accuracy(folder / f"{file}.onnx", inputs, labels) for file in files}
        command = [str(ROOT / "tools/time_runtimes.py"), "times.json", "--rounds", str(options.rounds)]
        names = [f"{file}.onnx" for file in files]
        subprocess.run([str(python), *command, *names], cwd=folder, env=environment, check=True)
        timed = json.loads((folder / "times.json").read_text())
        report(name, scores, timed)
        result[name] = {"accuracy": scores, "times": timed}
    (options.folder / "bench_quantize.json").write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
