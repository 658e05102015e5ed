"""What this machine makes of a network, engine by engine.

Every engine runs in a process of its own, so that one that crashes takes none with it, and so that
its memory is its own.
"""

import dataclasses
import importlib.util
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from i3dzoo._files import atomic_write
from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.errors import DependencyError, DeviceError, FormatError, I3DZooError, MetadataError
from i3dzoo.export.options import INPUT, ExportOptions, Precision, main_output

if TYPE_CHECKING:
    from i3dzoo.export.prove import Runner

__all__ = ["ENGINES", "Job", "Row", "available", "draw", "measure"]

WARM_UPS: Final = 2

Run = Callable[[Array], Array]
"""From clips [B, C, T, H, W] to logits [B, classes], or features without a head; float32."""


@dataclass(frozen=True)
class Job:
    """One engine to be measured.

    Attributes:
        model: A checkpoint.
        engine: Of `ENGINES`.
        precision: Of weights and computation.
        batches: Clips at once.
        runs: Timed runs of each batch.
        frames: Of a clip; None takes the model's own.
        crop: Edge of a clip in pixels; None takes the model's own.
        threads: For engines on the processor; None leaves it to each.
    """

    model: Path
    engine: str
    precision: Precision = "fp32"
    batches: tuple[int, ...] = (1,)
    runs: int = 5
    frames: int | None = None
    crop: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Row:
    """What was measured; Nones where the engine failed, which `failure` explains.

    Attributes:
        engine: Of `ENGINES`.
        precision: Of weights and computation.
        batch: Clips at once.
        clips_per_second: At the median.
        p50_ms: Median of a batch's time, from clips in memory to logits in memory.
        p99_ms: 99th percentile.
        memory_mb: Peak of the process; of the GPU, where PyTorch ran on one.
        error: Largest difference from PyTorch in float32, as a part of the largest logit; None
            where that failed.
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


def available() -> list[str]:
    """Return the engines that are installed and have the device that they need."""
    found = ["torch", "torch-compiled"] if _compiles() else ["torch"]
    if _has_gpu():
        found.insert(1, "torch-kernels")
    for engine, module in (("onnxruntime", "onnxruntime"), ("openvino", "openvino")):
        if importlib.util.find_spec(module) and importlib.util.find_spec("onnx"):
            found.append(engine)
    try:
        from i3dzoo.export.cuda import gpu
        from i3dzoo.export.engine_build import library

        library()
        gpu()
    except (DependencyError, DeviceError):
        return found
    return [*found, "tensorrt"]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _compiles() -> bool:
    """Whether torch.compile has what it needs: Triton beside a GPU, else a C++ compiler."""
    if _has_gpu():
        return importlib.util.find_spec("triton") is not None
    return any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++", "cl")))


def measure(jobs: Sequence[Job], told: Callable[[Row], None] = lambda _: None) -> list[Row]:
    """Measure engines one after another.

    Errors are against PyTorch in float32, which runs once for them where it is not the first job.

    Args:
        jobs: The engines.
        told: Told of each row as soon as it is known.

    Returns:
        A row for each job and batch, in order.
    """
    reference: Array | None = None
    exact = [dataclasses.replace(job, engine="torch", precision="fp32") for job in jobs[:1]]
    if exact != list(jobs[:1]):
        once = dataclasses.replace(exact[0], batches=(1,), runs=1)
        ((_, reference),) = _in_a_process(once)
    rows = []
    for job in jobs:
        for row, logits in _in_a_process(job):
            if reference is None and job in exact:
                reference = logits
            if reference is not None and logits is not None:
                scale = float(np.abs(reference).max()) or 1.0
                error = float(np.abs(logits - reference).max()) / scale
                row = dataclasses.replace(row, error=error)
            rows.append(row)
            told(row)
    return rows


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Draw clips a second as bars: PNG, PDF or SVG.

    Raises:
        MetadataError: No engine gave numbers.
        OutputError: It cannot be written.
    """
    from matplotlib.figure import Figure

    good = [row for row in rows if row.clips_per_second is not None]
    if not good:
        raise MetadataError("no engine gave numbers, so there is nothing to draw")
    figure = Figure(figsize=(8, 1 + 0.4 * len(good)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    names = [f"{row.engine} {row.precision}, batch {row.batch}" for row in good]
    bars = axes.barh(names, [row.clips_per_second or 0 for row in good], color="#0072B2")
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("clips a second")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    with atomic_write(path) as file:
        figure.savefig(file, format=path.suffix.lower().removeprefix("."))
    return path


def _in_a_process(job: Job) -> Iterator[tuple[Row, Array | None]]:
    """Yield a row for each batch, and the logits of one clip."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, there))
    process.start()
    there.close()
    left = list(job.batches)
    try:
        while left:
            row, logits = here.recv()
            left.remove(row.batch)
            yield row, logits
    except EOFError:
        process.join()
        for batch in left:
            reason = f"its process ended with code {process.exitcode}"
            yield Row(job.engine, job.precision, batch, failure=reason), None
    finally:
        if not left:
            process.join(10)  # to clean up after itself, as compilers must
        process.terminate()
        process.join()


def _child(job: Job, answer: Connection) -> None:
    """Measure one engine and send what was found."""
    done = 0
    try:
        checkpoint = _sized(read_checkpoint(job.model), job)
        run = ENGINES[job.engine](checkpoint, job)
        for batch in job.batches:
            answer.send(_time(run, checkpoint, job, batch))
            done += 1
    except Exception as error:  # whatever an engine fails with, the others go on
        text = str(error).strip().partition("\n")[0]
        reason = text if isinstance(error, I3DZooError) else f"{type(error).__name__}: {text}"
        for batch in job.batches[done:]:
            answer.send((Row(job.engine, job.precision, batch, failure=reason), None))
    answer.close()


def _time(run: Run, checkpoint: Checkpoint, job: Job, batch: int) -> tuple[Row, Array]:
    spec = checkpoint.metadata.input
    shape = (1, len(spec.mean), spec.frames, spec.crop, spec.crop)
    clip = np.random.default_rng(0).uniform(-1, 1, shape).astype("f4")
    clips = np.repeat(clip, batch, axis=0)
    for _ in range(WARM_UPS):
        logits = run(clips)
    times = []
    for _ in range(job.runs):
        start = time.perf_counter()
        logits = run(clips)
        times.append(1e3 * (time.perf_counter() - start))
    if not np.isfinite(logits).all():
        raise FormatError("logits are not finite")
    middle, worst = (float(np.percentile(times, part)) for part in (50, 99))
    rate = 1e3 * batch / middle
    row = Row(job.engine, job.precision, batch, rate, middle, worst, _memory())
    return row, logits[0]


def _sized(checkpoint: Checkpoint, job: Job) -> Checkpoint:
    spec = checkpoint.metadata.input
    spec = dataclasses.replace(
        spec, frames=job.frames or spec.frames, crop=job.crop or spec.crop, resize=None
    )
    metadata = dataclasses.replace(checkpoint.metadata, input=spec)
    return dataclasses.replace(checkpoint, metadata=metadata)


def _memory() -> float | None:
    """Return the peak in MB: of the GPU where PyTorch used one, else of this process."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_allocated()) / 1e6
    try:
        import resource
    except ImportError:  # there is none on Windows
        return None
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kibibytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _torch(
    checkpoint: Checkpoint, job: Job, *, compiled: bool = False, own_kernels: bool = False
) -> Run:
    import torch

    from i3dzoo import kernels
    from i3dzoo.loading import build

    kernels.use(own_kernels)
    torch.backends.cudnn.allow_tf32 = False  # float32 is meant
    if job.threads:
        torch.set_num_threads(job.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[job.precision]
    network: Any = build(checkpoint).to(device, dtype)
    if own_kernels or device == "cpu":  # as `load_engine` has it
        network = network.to(memory_format=torch.channels_last_3d)
    if compiled:
        network = torch.compile(network)
    pinned: dict[tuple[int, ...], Any] = {}

    def run(clips: Array) -> Array:
        given = torch.from_numpy(clips)
        if device == "cuda":
            # as TensorRT's runner does: a copy to the GPU from memory that stays
            if clips.shape not in pinned:
                pinned[clips.shape] = torch.empty(clips.shape, pin_memory=True)
            given = pinned[clips.shape].copy_(given)
        with torch.inference_mode():
            moved = given.to(device, non_blocking=True).to(dtype)
            logits: Array = network(moved).float().cpu().numpy()
        return logits

    return run


def _kernels(checkpoint: Checkpoint, job: Job) -> Run:
    if not _has_gpu():
        raise DeviceError("the kernels of i3dzoo run on GPUs, and PyTorch finds none here")
    return _torch(checkpoint, job, own_kernels=True)


def _compiled(checkpoint: Checkpoint, job: Job) -> Run:
    return _torch(checkpoint, job, compiled=True)


def _onnx_model(checkpoint: Checkpoint, job: Job) -> bytes:
    from i3dzoo.export.onnx import build

    opset = 22 if job.precision == "bf16" else 13
    options = ExportOptions(opset=opset, precision=job.precision)
    data: bytes = build([checkpoint], options).SerializeToString()
    return data


def _onnxruntime(checkpoint: Checkpoint, job: Job) -> Run:
    from i3dzoo.export.runtime import OnnxEngine

    return _logits(OnnxEngine(_onnx_model(checkpoint, job), job.threads).run, checkpoint)


def _openvino(checkpoint: Checkpoint, job: Job) -> Run:
    import openvino

    core = openvino.Core()
    # the precision is the graph's; without this OpenVINO computes in bfloat16 where it can
    wanted: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"} if job.precision == "fp32" else {}
    if job.threads:
        wanted["INFERENCE_NUM_THREADS"] = job.threads
    model = core.compile_model(core.read_model(_onnx_model(checkpoint, job)), "CPU", wanted)

    def run(clips: Array) -> Array:
        logits: Array = model({0: clips})[0]
        return logits

    return run


def _tensorrt(checkpoint: Checkpoint, job: Job) -> Run:
    from i3dzoo.export import engine_build, tensorrt
    from i3dzoo.export.describe import describe
    from i3dzoo.export.tensorrt_engine import TensorRTEngine

    found = engine_build.library()
    engine = engine_build.EngineOptions(precision=job.precision)
    options = tensorrt.graph_options(ExportOptions(opset=22), engine, found)
    if not found.typed:
        options = dataclasses.replace(options, opset=13)
    most = max(job.batches)
    profile = tensorrt.parse_shapes(f"{min(job.batches)},{most},{most}", [checkpoint], options)
    from i3dzoo.export.onnx import build

    model = build([checkpoint], options).SerializeToString()
    plan, network = engine_build.build_engine(found, model, engine, profile)
    document = tensorrt.document(found, plan, engine, profile, network)
    document["description"] = describe([checkpoint], options)
    return _logits(TensorRTEngine(plan, document).run, checkpoint)


def _logits(runner: "Runner", checkpoint: Checkpoint) -> Run:
    name = INPUT[checkpoint.metadata.stream]
    output = main_output(checkpoint.metadata)
    return lambda clips: runner({name: clips})[output]


ENGINES: Final[dict[str, Callable[[Checkpoint, Job], Run]]] = {
    "torch": _torch,
    "torch-kernels": _kernels,
    "torch-compiled": _compiled,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "tensorrt": _tensorrt,
}
