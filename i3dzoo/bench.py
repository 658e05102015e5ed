"""Benchmark a model on each inference engine.

Every engine runs in a process of its own, so that a crash does not stop the others, and so that
its memory can be measured.
"""

import dataclasses
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.devices import Device, choose_device
from i3dzoo.errors import DeviceError, FormatError, I3DZooError
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.onnx.options import INPUT, ExportOptions, Precision, main_output

if TYPE_CHECKING:
    from i3dzoo.engines.exported import ExportedEngine

WARM_UPS: Final = 2
_ON_CUDA: Final = ("torch-kernels", "fused", "tensorrt")

Run = Callable[[Array], Array]
"""From clips [B, C, T, H, W] to logits [B, classes], or features without a head; float32."""


@dataclass(frozen=True)
class Benchmark:
    """One engine to measure: one of `ENGINES`, on a checkpoint, with batch sizes in clips."""

    model: Path
    engine: str
    precision: Precision = "fp32"
    batches: tuple[int, ...] = (1,)
    runs: int = 5  # timed runs of each batch
    frames: int | None = None  # of a clip; None takes the model's own
    crop: int | None = None  # edge of a clip in pixels; None takes the model's own
    threads: int | None = None  # of the CPU; None leaves it to the engine
    device: Device = "auto"


@dataclass(frozen=True)
class Measurement:
    """The numbers of one engine and batch size; None if the engine failed, see `failure`.

    Attributes:
        batch: Clips in a batch.
        clips_per_second: At the median time.
        p50_ms: Median time of a batch, from clips in memory to logits in memory.
        p99_ms: 99th percentile of the time.
        memory_mb: Peak memory of the process, or of the GPU if PyTorch ran on one.
        error: Largest difference from PyTorch in float32, as a part of the largest logit; None if
            that failed.
        failure: Why there are no numbers.
    """

    engine: str
    precision: Precision
    batch: int
    clips_per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    memory_mb: float | None = None
    error: float | None = None
    failure: str | None = None


def available_engines(device: Device = "auto") -> list[str]:
    """Return the engines that are installed and run on a device."""
    import torch

    from i3dzoo.engines.choose import is_installed
    from i3dzoo.engines.tensorrt_library import MODULES
    from i3dzoo.network.fused import can_fuse

    gpu = choose_device(device).type == "cuda"
    compilers = (os.environ.get("CXX", "g++"), "clang++", "cl")  # of torch.compile on a CPU
    available = {
        "torch": True,
        "torch-kernels": gpu,
        "torch-compiled": is_installed("triton") if gpu else any(map(shutil.which, compilers)),
        "fused": gpu and can_fuse(torch.device("cuda")),
        "onnxruntime": is_installed("onnxruntime", "onnx"),
        "openvino": is_installed("openvino", "onnx"),
        "tensorrt": gpu and any(map(is_installed, MODULES)),
    }
    return [engine for engine in ENGINES if available[engine]]


def measure(benchmarks: Sequence[Benchmark]) -> Iterator[Measurement]:
    """Yield a measurement of each engine and batch size as soon as it is done, all of one model.

    Errors are differences from PyTorch in float32, which runs once more unless it comes first.
    """
    reference: Array | None = None
    exact = dataclasses.replace(benchmarks[0], engine="torch", precision="fp32")
    if exact != benchmarks[0]:
        ((_, reference),) = _run_in_process(dataclasses.replace(exact, batches=(1,), runs=1))
    for benchmark in benchmarks:
        for measurement, logits in _run_in_process(benchmark):
            if reference is None and benchmark == exact:
                reference = logits
            if reference is None or logits is None:
                yield measurement
                continue
            scale = float(np.abs(reference).max()) or 1.0
            error = float(np.abs(logits - reference).max()) / scale
            yield dataclasses.replace(measurement, error=error)


