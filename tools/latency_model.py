"""Predict published rows: a physical mean, and a Gaussian process on what the rows of a table say beside it.

A row's time is exp(mean + process). The mean holds what is known of the device and the totals of the model; the
process (gaussian_process.py) learns, from the rows that were seen, what a protocol, an engine, a device, a family and
a model add to it, and how wide a prediction must be. Rows are handled in groups that share one process: all published
rows of GPUs, all of microcontrollers, and each table of timm.
"""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from gaussian_process import Columns, Kernel, Posterior, Term, names
from latency_graphs import Work, work_of
from latency_kernels import Timed, log_ms, timed
from latency_rows import FACTS, Array, Gpu, Row, engine, gpu_of, gpus, likely

GPU, MCU = "gpu", "mcu"
KERNELS = "kernels"  # logarithm of the milliseconds per item that the kernels take, among quantities of the mean


def group_of(row: Row) -> str:
    """The rows that share one process with this one."""
    if row.table == "timm":
        return row.line
    return MCU if row.line == "MCU" else GPU


# --- totals -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Totals:
    """Totals of one row's model, with what was not stated filled in."""

    params_m: float
    gmacs: float
    macts_m: float
    stated: bool  # whether the multiply-accumulates are the table's


def model_name(row: Row) -> str:
    """The model without what other columns say already."""
    return re.sub(r"[-_](v1\.5|\d+x\d+)$", "", row.model.lower().strip())


class Known:
    """Totals of models from latency/models.csv and from the rows that were seen."""

    def __init__(self, seen: Sequence[Row]) -> None:
        self.facts: dict[str, tuple[float, float]] = {}
        with (FACTS / "models.csv").open(newline="", encoding="utf-8") as handle:
            for record in csv.DictReader(line for line in handle if not line.startswith("#")):
                self.facts[record["model"].lower()] = (float(record["params_m"]), float(record["gmacs"]))
        by_model: dict[tuple[str, str], list[Row]] = {}
        for row in seen:
            if row.gmacs:
                for key in ((model_name(row), row.shape), (model_name(row), ""), (row.family, "")):
                    by_model.setdefault(key, []).append(row)
        self.by_model = {
            key: (_middle([r.params_m for r in rows]), _middle([r.gmacs for r in rows]))
            for key, rows in by_model.items()
        }
        self.middle = (_middle([r.params_m for r in seen]), _middle([r.gmacs for r in seen]))

    def totals(self, row: Row) -> Totals:
        """Stated totals first, then those of the same model, of the same family, of all rows."""
        name = model_name(row)
        params, gmacs = next(
            (
                found
                for found in (
                    self.by_model.get((name, row.shape)),
                    self.facts.get(row.model.lower()),
                    self.by_model.get((name, "")),
                    self.by_model.get((row.family, "")),
                )
                if found
            ),
            self.middle,
        )
        gmacs = row.gmacs or gmacs
        # Convolutional networks make about this many activations per multiply-accumulate; see the rows that state both.
        return Totals(row.params_m or params, gmacs, row.macts_m or 8.0 * gmacs**0.7, bool(row.gmacs))


def _middle(values: Sequence[float | None]) -> float:
    known = [value for value in values if value]
    return float(np.median(known)) if known else 1.0


# --- columns ----------------------------------------------------------------------------------------------------------


