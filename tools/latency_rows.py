"""Rows of published latency tables: what was run on what, kept apart from how long it took.

Two sets of columns are known, that of `published_latency.csv` and that of `timm_throughput.csv`; the header says which
one a file has. What a prediction may look at is in `Row`; what was measured is returned beside it, so that no
prediction can see it. Of the free text in `notes` only the name of a board's configuration is read.
"""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
FACTS = Path(__file__).parent / "latency"

PUBLISHED = (
    "row_id", "device", "power_mode", "core_clock_mhz", "runtime", "runtime_version", "model", "family", "task",
    "input_shape", "batch", "precision", "ms_per_item", "params_m", "gmacs_per_item", "macts_m_per_item", "fit_ok",
    "source_repo",
)  # fmt: skip
TIMM = ("device", "runtime", "model", "family", "img_size", "batch", "precision", "params_m", "gmacs", "macts_m")
TIMES = ("ms_per_item", "latency_ms", "throughput_per_s", "samples_per_s")


class TableError(ValueError):
    """A table that cannot be read; the message says what to do."""


@dataclass(frozen=True)
class Row:
    """What one measurement was taken on. Nothing here depends on its result."""

    identity: str
    table: str  # "published" or "timm"
    device: str
    power_mode: str
    clock_mhz: float | None
    runtime: str
    version: str
    config: str  # of the board, where a submission measured several
    model: str
    family: str
    task: str
    shape: str
    batch: int | None  # None where the source does not say
    precision: str
    params_m: float | None
    gmacs: float | None  # multiply-accumulates per item, in billions
    macts_m: float | None  # output elements of convolutions and linear layers per item, in millions
    source: str  # repository, without the round of a benchmark that has several
    round: str  # that round, or the version of the runtime
    usual: bool  # fixed shape, one engine, no eager framework

    @property
    def line(self) -> str:
        """What is judged together: a device class, or one table of timm."""
        if self.table == "timm":
            return f"{self.device} | {self.runtime}"
        for name in ("A100", "H100", "H200", "Jetson"):
            if self.device.startswith(name):
                return name
        return (
            "GPU, other"
            if re.search(r"\b(RTX|GTX|Tesla|GeForce|Quadro|GH200|[ABLTV]\d{1,3})\b", self.device)
            else "MCU"
        )

    @property
    def cell(self) -> str:
        """Device and model: what an unseen row usually shares with no seen one."""
        return f"{self.device} / {self.model}"


def read_table(path: Path) -> tuple[list[Row], Array]:
    """The rows of a table and their milliseconds per item; NaN where the table has no usable time.

    Raises:
        TableError: the file is not there, its columns are neither of the two sets, or a number is not one.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            header = reader.fieldnames or []
            records = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path} cannot be read: {error}; pass a table in CSV, UTF-8") from error
    wanted = TIMM if "img_size" in header or "samples_per_s" in header else PUBLISHED
    missing = [name for name in wanted if name not in header and name not in ("row_id", *TIMES)]
    if missing:
        raise TableError(
            f"{path} lacks the columns {', '.join(missing)}; it must have those of published_latency.csv "
            f"({', '.join(PUBLISHED)}) or those of timm_throughput.csv ({', '.join(TIMM)})"
        )
    make = _timm if wanted is TIMM else _published
    rows = [make(record, index, path) for index, record in enumerate(records, 2)]
    return rows, np.array([_time(record) for record in records], float)


def _published(record: Mapping[str, str], line: int, path: Path) -> Row:
    number = _Numbers(record, line, path)
    batch = record["batch"].strip()
    source = re.sub(r"_v[\d.]+$", "", record["source_repo"])
    config = re.search(r"board/config ([^\s;]+)", record.get("notes") or "")
    return Row(
        record.get("row_id") or str(line), "published", record["device"], record["power_mode"],
        number("core_clock_mhz"), record["runtime"], record["runtime_version"], config.group(1) if config else "",
        record["model"], record["family"], record["task"], record["input_shape"],
        int(batch) if batch.isdigit() and int(batch) else None, record["precision"], number("params_m"),
        number("gmacs_per_item"), number("macts_m_per_item"), source,
        record["source_repo"] if source != record["source_repo"] else record["runtime_version"],
        record["fit_ok"] == "1",
    )  # fmt: skip


def _timm(record: Mapping[str, str], line: int, path: Path) -> Row:
    number = _Numbers(record, line, path)
    batch, size = number("batch"), record["img_size"]
    return Row(
        f"{record['device']} {record['runtime']} {record['model']} {size}", "timm", record["device"], "", None,
        record["runtime"], "", "", record["model"], record["family"], "classification", f"3x{size}x{size}",
        int(batch) if batch else None, record["precision"], number("params_m"), number("gmacs"), number("macts_m"),
        "huggingface/pytorch-image-models", "", True,
    )  # fmt: skip


def timm_rows(path: Path) -> tuple[list[Row], Array]:
    """The rows of the stored, wide form of timm's tables: one line per model and size, columns per table."""
    with path.open(newline="", encoding="utf-8") as handle:
        lines = list(handle)
    tables = [line[1:].strip().split("|") for line in lines if line.startswith("#") and "|" in line]
    rows, times = [], []
    for index, record in enumerate(csv.DictReader(line for line in lines if not line.startswith("#"))):
        for at, device, runtime, precision in tables:
            if not record[f"samples_per_s_{at}"]:
                continue
            rows.append(
                _timm(
                    {
                        **record, "device": device, "runtime": runtime, "precision": precision,
                        "batch": record[f"batch_{at}"],
                    },
                    index, path,
                )
            )  # fmt: skip
            times.append(1000.0 / float(record[f"samples_per_s_{at}"]))
    return rows, np.array(times)