def _run_in_process(benchmark: Benchmark) -> Iterator[tuple[Measurement, Array | None]]:
    """Yield the measurement of each batch size, and the logits of one clip."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(benchmark, sender))
    _start(process)
    sender.close()
    remaining, failure = list(benchmark.batches), ""
    try:
        while remaining and not failure:
            result = receiver.recv()
            if isinstance(result, str):
                failure = result
            else:
                remaining.pop(0)
                yield result
    except EOFError:
        process.join()
        failure = f"its process ended with exit code {process.exitcode}"
    finally:
        if failure or not remaining:
            process.join(10)  # compilers clean up at exit
        process.terminate()
        process.join()
    for batch in remaining:
        yield Measurement(benchmark.engine, benchmark.precision, batch, failure=failure), None


def _start(process: BaseProcess) -> None:
    """Start a process that ignores Ctrl-C, since this process ends it."""
    if threading.current_thread() is not threading.main_thread():  # only that one sets handlers
        process.start()
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, handler)


def _run(benchmark: Benchmark, sender: Connection) -> None:
    """Measure one engine in the child process; send its measurements, and why it failed."""
    try:
        checkpoint = open_checkpoint(benchmark.model)
        spec = checkpoint.metadata.input
        frames, crop = benchmark.frames or spec.frames, benchmark.crop or spec.crop
        spec = spec.replace(frames=frames, crop=crop, resize=None)
        metadata = checkpoint.metadata.replace(input=spec)
        checkpoint = dataclasses.replace(checkpoint, metadata=metadata)
        device = choose_device(benchmark.device)  # which becomes the current GPU
        if benchmark.engine in _ON_CUDA and device.type != "cuda":
            raise DeviceError(f"{benchmark.engine} needs a CUDA device, not {device.type}")
        run = ENGINES[benchmark.engine](checkpoint, benchmark)
        for batch in benchmark.batches:
            sender.send(_measure_batch(run, checkpoint, benchmark, batch))
    except Exception as error:  # engines fail in many ways, and the others must still run
        failure = str(error).strip().partition("\n")[0]
        known = isinstance(error, I3DZooError)
        sender.send(failure if known else f"{type(error).__name__}: {failure}")
    sender.close()


def _measure_batch(
    run: Run, checkpoint: Checkpoint, benchmark: Benchmark, batch: int
) -> tuple[Measurement, Array]:
    spec = checkpoint.metadata.input
    shape = (1, len(spec.mean), spec.frames, spec.crop, spec.crop)
    clip = np.random.default_rng(0).uniform(-1, 1, shape).astype("f4")
    clips = np.repeat(clip, batch, axis=0)
    for _ in range(WARM_UPS):
        run(clips)
    times = []
    for _ in range(benchmark.runs):
        start = time.perf_counter()
        logits = run(clips)
        times.append(1e3 * (time.perf_counter() - start))
    if not np.isfinite(logits).all():
        raise FormatError("the logits are not finite")
    p50, p99 = (float(np.percentile(times, part)) for part in (50, 99))
    setting = (benchmark.engine, benchmark.precision, batch)
    return Measurement(*setting, 1e3 * batch / p50, p50, p99, _peak_memory()), logits[0]


def _peak_memory() -> float | None:
    """Return the peak in MB: of the GPU if PyTorch used one, otherwise of this process."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 1e6
    try:
        import resource
    except ImportError:  # Windows does not have it
        return None
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes on macOS, kibibytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _torch(checkpoint: Checkpoint, benchmark: Benchmark) -> Run:
    import torch

    from i3dzoo import kernels
    from i3dzoo.engines.torch import DTYPES, check_precision
    from i3dzoo.pretrained import build

    device = choose_device(benchmark.device)
    own_kernels = benchmark.engine == "torch-kernels"
    kernels.set_enabled(own_kernels)
    check_precision(benchmark.precision, device)
    torch.backends.cudnn.allow_tf32 = benchmark.precision == "tf32"
    if benchmark.threads:
        torch.set_num_threads(benchmark.threads)
    dtype = DTYPES[benchmark.precision]
    network: Any = build(checkpoint).to(device, dtype)
    if own_kernels or device.type == "cpu":  # as in `TorchEngine`
        network = network.to(memory_format=torch.channels_last_3d)
    if benchmark.engine == "torch-compiled":
        network = torch.compile(network)
    pinned: dict[tuple[int, ...], Any] = {}

    def run(clips: Array) -> Array:
        batch = torch.from_numpy(clips)
        if device.type == "cuda":  # copied from pinned memory, as in `TensorRTSession`
            if clips.shape not in pinned:
                pinned[clips.shape] = torch.empty(clips.shape, pin_memory=True)
            batch = pinned[clips.shape].copy_(batch)
        with torch.inference_mode():
            moved = batch.to(device, non_blocking=True).to(dtype)
            logits: Array = network(moved).float().cpu().numpy()
        return logits

    return run