def gpu_columns(
    rows: Sequence[Row], known: Known, devices: Sequence[Gpu], constants: Mapping[str, Array]
) -> tuple[Columns, dict[str, Array]]:
    """Labels and numbers of GPU rows, and what their physical mean needs.

    Args:
        constants: of the kernel model, by generation of devices.
    """
    figures = [gpu_of(row, devices) for row in rows]
    totals = [known.totals(row) for row in rows]
    batch = np.array([_batch(row) for row in rows])
    macs = np.array([t.gmacs for t in totals])
    params = np.array([t.params_m for t in totals])
    macts = np.array([t.macts_m for t in totals])
    tops = np.array([gpu.tops(row.precision) for gpu, row in zip(figures, rows, strict=True)])
    plain = np.array([gpu.fp32 for gpu in figures])
    bandwidth = np.array([gpu.bandwidth_gbs for gpu in figures])
    clock = np.array([gpu.clock_mhz for gpu in figures])
    width = np.array([1.0 if "int8" in r.precision else 2.0 if "16" in r.precision else 4.0 for r in rows])
    graphs = [_graph(row) for row in rows]
    work = [graph or _from_totals(t) for graph, t in zip(graphs, totals, strict=True)]
    compiled = np.array([engine(row.runtime) in COMPILED for row in rows])
    host = np.array(
        [3.0 if "Jetson" in gpu.name else 1.0 for gpu in figures]
    )  # a Jetson's cores launch that much slower

    def column(name: str) -> Array:
        return np.array([getattr(item, name) for item in work])

    physics = {  # milliseconds per item at the peak, or at one microsecond per launch at 1 GHz
        "compute": 2 * column("dense") / tops,
        "outputs": 2e-3 * column("outputs_m") / tops,
        "matmul": 2 * column("matmul") / tops,
        "grouped": 2 * column("grouped") / tops,
        "depthwise": 2 * column("depthwise") / plain,
        "activations": column("elements_m") * width / bandwidth,
        "weights": column("weights_m") * width / bandwidth / batch,
        "heavy": np.where(compiled, column("heavy") / clock / batch, 0.0),
        "light": np.where(compiled, column("light") / clock / batch, 0.0),
        "eager": np.where(compiled, 0.0, 1e-3 * host * (column("heavy") + column("light")) / batch),
        "unfused": np.where(compiled, 0.0, column("elements_m") * width / bandwidth),
        "fixed": 1.0 / clock / batch,
    }
    launches = column("heavy") + 0.4 * column("light")
    scenario = [
        m.group(1) if (m := re.search(r"(Offline|SingleStream|MultiStream|Server)", r.runtime)) else "" for r in rows
    ]
    arch = [_architecture(gpu) for gpu in figures]
    labels = {
        "all": ["all"] * len(rows),
        "device": [gpu.name if likely(r, gpu) else r.device for r, gpu in zip(rows, figures, strict=True)],
        "mode": [f"{r.device} {r.power_mode[:60]}" for r in rows],
        "arch": arch,
        "engine": [engine(r.runtime) for r in rows],
        "source": [r.source for r in rows],
        "protocol": [f"{r.source} {r.runtime}" for r in rows],
        "version": [f"{r.source} {r.runtime} {r.version}" for r in rows],
        "precision": [
            "int8" if "int8" in r.precision else "fp16" if "16" in r.precision else r.precision for r in rows
        ],
        "model": [model_name(r) for r in rows],
        "shape": [f"{model_name(r)} {r.shape}" for r in rows],
        "family": [r.family for r in rows],
        "task": [r.task for r in rows],
        "unstated": [
            "" if t.stated or graph else model_name(r) for r, t, graph in zip(rows, totals, graphs, strict=True)
        ],
        "round": [f"{r.source} {r.round}" for r in rows],
        "scenario": scenario,
        "unusual": ["" if r.usual else f"{r.source} {scenario[i]}" for i, r in enumerate(rows)],
    }
    numbers = {
        "log_macs": np.log(macs),
        "log_batch": np.log(batch),
        "log_depth": np.log(macs / macts),
        "log_params": np.log(params),
        "log_work": np.log(2 * macs * batch / tops),
        "log_launches": np.log(launches),
        "log_rate": np.log(tops),
    }
    kernels = [row_kernels(row, devices) for row in rows]
    tuned = np.array([math.log(TUNED[1]) if row.source.startswith(TUNED[0]) else 0.0 for row in rows])
    physics[KERNELS] = np.where(compiled, log_ms(kernels, constants) + tuned, np.nan)
    is_timed = ~np.isnan(physics[KERNELS])
    labels["timed"] = [engine(r.runtime) if known else "" for r, known in zip(rows, is_timed, strict=True)]
    labels["rough"] = ["" if known else "rough" for known in is_timed]
    numbers["log_time"] = np.where(is_timed, physics[KERNELS] + numbers["log_batch"], 0.0)
    return Columns({k: np.array(v) for k, v in labels.items()}, numbers, {}), physics


