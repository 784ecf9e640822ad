"""The stored rows and constants that predictions of published tables rest on.

latency/published.csv and latency/timm.csv are facts from public tables, one line per measurement (timm: one line per
model and image size); each line of the first names its file and commit. latency/fitted.toml holds what
tools/fit_protocols.py learned from them.
"""

import csv
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

import latency_kernels
import latency_model
import numpy as np
from latency_model import Fitted, Prediction, group_of
from latency_rows import FACTS, Array, Row, read_table, timm_rows

STORED = (
    "row_id", "device", "power_mode", "core_clock_mhz", "runtime", "runtime_version", "model", "family", "task",
    "input_shape", "batch", "precision", "ms_per_item", "params_m", "gmacs_per_item", "macts_m_per_item", "fit_ok",
    "source_repo", "source_path", "source_commit", "notes",
)  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """Rows with their times, and the constants of each group."""

    rows: tuple[Row, ...]
    measured: Array  # (rows,), milliseconds per item
    fitted: Mapping[str, Fitted]

    def holds(self, rows: Sequence[Row]) -> list[bool]:
        """Which rows are stored: the same run of the same source."""
        known = {_key(row) for row in self.rows}
        return [_key(row) in known for row in rows]

    def predict(self, rows: Sequence[Row], folds: int = 5) -> list[Prediction]:
        """Milliseconds per item of every row. A stored row never sees a stored row of its device and model."""
        out: dict[int, Prediction] = {}
        stored = self.holds(rows)
        for group in sorted({group_of(row) for row in rows}):
            here = [index for index, row in enumerate(rows) if group_of(row) == group]
            fitted, seen = self._of(group)
            fresh = [index for index in here if not stored[index]]
            parts = [(fresh, seen)] if fresh else []
            for fold in range(folds):
                part = [index for index in here if stored[index] and fold_of(rows[index].cell, folds) == fold]
                if part:
                    parts.append((part, [at for at in seen if fold_of(self.rows[at].cell, folds) != fold]))
            for part, there in parts:
                given = [self.rows[at] for at in there]
                asked = [rows[index] for index in part]
                found = latency_model.predict(group, given, self.measured[there], asked, fitted)
                out.update(zip(part, found, strict=True))
        return [out[index] for index in range(len(rows))]

    def _of(self, group: str) -> tuple[Fitted, list[int]]:
        """Constants and positions of the rows of a group. A table that is not stored takes those of the nearest one."""
        if group not in self.fitted:
            group = nearest(group, sorted(set(self.fitted) - {latency_model.GPU, latency_model.MCU}))
        return self.fitted[group], [at for at, row in enumerate(self.rows) if group_of(row) == group]


def nearest(group: str, known: Sequence[str]) -> str:
    """The stored table whose name shares most words with an unknown one."""

    def words(text: str) -> set[str]:
        return set(text.lower().replace("|", " ").replace(",", " ").split())

    return max(known, key=lambda name: (len(words(name) & words(group)), name))


def fold_of(text: str, folds: int, salt: str = "") -> int:
    """A fold that depends on the text alone: not on the order of rows, nor on the machine."""
    return int(hashlib.md5((salt + text).encode()).hexdigest(), 16) % folds


def _key(row: Row) -> tuple[str, ...]:
    if row.table == "timm":
        return (row.line, row.model, row.shape, row.precision)
    return (
        row.identity, row.device, row.power_mode, row.runtime, row.version, row.model, row.shape, str(row.batch),
        row.precision,
    )  # fmt: skip


@lru_cache(maxsize=1)
def load() -> Memory:
    """The memory that is stored beside the tools."""
    rows, measured = stored()
    return Memory(tuple(rows), measured, read_fitted(FACTS / "fitted.toml"))


def stored() -> tuple[list[Row], Array]:
    """The stored rows and their milliseconds per item."""
    rows, measured = read_table(FACTS / "published.csv")
    more, times = timm_rows(FACTS / "timm.csv")
    return [*rows, *more], np.concatenate([measured, times])


