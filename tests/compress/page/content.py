"""A report's content as the report stage makes it, with numbers that could be real."""

import copy
import functools
import math
import random
from dataclasses import dataclass
from typing import Any

from compress.contracts.selector import Candidate
from compress.selection.events import Built, Charged, Chose, Costed, Event, Recalibrated, Scored, Trained
from compress.selection.history import summarise
from compress.training.curve import CurvePoint, plain
from profiles.cost import Cost

PLANS = ("residual", "light", "separable")


def realistic(seed: int = 0, candidates: int = 240) -> dict[str, Any]:
    """Fashion-MNIST for a Jetson: a bundle and a check, neither of them run here."""
    return copy.deepcopy(_realistic(seed, candidates))


@functools.cache
def _realistic(seed: int, candidates: int) -> dict[str, Any]:
    rng = random.Random(seed)
    selection = _selection(rng, candidates)
    chosen = next(c for c in selection["candidates"] if c["chosen"])
    teacher = selection["teacher"]
    student = _cost("jetson", chosen["macs"], chosen["params"], 4, chosen["latency_ms"] * 1.7, "fp32", rng)
    int8 = _cost("jetson", chosen["macs"], chosen["params"], 1, chosen["latency_ms"], "int8", rng)
    return {
        "format": 1,
        "name": "fashion_mnist",
        "task": {
            "name": "fashion_mnist",
            "kind": "classification",
            "metric": "accuracy",
            "labels": [
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Boot",
            ],
            "inputs": [{"name": "input", "shape": [1, 28, 28], "type": "float32"}],
            "preprocessing": "grey pixels 0..255 divided by 255, then (x - 0.286) / 0.353",
            "examples": {"train": 54000, "val": 6000, "test": 10000},
        },
        "target": {
            "name": "jetson",
            "device": "NVIDIA Jetson Orin Nano 8 GB",
            "description": "JetPack 6.1 or 6.2 (TensorRT 10.3, CUDA 12.6, Python 3.10), power mode 15 W, GPU only",
            "runtime": "tensorrt",
            "runtime_version": "10.3",
            "quantizer": "tensorrt",
            "sources": {"clock_mhz": "data sheet: 625 MHz at 15 W", "latency_ms": "chosen"},
        },
        "choice": {"space": chosen["space"], "plan": chosen["plan"], "why": selection["why"]},
        "selection": selection,
        "verify": _verify(teacher, student, int8),
        "curves": {"distill": _curve(rng, 20, 1.9, 0.9), "quantize": _curve(rng, 4, 0.32, 0.914)},
        "lint": {
            "counts": {"refused": 0, "wrong": 0, "slow": 0, "note": 1},
            "findings": [
                {
                    "rule": "P10",
                    "level": "note",
                    "node": "node_conv2d",
                    "module": "network.stem.0",
                    "what": "1 input channels (1 are padded to 4)",
                    "fix": "choose widths that are multiples of 16",
                }
            ],
            "int8_share": 0.75,
        },
        "quantize": {"before": 0.9023, "validation": 0.9168, "precision": decided()},
        "failed": [],
        "stages": [
            {"name": name, "seconds": seconds}
            for name, seconds in (
                ("prepare", 12.4),
                ("select", 95.2),
                ("distill", 310.7),
                ("quantize", 88.1),
                ("export", 6.3),
                ("build", 2.9),
                ("verify", 11.0),
            )
        ],
        "files": [
            _file("1_select/candidates.json", 412_334, "select: candidates"),
            _file("2_distill/student.safetensors", 312_004, "distill: float student"),
            _file("4_export/model.onnx", 92_113, "export: quantised ONNX"),
            _file("5_build/model.bundle/build.sh", 2_310, "build: artifact (bundle)"),
            _file("5_build/model.bundle/model.onnx", 92_113, "build: artifact (bundle)"),
            _file("5_build/check_sm86.engine", 1_312_448, "build: check (engine)"),
        ],
        "provenance": {
            "compress": "0.1.0",
            "git": "366452a0c1d2",
            "python": "3.11.9",
            "platform": "Linux-6.1.0-x86_64-with-glibc2.36",
            "cpu_capability": "AVX512",
            "threads": 2,
            "packages": {"torch": "2.13.0", "torchao": "0.18.0", "onnx": "1.23.2", "tensorrt-rtx-cu13": None},
            "seed": 0,
            "recipe": {
                "name": "fashion_mnist",
                "task": {"name": "fashion_mnist", "data": "data/fashion_mnist"},
                "target": "jetson",
                "select": {"spaces": ["derived", "int8_conv"], "candidates": candidates},
                "distill": {"method": "vanilla_kd", "epochs": 20, "objectives": {"soft_targets": {"weight": 0.9}}},
                "seed": 0,
            },
            "identities": {"data": "ab" * 32, "teacher": "cd" * 32, "target": "ef" * 32},
        },
    }


