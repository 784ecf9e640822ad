"""Learn what tools/score_latency.py predicts with, and say how far off it is on rows that it has not seen.

    python tools/fit_protocols.py published_latency.csv timm_throughput.csv --evaluate   # prints, writes nothing
    python tools/fit_protocols.py published_latency.csv timm_throughput.csv --write      # tools/latency/*

Rows are left out by `cell` (device and model together: the model may be known from another device, the device from
other models), by `model` (everywhere at once), by `twins` (all models whose parameters agree to two digits: one network
under several names and in several sizes), by `family` of models, by `device`, or one by one (`row`): each in folds, and
in each fold the mean, the covariance and the width of the intervals are learned from the other folds alone.
The reference is t = t0 + s * MACs per device, runtime and precision, fitted on the same rows (non-negative least
squares on the relative error); rows of a group with fewer than two rows or of a model without a count of
multiply-accumulates have no reference. `--anchors 2` leaves whole protocols out but for two rows drawn at random.
Needs scipy and torch; nothing else here does.
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize, nnls

sys.path.insert(0, str(Path(__file__).parent))
import fit_latency
import latency_memory
import latency_model as model
import score_latency
from gaussian_process import Columns, Pairs, negative_log_likelihood
from latency_memory import fold_of
from latency_model import Fitted, Known, Prediction, group_of
from latency_rows import FACTS, Array, Row, engine, gpus, read_table

# Logarithms of what the parts of the physical mean are expected to be multiplied with.
STARTS = {
    "compute": 0.5, "outputs": 5.5, "matmul": 2.0, "grouped": 1.6, "depthwise": 1.0, "activations": 0.4, "weights": 0.4,
    "heavy": 1.9, "light": 1.1, "eager": 2.7, "unfused": 0.0, "fixed": 3.7, "cycles": 0.3,
}  # fmt: skip
STEPS = 40  # of the search for the covariance
CROWD, MOST = 4, 450  # rows that the covariance is learned from: of one crowd, and in all
SPREAD, LENGTH, NOISE = np.log(0.15), np.log(2.0), np.log(0.05)


def crowd(rows: Sequence[Row]) -> Array:
    """(rows,), how many rows share each row's device, model, engine and precision."""
    keys = [(row.cell, engine(row.runtime), row.precision) for row in rows]
    counts = Counter(keys)
    return np.array([counts[key] for key in keys], float)


def thinned(rows: Sequence[Row], most: int, limit: int) -> NDArray[np.int_]:
    """Positions of at most `most` rows of each crowd, spread over it, and of at most `limit` rows in all.

    One table with eighty batch sizes of one model would else decide what is thought of all other models.
    """
    crowds: dict[tuple[str, str, str], list[int]] = {}
    for index, row in enumerate(rows):
        crowds.setdefault((row.cell, engine(row.runtime), row.precision), []).append(index)
    kept = []
    for members in crowds.values():
        members.sort(key=lambda index: (rows[index].batch or 0, rows[index].identity))
        step = max(len(members) / most, 1.0)
        kept += [members[int(at * step)] for at in range(min(len(members), most))]
    kept.sort(key=lambda index: hashlib.md5(rows[index].identity.encode()).hexdigest())
    return np.array(sorted(kept[:limit]))


def fit_mean(group: str, physics: dict[str, Array], logs: Array, weights: Array) -> dict[str, float]:
    """Logarithmic factors of the physical mean, by least squares on a robust loss of log errors."""
    keys = [key for key in physics if key != model.KERNELS]
    if group in (model.GPU, model.MCU):
        start = np.array([STARTS[key] for key in keys])
    else:  # a whole table, whose units are its own: each part explains about a third at the start
        start = np.array([np.median(logs - np.log(physics[key])) - 1.0 for key in keys])

    def residuals(x: Array) -> Array:
        error = model.mean_log(physics, dict(zip(keys, x, strict=True))) - logs
        return np.concatenate([error * weights, 0.5 * (x - start)])

    found = least_squares(residuals, start, loss="soft_l1", f_scale=0.3)
    return dict(zip(keys, found.x.tolist(), strict=True))


