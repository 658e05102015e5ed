"""The fastest engine of a CPU, measured once for a shape of clips and kept in the cache."""

import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from i3dzoo import measurements
from i3dzoo.engines.choose import OnCpu
from i3dzoo.records import Record
from i3dzoo.version import __version__

SECONDS: Final = 2.0
"""A measurement starts no further round after this time; loading the engines comes before it."""

_FOLDER: Final = "engines"  # of the cache
_HOPELESS: Final = 3.0  # times as long as another engine in the first round
_PACKAGES: Final = ("torch", "onnxruntime", "onnx", "openvino")


class Setting(Record, frozen=True, kw_only=True):
    """What the speed of engines depends on.

    Attributes:
        cpu: Name of the CPU.
        threads: Number of threads.
        shape: Channels, frames, height and width of the model's clips.
        padding: Padding of the network.
        pooling: Pooling of the network.
        precision: Precision of the computation.
        engines: The engines that can run.
        versions: Versions of i3dzoo and of the packages of engines; those that are missing are
            left out.
    """

    cpu: str
    threads: int
    shape: tuple[int, int, int, int]
    padding: str
    pooling: str
    precision: str
    engines: tuple[OnCpu, ...]
    versions: dict[str, str]


class Measured(Record, frozen=True, kw_only=True):
    """The seconds that each engine took for a clip, the fastest first."""

    setting: Setting
    seconds: dict[OnCpu, float]

    @property
    def fastest(self) -> OnCpu:
        """Name of the fastest engine."""
        return next(iter(self.seconds))

    def __str__(self) -> str:
        first, *others = (f"{name} {seconds:.2f} s" for name, seconds in self.seconds.items())
        return f"{first} ({', '.join(others)})" if others else first


def versions() -> dict[str, str]:
    """Return the versions of i3dzoo and of the packages of engines."""
    result = {"i3dzoo": __version__}
    for package in _PACKAGES:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result


def cpu_name() -> str:
    """Return the name of this CPU, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def kept(setting: Setting) -> Measured | None:
    """Return the measurement of a setting, or None if there is none that can be read."""
    measured = measurements.read(_FOLDER, setting, Measured)
    if measured is None or not measured.seconds:
        return None
    return measured if set(measured.seconds) <= set(setting.engines) else None


def keep(measured: Measured) -> Path | None:
    """Write a measurement to the cache; return None if that cannot be written."""
    return measurements.keep(_FOLDER, measured)


def measure(
    runs: Mapping[OnCpu, Callable[[], object]], clock: Callable[[], float] = time.perf_counter
) -> dict[OnCpu, float]:
    """Return the shortest time of each function, the fastest first.

    They run in turn until `SECONDS` have passed. One that takes several times as long as another in
    the first round is out.
    """
    started = clock()
    times = {name: _time(run, clock) for name, run in runs.items()}
    limit = _HOPELESS * min(times.values())
    while clock() - started < SECONDS:
        for name, best in times.items():
            if best <= limit:
                times[name] = min(best, _time(runs[name], clock))
    return dict(sorted(times.items(), key=lambda item: item[1]))


def _time(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start