def measured(seed: int = 1) -> dict[str, Any]:
    """As above, with an artifact that was run on its target and one gate that failed."""
    content = realistic(seed)
    verify = content["verify"]
    predicted = verify["costs"]["shipped student"]
    verify["costs"]["shipped student, predicted"] = predicted
    ran = {**predicted, "origin": "measured", "latency_ms": 5.9, "interval_ms": [5.7, 6.3], "notes": ["median of 200"]}
    verify["costs"]["shipped student"] = ran
    verify["artifacts"][0] = {
        "name": "model.engine",
        "kind": "engine",
        "purpose": "artifact",
        "note": "",
        "facts": {"tensorrt": "10.3.0", "int8_share": 0.97, "seconds": 41.2},
        "run": "run by on_tensorrt",
    }
    content["files"].append(_file("5_build/model.engine", 812_448, "build: artifact (engine)"))
    verify["accuracy"]["model.engine"] = 0.9151
    verify["final"] = "model.engine"
    gate = next(gate for gate in verify["gates"] if gate["name"] == "latency")
    gate.update(value=5.9, origin="measured", passed=False)
    content["failed"] = ["select: latency of shipped student is 5.9 ms (measured), above the bound of 5 ms"]
    return content


def _selection(rng: random.Random, count: int) -> dict[str, Any]:
    rows = []
    for number in range(count):
        derived = rng.random() < 0.4
        widths = sorted(rng.choice([16, 32, 48, 64, 96, 128]) for _ in range(rng.choice([2, 3, 3, 4])))
        depths = [rng.randint(1, 4) for _ in widths]
        kind = rng.choice(PLANS)
        macs = int(28 * 28 * 9 * sum(w * w * d / 4**i for i, (w, d) in enumerate(zip(widths, depths, strict=True))))
        params = int(9 * sum(w * w * d for w, d in zip(widths, depths, strict=True)))
        latency = 0.09 + 0.021 * sum(depths) + macs / 1.4e8 * rng.uniform(0.8, 1.3)
        peak = 28 * 28 * widths[0] * 2
        rejected = None
        if latency > 5.0:
            rejected = f"latency of {latency:.3g} ms is above the budget of 5 ms"
        elif params > 400_000:
            rejected = f"weights of {params:,} bytes are above the budget of 400,000 bytes"
        plan = (
            {"width": round(rng.uniform(0.1, 0.9), 3), "depth": round(rng.uniform(0.3, 1), 3), "stages": widths}
            if derived
            else {"kind": kind, "stem_stride": 1, "widths": widths, "depths": depths}
        )
        rows.append(
            {
                "id": number,
                "space": "derived" if derived else "int8_conv",
                "plan": plan,
                "macs": macs,
                "params": params,
                "weight_bytes": params,
                "peak_activation_bytes": peak,
                "latency_ms": latency,
                "interval_ms": [latency * 0.68, latency * 1.49],
                "origin": "predicted",
                "rejected": rejected,
                "score": None,
                "fidelity": 0.0,
                "pareto": False,
                "chosen": False,
            }
        )
    feasible = [row for row in rows if row["rejected"] is None]
    trained = rng.sample(feasible, min(18, len(feasible)))
    for row in trained:
        row["score"] = 0.915 - 0.16 * math.exp(-row["macs"] / 6e6) + rng.gauss(0, 0.004)
        row["fidelity"] = rng.choice([0.1, 0.1, 0.3])
    front, best = [], -1.0
    for row in sorted(trained, key=lambda row: row["latency_ms"]):
        if row["score"] > best:
            best, row["pareto"] = row["score"], True
            front.append(row["id"])
    chosen = next(row for row in rows if row["id"] == front[max(0, len(front) - 2)])
    chosen["chosen"] = True
    chosen["fidelity"] = 0.3
    return {
        "considered": count,
        "rejected": sum(row["rejected"] is not None for row in rows),
        "evaluated": len(trained),
        "objective": "the best validation accuracy within the budget; of equals the fastest",
        "budget": {"latency_ms": 5.0, "accuracy_drop": 0.02, "weight_bytes": 400_000, "latency_limit_ms": 5.0},
        "absent_spaces": {},
        "candidates": rows,
        "front": front,
        "chosen": chosen["id"],
        "why": f"candidate {chosen['id']} reaches {100 * chosen['score']:.2f} % after the short training, within 0.3 "
        "points of the best, and is 1.8 times faster than it",
        "teacher": _cost("jetson", 284_000_000, 2_730_000, 4, 6.4, "fp32", rng),
        "learned": [],
        "selector": {"name": "halving", "settings": {}, "notes": {"gap": {"ratio": 4.25, "trusted": True}}},
        "search": _search(random.Random(1), rows),
    }


