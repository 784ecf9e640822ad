"""The child process of `onnx_to_rtx_engine`: parse model.onnx of the current folder, compile it, write model.engine.

It reads request.json and writes result.json beside build.log; all names are relative, so that no path of the machine
moves an allocation and with it the plan. Run as `python -m exporters.rtx_build`.
"""

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from exporters import child
from exporters.device import plan
from exporters.device.files import RefusedError

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
    """Compile for one or more capabilities.

    Args:
        request: "capability" ("SM80") or "capabilities"; "profile" (input -> [min, typical, max] shapes) or
            "profiles"; and what `exporters.device.plan.build` takes beside.
    """
    trt: Any = importlib.import_module("tensorrt_rtx")
    wanted = dict(request)
    wanted.setdefault("capabilities", [request["capability"]] if "capability" in request else [])
    wanted.setdefault("profiles", [request["profile"]] if "profile" in request else [])
    try:
        made, facts = plan.build(trt, Path(MODEL).read_bytes(), wanted, log)
    except RefusedError as error:
        text = str(error)
        parsed = re.search(r"refuses the graph: (.*)", text, re.DOTALL)
        if parsed is None:
            return {"stage": "build", "errors": [], "version": trt.__version__, "said": text}
        return {"stage": "parse", "errors": _errors(parsed[1]), "version": trt.__version__}
    Path(ENGINE).write_bytes(made)
    return {
        "stage": "done",
        "errors": [],
        "version": trt.__version__,
        "seconds": facts["build_seconds"],
        "flags": facts["flags"],
        "inputs": facts["inputs"],
        "outputs": facts["outputs"],
    }


def _errors(text: str) -> list[dict[str, str]]:
    found = re.match(r"node '(?P<node>.*?)' \((?P<operator>\w*)\): (?P<text>.*)", text, re.DOTALL)
    return [found.groupdict()] if found else [{"text": text, "node": "", "operator": ""}]


if __name__ == "__main__":
    sys.exit(main())
