"""What quantisation-aware training costs and gains here and with the peers, on one network and data set.

    python tools/bench_qat.py [--peers PEERS/bin/python] [--quick] [--only step|quality] [--out FILE.json]

Step: one training step of ResNet-20 (32x32, batch 32, one thread) with fake quantisation over a plain one, all of them
timed one after the other in every round; the median of the rounds' ratios, process CPU time. nvidia-modelopt is timed
in an environment of its own, with a plain step of its own beside it; torchao in both, which shows what the
environments differ by.

Quality: a narrow depthwise network on Fashion-MNIST (digits of sklearn where the files are absent). Every tool starts
from the same distilled float network, calibrates on the same batches and fine-tunes for the same epochs with the same
loop (labels alone, same order, batch norm frozen from half of it on), at each tool's own documented settings. Printed
are points of test accuracy, mean and standard deviation over the seeds. Fine-tuning also goes on training, which says
nothing about quantisation: so what QAT loses is taken against "float, trained on", the float network after the same
epochs. The share of a tool's post-training loss that fine-tuning won back is printed only where that loss is more than
twice its standard error over the seeds; elsewhere there is nothing to win back, and a share of noise means nothing.
Last the same fine-tuning with the teacher in the loop: the paired difference.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.clothing import MEAN, STD
from compress.qat import prepare as qat
from compress.qat.equalize import equalize_activations
from compress.qat.rounding import OBSERVED, Rounding, rounding
from compress.tasks.fashion_mnist import TASK
from profiles.atomic import write_text

sys.path.insert(0, str(Path(__file__).parent))
import qat_protocol as protocol
import qat_with_peers as peers

FASHION = Path(__file__).parents[2] / "shared" / "data" / "fashion_mnist"
QUANTIZER = "onnxruntime_x86"  # everything between two layers in integers, depthwise layers too
TIMED = ("tensorrt", "onnxruntime_x86")
CHILD_TIMEOUT_S = 900
LEARNED = 0.5  # of ten classes: below it the float network has not learned, and losses against it mean nothing
OURS: dict[str, Rounding] = {"ours": OBSERVED, "ours, learned steps": rounding("minmax", steps="learned")}
WITH_TEACHER = "ours"
CONTROL = "float, trained on"
OURS_PTQ: dict[str, Rounding] = {"ours, mse ranges": rounding("mse"), "ours, percentile": rounding("percentile")}


@dataclass(frozen=True)
class Size:
    """How much is run."""

    train: int
    test: int
    float_epochs: int
    epochs: int
    seeds: int
    rounds: int
    rate: float = 1e-3


FULL = Size(train=8_000, test=10_000, float_epochs=6, epochs=3, seeds=3, rounds=20)
QUICK = Size(train=2_560, test=1_000, float_epochs=2, epochs=1, seeds=2, rounds=4)


def load(size: Size) -> tuple[str, protocol.Data]:
    """The data set's name, and as much of it as is asked for."""
    if FASHION.is_dir():
        splits = TASK.load(FASHION)
        found = []
        for split, count in ((splits.train, size.train), (splits.test, size.test)):
            batch = split.batch(torch.arange(min(count, len(split))))
            assert batch.labels is not None
            found.append(((batch.inputs[0].float() - MEAN) / STD, batch.labels))  # the task gives [0, 1]
        return "Fashion-MNIST", protocol.Data(found[0], found[1])
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(digits.images).float()[order, None] / 16
    y = torch.from_numpy(digits.target).long()[order]
    return "digits of sklearn", protocol.Data((x[:1200], y[:1200]), (x[1200:], y[1200:]))


def prepared(network: nn.Module, data: protocol.Data, how: Rounding, quantizer: str = QUANTIZER) -> qat.Prepared:
    """Ours, calibrated."""
    model = qat.prepare(network, (data.train[0][:2],), quantizer, rounding=how)
    qat.calibrate(model, data.calibration())
    return model