@dataclass(frozen=True)
class Drawn:
    """A plan that is its row."""

    number: int
    plan: str

    def to_json(self) -> dict[str, Any]:
        return {"number": self.number, "made of": self.plan}


def _search(rng: random.Random, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Two rounds: all trained students for a tenth, six for longer, the best one built and measured in between."""
    pool, scores, tried = [], {}, []
    for row in rows:
        interval = (row["interval_ms"][0], row["interval_ms"][1])
        cost = Cost(
            "jetson",
            "tensorrt",
            1,
            "int8",
            row["macs"],
            row["params"],
            row["weight_bytes"],
            row["peak_activation_bytes"],
            row["latency_ms"],
            interval,
            "predicted",
        )
        proxies = {"diswot": math.log(row["params"]) + rng.gauss(0, 1)}
        candidate = Candidate(row["space"], Drawn(row["id"], str(row["plan"])), cost, row["rejected"], proxies=proxies)
        row["identity"] = candidate.identity
        pool.append(candidate)
        if row["score"] is not None:
            scores[candidate.identity] = row["score"]
            tried.append(candidate)
    ranked = sorted(tried, key=lambda candidate: -scores[candidate.identity])
    events: list[Event] = [Costed(1, len(pool), sum(c.rejected is not None for c in pool), 41.0)]
    events += [Scored(1, "diswot", len(pool), 12.5), Charged(1, 0.5, "supernet")]
    for share, some in ((0.1, ranked), (0.3, ranked[:6]), (1.0, ranked[:2])):
        for candidate in some:
            score = scores[candidate.identity] + 0.02 * math.log10(share) + rng.gauss(0, 0.002)
            cpu_s = (2 + share * (90 + candidate.cost.macs * 4e-5)) * math.exp(rng.gauss(0, 0.05))
            events.append(Trained(1, candidate.identity, share, 0, score, cpu_s, remembered=share == 0.3))
    events += [
        Chose(1, ranked[0].identity),
        Built(1, ranked[0].identity, 5.9, (5.7, 6.3), "measured", 4.4, met=False, why="latency is above the budget"),
        Recalibrated(2, "latency", 1.34, 1, "5.9 ms were measured, 4.4 ms predicted"),
        Trained(2, ranked[2].identity, 1.0, 0, scores[ranked[2].identity] + 0.001, 92.0 + ranked[2].cost.macs * 4e-5),
        Chose(2, ranked[1].identity),
    ]
    return summarise(
        pool, events, chosen=ranked[1].identity, metric="accuracy", seed=0, selector="halving", training=8.0
    )


def _cost(
    target: str, macs: int, params: int, width: int, latency: float, precision: str, rng: random.Random
) -> dict[str, Any]:
    parts = [rng.uniform(0.4, 1.6) for _ in range(11)]
    layers = [
        {
            "name": f"stages.{i // 4}.blocks.{i % 4}.convolution_and_a_long_name.conv2d_{i}" if i < 10 else "head",
            "ops": ["QuantizeLinear", "Conv", "Add", "Relu"][: 1 + i % 4],
            "macs": int(macs * p / sum(parts)),
            "weight_bytes": int(params * width * p / sum(parts)),
            "activation_bytes": int(30_000 * p),
            "latency_ms": latency * p / sum(parts),
            "bound_by": ("compute", "memory", "launch")[i % 3],
            "precision": precision,
        }
        for i, p in enumerate(parts)
    ]
    return {
        "target": target,
        "runtime": "tensorrt 10.3",
        "batch": 1,
        "precision": precision,
        "macs": macs,
        "flops": 2 * macs,
        "params": params,
        "weight_bytes": params * width,
        "peak_activation_bytes": 50_176 * width,
        "latency_ms": latency,
        "interval_ms": [latency * 0.7, latency * 1.45],
        "origin": "predicted",
        "energy_mj": None,
        "layers": layers,
        "uncounted": {},
        "notes": [],
    }


def _verify(teacher: dict[str, Any], student: dict[str, Any], int8: dict[str, Any]) -> dict[str, Any]:
    def gate(
        name: str, stage: str, artifact: str, value: float, bound: float, unit: str, at_most: bool, origin: str
    ) -> dict:
        passed = value <= bound if at_most else value >= bound
        row = {"name": name, "stage": stage, "artifact": artifact, "value": value, "bound": bound}
        return row | {"unit": unit, "at_most": at_most, "origin": origin, "passed": passed}

    return {
        "accuracy": {"teacher": 0.9236, "float student": 0.9171, "fake-quantised student": 0.9158, "ONNX": 0.9157},
        "final": "ONNX",
        "step": 0.1312,
        "step_from": "the output's own",
        "fidelity": _fidelity(),
        "diagnostics": {"true_class": {"true_class_probability": 0.8123, "true_class_improbable": 0.1517}},
        "parity": [
            _parity("float student", "fake-quantised student", None, 9.2, 0.81, 0.78, 0.981),
            _parity("fake-quantised student", "ONNX", "export", 1.0, 0.0021, 0.99995, 0.9998),
        ],
        "gates": [
            gate("change of accuracy", "export", "ONNX", 0.0001, 0.002, "", True, "measured"),
            gate("top-1 agreement", "export", "ONNX", 0.9998, 0.99, "", False, "measured"),
            gate("share within one step", "export", "ONNX", 0.99995, 0.999, "", False, "measured"),
            gate("drop of accuracy", "quantize", "ONNX", 0.0079, 0.02, "", True, "measured"),
            gate("latency", "select", "shipped student", int8["latency_ms"], 5.0, "ms", True, "predicted"),
            gate("weights", "select", "shipped student", int8["weight_bytes"], 400_000.0, "bytes", True, "counted"),
        ],
        "costs": {"teacher": teacher, "float student": student, "shipped student": int8},
        "budget": {"latency_ms": 5.0, "accuracy_drop": 0.02, "weight_bytes": 400_000, "default_period_ms": 8.0},
        "artifacts": [
            {
                "name": "model.bundle",
                "kind": "bundle",
                "purpose": "artifact",
                "note": "on the device: sh build.sh makes model.engine and checks it against golden outputs",
                "facts": {"opset": 20, "tensorrt": "10.3"},
                "run": "built, not run here: it builds and checks itself on the device",
            },
            {
                "name": "check_sm86.engine",
                "kind": "engine",
                "purpose": "check",
                "note": "proves that the graph compiles for Ampere; it does not run on Orin",
                "facts": {"int8_share": 1.0, "seconds": 2.1, "capability": "8.6"},
                "run": "built, not run here: proves that the graph compiles for Ampere; it does not run on Orin",
            },
            {
                "name": "onnx_to_engine",
                "kind": "",
                "purpose": "skipped",
                "note": "",
                "facts": {},
                "run": "not built: this machine has no NVIDIA GPU",
            },
        ],
        "examples": 10000,
    }


def _fidelity() -> dict[str, Any]:
    def figures(agreement: float, kl: float, examples: int) -> dict[str, Any]:
        between, about = [agreement - 0.004, agreement + 0.004], [kl - 0.001, kl + 0.001]
        shown = {"agreement": agreement, "agreement_interval": between, "kl": kl, "kl_interval": about}
        return shown | {"kendall_top5": 0.774, "examples": examples}

    return {
        "pairs": [
            {"copy": "float student", "reference": "teacher", "least": 0.8407, "most": 0.9935}
            | figures(0.9512, 0.0821, 10_000),
            {"copy": "ONNX", "reference": "float student", "least": 0.8328, "most": 0.9986}
            | figures(0.9874, 0.0063, 10_000),
        ],
        "calibration": {"teacher": {"accuracy": 0.9236, "nll": 0.2311, "ece": 0.0213, "examples": 10_000}},
        "distillation": figures(0.9731, 0.0521, 20_000) | {"why": ""},
        "verdict": "optimisation",
        "sentence": "The student agrees with its teacher on 97.3 % of the distillation data.",
        "shipped": {"artifact": "ONNX", "agreement": 0.98, "kl": 0.02, "kept": True},
        "fidelity_gap": 0.0412,
    }


def _parity(
    reference: str, artifact: str, stage: str | None, largest: float, mean: float, within: float, top1: float
) -> dict[str, Any]:
    return {
        "reference": reference,
        "artifact": artifact,
        "stage": stage,
        "step": 0.1312,
        "step_from": "the output's own",
        "max_abs": largest * 0.1312,
        "mean_abs": mean * 0.1312,
        "max_steps": largest,
        "mean_steps": mean,
        "within_one_step": within,
        "largest_angle": 1.25,
        "rms_angle": 0.26,
        "width": 384,
        "top1_agreement": top1,
        "spread": 5.31,
        "not_a_number": 0,
        "elements": 100_000,
        "output": "logits",
        "explained_steps": 4.5,
        "histogram": {
            "unit": "steps",
            "edges": [-math.inf, -0.5, 0.5, 1.5, math.inf],
            "counts": [10, 300, 25, 0],
            "equal": 99_664,
            "unordered": 1,
        },
        "worst": [
            {
                "sample": 4711,
                "element": [3],
                "reference": 1.5,
                "candidate": math.nan,
                "difference": 9.0,
                "steps": largest,
            }
        ],
    }


def _curve(rng: random.Random, epochs: int, loss: float, score: float) -> list[dict[str, Any]]:
    points = []
    for epoch in range(epochs):
        left = math.exp(-3 * epoch / max(epochs - 1, 1))
        points.append(
            CurvePoint(
                phase="main",
                epoch=epoch,
                epochs=epochs,
                loss=loss * (0.2 + left) * rng.uniform(0.97, 1.03),
                terms={"soft_targets": loss * (0.15 + left), "labels": loss * (0.3 + 0.8 * left)},
                validation=score - 0.2 * left * (epochs > 5) + rng.gauss(0, 0.002),
                learning_rate=3e-3 * (1 - epoch / epochs),
                seconds=15.1,
            )
        )
    return plain(points)


def _file(path: str, size: int, origin: str) -> dict[str, Any]:
    digest = (path.encode().hex() * 8)[:64]
    return {"path": path, "sha256": digest, "size": size, "origin": origin, "inputs": {"choice": "12" * 32}}


def _estimate(mean: float, error: float | None = 0.002) -> dict[str, Any]:
    return {"mean": mean, "standard_error": error}


def _effect(score: float, distance: float) -> dict[str, Any]:
    return {
        "score": _estimate(score, 0.01),
        "drop": _estimate(0.95 - score),
        "distance": _estimate(distance),
        "gain": _estimate(0.01),
        "nearer": _estimate(0.3),
    }


def _layer(name: str, precision: str, distance: float) -> dict[str, Any]:
    return {
        "layer": name,
        "modules": [name],
        "operators": ["conv2d.default"],
        "precision": precision,
        "without": _effect(0.94, 0.1),
        "alone": _effect(0.91, distance),
        "latency_ms": {"int8": 0.0123, "fp16": 0.0234},
        "weight_bytes": {"int8": 1000, "fp16": 2000},
    }


def decided(layers: int = 3) -> dict[str, Any]:
    """What the quantize stage decided about precisions."""
    return {
        "metric": "accuracy",
        "shipped": "mixed",
        "why": [
            "int8 loses 2.00 points of accuracy, more than the 1.00 points that quantising may cost.",
            "mixed ships.",
        ],
        "notes": ["predicted: <b>nobody</b> was there"],
        "candidates": [
            {
                "precision": "int8",
                "latency_ms": 1.5,
                "origin": "predicted",
                "weight_bytes": 1000,
                "peak_activation_bytes": 2000,
                "drop": 0.02,
                "broken": [],
                "missing": "",
            },
            {
                "precision": "fp32",
                "latency_ms": 2.5,
                "origin": "predicted",
                "weight_bytes": 4000,
                "peak_activation_bytes": 8000,
                "drop": 0.0,
                "broken": ["its weights are too large"],
                "missing": "",
            },
        ],
        "samples": 512,
        "layers": [_layer(f"block.{n}", "int8" if n else "fp16", 1.0 / (n + 1)) for n in range(layers)],
    }