def _onnx_model(checkpoint: Checkpoint, benchmark: Benchmark) -> Any:
    from i3dzoo.onnx.model import build_model

    opset = 22 if benchmark.precision == "bf16" else 13
    options = ExportOptions(opset=opset, precision=benchmark.precision)
    return build_model([checkpoint], options).SerializeToString()


def _onnxruntime(checkpoint: Checkpoint, benchmark: Benchmark) -> Run:
    from i3dzoo.engines.onnxruntime import OnnxEngine

    model = _onnx_model(checkpoint, benchmark)
    return _run_of(OnnxEngine(model, benchmark.threads, benchmark.device))


def _openvino(checkpoint: Checkpoint, benchmark: Benchmark) -> Run:
    from i3dzoo.engines.openvino import OpenVINOEngine

    threads, precision = benchmark.threads, benchmark.precision
    return _run_of(OpenVINOEngine.from_checkpoint(checkpoint, threads, precision))


def _fused(checkpoint: Checkpoint, benchmark: Benchmark) -> Run:
    import torch

    from i3dzoo.engines.fused import FusedEngine

    engine = FusedEngine.from_checkpoint(checkpoint, benchmark.precision)

    def run(clips: Array) -> Array:
        batch = torch.from_numpy(clips)
        steps = engine.step_logits(batch).mean(1) if engine.num_classes else engine.features(batch)
        outputs: Array = steps.float().cpu().numpy()
        return outputs

    return run


def _tensorrt(checkpoint: Checkpoint, benchmark: Benchmark) -> Run:
    from i3dzoo.engines.tensorrt import TensorRTEngine
    from i3dzoo.engines.tensorrt_library import library
    from i3dzoo.exporters.job import EngineOptions
    from i3dzoo.exporters.tensorrt import graph_options, parse_shapes
    from i3dzoo.exporters.tensorrt_builder import build_engine
    from i3dzoo.onnx.description import describe
    from i3dzoo.onnx.model import build_model

    installed = library()
    options = ExportOptions(precision=benchmark.precision, opset=22 if installed.typed else 13)
    options = graph_options(options, installed)
    smallest, largest = min(benchmark.batches), max(benchmark.batches)
    shapes = f"{smallest},{largest},{largest}"
    engine = EngineOptions(precision=benchmark.precision, shapes=shapes)
    profile = parse_shapes(shapes, [checkpoint], options)
    model = build_model([checkpoint], options).SerializeToString()
    description = describe([checkpoint], options)
    plan, sidecar = build_engine(installed, model, description, engine, profile)
    return _run_of(TensorRTEngine("the engine", plan, sidecar))


def _run_of(engine: "ExportedEngine") -> Run:
    name, output = INPUT[engine.metadata.stream], main_output(engine.metadata)
    return lambda clips: engine.run({name: clips})[output]


ENGINES: Final[dict[str, Callable[[Checkpoint, Benchmark], Run]]] = {
    "torch": _torch,
    "torch-kernels": _torch,
    "torch-compiled": _torch,
    "fused": _fused,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
}