def row_kernels(row: Row, devices: Sequence[Gpu]) -> Timed | None:
    """What the kernel model needs of a row; None where its architecture or its device is not known."""
    return timed(row, int(_batch(row)), devices) if _graph(row) else None


def _graph(row: Row) -> Work | None:
    """The work of the row's architecture, unless the table counts another one under the same name."""
    work = work_of(row.model, row.shape)
    if work is None or row.gmacs is None:
        return work
    counted = work.dense + work.matmul + work.grouped + work.depthwise
    return work if 1 / ALIKE < counted / row.gmacs < ALIKE else None


def _from_totals(totals: Totals) -> Work:
    """The work of a network that is known by its totals only: that of a usual convolutional one."""
    return Work(
        0.97 * totals.gmacs,
        0.0,
        0.0,
        0.03 * totals.gmacs,
        totals.macts_m,
        2.5 * totals.macts_m,
        totals.params_m,
        50.0,
        20.0,
    )


def _batch(row: Row) -> float:
    if row.batch:
        return float(row.batch)
    if "1-8" in "".join(row.shape):
        return 8.0
    if "Offline" in row.runtime:
        return 256.0 if "Jetson" in row.device or "MIG" in row.device else 2048.0
    return 8.0 if "Jetson" in row.device else 64.0


def _architecture(gpu: Gpu) -> str:
    for mark, name in (
        ("Orin", "orin"), ("Xavier", "xavier"), ("Nano", "maxwell"), ("TX2", "pascal"), ("Thor", "thor"),
        ("MIG", "a100 slice"), ("A100", "a100"), ("H100", "hopper"), ("H200", "hopper"),
    ):  # fmt: skip
        if mark in gpu.name:
            return name
    return gpu.name


ALIKE = 1.25  # how far counts of one network may be apart: tables leave out attention, heads or up-sampling
# A submission to MLPerf is tuned by hand: the same ResNet-50 takes 0.66 of an ordinary int8 engine's time on an A100 at
# batch 1 and 0.73 at batch 256.
TUNED = ("mlcommons/", 0.75)
COMPILED = ("tensorrt", "fastertransformer", "dla")  # engines that launch a whole network without waiting for Python
GPU_TERMS = (
    # What a way of measuring adds, whatever the mean rests on.
    Term("mode", ("mode",)),
    Term("protocol", ("protocol",)),
    Term("version", ("version",)),
    Term("unusual", ("unusual",)),
    Term("round", ("round",)),
    Term("model protocol", ("model", "protocol")),
    Term("shape", ("shape",)),
    Term("model batch", ("model",), ("log_batch",)),
    Term("protocol device work", ("protocol", "device"), ("log_work", "log_batch")),
    # Rows whose kernels are known: what the others are off by says nothing of them. The constants of the kernels hold
    # already what is common to a generation of devices.
    Term("timed device", ("timed", "device")),
    Term("timed precision", ("timed", "arch", "precision")),
    Term("timed family", ("timed", "family")),
    Term("timed family arch", ("timed", "family", "arch")),
    Term("timed model", ("timed", "model")),
    Term("timed model arch", ("timed", "model", "arch")),
    Term("timed model precision", ("timed", "model", "precision")),
    Term("timed protocol work", ("timed", "protocol"), ("log_time",)),
    Term("timed family work", ("timed", "family"), ("log_time", "log_batch")),
    # Rows that are known by their totals.
    Term("rough", ("rough",)),
    Term("device", ("rough", "device")),
    Term("arch", ("rough", "arch")),
    Term("engine", ("rough", "engine")),
    Term("unstated", ("rough", "unstated")),
    Term("unstated round", ("rough", "unstated", "round")),
    Term("precision", ("rough", "arch", "precision")),
    Term("engine precision", ("rough", "engine", "precision")),
    Term("family", ("rough", "family")),
    Term("model", ("rough", "model")),
    Term("family engine", ("rough", "family", "engine")),
    Term("model arch", ("rough", "model", "arch")),
    Term("family arch", ("rough", "family", "arch")),
    Term("model precision", ("rough", "model", "precision")),
    Term("smooth", ("rough",), ("log_work", "log_batch", "log_depth", "log_params", "log_rate", "log_launches")),
    Term("engine work", ("rough", "engine"), ("log_work", "log_batch", "log_launches")),
    Term("engine precision work", ("rough", "engine", "precision"), ("log_work", "log_batch")),
    Term("protocol work", ("rough", "protocol"), ("log_work",)),
    Term("arch work", ("rough", "arch"), ("log_work", "log_batch")),
    Term("family work", ("rough", "family"), ("log_work", "log_batch")),
)


