#!/usr/bin/env python3
"""Build a TensorRT engine from the files beside this one, on the machine that will run it, and check it there.

This file stands alone: Python 3.10 or later, its standard library, numpy and the machine's own tensorrt (10.3 to 11.x).
It is part of every deploy bundle and reads the bundle's manifest.json and bundle.json. Written after NVIDIA's
documents and headers; it has not been run with a GPU by its authors, and says in result.json what it measured.

    python3 build_engine.py                 build model.engine, check it, write result.json
    python3 build_engine.py --self-test     everything that needs no GPU
    python3 build_engine.py --probe         what this machine has, as JSON

Exit status: 0 done, 1 the engine was built but failed its check, 2 refused (the reason is printed), 3 the builder
crashed or exceeded its time.
"""

import argparse
import ctypes
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

OLDEST = (10, 3)
NEWEST_MAJOR = 11
WARM_UP_SECONDS = 0.2
MEASURE_SECONDS = 2.0
LEAST_RUNS = 50
MOST_RUNS = 5000
WORKSPACE_BYTES = 1 << 30


class RefusedError(Exception):
    """The machine or the files do not fit; the text says what was found and what to do."""


# ---------------------------------------------------------------------------------------------------------------------
# Versions: everything that differs between TensorRT releases, decided by number


@dataclass(frozen=True)
class Api:
    """How to drive one TensorRT version.

    Sources: TensorRT 10.x release notes, "Migrating from TensorRT 10.x to 11.x", NvInfer.h of 10.3 and 11.1.

    Attributes:
        version: (major, minor).
        strongly_typed: network creation flag that makes the graph's types binding; 11 knows no other way.
        type_key: where the engine inspector's JSON names a tensor's type; 10 joins it with the format.
    """

    version: tuple[int, int]
    strongly_typed: str | None
    type_key: str


def api_of(version: str) -> Api:
    """Rules of a version such as "10.3.0.30" or "11.4.1".

    Raises:
        RefusedError: too old, too new to know, or not a version.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise RefusedError(f"TensorRT calls its version {version!r}; expected something like 10.3.0")
    major, minor = int(match[1]), int(match[2])
    if (major, minor) < OLDEST:
        raise RefusedError(
            f"TensorRT {version} is too old: the graph is strongly typed int8; install 10.3 (JetPack 6.1) or later"
        )
    if major > NEWEST_MAJOR:
        raise RefusedError(
            f"TensorRT {version} is newer than this script knows (up to {NEWEST_MAJOR}.x); export the bundle again"
        )
    old = major == 10
    return Api(
        version=(major, minor),
        strongly_typed="STRONGLY_TYPED" if old else None,
        type_key="Format/Datatype" if old else "Datatype",
    )


# ---------------------------------------------------------------------------------------------------------------------
# The device, through the driver's own library: always there where a GPU can be used, and the same in every CUDA version


@dataclass(frozen=True)
class Device:
    """The GPU that CUDA puts first."""

    name: str
    capability: str  # "8.7"
    driver: int  # CUDA version of the driver, 12060


class Cuda:
    """The few driver calls that running an engine needs. Source: CUDA Driver API reference."""

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise RefusedError(
                "no NVIDIA driver here (libcuda.so.1 cannot be loaded); run this on the device itself"
            ) from error
        self.call("cuInit", ctypes.c_uint(0))
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        if count.value < 1:
            raise RefusedError("the NVIDIA driver sees no GPU")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self.device = device
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a driver function; a status other than 0 raises."""
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} failed with CUDA driver status {status}")

    def describe(self) -> Device:
        """What the device is."""
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, ctypes.c_int(256), self.device)
        numbers = []
        for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
            value = ctypes.c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), self.device)
            numbers.append(value.value)
        driver = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(driver))
        return Device(text.value.decode("utf-8", "replace"), f"{numbers[0]}.{numbers[1]}", driver.value)

    def allocate(self, size: int) -> ctypes.c_void_p:
        """Device memory."""
        pointer = ctypes.c_void_p()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(1, size)))
        return pointer

    def stream(self) -> ctypes.c_void_p:
        """A stream that does not wait for the default one."""
        made = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(made), ctypes.c_uint(1))
        return made

    def event(self) -> ctypes.c_void_p:
        """An event that measures time."""
        made = ctypes.c_void_p()
        self.call("cuEventCreate", ctypes.byref(made), ctypes.c_uint(0))
        return made


