"""Collect what a report of a problem needs, without private paths and without tokens."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from i3dzoo import storage, zoo
from i3dzoo.doctor.traps import find_traps
from i3dzoo.progress import SILENT, Progress
from i3dzoo.text import printable, shorten
from i3dzoo.version import __version__

State = Literal["works", "fails", "not installed", "no device", "no answer"]

SECONDS: Final = 120.0
"""The time limit of one attempt; a first import of TensorFlow can take a minute."""

_MODULE: Final = "i3dzoo.doctor.attempts"

NEEDED: Final = ("torch", "video")
"""What i3dzoo does not work without."""

_PARTS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "torch": ("engine", ("torch",)),
    "fused": ("engine", ("torch", "triton")),
    "onnxruntime": ("engine", ("onnx", "onnxruntime")),
    "openvino": ("engine", ("openvino", "onnx")),
    "tensorrt": ("engine", ("tensorrt|tensorrt_rtx|tensorrt_rtx_bindings",)),
    "video": ("video", ("av",)),
    "flow": ("extra", ("cv2",)),
    "plot": ("extra", ("matplotlib",)),
    "parquet": ("extra", ("pyarrow",)),
    "tensorflow": ("extra", ("tensorflow",)),
    "train": ("extra", ("accelerate", "tensorboard")),
    "app": ("extra", ("gradio",)),
}
"""The kind of each attempt, and the modules that it needs; | separates alternatives."""

_PACKAGES: Final = (
    *("torch", "triton", "numpy", "av", "huggingface-hub", "safetensors", "h5py", "onnx"),
    *("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13-bindings"),
    *("tensorflow", "tensorflow-cpu", "opencv-python", "opencv-python-headless"),
    *("opencv-contrib-python", "opencv-contrib-python-headless", "accelerate", "tensorboard"),
    *("matplotlib", "pyarrow", "gradio", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
)
_VARIABLES: Final = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "NO_COLOR")
"""Variables whose values are shown; those with addresses or tokens are not."""

_PATH: Final = re.compile(r"(?<![\w/.~])(?:[A-Za-z]:[\\/]|/)(?:[^\s'\",;:()<>\\/]+[\\/])+")


@dataclass(frozen=True)
class Attempt:
    """What came of trying one thing.

    Attributes:
        name: Such as `onnxruntime`.
        kind: `engine`, `extra` or `video`.
        state: `works`; `fails`; `not installed`; `no device` that it needs; or `no answer` within
            the time limit.
        detail: What was done, or why it does not work.
        report: What the attempt returned besides.
    """

    name: str
    kind: str
    state: State
    detail: str
    report: dict[str, Any]


@dataclass(frozen=True)
class Examination:
    """The facts of this machine; see `to_dict`."""

    system: dict[str, Any]
    packages: dict[str, str]
    attempts: tuple[Attempt, ...]
    cache: dict[str, Any]
    traps: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether nothing that i3dzoo needs fails."""
        return all(a.state == "works" for a in self.attempts if a.name in NEEDED)

    def to_dict(self) -> dict[str, Any]:
        """Return the document of `i3dzoo doctor --json`."""
        return {
            "i3dzoo": __version__,
            "works": self.works,
            "system": self.system,
            "packages": self.packages,
            "attempts": [asdict(attempt) for attempt in self.attempts],
            "cache": self.cache,
            "traps": list(self.traps),
        }

    def to_text(self) -> str:
        """Return a block to paste into a report of a problem."""
        system, cache = self.system, self.cache
        machine = f"{system['processors']} processors, {system['memory'] / 1e9:.0f} GB memory"
        models = ", ".join(cache["models"]) or "no model"
        sizes = f"{cache['size'] / 1e6:.0f} MB, {cache['free_bytes'] / 1e9:.0f} GB free"
        lines = [
            f"i3dzoo {__version__}, Python {system['python']}, {system['platform']}, {machine}",
            f"driver      {system['driver'] or 'no NVIDIA driver'}",
            *_devices(self.attempts),
            f"variables   {_pairs(system['environment']) or 'none set'}",
        ]
        for kind in ("engine", "video", "extra"):
            for number, attempt in enumerate(a for a in self.attempts if a.kind == kind):
                heading = "" if number else f"{kind}s" if kind != "video" else kind
                state = "" if attempt.state == "works" else f"{attempt.state}: "
                lines.append(f"{heading:<11} {attempt.name:<12} {state}{attempt.detail}")
        lines += [
            f"cache       {cache['folder']}: {models}, {sizes}",
            f"packages    {_pairs(self.packages)}",
        ]
        for number, trap in enumerate(self.traps or ("none known",)):
            lines.append(f"{'' if number else 'traps':<11} {trap}")
        return "\n".join(lines)


