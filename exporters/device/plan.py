"""From an ONNX file to a serialised engine ("plan"): the only place where a network is built with TensorRT."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .api import RTX, Api, api_of
from .files import RefusedError, write_whole

PARTS = 3  # of what the parser says, the most that an error repeats


def build(
    trt: Any, model: bytes, request: dict[str, Any], log: Any, told: Callable[[str, int, int], None] | None = None
) -> tuple[bytes, dict[str, Any]]:
    """Parse a model and build its engine.

    Args:
        trt: the tensorrt (or tensorrt_rtx) module.
        model: the ONNX file's bytes.
        request: see `exporters.engine_request`. "profiles": one or more of input -> [smallest, typical, largest] shape;
            everything else may be left out: "tf32", "workspace_mib", "hardware", "version_compatible",
            "strip_weights", "optimisation_level", "only_cached_timings", "timing_cache" (a path), "int8" and "fp16"
            (what the graph holds, for weakly typed releases), "capabilities" (ahead of time: "SM80", ...), "dla".
        log: a text file that gets every message.
        told: called with a phase, its step and its number of steps, where the release reports them.

    Returns:
        The engine, and facts about how it was built. Nothing in them differs between equal builds but
        "build_seconds".

    Raises:
        RefusedError: the release cannot do what is asked, the parser refuses the graph, or the builder gives up.
    """
    api = api_of(trt.__version__, trt.__name__)
    _check_request(api, request, trt.__version__)
    logger = _logger(trt, log)
    builder = trt.Builder(logger)
    dla = request.get("dla")
    calibrated = dla is not None and api.dla_by_calibration
    network = builder.create_network(_network_flags(trt, api, calibrated))
    parser = trt.OnnxParser(network, logger)
    compatible = bool(request.get("version_compatible")) or request.get("hardware", "none") != "none"
    if api.instance_norm_flag and compatible:
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    if dla is not None and api.dla_by_graph:
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    if not parser.parse(model):
        raise RefusedError(f"TensorRT {trt.__version__} refuses the graph: {_parser_errors(api, parser)}")
    config = builder.create_builder_config()
    flags = _set_flags(trt, api, config, request, calibrated)
    facts: dict[str, Any] = {"flags": flags, "tf32": bool(request.get("tf32")), "tensorrt": str(trt.__version__)}
    for shapes in request["profiles"]:
        _add_profile(builder, config, shapes)
    keep: list[Any] = []  # what the configuration points to must live as long as the build
    if dla is not None:
        facts["dla"] = _set_dla(trt, api, network, config, dla, keep)
    if api.ahead_of_time:
        wanted = request["capabilities"]
        config.num_compute_capabilities = len(wanted)
        for index, name in enumerate(wanted):
            config.set_compute_capability(trt.ComputeCapability.__members__[name], index)
    if told is not None and api.progress:
        keep.append(_monitor(trt, told))
        config.progress_monitor = keep[-1]
    cache_path = request.get("timing_cache")
    if cache_path:
        facts.update(_read_cache(config, Path(cache_path), keep))
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    facts["build_seconds"] = time.monotonic() - started
    if plan is None:
        raise RefusedError("TensorRT could not build the engine; build.log has its last words")
    if cache_path:
        data = bytes(config.get_timing_cache().serialize())
        write_whole(Path(cache_path), data)
        facts["timing_cache_sha256"] = hashlib.sha256(data).hexdigest()
    facts["inputs"] = {network.get_input(i).name: network.get_input(i).dtype.name for i in range(network.num_inputs)}
    facts["outputs"] = {
        network.get_output(i).name: network.get_output(i).dtype.name for i in range(network.num_outputs)
    }
    return bytes(plan), facts


def _check_request(api: Api, request: dict[str, Any], version: str) -> None:
    """Refuse what the release does not have, before anything is built."""
    level = request.get("hardware", "none")
    dla = request.get("dla")
    refusals = (
        (
            level != "none" and level.upper() not in api.hardware_levels,
            f"hardware compatibility {level!r} (AMPERE_PLUS since 8.6, SAME_COMPUTE_CAPABILITY since 10.9)",
        ),
        (bool(request.get("version_compatible")) and not api.version_compatible, "version-compatible engines (8.6)"),
        (bool(request.get("strip_weights")) and not api.strip_weights, "engines without weights (10.0)"),
        (
            bool(request.get("only_cached_timings")) and not api.cache_miss_flag,
            "build that refuses to time kernels (10.0)",
        ),
        (
            request.get("optimisation_level") is not None and not api.optimisation_level,
            "builder optimisation level (8.6)",
        ),
        (
            dla is not None and not api.dla_by_calibration and not api.dla_by_graph,
            "DLA (there is none from 10.8 to 11.4.0: use JetPack 5 or 6, or 11.4.1 on an AGX Orin)",
        ),
        (bool(request.get("only_cached_timings")) and not request.get("timing_cache"), "that without a timing cache"),
    )
    for is_lacking, what in refusals:
        if is_lacking:
            name = "TensorRT for RTX" if api.package == RTX else "TensorRT"
            raise RefusedError(f"{name} {version} has no {what}; leave that option out")


def _logger(trt: Any, log: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.write(f"{str(severity).rpartition('.')[2]} {message}\n")
            log.flush()  # the process may crash in the next call

    return Logger()


def _monitor(trt: Any, told: Callable[[str, int, int], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            told(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            told(phase_name, step + 1, self.steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


def _network_flags(trt: Any, api: Api, calibrated: bool) -> int:
    names = api.network_flags
    if calibrated and not api.precision_flags:
        names = ()  # 10.x: without the flag the network is weakly typed, which calibration needs
    flags = 0
    for name in names:
        flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))
    return flags


def _set_flags(trt: Any, api: Api, config: Any, request: dict[str, Any], calibrated: bool) -> list[str]:
    """Set everything of the configuration that is a flag or a number; the names of what was set, sorted."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    names = []
    # Float layers keep float32 unless asked: with TF32 their results differ by more than a quantisation step may.
    if request.get("tf32"):
        config.set_flag(trt.BuilderFlag.TF32)
        names.append("TF32")
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if api.precision_flags or calibrated:
        if request.get("int8") or calibrated:
            names.append("INT8")
        if request.get("fp16") or calibrated:  # what DLA does not run in int8 it runs in half precision
            names.append("FP16")
    if request.get("version_compatible"):
        names.append("VERSION_COMPATIBLE")
    if request.get("strip_weights"):
        names.append("STRIP_PLAN")
    if request.get("only_cached_timings"):
        names.append("ERROR_ON_TIMING_CACHE_MISS")
    dla = request.get("dla")
    if dla is not None and dla.get("gpu_fallback"):
        names.append("GPU_FALLBACK")
    for name in names:
        if name != "TF32":
            config.set_flag(getattr(trt.BuilderFlag, name))
    level = request.get("hardware", "none")
    if level != "none":
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level.upper())
        names.append(f"hardware:{level.upper()}")
    if request.get("workspace_mib"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(request["workspace_mib"]) << 20)
        names.append(f"workspace:{int(request['workspace_mib'])}MiB")
    if request.get("optimisation_level") is not None:
        config.builder_optimization_level = int(request["optimisation_level"])
        names.append(f"optimisation:{int(request['optimisation_level'])}")
    return sorted(names)