def mcu_columns(rows: Sequence[Row], known: Known) -> tuple[Columns, dict[str, Array]]:
    """Labels and numbers of microcontroller rows; the mean is one cycle per instruction of emulated kernels."""
    totals = [known.totals(row) for row in rows]
    macs = np.array([t.gmacs * 1e6 for t in totals])  # thousands of multiply-accumulates: at 1 MHz milliseconds
    clock = np.array([row.clock_mhz or 100.0 for row in rows])
    counted = _instructions()
    core = [_core(row.device) for row in rows]
    counts = [
        counted.get((_like(c), NEAREST.get(r.family, r.family)), (3.0, 3.0)) for c, r in zip(core, rows, strict=True)
    ]
    tuned_count, portable_count = (np.array(column) for column in zip(*counts, strict=True))
    who = [r.version.split(",")[-1].strip().lower() if "," in r.version else r.source for r in rows]
    tuned = [f"{engine(r.runtime)} {_kernels(r)}" for r in rows]
    labels = {
        "all": ["all"] * len(rows),
        "device": [r.device for r in rows],
        "core": core,
        "like": [_like(c) for c in core],
        "engine": tuned,
        "runtime": [f"{r.runtime} {_kernels(r)}" for r in rows],
        "version": [f"{r.runtime} {r.version} {_kernels(r)}" for r in rows],
        "who": who,
        "mode": [f"{r.device} {r.power_mode} {r.config} {r.clock_mhz}" for r in rows],
        "model": [model_name(r) for r in rows],
        "family": [r.family for r in rows],
        "task": [r.task for r in rows],
        "precision": [r.precision for r in rows],
    }
    numbers = {
        "log_macs": np.log(macs),
        "log_clock": np.log(clock),
        "log_tuning": np.log(
            portable_count / tuned_count
        ),  # what an engine gains by tuning differs from kernel to kernel
    }
    physics = {"cycles": macs * np.sqrt(tuned_count * portable_count) / clock}
    return Columns({k: np.array(v) for k, v in labels.items()}, numbers, {}), physics


# Families whose instructions were not counted, and the counted one with the same kind of layers.
NEAREST = {"mcunet": "mobilenetv1", "mobilenetv2": "mobilenetv1", "mobilenetv3": "mobilenetv1"}
MCU_TERMS = (
    Term("all", ("all",)),
    Term("tuning", ("all",), linear="log_tuning"),
    Term("engine tuning", ("engine",), linear="log_tuning"),
    Term("core tuning", ("core",), linear="log_tuning"),
    Term("device", ("device",)),
    Term("core", ("core",)),
    Term("engine", ("engine",)),
    Term("runtime", ("runtime",)),
    Term("version", ("version",)),
    Term("who", ("who",)),
    Term("mode", ("mode",)),
    Term("precision", ("precision",)),
    Term("device engine", ("device", "engine")),
    Term("core engine", ("core", "engine")),
    Term("model", ("model",)),
    Term("family", ("family",)),
    Term("model core", ("family", "core")),
    Term("model device", ("family", "device")),
    Term("model engine", ("family", "engine")),
    Term("model runtime", ("family", "runtime")),
    Term("model engine core", ("family", "engine", "core")),
    Term("macs", ("all",), ("log_macs",)),
    Term("engine macs", ("engine",), ("log_macs",)),
    Term("device macs", ("device",), ("log_macs",)),
    Term("runtime macs", ("runtime",), ("log_macs",)),
    Term("clock", ("core",), ("log_clock",)),
)


