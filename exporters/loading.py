"""Run what was made, whatever it is: `exporters.load(path).run(inputs)`.

| path | runs |
|---|---|
| `model.onnx` | onnxruntime on this processor |
| `model.engine` | TensorRT or TensorRT for RTX on this machine's GPU |
| a folder with `model.c`, `model.h`, `model.json` | the C on its emulated Cortex-M core, or compiled for this machine |
| a deploy bundle | the engine that was built in it |

Every file is checked against the manifest of its run or bundle first (see `profiles.trust`), an engine also against
this machine: one that was built for another TensorRT, GPU or model is refused, or built again where the ONNX file is
named. No engine has been run by the authors, who had no GPU; the rest of the way is tested.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exporters.device import identity
from exporters.device.files import RefusedError
from exporters.errors import ExportError
from profiles import atomic, external_data
from profiles import trust as vouched
from profiles.measure import TensorSpec
from profiles.runners import cuda_driver, on_cortex_m, on_onnxruntime, on_tensorrt, tensorrt_engine

Arrays = Mapping[str, NDArray[Any]]
ENGINES = (".engine", ".plan", ".trt")
HOST = "host"
C_FILES = ("model.c", "model.h", "model.json")
BUNDLE = "bundle.json"


class _Runs(Protocol):
    """What every runner's loaded model can do."""

    def run(self, inputs: Any) -> Mapping[str, NDArray[Any]]: ...