def kernel_constants(rows: Sequence[Row], measured: Array) -> dict[str, Array]:
    """Constants of the kernel model by generation, from those of the rows that are fit for it: see fit_latency."""
    devices = gpus()
    kept: list[fit_latency.Row] = []
    for row, ms in zip(rows, measured, strict=True):
        slowed = "MaxQ" in row.power_mode and not row.clock_mhz and "gpu " not in row.power_mode
        if not row.usual or row.precision not in fit_latency.PRECISIONS or slowed:
            continue
        if (found := model.row_kernels(row, devices)) is None:
            continue
        source = f"{row.source} / {row.runtime}"
        kept.append(
            fit_latency.Row(
                row.identity, row.model, row.family, row.device, source, found.generation, found.hardware, found.batch,
                ms * found.batch, found.kernels, row.precision,
            )
        )  # fmt: skip
    joint = fit_latency.fit(kept).logs
    out = {}
    for name in sorted({row.capability for row in kept}):
        own = [row for row in kept if row.capability == name and row.is_tensorrt]
        out[name] = fit_latency.fit(own, joint).logs if own else joint
    return out


def fit_kernel(group: str, seen: Columns, y: Array, start: Array | None = None, steps: int = 60) -> Array:
    """Parameters of the covariance by maximum a posteriori."""
    names = model.parameter_names(group)
    centre = np.array([NOISE if n == "noise" else SPREAD if n.endswith(".spread") else LENGTH for n in names])
    width = np.array([1.0 if n == "noise" else 1.2 if n.endswith(".spread") else 0.8 for n in names])
    pairs = Pairs(model.terms(group), seen, seen)

    def objective(x: Array) -> tuple[float, Array]:
        try:
            value, gradient = negative_log_likelihood(pairs, x, y)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros(len(x))
        z = (x - centre) / width
        return value + 0.5 * float(z @ z), gradient + z / width

    found = minimize(
        objective,
        centre if start is None else start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(c - 6, c + 4) for c in centre],
        options={"maxiter": steps},
    )
    return np.asarray(found.x)


def fit(group: str, rows: Sequence[Row], measured: Array, start: Array | None = None, steps: int = 60) -> Fitted:
    """The mean and the covariance of one group, from its rows."""
    known = Known(rows)
    constants = kernel_constants(rows, measured) if group == model.GPU else {}
    seen, physics = model.columns(group, rows, known, constants)
    logs = np.log(measured)
    mean = fit_mean(group, physics, logs, 1.0 / np.sqrt(crowd(rows)))
    few = thinned(rows, CROWD, MOST)
    residual = logs - model.mean_log(physics, mean)
    return Fitted(mean, fit_kernel(group, seen.take(few), residual[few], start, steps), constants=constants)


# --- evaluation -------------------------------------------------------------------------------------------------------

SCHEMES: Mapping[str, Callable[[Row], str]] = {
    "cell": lambda row: row.cell,
    "model": lambda row: model.model_name(row),
    "twins": lambda row: f"{row.params_m:.2g}" if row.params_m else row.model,
    "family": lambda row: row.family,
    "device": lambda row: row.device,
    "row": lambda row: f"{row.identity} {row.device}",
}
FEW = 30  # rows of a line below which its intervals take the deviations of its whole group


def held_out(
    group: str, rows: Sequence[Row], measured: Array, scheme: str, folds: int = 5, salt: str = ""
) -> list[Prediction]:
    """Every row of one group, predicted from the folds that it is not in. Intervals hold 90 % of the other folds."""
    fold = np.array([fold_of(SCHEMES[scheme](row), folds, salt) for row in rows])
    found: dict[int, Prediction] = {}
    for number in sorted(set(fold.tolist())):
        there, here = np.flatnonzero(fold != number).tolist(), np.flatnonzero(fold == number).tolist()
        given = [rows[i] for i in there]
        fitted = fit(group, given, measured[there], steps=STEPS)
        out = model.predict(group, given, measured[there], [rows[i] for i in here], fitted)
        found.update(zip(here, out, strict=True))
    predictions = [found[i] for i in range(len(rows))]
    widened = list(predictions)
    for number in sorted(set(fold.tolist())):
        there = np.flatnonzero(fold != number).tolist()
        factors = deviations([rows[i] for i in there], [predictions[i] for i in there], measured[there])
        for i in np.flatnonzero(fold == number).tolist():
            widened[i] = widen(predictions[i], factors.get(rows[i].line, factors[""]))
    return widened