def examine(
    names: Iterable[str] | None = None,
    seconds: float = SECONDS,
    progress: Progress = SILENT,
) -> Examination:
    """Examine this machine.

    Every attempt runs in a process of its own, two at a time.

    Args:
        names: What to try; None tries all.
        seconds: Time limit of each attempt.
        progress: Shows the number of attempts.
    """
    wanted = list(_PARTS if names is None else names)
    progress.start("attempts", len(wanted), "items")
    attempts = []
    with ThreadPoolExecutor(2) as pool:
        for attempt in pool.map(lambda name: _attempt(name, seconds), wanted):
            attempts.append(attempt)
            progress.update(len(attempts))
    system, cache = _system(), _cache()
    packages = {name: version for name in _PACKAGES if (version := _version(name))}
    reports = {attempt.name: attempt.report for attempt in attempts}
    facts = {
        **{key: system[key] for key in ("driver", "environment", "processors", "archives")},
        "shared_memory_bytes": system["shared_memory"],
        "free_bytes": cache["free_bytes"],
        "packages": packages,
        "torch": reports.get("torch"),
        "video": reports.get("video"),
    }
    return Examination(system, packages, tuple(attempts), cache, tuple(find_traps(facts)))


def _attempt(name: str, seconds: float) -> Attempt:
    """Try one thing in a process, within a time limit."""
    kind, modules = _PARTS[name]
    missing = [module for module in modules if not any(map(_installed, module.split("|")))]
    if missing:
        extra = {"onnxruntime": "onnx", "fused": "", "torch": "", "video": ""}.get(name, name)
        remedy = f": pip install 'i3dzoo[{extra}]'" if extra else ""
        packages = ", ".join(module.partition("|")[0] for module in missing)
        return Attempt(name, kind, "not installed", f"needs {packages}{remedy}", {})
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    try:
        result = subprocess.run(  # noqa: S603 - a module of this package
            [sys.executable, "-m", _MODULE, name],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Attempt(name, kind, "no answer", f"within {seconds:g} seconds", {})
    if result.returncode < 0:
        return Attempt(name, kind, "fails", f"killed by signal {-result.returncode}", {})
    if result.returncode:
        error, _, reason = (result.stderr.strip().splitlines() or [""])[-1].partition(": ")
        if error.endswith(".DeviceError"):
            return Attempt(name, kind, "no device", clean(reason), {})
        return Attempt(name, kind, "fails", clean(f"{error}: {reason}"), {})
    report: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return Attempt(name, kind, "works", clean(report.pop("detail")), report)


def clean(text: str) -> str:
    """Return text on one line, without tokens, and with names of files instead of their paths."""
    return shorten(_PATH.sub("…/", printable(" ".join(text.split()))), 300)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _system() -> dict[str, Any]:
    shared = Path("/dev/shm")  # noqa: S108 - its size is asked for, and nothing is written
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count() or 1,
        "memory": _memory(),
        "driver": _driver(),
        "shared_memory": shutil.disk_usage(shared).total if shared.is_dir() else None,
        "archives": [name for name in ("bsdtar", "unrar", "7zz", "7z") if shutil.which(name)],
        "environment": {
            name: os.environ[name] for name in _VARIABLES if os.environ.get(name) is not None
        },
    }


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return 0


def _driver() -> str | None:
    """Return the version of NVIDIA's driver, if its tool is there and answers."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(  # noqa: S603 - NVIDIA's tool, with constant arguments
            command, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    first = result.stdout.strip().partition("\n")[0]
    return first if re.fullmatch(r"[\d.]+", first) else None


def _cache() -> dict[str, Any]:
    folder = zoo.cache_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    kept = [entry for entry in storage.entries() if entry.root == folder]
    return {
        "folder": _home(folder),
        "models": [entry.name for entry in kept if entry.kind == "model"],
        "size": sum(entry.size for entry in kept),
        "free_bytes": shutil.disk_usage(existing).free,
        "writable": os.access(existing, os.W_OK),
    }


def _home(path: Path) -> str:
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)


def _devices(attempts: Iterable[Attempt]) -> list[str]:
    """Return the lines about PyTorch and its devices."""
    report = next((a.report for a in attempts if a.name == "torch" and a.report), None)
    if report is None:
        return []
    gpus = [
        f"{gpu['name']} ({gpu['capability']}, {gpu['memory'] / 1e9:.0f} GB)"
        for gpu in report["gpus"]
    ]
    versions = f"CUDA {report['cuda'] or 'none'}, cuDNN {report['cudnn'] or 'none'}"
    return [
        f"torch       {report['version']}, {versions}, {report['threads']} threads",
        f"devices     {', '.join([*report['devices'], *gpus])}",
    ]


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