class Model:
    """A model that is ready to run. Close it, or use `with`.

    Attributes:
        inputs, outputs: name, shape and dtype of each; None in a shape is a size that the caller chooses.
        runtime: what runs it, with its version.
        sha256: of the file (of model.c for a C folder).
    """

    def __init__(
        self,
        loaded: _Runs,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        runtime: str,
        sha256: str,
        *,
        flat: bool = False,
    ) -> None:
        self._flat = flat  # takes samples as rows of numbers, whatever shape the caller's have
        self.inputs, self.outputs, self.runtime, self.sha256 = inputs, outputs, runtime, sha256
        self._loaded: _Runs | None = loaded

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs by name for inputs by name.

        Raises:
            ExportError: names, shapes or types do not fit the model, or it is closed.
            ProfileError: the runtime refused, such as a shape outside an engine's optimisation profiles.
        """
        if self._loaded is None:
            raise ExportError("the model is closed", fix="load it again")
        if self._flat:
            inputs = {name: _rows(array) for name, array in inputs.items()}
        check_inputs(self.inputs, inputs)
        found = self._loaded.run(inputs)
        return {name: np.asarray(value) for name, value in found.items()}

    def submit(self, inputs: Arrays) -> "tensorrt_engine.Pending":
        """Start a run and return at once; `result()` of what comes back waits. Engines only.

        Raises:
            ExportError: as `run`, or the runtime runs one thing after another.
        """
        if not isinstance(self._loaded, tensorrt_engine.Loaded):
            raise ExportError(f"{self.runtime} starts nothing in the background", fix="use run(inputs)")
        check_inputs(self.inputs, inputs)
        return self._loaded.submit(inputs)

    def close(self) -> None:
        """Free buffers, files and processes; closing twice does nothing."""
        loaded, self._loaded = self._loaded, None
        if isinstance(loaded, tensorrt_engine.Loaded | on_cortex_m.Loaded | on_cortex_m.HostLoaded):
            loaded.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    path: str | Path,
    *,
    core: str | None = None,
    threads: int = 1,
    sha256: str | None = None,
    trust: bool = False,
    onnx: str | Path | None = None,
    target: str | None = None,
) -> Model:
    """Make an artifact ready to run.

    Args:
        path: see the table at the top of this file.
        core: of a C folder: "host" compiles it for this machine, "cortex-m4" and the like emulate that core; None is
            the core that it was generated for.
        threads: of onnxruntime.
        sha256: what the file's SHA-256 must be; no manifest is asked then.
        trust: load it although nobody vouches for it.
        onnx: the model that an engine was built from: where the engine does not fit this machine, it is built again
            from this file, once, in the user's cache folder. With an engine without weights, they come from it.
        target: what to build again for, such as "jetson"; needed with `onnx` where that may happen.

    Raises:
        UntrustedError: nobody vouches for the file, or it is not what was vouched for.
        ExportError: it is nothing that can be run, or was built for another machine.
        ProfileError: what runs it is missing here, or refuses it.
    """
    path = Path(path)
    if path.is_dir() and (path / BUNDLE).is_file():
        return _bundle(path, sha256, trust)
    if path.is_dir() or path.name in C_FILES:
        return _c(path if path.is_dir() else path.parent, core, sha256, trust)
    if not path.is_file():
        raise ExportError(f"there is nothing at {path}", fix="correct the path")
    if path.suffix == ".onnx":
        return _onnx(path, threads, sha256, trust)
    if path.suffix in ENGINES:
        return _engine(path, sha256, trust, None if onnx is None else Path(onnx), target)
    raise ExportError(
        f"{path.name} is nothing that can be run; there are .onnx, {', '.join(ENGINES)}, folders with generated C, and "
        "deploy bundles",
        fix="name one of these",
    )


def check_inputs(specs: tuple[TensorSpec, ...], inputs: Arrays) -> None:
    """Refuse what does not fit: what was given, what there is, what to do.

    Raises:
        ExportError: a name is missing or unknown, or an array has another type or shape.
    """
    there = ", ".join(f"{spec.name!r} {spec.dtype} {shown(spec.shape)}" for spec in specs)
    if not isinstance(inputs, Mapping):
        raise ExportError(
            f"inputs are a {type(inputs).__name__}, not arrays by name; the model's inputs are {there}",
            fix=f"pass {{{specs[0].name!r}: array}}",
        )
    missing = [spec.name for spec in specs if spec.name not in inputs]
    unknown = sorted(set(inputs) - {spec.name for spec in specs})
    if missing or unknown:
        words = [f"input {missing[0]!r} is missing"] if missing else []
        words += [f"there is no input {unknown[0]!r}"] if unknown else []
        raise ExportError(f"{' and '.join(words)}; the model's inputs are {there}", fix="pass exactly these, by name")
    for spec in specs:
        given = inputs[spec.name]
        if not isinstance(given, np.ndarray):
            raise ExportError(
                f"input {spec.name!r} is a {type(given).__name__}, not an array",
                fix="pass numpy arrays: np.asarray(...)",
            )
        fits = len(given.shape) == len(spec.shape) and all(
            want is None or want == have for want, have in zip(spec.shape, given.shape, strict=True)
        )
        if not fits:
            extra = ""
            if len(given.shape) == len(spec.shape) - 1:
                extra = "; a batch of one sample is array[None]"
            raise ExportError(
                f"input {spec.name!r} takes {shown(spec.shape)}, given was {shown(given.shape)}",
                fix=f"pass an array of that shape{extra}",
            )
        if given.dtype != spec.dtype:
            raise ExportError(
                f"input {spec.name!r} takes {spec.dtype}, given was {given.dtype}",
                fix=f"convert it: array.astype(np.{spec.dtype})",
            )


def shown(shape: tuple[int | None, ...]) -> str:
    """(None, 3) -> "(any, 3)"."""
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _onnx(path: Path, threads: int, sha256: str | None, trust: bool) -> Model:
    found = vouched.check(path, sha256=sha256, trust=trust)
    for name in external_data.locations(path):  # none may lie outside the folder, and each must be listed, too
        vouched.check(path.parent / name, trust=trust)
    loaded = on_onnxruntime.load(path, threads=threads)
    version = importlib.import_module("onnxruntime").__version__
    return Model(loaded, loaded.inputs, loaded.outputs, f"onnxruntime {version}", found)


def _c(folder: Path, core: str | None, sha256: str | None, trust: bool) -> Model:
    absent = [name for name in C_FILES if not (folder / name).is_file()]
    if absent:
        raise ExportError(
            f"{folder} has no {absent[0]}, so it is neither generated C nor a deploy bundle",
            fix="pass the folder that the exporter wrote",
        )
    found = vouched.check(folder / "model.c", sha256=sha256, trust=trust)
    for name in C_FILES[1:]:
        vouched.check(folder / name, trust=trust or sha256 is not None)
    if core == HOST:
        loaded: on_cortex_m.HostLoaded | on_cortex_m.Loaded = on_cortex_m.load_on_host(folder)
        runtime = "C compiled for this machine"
    else:
        loaded = on_cortex_m.load(folder, core)
        runtime = f"C on an emulated {loaded.core.name}"
    inputs, outputs = on_cortex_m.specs(loaded.facts)
    return Model(loaded, inputs, outputs, runtime, found, flat=True)


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    """(N, ...) -> (N, elements); what is no array, or has no samples, is left to the check."""
    if not isinstance(array, np.ndarray) or array.ndim < 3 or not len(array):
        return array
    return array.reshape(len(array), -1)


def _bundle(folder: Path, sha256: str | None, trust: bool) -> Model:
    engine = folder / "model.engine"
    if not engine.is_file():
        raise ExportError(
            f"the bundle {folder.name} has no engine yet",
            fix=f"start {folder / 'run.sh'} on the device; the bundle's model.onnx can be loaded here",
        )
    return _engine(engine, sha256, trust, folder / "model.onnx", None)


def _engine(path: Path, sha256: str | None, trust: bool, onnx: Path | None, target: str | None) -> Model:
    found = vouched.check(path, sha256=sha256, trust=trust)
    reasons = misfits(path, onnx)
    if reasons:
        if onnx is None or target is None:
            raise ExportError(
                f"{path.name} does not fit this machine: {'; '.join(reasons)}",
                fix="build it again here, or name its ONNX file and target: load(path, onnx=..., target=...)",
            )
        from exporters import rebuilding

        path = rebuilding.engine(onnx, target, sha256=None, trust=trust)
        found = vouched.check(path)
    loaded = on_tensorrt.load(path, sha256=found, traits=_traits(path, onnx))
    return Model(loaded, loaded.inputs, loaded.outputs, loaded.runtime, found)


def misfits(path: Path, onnx: Path | None = None) -> list[str]:
    """Why an engine cannot be used on this machine, by the record beside it; empty where it can, or has no record."""
    if not identity.path_of(path).is_file():
        return []  # somebody else's: TensorRT itself will say
    try:
        record = identity.read(path)
    except RefusedError as error:
        return [str(error)]
    package = str(record["package"])
    try:
        version = str(importlib.import_module(package).__version__)
    except ImportError:
        return [f"it needs {package} {record['tensorrt']}, which is not installed"]
    device = None
    if cuda_driver.driver() is not None:
        device = {"name": cuda_driver.device_name(), "capability": cuda_driver.compute_capability()}
    sum_of = atomic.sha256(onnx) if onnx is not None and onnx.is_file() else None
    return identity.misfits(record, engine=path, package=package, version=version, device=device, onnx=sum_of)


def _traits(path: Path, onnx: Path | None) -> tensorrt_engine.Traits | None:
    """How an engine without weights gets them; None lets the record speak."""
    if not identity.path_of(path).is_file():
        return None
    record = identity.read(path)
    if "STRIP_PLAN" not in record["flags"]:
        return None
    if onnx is None:
        raise ExportError(f"{path.name} was built without weights", fix="name its ONNX file: load(path, onnx=...)")
    from exporters import for_tensorrt

    plain = atomic.sha256(onnx) == record["onnx_sha256"]
    weights = onnx.read_bytes() if plain else for_tensorrt.prepare(onnx).SerializeToString(deterministic=True)
    return tensorrt_engine.Traits(bool(record["version_compatible"]), None, bytes(weights))