def read_fitted(path: Path) -> dict[str, Fitted]:
    """The constants of each group, from TOML."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    out = {}
    for name, content in raw.items():
        spreads = content["covariance"]
        logs = np.log([float(spreads[key]) for key in latency_model.parameter_names(name)])
        mean = {key: float(np.log(value)) for key, value in content["mean"].items()}
        constants = {
            generation: np.log([float(values[key]) for key in latency_kernels.NAMES])
            for generation, values in content.get("kernels", {}).items()
        }
        stretch = {key: float(value) for key, value in content["deviations"].items()}
        out[name] = Fitted(mean, logs, stretch, constants)
    return out


def replaced(old: str, texts: Mapping[str, str]) -> str:
    """The TOML of several groups with some of them written anew; the others stay as they are."""
    parts = re.split(r"(?m)^(?=\[\"[^\"]+\"\]$)", old)[1:]
    kept = {part[2 : part.index('"]')]: part.rstrip() + "\n" for part in parts}
    return "\n".join(text for _, text in sorted({**kept, **texts}.items()))


def fitted_text(name: str, fitted: Fitted, comment: str) -> str:
    """One group's constants as TOML."""
    lines = [f"[{_quoted(name)}]", *(f"# {line}" for line in comment.splitlines())]
    lines.append(f"[{_quoted(name)}.deviations]  # of the logarithm that hold 90 % of unseen rows")
    lines += [f"{_quoted(key)} = {value:.3f}" for key, value in sorted(fitted.stretch.items())]
    for generation, constants in sorted(fitted.constants.items()):
        lines.append(f"[{_quoted(name)}.kernels.{_quoted(generation)}]  # of profiles/latency/nvidia_gpu.py")
        pairs = zip(latency_kernels.NAMES, np.exp(constants), strict=True)
        lines += [f"{key} = {float(value):.5g}" for key, value in pairs]
    lines.append(f"[{_quoted(name)}.mean]  # factor on each part")
    lines += [f"{key} = {float(np.exp(value)):.5g}" for key, value in fitted.mean.items()]
    lines.append(f"[{_quoted(name)}.covariance]  # spreads and lengths of natural logarithms")
    names = latency_model.parameter_names(name)
    lines += [f"{_quoted(key)} = {float(np.exp(value)):.4g}" for key, value in zip(names, fitted.logs, strict=True)]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "'") + '"'


def store(published: Path, timm: Path) -> None:
    """Write the stored rows from the original tables: the columns that predictions read, and the sources."""
    with published.open(newline="", encoding="utf-8") as handle:
        records = list(csv.DictReader(handle))
    read, _ = read_table(published)
    with (FACTS / "published.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, STORED, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for record, row in zip(records, read, strict=True):
            writer.writerow({**record, "notes": f"board/config {row.config}" if row.config else ""})
    with timm.open(newline="", encoding="utf-8") as handle:
        records = list(csv.DictReader(handle))
    tables = list(dict.fromkeys((r["device"], r["runtime"], r["precision"]) for r in records))
    models: dict[tuple[str, ...], dict[str, str]] = {}
    for r in records:
        key = tuple(r[name] for name in ("model", "family", "img_size", "params_m", "gmacs", "macts_m"))
        at = tables.index((r["device"], r["runtime"], r["precision"]))
        models.setdefault(key, {}).update({f"batch_{at}": r["batch"], f"samples_per_s_{at}": r["samples_per_s"]})
    names = [f"{name}_{at}" for at in range(len(tables)) for name in ("batch", "samples_per_s")]
    with (FACTS / "timm.csv").open("w", newline="", encoding="utf-8") as handle:
        handle.write("# huggingface/pytorch-image-models, folder results; tables:\n")
        handle.writelines(f"# {at}|{'|'.join(table)}\n" for at, table in enumerate(tables))
        plain = csv.writer(handle, lineterminator="\n")
        plain.writerow(["model", "family", "img_size", "params_m", "gmacs", "macts_m", *names])
        for key, values in models.items():
            plain.writerow([*key, *(values.get(name, "") for name in names)])