def _core(device: str) -> str:
    found = re.search(r"Cortex-(M\d+\+?)", device)
    core = found.group(1) if found else re.sub(r"^.*\(", "", device).rstrip(")")
    return f"{core} + accelerator" if found and ("MVP" in device or "processor" in device) else core


def _like(core: str) -> str:
    """The emulated core whose instruction counts stand for this one."""
    for mark, name in (("M85", "M55"), ("M55", "M55"), ("M7", "M7"), ("M33", "M33"), ("M4", "M4"), ("M0", "M3")):
        if core.startswith(mark):
            return name
    return "M4"


def _kernels(row: Row) -> str:
    text = f"{row.power_mode} {row.config} {row.runtime}".lower()
    for mark in ("native", "cmsis"):
        if mark in text:
            return mark
    return ""


def _instructions() -> dict[tuple[str, str], tuple[float, float]]:
    """Instructions per multiply-accumulate by core and network: of tuned and of portable kernels."""
    with (FACTS / "instructions.csv").open(newline="", encoding="utf-8") as handle:
        return {
            (record["core"], record["family"]): (float(record["tuned"]), float(record["portable"]))
            for record in csv.DictReader(line for line in handle if not line.startswith("#"))
        }


def timm_columns(rows: Sequence[Row], known: Known) -> tuple[Columns, dict[str, Array]]:
    """Totals and words of timm rows, and what the additive mean needs."""
    totals = [known.totals(row) for row in rows]
    macs, params, macts = (np.array([getattr(t, key) for t in totals]) for key in ("gmacs", "params_m", "macts_m"))
    size = np.array([float(m.group(1)) if (m := re.search(r"x(\d+)$", r.shape)) else 224.0 for r in rows])
    batch = np.array([float(r.batch or 256) for r in rows])
    stem = [re.split(r"[\d_]", r.model)[0] for r in rows]
    labels = {
        "all": ["all"] * len(rows),
        "family": [r.family for r in rows],
        "stem": stem,
        "kin": [kin(r.model) for r in rows],
        "model": [r.model for r in rows],
    }
    numbers = {
        "log_macs": np.log(macs),
        "log_macts": np.log(macts),
        "log_params": np.log(params),
        "log_size": np.log(size),
        "log_batch": np.log(batch),
        "log_depth": np.log(macs / macts),
    }
    words = {"letters": _hashed([letters(r.model) for r in rows]), "tokens": _hashed([tokens(r.model) for r in rows])}
    physics = {
        "compute": macs,
        "activations": macts,
        "weights": params / batch,
        "fixed": 1.0 / batch,
        "item": np.ones(len(rows)),
    }
    return Columns({k: np.array(v) for k, v in labels.items()}, numbers, words), physics


def kin(model: str) -> str:
    """A model's name without sizes: what its variants share."""
    name = re.sub(r"\d{3,4}", "", model)
    return re.sub(
        r"_(tiny|small|base|large|xlarge|huge|giant|nano|pico|femto|atto|mini|medium|[smltbx]|xs|xxs)(?=_|$)", "", name
    )


def tokens(model: str) -> list[str]:
    """The parts of a name between underscores, and those with their digits taken off."""
    parts = model.lower().split("_")
    return [*parts, *(stripped for part in parts if (stripped := re.sub(r"\d+", "", part)) != part and stripped)]


def letters(model: str) -> list[str]:
    """Runs of three to five characters of the name's letters."""
    text = "^" + re.sub(r"[\d_]+", "_", model.lower())
    return [text[at : at + size] for size in (3, 4, 5) for at in range(len(text) - size + 1)]


WORDS = 512  # columns that words are hashed into


def _hashed(lists: Sequence[Sequence[str]]) -> Array:
    out = np.zeros((len(lists), WORDS))
    for row, words in enumerate(lists):
        for word in set(words):
            out[row, _hash(word)] += 1.0
    return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12))


