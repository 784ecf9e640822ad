"""The last lines of a run: where its files are and what they are worth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.contracts.metric import read_metric
from compress.manifest import read_manifest
from compress.records import STAGES, read_record

SHIPPED = "shipped student"  # as the verify stage calls its costs


def summarize(folder: Path, reached: str, repeated: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """(for machines, for people), from what the run's folder says.

    Args:
        folder: the run's.
        reached: the last finished stage.
        repeated: stages that did work this time.
    """
    files: dict[str, dict[str, Any]] = {
        name: {"sha256": row.sha256, "size": row.size, "origin": row.origin}
        for name, row in read_manifest(folder).items()
    }
    result: dict[str, Any] = {"folder": str(folder), "reached": reached, "repeated": list(repeated), "files": files}
    lines = []
    verified = None
    if STAGES.index(reached) >= STAGES.index("verify"):
        verified = read_record(folder / f"{STAGES.index('verify')}_verify")
    if verified is not None:
        values = verified.values
        result |= {"accuracy": values["accuracy"], "gates": values["gates"], "artifacts": values["artifacts"]}
        result["costs"] = {name: _brief(cost) for name, cost in values["costs"].items()}
        quantized = read_record(folder / f"{STAGES.index('quantize')}_quantize")
        precision = quantized.values["precision"]["shipped"] if quantized is not None else ""
        lines += _table(values, precision)
    lines += [f"{name}  {_size(size)}" for name, size in _grouped(files).items()]
    page = folder / "report.html"
    if reached == "report" and page.exists():
        lines.append(f"report: {page}")
    elif reached != "report":
        lines.append(f"finished up to {reached}: {folder}")
    return result, "\n".join(lines)


def _grouped(files: Mapping[str, dict[str, Any]]) -> dict[str, int]:
    """What a person looks for, with sizes; a folder counts as one."""
    sizes: dict[str, int] = {}
    for name, row in files.items():
        if "log" in row["origin"] or not _shown(name):
            continue
        stage, _, rest = name.partition("/")
        top, _, below = rest.partition("/")
        place = f"{stage}/{top}{'/' if below else ''}"
        sizes[place] = sizes.get(place, 0) + row["size"]
    return sizes


def _shown(name: str) -> bool:
    return (
        not name.endswith(("curve.json", "golden.npz", "float.onnx", "checks.json", "candidates.json", "search.json"))
        and not name.startswith("1_select/finalist.")  # distill has it as well
        and "report" not in name
    )


def _table(values: Mapping[str, Any], precision: str) -> list[str]:
    costs, accuracy = values["costs"], values["accuracy"]
    metric = read_metric(values)
    rows = [("", metric.name, "MACs", "weights", "latency")]
    for name, scored in (("teacher", "teacher"), ("float student", "float student"), (SHIPPED, values["final"])):
        cost = costs[name]
        low, high = cost["interval_ms"]
        rows.append(
            (
                f"{name} ({precision})" if name == SHIPPED and precision else name,
                metric.value(accuracy[scored]),
                f"{cost['macs'] / 1e6:.2f} M",
                _size(cost["weight_bytes"]),
                f"{cost['latency_ms']:.3g} ms {cost['origin']} ({low:.3g} to {high:.3g})",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(
        f"{metric.name} measured on {values['examples']:,} test examples, the shipped student's as {values['final']};"
        " MACs and weights counted"
    )
    teacher, shipped = costs["teacher"], costs[SHIPPED]
    if shipped["latency_ms"] > teacher["latency_ms"]:
        lines.append(
            f"note: the student is {shipped['latency_ms'] / teacher['latency_ms']:.2g} times as slow as its teacher at "
            f"batch 1 ({shipped['origin']}); --budget latency_ms={teacher['latency_ms']:.3g} admits none that is slower"
        )
    passed = sum(gate["passed"] for gate in values["gates"])
    lines.append(f"gates: {passed} of {len(values['gates'])} hold")
    lines += [f"{row['name']}: {row['run']}" for row in values["artifacts"]]
    return lines


def _brief(cost: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in cost.items() if name not in ("layers",)}


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