def tuned(model: qat.Prepared, data: protocol.Data, size: Size, seed: int, soft: Tensor | None = None) -> float:
    """Fine-tune ours in place; accuracy of what ships."""
    protocol.train(
        model.train(),
        data,
        epochs=size.epochs,
        rate=size.rate,
        seed=seed,
        soft=soft,
        before_step=lambda progress: qat.enter(model, qat.phase(progress)),
    )
    qat.enter(model, qat.phase(1.0))
    return protocol.accuracy(qat.convert(model.eval()), data)


def ours(network: nn.Module, data: protocol.Data, size: Size, seed: int, soft: Tensor) -> dict[str, Any]:
    """Every way of ours from one float network."""
    found: dict[str, Any] = {}
    for name, how in {**OURS, **OURS_PTQ}.items():
        model = prepared(network, data, how)
        found[name] = {"ptq": protocol.accuracy(qat.convert(model), data)}
        if name in OURS:
            if name == WITH_TEACHER:
                found[name]["with teacher"] = tuned(copy.deepcopy(model), data, size, seed, soft)
            found[name]["qat"] = tuned(model, data, size, seed)
    equal = equalize_activations(network, [(batch,) for batch in data.calibration()]).model
    found["ours, equalised"] = {"ptq": protocol.accuracy(qat.convert(prepared(equal, data, OBSERVED)), data)}
    return found


def quality(python: Path | None, size: Size, say: Callable[[str], None]) -> dict[str, Any]:
    """All tools, all seeds."""
    name, data = load(size)
    say(f"{name}: {len(data.train[0])} training pictures, {len(data.test[0])} test pictures")
    torch.manual_seed(0)
    master = protocol.teacher().train()
    protocol.train(master, data, epochs=size.float_epochs, rate=3e-3, seed=0)
    x = data.train[0]
    soft = protocol.answers(master.eval(), torch.cat([x, x.flip(3)]))
    results: dict[str, Any] = {"data": name, "teacher": protocol.accuracy(master, data), "seeds": []}
    say(f"teacher: {100 * results['teacher']:.2f} %")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data.save(folder / "data.npz")
        for seed in range(size.seeds):
            torch.manual_seed(seed)
            network = protocol.student().train()
            protocol.train(network, data, epochs=size.float_epochs, rate=3e-3, seed=seed, soft=soft)
            network.eval()
            save_file(network.state_dict(), folder / f"float-{seed}.safetensors")
            row: dict[str, Any] = {"float": protocol.accuracy(network, data)}
            if row["float"] < LEARNED:
                raise SystemExit(f"the float network names {100 * row['float']:.1f} % right: no basis for a comparison")
            longer = copy.deepcopy(network).train()
            protocol.train(longer, data, epochs=size.epochs, rate=size.rate, seed=seed)
            row[CONTROL] = {"ptq": row["float"], "qat": protocol.accuracy(longer.eval(), data)}
            row.update(ours(network, data, size, seed, soft))
            row.update(child(python, ["quality", str(folder), "--seed", str(seed), *numbers(size)]))
            results["seeds"].append(row)
            say(f"seed {seed}: float {100 * row['float']:.2f} %")
    return results


def numbers(size: Size) -> list[str]:
    """Arguments of the child."""
    return ["--epochs", str(size.epochs), "--rate", str(size.rate)]