def _hash(word: str) -> int:
    """FNV-1a: the same on every machine and in every process."""
    value = 2166136261
    for byte in word.encode():
        value = (value ^ byte) * 16777619 % 2**32
    return value % WORDS


TIMM_TERMS = (
    Term("all", ("all",)),
    Term("smooth", ("all",), ("log_macs", "log_macts", "log_params", "log_size")),
    Term("family", ("family",)),
    Term("stem", ("stem",)),
    Term("kin", ("kin",)),
    Term("letters", (), (), "letters"),
    Term("tokens", (), (), "tokens"),
    Term("family smooth", ("family",), ("log_macs", "log_macts", "log_params")),
    Term("kin smooth", ("kin",), ("log_macs", "log_size")),
    Term("letters smooth", (), ("log_macs", "log_macts", "log_params", "log_size"), "letters"),
    Term("tokens smooth", (), ("log_macs", "log_depth"), "tokens"),
    Term("batch", ("all",), ("log_batch",)),
)


def columns(
    group: str, rows: Sequence[Row], known: Known, constants: Mapping[str, Array]
) -> tuple[Columns, dict[str, Array]]:
    """The columns of a group's rows and the quantities of its physical mean."""
    if group == GPU:
        return gpu_columns(rows, known, gpus(), constants)
    if group == MCU:
        return mcu_columns(rows, known)
    return timm_columns(rows, known)


def terms(group: str) -> tuple[Term, ...]:
    """The terms of a group's covariance."""
    return {GPU: GPU_TERMS, MCU: MCU_TERMS}.get(group, TIMM_TERMS)


# --- prediction -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """What a group has learned beside its rows."""

    mean: Mapping[str, float]  # factor on each quantity of the physical mean
    logs: Array  # parameters of the covariance
    stretch: Mapping[str, float] = field(default_factory=dict)  # line -> deviations that hold 90 % of unseen rows
    constants: Mapping[str, Array] = field(default_factory=dict)  # generation -> logarithms, of the kernel model


@dataclass(frozen=True)
class Prediction:
    """Milliseconds per item, with the interval that should hold nine in ten."""

    ms: float
    low: float
    high: float
    deviation: float  # of the logarithm


def mean_log(physics: Mapping[str, Array], factors: Mapping[str, float]) -> Array:
    """The logarithm of the physical mean: that of the kernels where it is known, else a sum of positive parts."""
    parts = [np.exp(factors[key]) * value for key, value in physics.items() if key != KERNELS]
    total = np.asarray(np.log(np.sum(parts, axis=0) + 1e-12))
    if KERNELS not in physics:
        return total
    return np.where(np.isnan(physics[KERNELS]), total, physics[KERNELS])


def predict(group: str, seen: Sequence[Row], measured: Array, rows: Sequence[Row], fitted: Fitted) -> list[Prediction]:
    """Predict rows of one group from other rows.

    Args:
        measured: (seen,), milliseconds per item of the rows seen.
    """
    if not rows:
        return []
    known = Known(seen)
    here, physics = columns(group, rows, known, fitted.constants)
    mean = mean_log(physics, fitted.mean)
    kernel = Kernel(terms(group), fitted.logs)
    if len(seen):
        there, physics_seen = columns(group, seen, known, fitted.constants)
        posterior = Posterior(kernel, there, np.log(measured) - mean_log(physics_seen, fitted.mean))
    else:
        posterior = Posterior(kernel, here.take(np.arange(0)), np.zeros(0))
    shift, deviation = posterior.predict(here)
    out = []
    for row, log, spread in zip(rows, mean + shift, deviation, strict=True):
        reach = fitted.stretch.get(row.line, fitted.stretch.get("", 1.645)) * spread
        out.append(Prediction(math.exp(log), math.exp(log - reach), math.exp(log + reach), float(spread)))
    return out


def parameter_names(group: str) -> list[str]:
    """Names of the covariance's parameters, in the order of `Fitted.logs`."""
    return names(terms(group))