def _add_profile(builder: Any, config: Any, shapes: dict[str, Any]) -> None:
    if not shapes:
        return
    profile = builder.create_optimization_profile()
    for name, three in sorted(shapes.items()):
        profile.set_shape(name, *[tuple(shape) for shape in three])
    if config.add_optimization_profile(profile) < 0:
        raise RefusedError(
            f"TensorRT takes no optimisation profile {shapes}; each needs smallest <= typical <= largest"
        )


def _set_dla(trt: Any, api: Api, network: Any, config: Any, dla: dict[str, Any], keep: list[Any]) -> dict[str, Any]:
    """Put every layer that can on the DLA core; which cannot, and so fall back to the GPU (or refuse the model)."""
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = int(dla["core"])
    if api.dla_by_calibration:
        keep.append(_calibrator(trt, api, dla["scales"]))
        config.int8_calibrator = keep[-1]
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    # A constant is no work of its own: what reads it decides where it goes.
    fallen = [layer.name for layer in layers if "CONSTANT" not in str(layer.type) and not config.can_run_on_DLA(layer)]
    if fallen and not dla.get("gpu_fallback"):
        raise RefusedError(
            f"{len(fallen)} of {len(layers)} layers cannot run on the DLA ({', '.join(fallen[:PARTS])}); change them, "
            "or let them run on the GPU with --gpu-fallback"
        )
    return {"core": int(dla["core"]), "layers": len(layers), "on_gpu": fallen}


def calibration_cache(api: Api, scales: dict[str, float]) -> bytes:
    """Tensor -> scale in the form that TensorRT's int8 calibrators read: one line each, the float32's bits in hex.

    Source of the format: onnxruntime's reader of TensorRT calibration tables, and caches in public repositories.
    """
    lines = [api.calibration_header]
    lines += [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in sorted(scales.items())]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _calibrator(trt: Any, api: Api, scales: dict[str, float]) -> Any:
    cache = calibration_cache(api, scales)

    class FromCache(trt.IInt8EntropyCalibrator2):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Any) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, data: Any) -> None:
            return None

    return FromCache()


def _read_cache(config: Any, path: Path, keep: list[Any]) -> dict[str, Any]:
    stored = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(stored)
    keep.append(cache)
    # A cache of another GPU or release is refused, not used with wrong timings.
    fits = bool(config.set_timing_cache(cache, False))
    if not fits:
        keep.append(config.create_timing_cache(b""))
        config.set_timing_cache(keep[-1], False)
    return {"timing_cache": path.name, "timings_before": "used" if stored and fits else "none"}


def _parser_errors(api: Api, parser: Any) -> str:
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        if api.node_names:
            found.append(f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}")
        else:
            found.append(f"node number {error.node()} of the file: {error.desc()}")
    return "; ".join(found[:PARTS]) or "no reason given"