class _Numbers:
    def __init__(self, record: Mapping[str, str], line: int, path: Path) -> None:
        self.record, self.line, self.path = record, line, path

    def __call__(self, column: str) -> float | None:
        text = (self.record[column] or "").strip()
        if not text:
            return None
        try:
            value = float(text)
        except ValueError as error:
            raise TableError(f"{self.path}, line {self.line}: {column} is {text!r}, not a number") from error
        return value if value > 0 and math.isfinite(value) else None


def _time(record: Mapping[str, str]) -> float:
    """Milliseconds per item, from the derived column or from what it is derived from."""

    def number(column: str) -> float:
        try:
            value = float(record.get(column) or "nan")
        except ValueError:
            return math.nan
        return value if value > 0 and math.isfinite(value) else math.nan

    batch = number("batch")
    rate = number("throughput_per_s") if "throughput_per_s" in record else number("samples_per_s")
    choices = (number("ms_per_item"), number("latency_ms") / batch, 1000 / rate)
    return next((value for value in choices if math.isfinite(value)), math.nan)


@dataclass(frozen=True)
class Gpu:
    """Figures of one GPU in one mode."""

    name: str
    units: float
    clock_mhz: float
    fp32: float  # tera-operations per second
    tf32: float
    fp16: float
    int8: float
    bandwidth_gbs: float
    capability: str  # CUDA compute capability
    cache_kib: float  # of the last level

    def tops(self, precision: str) -> float:
        """The peak of the units that a runtime would use for this precision."""
        if "int8" in precision or "fp8" in precision:
            return self.int8
        return self.fp16 if "16" in precision else self.tf32


def gpus() -> list[Gpu]:
    """The GPUs of latency/gpus.csv. A rate that a device lacks is that of the next wider format."""
    found = []
    with (FACTS / "gpus.csv").open(newline="", encoding="utf-8") as handle:
        for record in csv.DictReader(line for line in handle if not line.startswith("#")):
            fp32 = float(record["fp32_tflops"])
            fp16 = float(record["fp16_tflops"] or fp32)
            found.append(
                Gpu(
                    record["name"], float(record["units"]), float(record["clock_mhz"]), fp32,
                    float(record["tf32_tflops"] or fp32), fp16, float(record["int8_tops"] or fp16),
                    float(record["bandwidth_gbs"]), record["capability"], float(record["cache_kib"]),
                )
            )  # fmt: skip
    return found


