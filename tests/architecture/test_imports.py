"""Who may import whom, from bottom to top: a file imports what is below it, or beside it in its own folder."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Modules of `compress` from bottom to top; those of one line are neighbours and do not import each other.
LAYERS = (
    ("errors", "records"),
    ("contracts", "strict", "progress", "cache", "manifest", "network", "liveness", "database_errors"),
    ("store", "integrity", "signing", "sbom"),
    ("catalog", "evaluations", "graphs", "privileged", "graph_network"),
    (
        "user_file",
        "tally",
        "data_checks",
        "residual_network",
        "augmentations",
        "structure",
        "similarity",
        "coefficients",
        "retrieval",
        "ranks",
    ),
    ("recipe", "taps", "terms"),
    ("objectives", "frontends", "teachers", "spaces", "selection", "strategies", "diagnostics"),
    ("citation_graphs", "clothing", "digit_recordings"),
    ("selectors", "tasks", "workers"),
    ("training", "methods", "qat", "diagnosis", "page", "doctor", "template", "summary"),
    ("reproduction",),
    ("experiments",),
    ("job", "precision"),
    ("lesson",),
    ("stages",),
    ("pipeline",),
    ("cli",),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Packages that are large and may be absent: the only files that may import them.
HEAVY = {
    "tensorrt": {"exporters/onnx_to_engine.py", "exporters/tensorrt_engine.py", "profiles/runners/on_tensorrt.py"},
    "tensorrt_rtx": {"exporters/onnx_to_rtx_engine.py", "exporters/rtx_compiler.py", "profiles/runners/on_tensorrt.py"},
    "pycuda": {"profiles/runners/cuda_memory.py"},
    "torch_geometric": {"compress/graph_network.py"},
    "ray": {"compress/workers/on_ray.py"},
    "optuna": {"compress/selection/optuna_studies.py", "compress/selectors/nsga2.py", "compress/selectors/tpe.py"},
}


def files(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


@cache
def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def at_import_time(path: Path) -> set[str]:
    """Modules that importing the file imports: those outside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
    return found


def part(module: str) -> str | None:
    pieces = module.split(".")
    return pieces[1] if pieces[0] == "compress" and len(pieces) > 1 else None


def test_the_packages_stand_on_each_other_in_one_direction() -> None:
    forbidden = {"profiles": ("exporters", "compress"), "exporters": ("compress",)}
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}, which is not below it"
        for package, above in forbidden.items()
        for path in files(package)
        for module in sorted(imports(path))
        if module.split(".")[0] in above
    ]
    assert not wrong, "\n".join(wrong)


def test_inside_compress_a_file_imports_only_what_is_below_it() -> None:
    wrong = []
    for path in files("compress"):
        relative = path.relative_to(ROOT / "compress")
        own = relative.parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in LEVEL, f"{path.relative_to(ROOT)} has no place in the order: add it to LAYERS"
        for module in sorted(imports(path)):
            other = part(module)
            if other in LEVEL and other != own and LEVEL[other] >= LEVEL[own]:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}, which is not below it")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "folder", ["methods", "objectives", "tasks", "spaces", "selectors", "strategies", "diagnostics", "experiments"]
)
def test_files_of_one_plug_point_do_not_import_each_other(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}: move what both need into a part below"
        for path in files(f"compress/{folder}")
        for module in sorted(imports(path))
        if module.startswith(f"compress.{folder}.")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", sorted(HEAVY))
def test_heavy_packages_are_imported_in_few_files_and_inside_functions(package: str) -> None:
    for path in [path for folder in ("compress", "exporters", "profiles") for path in files(folder)]:
        name = path.relative_to(ROOT).as_posix()
        if any(module.split(".")[0] == package for module in imports(path)):
            assert name in HEAVY[package], f"{name} imports {package}; only {sorted(HEAVY[package])} may"
        assert not any(module.split(".")[0] == package for module in at_import_time(path)), (
            f"{name} imports {package} when it is imported itself"
        )


def test_no_tests_or_tools_are_imported() -> None:
    for path in [path for folder in ("compress", "exporters", "profiles") for path in files(folder)]:
        assert not {module for module in imports(path) if module.split(".")[0] in ("tests", "tools")}, path


@pytest.mark.parametrize(
    "statement",
    [
        "import compress.cli.main",
        "import profiles",
        "from compress.stages import build",
        "from exporters import builder; [builder.load(name) for name in builder.names()]",
    ],
)
def test_what_runs_on_a_device_or_prints_help_loads_no_torch(statement: str) -> None:
    code = f"{statement}\nimport sys\nprint('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "False"


def test_no_pickle_is_loaded() -> None:
    """torch.load only with weights_only=True, numpy only with allow_pickle=False, no pickle module at all."""
    wrong = []
    for path in [path for folder in ("compress", "exporters", "profiles", "tools") for path in files(folder)]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                harmless = names[:1] == ["UnpicklingError"]  # only to say that a file was refused
                if {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"} & set(names) and not harmless:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
                keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                owner = ast.unparse(node.func.value)
                if owner == "torch" and keywords.get("weights_only") is not True:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
                if owner in ("np", "numpy") and keywords.get("allow_pickle") is not False:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)
