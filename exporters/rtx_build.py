"""The child process of `onnx_to_rtx_engine`: parse model.onnx of the current folder, compile it, write model.engine.

It reads request.json and writes result.json beside build.log; all names are relative, so that no path of the machine
moves an allocation and with it the plan. Run as `python -m exporters.rtx_build`.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from exporters import child

REQUEST = "request.json"
RESULT = "result.json"
MODEL = "model.onnx"
ENGINE = "model.engine"
LOG = "build.log"


def main() -> int:
    """Build; the exit status is 0 where result.json says how it went, also where the model was refused."""
    fixed = child.fix_addresses()
    child.end_with_parent()
    request = json.loads(Path(REQUEST).read_text("utf-8"))
    with open(LOG, "w", encoding="utf-8") as log:
        result = build(request, log)
    result["fixed_addresses"] = fixed
    Path(RESULT).write_text(json.dumps(result, sort_keys=True), "utf-8")
    return 0


def build(request: dict[str, Any], log: Any) -> dict[str, Any]:
    """Compile for `request["capability"]` (such as "SM80") with one profile: input -> [min, typical, max] shapes."""
    trt: Any = importlib.import_module("tensorrt_rtx")

    class Logger(trt.ILogger):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            log.write(f"{severity.name} {message}\n")
            log.flush()  # the process may crash in the next call

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(Path(MODEL).read_bytes()):
        return {"stage": "parse", "errors": _errors(parser), "version": trt.__version__}
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)  # float layers keep float32, so parity means the same everywhere
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.__members__[request["capability"]], 0)
    profile = builder.create_optimization_profile()
    for name, shapes in sorted(request["profile"].items()):
        profile.set_shape(name, *shapes)
    if request["profile"]:
        config.add_optimization_profile(profile)
    started = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - started
    if plan is None:
        return {"stage": "build", "errors": [], "version": trt.__version__}
    Path(ENGINE).write_bytes(plan)
    return {
        "stage": "done",
        "errors": [],
        "version": trt.__version__,
        "seconds": seconds,
        "inputs": {network.get_input(i).name: network.get_input(i).dtype.name for i in range(network.num_inputs)},
        "outputs": {network.get_output(i).name: network.get_output(i).dtype.name for i in range(network.num_outputs)},
    }


def _errors(parser: Any) -> list[dict[str, str]]:
    found = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        found.append({"text": error.desc(), "node": error.node_name(), "operator": error.node_operator()})
    return found


if __name__ == "__main__":
    sys.exit(main())