def gpu_of(row: Row, known: Sequence[Gpu]) -> Gpu:
    """The GPU of a row, in the clocks that the row states."""
    name = row.device
    aliases = {
        "A100 (form factor not stated)": "A100-SXM4-40GB",
        "A100-40GB (form factor not stated)": "A100-SXM4-40GB",
        "Jetson AGX Xavier": "Jetson AGX Xavier 32GB",
        "Jetson AGX Orin": "Jetson AGX Orin 64GB",
        "Jetson AGX Orin (memory size not stated)": "Jetson AGX Orin 64GB",
        "Jetson Nano 2GB": "Jetson Nano 4GB",
        "Jetson Orin Nano Super 8GB": "Jetson Orin Nano 8GB (Super)",
    }
    name = aliases.get(name, name)
    # The "max power" of the published rows is the 918 MHz of JetPack 6.1: they take a tenth longer than those of an
    # Orin Nano at 1020 MHz.
    if name == "Jetson Orin NX 16GB" and "SUPER" in row.power_mode:
        name = "Jetson Orin NX 16GB (Super mode)"
    if name == "Jetson AGX Orin 32GB" and ("MAXN" in row.power_mode or "MaxQ" in row.power_mode):
        name = "Jetson AGX Orin 64GB"  # the submissions' developer kit: 16 processors at 1.3 GHz, 32 GB of memory
    words = set(re.findall(r"[A-Za-z]+|\d+", name.lower()))

    def likeness(gpu: Gpu) -> float:
        other = set(re.findall(r"[A-Za-z]+|\d+", gpu.name.lower()))
        return len(words & other) - 0.1 * len(words ^ other)

    gpu = max(known, key=likeness)
    text = row.power_mode
    stated = re.search(r"gpu (\d+(?:\.\d+)?) MHz", text, re.IGNORECASE)
    clock = row.clock_mhz or (float(stated.group(1)) if stated else None)
    if clock is None and "MaxQ" in text:
        clock = 0.65 * gpu.clock_mhz  # the middle of those submissions that state theirs
    scale = clock / gpu.clock_mhz if clock else 1.0
    memory = re.search(r"emc (\d+(?:\.\d+)?) MHz", text, re.IGNORECASE)
    top = {"Orin": 3200.0, "AGX Xavier": 2133.0, "Xavier NX": 1866.0}
    fastest = next((value for key, value in top.items() if key in gpu.name), 0.0)
    slower = float(memory.group(1)) / fastest if memory and fastest and float(memory.group(1)) else 1.0
    return Gpu(
        gpu.name, gpu.units, gpu.clock_mhz * scale, gpu.fp32 * scale, gpu.tf32 * scale, gpu.fp16 * scale,
        gpu.int8 * scale, gpu.bandwidth_gbs * min(slower, 1.0), gpu.capability, gpu.cache_kib,
    )  # fmt: skip


def likely(row: Row, gpu: Gpu) -> bool:
    """Whether a GPU of the list is the row's device, rather than the nearest one that there is."""
    words = re.findall(r"[a-z]+|\d+", row.device.lower())
    other = set(re.findall(r"[a-z]+|\d+", gpu.name.lower()))
    return (
        bool(words) and words[0] in other and len([word for word in words[:3] if word in other]) >= min(len(words), 2)
    )


ENGINES = (  # part of a runtime's name, its engine; the first that fits
    ("dla", "dla"), ("tensorrt", "tensorrt"), ("paddle-trt", "tensorrt"), ("tensorflow lite", "tflm"),
    ("tflite", "tflm"), ("tflm", "tflm"), ("xla", "xla"), ("tensorflow", "tensorflow"),
    ("fastertransformer", "fastertransformer"),
    ("torchscript", "torchscript"), ("torch.compile", "inductor"), ("pytorch", "pytorch"), ("mxnet", "mxnet"),
    ("paddle", "paddle"), ("x-cube", "cubeai"), ("stmicro", "cubeai"), ("stedge", "cubeai"), ("krai", "cubeai"),
    ("hale", "hale"), ("plumerai", "plumerai"), ("microtvm", "microtvm"), ("tinyengine", "tinyengine"),
    ("cmsis", "cmsis-nn"), ("onnc", "onnc"), ("renesas", "renesas"),
)  # fmt: skip


def engine(runtime: str) -> str:
    """What runs the kernels, without its version and scenario."""
    text = runtime.lower()
    for mark, name in ENGINES:
        if mark in text:
            return name
    return re.sub(r"[\d.]+", "", text.split("(")[0]).strip()
