"""What this machine can do and what it lacks, each with the fix; nothing that is absent or broken stops the look.

Packages are imported in processes of their own, all at the same time: a broken one cannot take this process down,
and the slowest alone decides how long it takes.
"""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import profiles
from exporters import builder
from profiles.abilities import ability
from profiles.errors import UserError
from profiles.runners import cuda_driver
from profiles.runners.cortex_m import toolchain
from profiles.target import Target
from profiles.target import names as target_names

Status = Literal["ready", "limited", "absent", "broken"]
"""limited: works, with something missing that matters. absent: not there. broken: there, but it does not work."""

SECONDS = 30.0  # until a package that does not answer counts as broken
LOW_MEMORY_GB = 4.0  # training and building in children want about three
LOW_DISK_GB = 2.0
EDGE = 100  # characters of a printed line


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        needed_for: what does not work without it; "" where everything does.
        fix: what to do about it; "" where nothing is to be done.
    """

    name: str
    status: Status
    found: str
    needed_for: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Outlook:
    """What can be done for one target on this machine.

    Attributes:
        cost: how its latency will be obtained: measured, emulated, predicted; "unknown" where asking failed.
        runner: what measures, emulates or estimates; "" where nothing can.
        builder: what makes its artifact here; "" where nothing can.
        checks: what else is built beside it, as a proof.
        reasons: file -> why it cannot be used here, and what to do.
    """

    target: str
    device: str
    cost: Literal["measured", "emulated", "predicted", "unknown"]
    runner: str
    builder: str
    checks: tuple[str, ...]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Examination:
    """What was found; `dataclasses.asdict` of it is plain JSON."""

    findings: tuple[Finding, ...]
    targets: tuple[Outlook, ...]


@dataclass(frozen=True)
class Package:
    """A package that is asked in a process of its own.

    Attributes:
        module: what is imported.
        code: Python that fills the dictionary `found` with text and lists; `found["version"]` is always asked for.
        fix: how to get it.
        essential: whether the pipeline cannot do without.
    """

    name: str
    module: str
    code: str
    needed_for: str
    fix: str
    essential: bool = False


_TORCH = """
found["cpu"] = torch.backends.cpu.get_cpu_capability()
found["threads"] = torch.get_num_threads()
found["cuda_build"] = torch.version.cuda or torch.version.hip or ""
found["gpus"] = []
if torch.cuda.is_available():
    for index in range(torch.cuda.device_count()):
        found["gpus"].append(torch.cuda.get_device_name(index))
    found["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
else:
    found["bf16"] = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
"""

PACKAGES = (
    Package("torch", "torch", _TORCH, "training, quantising, exporting", "pip install 'torch>=2.11'", essential=True),
    Package(
        "onnxruntime",
        "onnxruntime",
        'found["providers"] = onnxruntime.get_available_providers()',
        "checking the exported model; measuring x86",
        "pip install onnxruntime",
        essential=True,
    ),
    Package(
        "OpenVINO",
        "openvino",
        'found["devices"] = openvino.Core().available_devices',
        "the other runtime of target x86",
        "pip install 'compress[openvino]'",
    ),
    Package(
        "TensorRT",
        "tensorrt",
        "",
        "building and measuring engines on their own GPU",
        "on a Jetson it is part of JetPack; elsewhere, with an NVIDIA GPU: pip install 'compress[tensorrt]'",
    ),
    Package(
        "TensorRT-RTX",
        "tensorrt_rtx",
        "",
        "building engines for NVIDIA GPUs ahead of time, without one",
        "pip install 'compress[tensorrt-rtx]'",
    ),
    Package(
        "pycuda",
        "pycuda",
        'import pycuda.driver\npycuda.driver.init()\nfound["gpus"] = pycuda.driver.Device.count()\n'
        'found["version"] = pycuda.VERSION_TEXT',
        "device memory while measuring engines; torch with CUDA or cuda-python does as well",
        "with an NVIDIA driver and compiler: pip install 'compress[pycuda]'",
    ),
)


def examine(search: Path | None = None) -> Examination:
    """Look at this machine.

    Args:
        search: a folder with the user's own targets.
    """
    with ThreadPoolExecutor(max_workers=16) as pool:
        packages = [pool.submit(_package, package) for package in PACKAGES]
        tools = [pool.submit(look) for look in (_gpu, _cross_compiler, _emulator, _host_compiler, _ssh)]
        outlooks = [pool.submit(_outlook, name, search) for name in target_names(search)]
        findings = [_python(), *(future.result() for future in packages), _requirements(), _ray()]
        findings += [*(future.result() for future in tools), _cores(), _memory(), _disk()]
        gpu = next(finding for finding in findings if finding.name == "NVIDIA GPU")
        findings = [_with_gpu(finding, gpu) for finding in findings]
        return Examination(tuple(findings), tuple(future.result() for future in outlooks))


def render(examination: Examination) -> str:
    """The examination for people."""
    lines = ["This machine"]
    width = max(len(finding.name) for finding in examination.findings)
    for finding in examination.findings:
        lines += _wrapped(f"  {finding.status:8}{finding.name:{width}}  ", finding.found)
        if finding.status != "ready" and finding.needed_for:
            lines += _wrapped(" " * (width + 12), f"needed for: {finding.needed_for}")
        if finding.fix:
            lines += _wrapped(" " * (width + 12), f"fix: {finding.fix}")
    lines += ["", "Targets"]
    for alike in _grouped(examination.targets):
        outlook = alike[0]
        if len(alike) == 1:
            lines.append(f"  {outlook.target} ({outlook.device})")
        else:
            lines += _wrapped("  ", ", ".join(one.target for one in alike))
        by = f" by {outlook.runner}" if outlook.runner else ""
        lines += _wrapped("      latency  ", f"{outlook.cost}{by}")
        lines += _wrapped(
            "      artifact ", f"built by {outlook.builder}" if outlook.builder else "cannot be built here"
        )
        if outlook.checks:
            lines += _wrapped("      check    ", f"built by {', '.join(outlook.checks)}")
        for name, reason in outlook.reasons.items():
            lines += _wrapped("      ", f"{name}: {reason}", hanging=4)
    return "\n".join(lines)


def _grouped(targets: Sequence[Outlook]) -> list[list[Outlook]]:
    """Targets with the same outlook, in the order of the first of each."""
    groups: dict[str, list[Outlook]] = {}
    for outlook in targets:
        facts = (outlook.cost, outlook.runner, outlook.builder, outlook.checks, outlook.reasons)
        groups.setdefault(repr(facts), []).append(outlook)
    return list(groups.values())


def ask(package: Package, seconds: float = SECONDS) -> tuple[dict[str, Any] | None, str]:
    """Import a package in a process of its own.

    Returns:
        What it told, and ""; or None, and why it did not.
    """
    # What a library prints while it is imported must not be taken for the answer: that is the last line.
    script = (
        f"import json\nimport {package.module}\n"
        f"found = {{'version': str(getattr({package.module}, '__version__', ''))}}\n{package.code}\n"
        "print()\nprint(json.dumps(found))\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return None, f"importing it did not end within {seconds:g} s"
    except OSError as error:
        return None, f"no process could be started to import it: {error.strerror}"
    if done.returncode < 0:
        return None, f"importing it ends the process (signal {-done.returncode})"
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if line.strip()]
        return None, f"importing it fails: {_short(said[-1]) if said else f'status {done.returncode}'}"
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None, "importing it gives no answer"
    return found, ""


def _package(package: Package) -> Finding:
    if not _installed(package.module):
        status: Status = "broken" if package.essential else "absent"
        return Finding(package.name, status, "not installed", package.needed_for, package.fix)
    found, why = ask(package)
    if found is None:
        fix = "reinstall it, or remove it" if not package.essential else f"reinstall it: {package.fix}"
        return Finding(package.name, "broken", f"installed, but {why}", package.needed_for, fix)
    return Finding(package.name, "ready", _told(package, found), package.needed_for)


def _told(package: Package, found: Mapping[str, Any]) -> str:
    version = str(found.get("version") or "of unknown version")
    if package.module == "torch":
        where = ", ".join(found["gpus"]) or "CPU only"
        build = f"built for CUDA {found['cuda_build']}" if found["cuda_build"] else "built without CUDA"
        bf16 = "trains in bf16" if found["bf16"] else "no fast bf16: trains in fp32"
        return f"{version}, {build}; {where}; CPU capability {found['cpu']}, {found['threads']} threads; {bf16}"
    rest = [
        f"{key} {', '.join(value) if isinstance(value, list) else value}"
        for key, value in found.items()
        if key != "version"
    ]
    return "; ".join([version, *rest])


def _with_gpu(finding: Finding, gpu: Finding) -> Finding:
    """What a GPU in this machine makes of a package that does not use it, and the other way round."""
    if finding.name == "torch" and gpu.status == "ready" and "built without CUDA" in finding.found:
        fix = "install a torch that is built for CUDA: https://pytorch.org/get-started/locally"
        return Finding(finding.name, "limited", finding.found, "training on the GPU", fix)
    if finding.name in ("TensorRT", "pycuda") and finding.status == "absent" and gpu.status == "absent":
        return Finding(finding.name, "absent", "not installed; it would need an NVIDIA GPU", finding.needed_for, "")
    return finding


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a half-removed package
        return False


def _python() -> Finding:
    version = platform.python_version()
    text = f"{version} ({platform.system()} {platform.machine()})"
    if sys.version_info >= (3, 11):
        return Finding("python", "ready", text)
    return Finding("python", "limited", text, "all but building on a device", "install Python 3.11 or later")


def _requirements() -> Finding:
    """Whether what the package declares is installed; versions are pip's business."""
    try:
        declared = metadata.requires("compress") or []
    except metadata.PackageNotFoundError:
        return Finding("packages", "limited", "compress itself is not installed", "its commands", "pip install -e .")
    names = [_distribution(line) for line in declared if "extra ==" not in line]
    absent = [name for name in names if not _has(name)]
    if absent:
        fix = "pip install " + " ".join(absent)
        return Finding("packages", "broken", f"not installed: {', '.join(absent)}", "the pipeline", fix)
    return Finding("packages", "ready", f"all {len(names)} that compress needs are installed")


def _distribution(requirement: str) -> str:
    """The name in front of a requirement's extras, versions and markers."""
    return next(
        (requirement[:n] for n, char in enumerate(requirement) if not (char.isalnum() or char in "-_.")), requirement
    )


def _has(distribution: str) -> bool:
    return _version(distribution) is not None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _ray() -> Finding:
    version = _version("ray")
    use = "spreading evaluations over several machines; one machine does not need it"
    if version is None:
        return Finding("Ray", "absent", "not installed", use, "pip install 'compress[ray]'")
    return Finding("Ray", "ready", version, use)


def _gpu() -> Finding:
    use = "measuring and building on NVIDIA targets; fast training"
    listed = _first_lines(
        ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version,memory.total", "--format=csv,noheader"]
    )
    if listed:
        rows = [[cell.strip() for cell in line.split(",")] for line in listed]
        told = [
            f"{row[0]}, compute capability {row[1]}, driver {row[2]}, {row[3]}" if len(row) == 4 else ", ".join(row)
            for row in rows
        ]
        return Finding("NVIDIA GPU", "ready", "; ".join(told), use)
    try:
        capability = cuda_driver.compute_capability()
        if capability is not None:  # Jetson's driver, which older JetPacks give no nvidia-smi with
            return Finding("NVIDIA GPU", "ready", f"{cuda_driver.device_name()}, compute capability {capability}", use)
    except UserError as error:
        return Finding("NVIDIA GPU", "broken", error.what, use, error.fix)
    if shutil.which("nvidia-smi") is not None:
        fix = "see what nvidia-smi says; in a container, start it with --gpus all"
        return Finding("NVIDIA GPU", "broken", "nvidia-smi is here and lists no GPU", use, fix)
    fix = "build and measure on the device: --remote user@host, or run there what compress builds here"
    return Finding("NVIDIA GPU", "absent", "no NVIDIA GPU, or no driver for it", use, fix)


def _cross_compiler() -> Finding:
    use = "the static library for Cortex-M; the C sources need none"
    return _tool("Arm cross-compiler", ["arm-none-eabi-gcc", "--version"], use, toolchain.PACKAGES)


def _emulator() -> Finding:
    use = "running Cortex-M artifacts and counting their instructions"
    return _tool("QEMU", ["qemu-system-arm", "--version"], use, toolchain.PACKAGES)


def _host_compiler() -> Finding:
    name = toolchain.host_compiler()
    use = "running generated C on this machine"
    if name is None:
        return Finding("C compiler", "absent", "not installed", use, "apt-get install gcc")
    return _tool("C compiler", [name, "--version"], use, "apt-get install gcc")


def _ssh() -> Finding:
    use = "building and measuring on a device with --remote user@host"
    return _tool("ssh", ["ssh", "-V"], use, "apt-get install openssh-client")


def _tool(name: str, command: Sequence[str], use: str, fix: str) -> Finding:
    if shutil.which(command[0]) is None:
        return Finding(name, "absent", f"{command[0]} is not installed", use, fix)
    said = _first_lines(command)
    if not said:
        return Finding(name, "broken", f"{' '.join(command)} fails", use, f"reinstall it: {fix}")
    return Finding(name, "ready", _short(said[0]), use)


def _first_lines(command: Sequence[str]) -> list[str]:
    """What a program says of itself; nothing where it is absent or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return []
    return [line for line in (done.stdout or done.stderr).splitlines() if line.strip()] if done.returncode == 0 else []


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    share = _cgroup("cpu.max")
    if len(share) == 2 and share[0].isdigit() and share[1].isdigit():
        usable = min(usable, max(1, round(int(share[0]) / int(share[1]))))
    flags = _cpu_flags()
    known = [
        name
        for name in ("avx2", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
        if name in flags
    ]
    text = f"{usable} usable" + (f"; {', '.join(known)}" if known else "")
    return Finding("cores", "ready", text)


def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split())


def _cgroup(name: str) -> list[str]:
    """A limit of the container that this runs in; empty where there is none."""
    try:
        return (Path("/sys/fs/cgroup") / name).read_text(encoding="utf-8").split()
    except OSError:
        return []


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # no such figure on this system
        return Finding("memory", "ready", "not known")
    limit = _cgroup("memory.max")
    if limit and limit[0].isdigit():
        total = min(total, int(limit[0]))
    gigabytes = total / 1e9
    if gigabytes < LOW_MEMORY_GB:
        fix = "train elsewhere, or lower distill.batch_size"
        return Finding("memory", "limited", f"{gigabytes:.1f} GB", "training and building engines", fix)
    return Finding("memory", "ready", f"{gigabytes:.1f} GB")


def _disk() -> Finding:
    try:
        free = shutil.disk_usage(Path.cwd()).free / 1e9
    except OSError as error:
        fix = "change to a folder that exists"
        return Finding("disk", "broken", f"this folder cannot be read: {error.strerror}", "runs", fix)
    if not os.access(Path.cwd(), os.W_OK):
        fix = "give a folder of your own with --out"
        return Finding("disk", "limited", f"{free:.1f} GB free, but this folder cannot be written", "runs", fix)
    if free < LOW_DISK_GB:
        return Finding(
            "disk", "limited", f"{free:.1f} GB free here", "runs", "free some, or give another disk with --out"
        )
    return Finding("disk", "ready", f"{free:.1f} GB free here")


def _outlook(name: str, search: Path | None) -> Outlook:
    try:
        device = profiles.target(name, search)
    except UserError as error:
        return Outlook(name, "not readable", "unknown", "", "", (), {"target file": f"{error.what}; {error.fix}"})
    reasons: dict[str, str] = {}
    cost, runner = _cost(device, reasons)
    chosen = ""
    for candidate in device.builders:
        why = _lacks(candidate, device)
        if why is None:
            chosen = candidate
            break
        reasons[candidate] = why
    if not device.builders:
        reasons["builders"] = "none is known for this target: its figures are predictions"
    checks = []
    for candidate in device.checks:
        why = _lacks(candidate, device)
        if why is None:
            checks.append(candidate)
        else:
            reasons[candidate] = why
    return Outlook(device.name, device.device, cost, runner, chosen, tuple(checks), reasons)


def _cost(
    device: Target, reasons: dict[str, str]
) -> tuple[Literal["measured", "emulated", "predicted", "unknown"], str]:
    words: dict[str, Literal["measured", "emulated", "predicted"]] = {
        "measure": "measured",
        "emulate": "emulated",
        "estimate": "predicted",  # by its vendor's tool, which runs nothing
        "predict": "predicted",
    }
    try:
        found = ability(device)
    except Exception as error:  # a runner that fails must be told, not end the look at everything else
        reasons["runners"] = f"asking them fails: {type(error).__name__}: {_short(str(error))}"
        return "unknown", ""
    reasons.update(found.missing)
    if found.level == "estimate":
        reasons[found.runner] = "it says what the artifact would cost, and runs nothing"
    return words[found.level], found.runner


def _lacks(name: str, device: Target) -> str | None:
    """A builder's answer; one that fails has answered, too."""
    try:
        return builder.load(name).can_run(device)
    except UserError as error:
        return f"{error.what}; {error.fix}"
    except Exception as error:  # as above
        return f"asking it fails: {type(error).__name__}: {_short(str(error))}"


def _short(text: str) -> str:
    return textwrap.shorten(text, 160, placeholder=" ...")


def _wrapped(start: str, text: str, hanging: int = 0) -> list[str]:
    indent = " " * (len(start) + hanging)
    return textwrap.wrap(
        text, EDGE, initial_indent=start, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [start.rstrip()]