def deviations(rows: Sequence[Row], predictions: Sequence[Prediction], measured: Array) -> dict[str, float]:
    """Line -> how many of its own deviations a row is off at most, in nine of ten rows; "" is for any other line.

    A split-conformal interval (Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005) with the
    process's deviation as the measure of what is usual.
    """
    off = np.array([abs(np.log(m / p.ms)) / p.deviation for p, m in zip(predictions, measured, strict=True)])
    lines = np.array([row.line for row in rows])

    def nine_of_ten(values: Array) -> float:
        level = min(np.ceil((len(values) + 1) * 0.9) / max(len(values), 1), 1.0)
        return float(np.quantile(values, level)) if len(values) else 1.645

    out = {str(line): nine_of_ten(off[lines == line]) for line in np.unique(lines) if np.sum(lines == line) >= FEW}
    return {**out, "": nine_of_ten(off)}


def widen(prediction: Prediction, factor: float) -> Prediction:
    """The prediction with an interval of so many deviations."""
    reach = float(np.exp(factor * prediction.deviation))
    return replace(prediction, low=prediction.ms / reach, high=prediction.ms * reach)


def reference(seen: Sequence[Row], measured: Array, rows: Sequence[Row]) -> list[Prediction | None]:
    """t = t0 + s * MACs of the batch, per device, runtime and precision."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for index, row in enumerate(seen):
        if row.gmacs:
            groups.setdefault((row.device, row.runtime, row.precision), []).append(index)
    out: list[Prediction | None] = []
    for row in rows:
        members = groups.get((row.device, row.runtime, row.precision), [])
        if len(members) < 2 or not row.gmacs:
            out.append(None)
            continue
        terms = np.array([[1.0 / (seen[i].batch or 1), seen[i].gmacs or 0.0] for i in members])
        factors, _ = nnls(terms / measured[members][:, None], np.ones(len(members)))
        ms = float(factors @ [1.0 / (row.batch or 1), row.gmacs])
        out.append(Prediction(ms, ms, ms, 0.0) if ms > 0 else None)
    return out


def reference_held_out(
    rows: Sequence[Row], measured: Array, scheme: str, folds: int = 5, salt: str = ""
) -> list[Prediction | None]:
    """The reference on the same folds."""
    fold = np.array([fold_of(SCHEMES[scheme](row), folds, salt) for row in rows])
    out: list[Prediction | None] = [None] * len(rows)
    for number in sorted(set(fold.tolist())):
        there, here = np.flatnonzero(fold != number).tolist(), np.flatnonzero(fold == number).tolist()
        for i, p in zip(
            here, reference([rows[i] for i in there], measured[there], [rows[i] for i in here]), strict=True
        ):
            out[i] = p
    return out


def protocol(row: Row) -> str:
    """Who measured how, on what, in which precision: what two anchors are for."""
    return f"{row.device} | {row.source} | {row.runtime} | {row.precision}"


def anchored(
    group: str, rows: Sequence[Row], measured: Array, anchors: int, seed: int, folds: int = 5
) -> tuple[list[Row], list[Prediction], Array]:
    """Rows of protocols that are known by a few rows alone, drawn at random; everything else of the protocol is hidden.

    Returns:
        The rows that were not drawn, their predictions and their measured times.
    """
    rng = np.random.default_rng(seed)
    names = np.array([protocol(row) for row in rows])
    chosen = np.zeros(len(rows), bool)
    for name in np.unique(names):
        members = np.flatnonzero(names == name)
        if len(members) > anchors:
            chosen[rng.choice(members, anchors, replace=False)] = True
    fold = np.array([fold_of(name, folds) for name in names])
    kept: list[Row] = []
    found: list[Prediction] = []
    times: list[float] = []
    for number in range(folds):
        there = np.flatnonzero((fold != number) | chosen).tolist()
        here = np.flatnonzero((fold == number) & ~chosen).tolist()
        given, asked = [rows[i] for i in there], [rows[i] for i in here]
        fitted = fit(group, given, measured[there], steps=STEPS)
        found += model.predict(group, given, measured[there], asked, fitted)
        kept += asked
        times += measured[here].tolist()
    factors = deviations(kept, found, np.array(times))  # widths of these folds: said as such
    return kept, [widen(p, factors.get(r.line, factors[""])) for r, p in zip(kept, found, strict=True)], np.array(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", type=Path)
    parser.add_argument("timm", type=Path)
    parser.add_argument("--write", action="store_true", help="write tools/latency/published.csv, timm.csv, fitted.toml")
    parser.add_argument("--evaluate", action="store_true", help="print errors on rows left out")
    parser.add_argument("--schemes", default="cell,model,family", help=f"of {', '.join(SCHEMES)}")
    parser.add_argument("--group", default="", help="only groups whose name contains this: gpu, mcu, 3090, i9, ...")
    parser.add_argument("--anchors", type=int, default=-1, help="rows known per protocol; -1: do not try this")
    parser.add_argument("--draws", type=int, default=3, help="of anchors, and of the folds")
    options = parser.parse_args()
    rows, times = [], []
    for path in (options.published, options.timm):
        more, measured = read_table(path)
        rows += [row for row, ms in zip(more, measured, strict=True) if np.isfinite(ms)]
        times += [ms for ms in measured if np.isfinite(ms)]
    groups = [name for name in sorted({group_of(row) for row in rows}) if options.group in name]
    texts: dict[str, str] = {}
    for group in groups:
        index = [i for i, row in enumerate(rows) if group_of(row) == group]
        here, measured = [rows[i] for i in index], np.array([times[i] for i in index])
        if options.evaluate:
            for scheme in options.schemes.split(","):
                evaluate(group, here, measured, scheme, options.draws)
        if options.anchors >= 0 and group in (model.GPU, model.MCU):
            for seed in range(options.draws):
                kept, found, known = anchored(group, here, measured, options.anchors, seed)
                title = f"{options.anchors} anchors per protocol, draw {seed}"
                print(score_latency.table(score_latency.scores(kept, found, known), title), flush=True)
        if options.write:
            texts[group] = learn(group, here, measured)
    if options.write:
        latency_memory.store(options.published, options.timm)
        path = FACTS / "fitted.toml"
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        path.write_text(
            "# Written by tools/fit_protocols.py; latency_model.py and gaussian_process.py say what the keys mean.\n\n"
            + latency_memory.replaced(old, texts),
            encoding="utf-8",
        )


def evaluate(group: str, rows: Sequence[Row], measured: Array, scheme: str, draws: int) -> None:
    """Print errors of rows left out, and those of the reference, for several draws of the folds."""
    for draw in range(draws):
        found = held_out(group, rows, measured, scheme, salt=str(draw))
        base = reference_held_out(rows, measured, scheme, salt=str(draw))
        both = [i for i, p in enumerate(base) if p is not None]
        print(score_latency.table(score_latency.scores(rows, found, measured), f"by {scheme}, draw {draw}"))
        some = [rows[i] for i in both]
        ours = score_latency.scores(some, [found[i] for i in both], measured[both])
        print(score_latency.table(ours, "  where the reference predicts: ours"))
        print(
            score_latency.table(score_latency.scores(some, [base[i] for i in both], measured[both]), "  reference"),
            flush=True,
        )


def learn(group: str, rows: Sequence[Row], measured: Array) -> str:
    """One group's constants from all of its rows, as TOML; interval widths from rows left out."""
    scheme = "cell" if group in (model.GPU, model.MCU) else "model"
    all_rows: list[Row] = []
    found: list[Prediction] = []
    for draw in range(3):
        all_rows += rows
        found += held_out(group, rows, measured, scheme, salt=str(draw))
    fitted = replace(fit(group, rows, measured, steps=STEPS), stretch=deviations(all_rows, found, np.tile(measured, 3)))
    lines = score_latency.scores(all_rows, found, np.tile(measured, 3))
    comment = "\n".join(
        f"{name}: {s.rows // 3} rows left out by {scheme}, three draws of five folds: median error "
        f"{s.median_error:.1%}, 90th percentile {s.p90_error:.1%}, {s.inside_interval:.0%} inside the interval"
        for name, s in lines.items()
    )
    return latency_memory.fitted_text(group, fitted, comment)


if __name__ == "__main__":
    main()