def child(python: Path | None, arguments: list[str]) -> dict[str, Any]:
    """What the peers' process prints; {} with a word on standard error where there is no such environment."""
    if python is None or not python.is_file():
        print(f"no peers: no environment of theirs at {python}", file=sys.stderr)
        return {}
    script = Path(__file__).parent / "qat_with_peers.py"
    done = subprocess.run(
        [str(python), str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=CHILD_TIMEOUT_S,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        check=False,
    )
    if done.returncode:
        print(f"no peers: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return {}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def points(values: list[float]) -> str:
    """Mean and standard deviation of shares, in points."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):6.2f} ± {100 * spread:.2f}"


def share(lost: list[float], after: list[float]) -> str:
    """How much of the loss is gone, in percent; in words where the loss cannot be told from none."""
    mean = statistics.mean(lost)
    if len(lost) < 2 or mean <= 2 * statistics.stdev(lost) / len(lost) ** 0.5:
        return "no loss that stands out from its spread"
    return f"{100 * (1 - statistics.mean(after) / mean):.0f} %"


def print_quality(results: dict[str, Any]) -> None:
    """One line per tool."""
    rows = results["seeds"]
    print(f"\n{results['data']}, {len(rows)} seeds; points of test accuracy, mean ± standard deviation over seeds")
    print(f"float {points([row['float'] for row in rows])}")
    print(f"{CONTROL + ', gains':24s} {points([row[CONTROL]['qat'] - row['float'] for row in rows]):>15s}")
    print(f"{'':24s} {'PTQ loses':>15s} {'QAT loses':>15s}  won back of the PTQ loss")
    for name in [key for key in rows[0] if key not in ("float", CONTROL)]:
        kept = [row for row in rows if "ptq" in row.get(name, {})]
        if not kept:
            print(f"{name:24s} {rows[0][name].get('absent', 'failed')}")
            continue
        lost = [row["float"] - row[name]["ptq"] for row in kept]
        line = f"{name:24s} {points(lost):>15s}"
        if "qat" in kept[0][name]:
            after = [row[CONTROL]["qat"] - row[name]["qat"] for row in kept]
            line += f" {points(after):>15s}  {share(lost, after)}"
        print(line)
    print("\nteacher in the loop minus labels alone, same seed, points")
    gains = [row[WITH_TEACHER]["with teacher"] - row[WITH_TEACHER]["qat"] for row in rows]
    print(f"{WITH_TEACHER:24s} {points(gains):>15s}")


def step_costs(python: Path | None, size: Size) -> dict[str, dict[str, list[float]]]:
    """Times of plain and fake-quantised steps, in this environment and in the peers'."""
    torch.manual_seed(0)
    x = torch.randn(32, 3, 32, 32)
    networks: dict[str, nn.Module] = {"plain": protocol.resnet20().train()}
    for quantizer in TIMED:
        for name, how in OURS.items():
            model = qat.prepare(protocol.resnet20(), (x[:2],), quantizer, rounding=how)
            qat.calibrate(model, [x])
            networks[f"{name} ({quantizer})"] = model.train()
    networks["torchao"] = peers.with_torchao(protocol.resnet20(), [x])
    here = protocol.interleaved(networks, x, size.rounds)
    return {"here": here, "peers": child(python, ["step", "--rounds", str(size.rounds)])}


def print_costs(costs: dict[str, dict[str, list[float]]]) -> None:
    """One line per kind of step."""
    print(
        "\nCPU time of one training step over a plain one, ResNet-20 32x32 batch 32, one thread; 10th-90th percentile"
    )
    for where, times in costs.items():
        if not times:
            continue
        print(f"{where:6s} plain {1000 * statistics.median(times['plain']):.0f} ms")
        for name in times:
            if name != "plain":
                middle, low, high = protocol.ratio(times, name)
                print(f"       {name:36s} {middle:.3f}  ({low:.3f} to {high:.3f})")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="python of an environment with the peers; without it, ours alone")
    parser.add_argument("--quick", action="store_true", help="two seeds of a little training: checks that it runs")
    parser.add_argument("--only", choices=("step", "quality"))
    parser.add_argument("--out", type=Path, help="write every figure there, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    size = QUICK if given.quick else FULL
    found: dict[str, Any] = {}
    if given.only != "quality":
        found["step"] = step_costs(given.peers, size)
        print_costs(found["step"])
    if given.only != "step":
        found["quality"] = quality(given.peers, size, lambda text: print(text, file=sys.stderr, flush=True))
        print_quality(found["quality"])
    if given.out is not None:
        write_text(given.out, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