# ---------------------------------------------------------------------------------------------------------------------
# Files


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path.name} cannot be read ({error}); copy the bundle again") from error
    if not isinstance(value, dict):
        raise RefusedError(f"{path.name} is not a JSON object; copy the bundle again")
    return value


def check_manifest(folder: Path, expected: str | None) -> None:
    """Refuse a bundle of which a file is missing, changed or added under a listed name's folder.

    Args:
        folder: the bundle.
        expected: SHA-256 of manifest.json itself, as the run that made the bundle recorded it; None skips that.
    """
    manifest = folder / "manifest.json"
    if expected is not None and (not manifest.is_file() or digest(manifest) != expected.lower()):
        raise RefusedError(
            "manifest.json is not the one that was expected; get the bundle again from the run that made it"
        )
    files = read_json(manifest).get("files")
    if not isinstance(files, dict) or not files:
        raise RefusedError("manifest.json lists no files; copy the bundle again")
    for name, entry in sorted(files.items()):
        path = folder / name
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise RefusedError(f"manifest.json lists {name!r}, which is not a plain file name; do not use this bundle")
        if path.is_symlink() or not path.is_file():
            raise RefusedError(f"{name} is missing; copy the bundle again")
        if digest(path) != entry["sha256"]:
            raise RefusedError(f"{name} is not the file that was exported (its SHA-256 differs); copy the bundle again")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        with open(temporary, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


def load_arrays(path: Path) -> dict[str, Any]:
    """Arrays of an .npz file; never unpickles."""
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


# ---------------------------------------------------------------------------------------------------------------------
# Building


def build(trt: Any, model: bytes, plan_request: dict[str, Any], log: Any) -> tuple[bytes, dict[str, Any]]:
    """Parse and build with one optimisation profile.

    Args:
        trt: the tensorrt module.
        model: the ONNX file's bytes.
        plan_request: "profile": input -> [smallest, typical, largest] shape; "timing_cache": path or None.
        log: a text file that gets every message.

    Returns:
        The serialised engine, and facts about how it was built.
    """
    api = api_of(trt.__version__)

    class Logger(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            log.write(f"{str(severity).rpartition('.')[2]} {message}\n")
            log.flush()

    logger = Logger()
    builder = trt.Builder(logger)
    flags = 0
    if api.strongly_typed is not None:
        flags = 1 << int(getattr(trt.NetworkDefinitionCreationFlag, api.strongly_typed))
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise RefusedError(f"TensorRT {trt.__version__} refuses the graph: {_parser_errors(parser)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    # Float layers keep float32: with TF32 their results differ by more than a quantisation step may.
    config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for name, shapes in sorted(plan_request["profile"].items()):
        profile.set_shape(name, *[tuple(shape) for shape in shapes])
    if plan_request["profile"]:
        config.add_optimization_profile(profile)
    cache_path = plan_request.get("timing_cache")
    cache = None
    if cache_path:
        stored = Path(cache_path).read_bytes() if Path(cache_path).is_file() else b""
        cache = config.create_timing_cache(stored)
        config.set_timing_cache(cache, False)
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - started
    if plan is None:
        raise RefusedError("TensorRT could not build the engine; build.log has its last words")
    facts: dict[str, Any] = {"build_seconds": seconds, "tf32": False, "tensorrt": trt.__version__}
    if cache_path:
        data = bytes(config.get_timing_cache().serialize())
        write_whole(Path(cache_path), data)
        facts["timing_cache_sha256"] = hashlib.sha256(data).hexdigest()
    return bytes(plan), facts


def _parser_errors(parser: Any) -> str:
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        found.append(f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}")
    return "; ".join(found[:3]) or "no reason given"


# ---------------------------------------------------------------------------------------------------------------------
# Checking


def judge(golden: Any, found: Any, step: float | None, bounds: dict[str, float]) -> dict[str, Any]:
    """Compare an output with the golden one.

    Args:
        golden: what onnxruntime gave for the same inputs; float array, batch first.
        found: what the engine gave; the same shape.
        step: quantisation step of the output, None where it is float.
        bounds: "max_steps" and "within_one_step" (with a step), "mean_of_spread" (without), "top1_agreement".

    Returns:
        The figures, and "passed" with "failed": the names of the bounds that were broken.
    """
    import numpy as np

    first, second = np.asarray(golden, np.float64), np.asarray(found, np.float64)
    if first.shape != second.shape:
        return {"passed": False, "failed": [f"shape {second.shape} instead of {first.shape}"]}
    figures: dict[str, Any] = {
        "elements": int(first.size),
        "not_a_number": int((np.isnan(first) != np.isnan(second)).sum()),
    }
    difference = np.abs(np.nan_to_num(first) - np.nan_to_num(second))
    spread = float(np.nan_to_num(first).std())
    figures.update(max_abs=float(difference.max()), mean_abs=float(difference.mean()), spread=spread)
    failed = ["not_a_number"] if figures["not_a_number"] else []
    if step is not None:
        rounding = 4.0 * float(np.finfo(np.float32).eps) * np.maximum(np.abs(first), np.abs(second))
        figures["max_steps"] = figures["max_abs"] / step
        figures["within_one_step"] = float((difference <= step + np.nan_to_num(rounding)).mean())
        if not figures["max_steps"] <= bounds["max_steps"]:
            failed.append("max_steps")
        if not figures["within_one_step"] >= bounds["within_one_step"]:
            failed.append("within_one_step")
    elif not figures["mean_abs"] <= bounds["mean_of_spread"] * spread:
        failed.append("mean_of_spread")
    if first.ndim == 2 and first.shape[1] > 1:
        figures["top1_agreement"] = float((first.argmax(axis=1) == second.argmax(axis=1)).mean())
        if not figures["top1_agreement"] >= bounds["top1_agreement"]:
            failed.append("top1_agreement")
    return {**figures, "passed": not failed, "failed": failed}


class Engine:
    """An engine that is loaded and can be run for one batch after another."""

    def __init__(self, trt: Any, cuda: Cuda, plan: bytes) -> None:
        self.trt, self.cuda = trt, cuda
        self.logger = trt.Logger(trt.Logger.WARNING)
        self.runtime = trt.Runtime(self.logger)
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise RefusedError("TensorRT cannot load the engine that it built")
        self.context = self.engine.create_execution_context()
        self.stream = cuda.stream()
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        self.inputs = [name for name in names if self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if name not in self.inputs]
        self.memory: dict[str, tuple[int, ctypes.c_void_p]] = {}

    def prepare(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Copy inputs to the device, set shapes and addresses; returns empty host arrays for the outputs."""
        import numpy as np

        arrays: dict[str, Any] = {}
        for name in self.inputs:
            wanted = np.dtype(self.trt.nptype(self.engine.get_tensor_dtype(name)))
            arrays[name] = np.ascontiguousarray(inputs[name], dtype=wanted)
            if not self.context.set_input_shape(name, tuple(arrays[name].shape)):
                raise RefusedError(f"the engine takes no input {name!r} of shape {arrays[name].shape}")
        results: dict[str, Any] = {}
        for name in self.outputs:
            shape = tuple(self.context.get_tensor_shape(name))
            results[name] = np.empty(shape, dtype=np.dtype(self.trt.nptype(self.engine.get_tensor_dtype(name))))
        for name, array in {**arrays, **results}.items():
            size, pointer = self.memory.get(name, (0, ctypes.c_void_p()))
            if size < array.nbytes:
                if size:
                    self.cuda.call("cuMemFree_v2", pointer)
                pointer = self.cuda.allocate(array.nbytes)
                self.memory[name] = (array.nbytes, pointer)
            self.context.set_tensor_address(name, int(pointer.value or 0))
        for name, array in arrays.items():
            source = array.ctypes.data_as(ctypes.c_void_p)
            self.cuda.call("cuMemcpyHtoD_v2", self.memory[name][1], source, ctypes.c_size_t(array.nbytes))
        return results

    def enqueue(self) -> None:
        """Put one run on the stream."""
        if not self.context.execute_async_v3(int(self.stream.value or 0)):
            raise RuntimeError("TensorRT could not run the engine")

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs of one batch."""
        results = self.prepare(inputs)
        self.enqueue()
        self.cuda.call("cuStreamSynchronize", self.stream)
        for name, array in results.items():
            sink = array.ctypes.data_as(ctypes.c_void_p)
            self.cuda.call("cuMemcpyDtoH_v2", sink, self.memory[name][1], ctypes.c_size_t(array.nbytes))
        return results

    def latency(self, inputs: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Milliseconds of one run on the device, by CUDA events; copies to and from it are not included."""
        self.prepare(inputs)
        begin, end = self.cuda.event(), self.cuda.event()
        deadline = time.monotonic() + min(WARM_UP_SECONDS, seconds)
        while time.monotonic() < deadline:
            self.enqueue()
            self.cuda.call("cuStreamSynchronize", self.stream)
        found: list[float] = []
        deadline = time.monotonic() + seconds
        while len(found) < LEAST_RUNS or (time.monotonic() < deadline and len(found) < MOST_RUNS):
            self.cuda.call("cuEventRecord", begin, self.stream)
            self.enqueue()
            self.cuda.call("cuEventRecord", end, self.stream)
            self.cuda.call("cuEventSynchronize", end)
            elapsed = ctypes.c_float()
            self.cuda.call("cuEventElapsedTime", ctypes.byref(elapsed), begin, end)
            found.append(elapsed.value)
        return {**percentiles(found), "origin": "measured", "clock": "CUDA events, no copies, no CUDA graph"}

    def layers(self) -> list[dict[str, Any]]:
        """What the engine's inspector says about its layers; empty where it says nothing."""
        inspector = self.engine.create_engine_inspector()
        text = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        found = json.loads(text).get("Layers", [])
        return [layer for layer in found if isinstance(layer, dict)]


def percentiles(values: list[float]) -> dict[str, Any]:
    """Median and spread of a sample, by nearest rank."""
    ordered = sorted(values)

    def rank(share: float) -> float:
        return ordered[min(len(ordered) - 1, max(0, round(share * (len(ordered) - 1))))]

    return {
        "runs": len(ordered),
        "p5_ms": rank(0.05),
        "median_ms": rank(0.5),
        "p95_ms": rank(0.95),
        "p99_ms": rank(0.99),
    }


def int8_nodes(layers: list[dict[str, Any]], type_key: str) -> set[str]:
    """ONNX nodes in layers whose first input is int8."""
    found: set[str] = set()
    for layer in layers:
        inputs = layer.get("Inputs") or [{}]
        kind = str(inputs[0].get(type_key, "")).lower()
        if "int8" in kind and "uint8" not in kind:
            found.update(re.findall(r"\[ONNX Layer: ([^\]]*)\]", str(layer.get("Metadata", ""))))
    return found


def run_checks(engine: Engine, request: dict[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    """Parity with the golden outputs and latency at each batch of the request."""
    result: dict[str, Any] = {"parity": None, "latency": {}}
    inputs = load_arrays(folder / "golden_inputs.npz") if (folder / "golden_inputs.npz").is_file() else {}
    if inputs:
        golden = load_arrays(folder / "golden_outputs.npz")
        found = run_in_batches(engine, inputs, int(request["batches"][2]))
        steps = {request["outputs"][0]: request["output_step"]}
        result["parity"] = {
            name: judge(golden[name], found[name], steps.get(name), request["bounds"]) for name in sorted(golden)
        }
        for batch in request["latency_batches"]:
            result["latency"][str(batch)] = engine.latency(repeat(inputs, int(batch)), seconds)
    layers = engine.layers()
    covered = int8_nodes(layers, api_of(engine.trt.__version__).type_key)
    weighted = request["weighted_nodes"]
    result["int8_share"] = sum(name in covered for name in weighted) / len(weighted) if weighted else 0.0
    result["float_nodes"] = [name for name in weighted if name not in covered]
    result["layers"] = len(layers)
    return result


def run_in_batches(engine: Engine, inputs: dict[str, Any], largest: int) -> dict[str, Any]:
    """Outputs for all rows of `inputs`, at most `largest` rows at a time."""
    import numpy as np

    rows = len(next(iter(inputs.values())))
    parts: dict[str, list[Any]] = {}
    for start in range(0, rows, largest):
        for name, array in engine.run({k: v[start : start + largest] for k, v in inputs.items()}).items():
            parts.setdefault(name, []).append(array)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def repeat(inputs: dict[str, Any], batch: int) -> dict[str, Any]:
    """The first `batch` rows, repeated from the start where there are fewer."""
    import numpy as np

    return {name: np.take(array, np.arange(batch) % len(array), axis=0) for name, array in inputs.items()}


# ---------------------------------------------------------------------------------------------------------------------
# The command


def probe() -> dict[str, Any]:
    """What this machine has: Python, TensorRT, numpy, GPU; each missing thing with its reason."""
    found: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine(), "missing": []}
    if importlib.util.find_spec("numpy") is None:
        found["missing"].append("numpy (pip install numpy)")
    if importlib.util.find_spec("tensorrt") is None:
        found["missing"].append("tensorrt (part of JetPack; elsewhere pip install tensorrt)")
    else:
        try:
            found["tensorrt"] = str(importlib.import_module("tensorrt").__version__)
            api_of(found["tensorrt"])
        except ImportError as error:
            found["missing"].append(f"tensorrt (installed, but cannot be imported: {error})")
        except RefusedError as error:
            found["missing"].append(str(error))
    try:
        found["device"] = asdict(Cuda().describe())
    except (RefusedError, RuntimeError) as error:
        found["missing"].append(str(error))
    return found


def power_mode() -> str | None:
    """Jetson's power mode, None elsewhere."""
    try:
        told = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return " ".join(told.stdout.split()) or None


def check_capability(device: Device, request: dict[str, Any], accept: bool) -> None:
    """Refuse a device of another compute capability than the target's."""
    wanted = request["compute_capability"]
    if wanted and device.capability != wanted and not accept:
        raise RefusedError(
            f"the bundle is for {request['device']} (compute capability {wanted}), but this GPU is {device.name} "
            f"({device.capability}); use that device, or pass --any-device for an engine that only this GPU runs"
        )


def child_main(folder: Path, arguments: argparse.Namespace) -> int:
    """Build in this process; the parent survives when TensorRT does not."""
    request = read_json(folder / "bundle.json")
    trt = importlib.import_module("tensorrt")
    plan_request = {"profile": request["profile"], "timing_cache": arguments.timing_cache}
    with open(folder / "build.log", "w", encoding="utf-8") as log:
        try:
            plan, facts = build(trt, (folder / "model.onnx").read_bytes(), plan_request, log)
        except RefusedError as error:
            write_whole(folder / ".built.json", json.dumps({"refused": str(error)}).encode())
            return 2
    write_whole(folder / "model.engine", plan)
    write_whole(folder / ".built.json", json.dumps(facts).encode())
    return 0


def main_build(folder: Path, arguments: argparse.Namespace) -> int:
    """Check the files and the machine, build in a child, check the engine, write result.json."""
    check_manifest(folder, arguments.manifest_sha256)
    request = read_json(folder / "bundle.json")
    machine = probe()
    if machine["missing"]:
        raise RefusedError("this machine lacks " + "; ".join(machine["missing"]))
    device = Device(**machine["device"])
    check_capability(device, request, arguments.any_device)
    for stale in ("result.json", "model.engine", ".built.json"):
        (folder / stale).unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), "--child", "--folder", str(folder)]
    if arguments.timing_cache:
        command += ["--timing-cache", str(Path(arguments.timing_cache).resolve())]
    try:
        status = subprocess.run(command, timeout=arguments.seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        print(
            f"the builder did not end within {arguments.seconds:.0f} s; build.log has its last words", file=sys.stderr
        )
        return 3
    built = read_json(folder / ".built.json") if (folder / ".built.json").is_file() else {}
    (folder / ".built.json").unlink(missing_ok=True)
    if "refused" in built:
        raise RefusedError(str(built["refused"]))
    if status != 0:
        print(f"the builder crashed (status {status}); build.log has its last words", file=sys.stderr)
        return 3
    result = {
        "machine": machine,
        "power_mode": power_mode(),
        "target": request["target"],
        "onnx_sha256": request["onnx_sha256"],
    }
    result.update(built, engine_sha256=digest(folder / "model.engine"))
    trt = importlib.import_module("tensorrt")
    engine = Engine(trt, Cuda(), (folder / "model.engine").read_bytes())
    result.update(run_checks(engine, request, folder, arguments.measure_seconds))
    parity = result["parity"]
    result["passed"] = None if parity is None else all(entry["passed"] for entry in parity.values())
    write_whole(folder / "result.json", (json.dumps(result, indent=1, sort_keys=True) + "\n").encode())
    print(json.dumps({key: result[key] for key in ("passed", "engine_sha256", "int8_share", "latency")}, indent=1))
    return 1 if result["passed"] is False else 0


def main_self_test(folder: Path, arguments: argparse.Namespace) -> int:
    """Everything that needs no GPU: files, golden arrays, the judgement itself, TensorRT's version where it is."""
    check_manifest(folder, arguments.manifest_sha256)
    request = read_json(folder / "bundle.json")
    told: dict[str, Any] = {"manifest": "every file is the one that was exported"}
    if (folder / "golden_outputs.npz").is_file():
        import numpy as np

        golden = load_arrays(folder / "golden_outputs.npz")
        inputs = load_arrays(folder / "golden_inputs.npz")
        rows = {len(array) for array in (*golden.values(), *inputs.values())}
        if len(rows) != 1 or set(request["inputs"]) != set(inputs) or set(request["outputs"]) != set(golden):
            raise RefusedError("golden inputs and outputs do not belong together; get the bundle again")
        for name, array in golden.items():
            step = request["output_step"] if name == request["outputs"][0] else None
            same = judge(array, array, step, request["bounds"])
            wrong = judge(array, array + 1000.0 * (step or 0.0) + 10.0 * array.std() + 1.0, step, request["bounds"])
            if not same["passed"] or wrong["passed"] or not np.isfinite(array).all():
                raise RefusedError(f"the check of output {name!r} cannot tell right from wrong; get the bundle again")
        told["golden"] = f"{rows.pop()} samples"
    if importlib.util.find_spec("tensorrt") is None:
        told["tensorrt"] = "not installed here"
    else:
        told["tensorrt"] = asdict(api_of(importlib.import_module("tensorrt").__version__))
    print(json.dumps(told, indent=1, sort_keys=True))
    return 0


def main(command_line: list[str] | None = None) -> int:
    """Run; see the text at the top."""
    parser = argparse.ArgumentParser(description="Build and check a TensorRT engine from this bundle.")
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--self-test", action="store_true", help="check everything that needs no GPU")
    parser.add_argument("--probe", action="store_true", help="print what this machine has, as JSON")
    parser.add_argument("--any-device", action="store_true", help="build also where the compute capability differs")
    parser.add_argument("--timing-cache", help="file that keeps kernel timings between builds")
    parser.add_argument("--manifest-sha256", help="SHA-256 that manifest.json must have")
    parser.add_argument("--seconds", type=float, default=1800.0, help="time limit of the build")
    parser.add_argument("--measure-seconds", type=float, default=MEASURE_SECONDS, help="per batch size")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(command_line)
    folder = arguments.folder.resolve()
    try:
        if arguments.probe:
            print(json.dumps(probe(), sort_keys=True))
            return 0
        if arguments.child:
            return child_main(folder, arguments)
        if arguments.self_test:
            return main_self_test(folder, arguments)
        return main_build(folder, arguments)
    except RefusedError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
