"""TensorRT's builder: one path for the packages `tensorrt` and `tensorrt-rtx`.

Both have the same interface but for what each has not; a network is strongly typed where the
library can (9 and later), and precision a flag of the builder where it cannot.
"""

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from i3dzoo._files import atomic_write
from i3dzoo.errors import DependencyError, DeviceError, FormatError, MetadataError
from i3dzoo.export.cuda import Gpu, gpu

__all__ = [
    "FLAGS",
    "RTX",
    "EngineOptions",
    "Library",
    "Profile",
    "Shape",
    "build_engine",
    "check_gpu",
    "gpu_or_none",
    "library",
    "logger",
    "refuse",
]

RTX: Final = "tensorrt-rtx"
_MODULES: Final = {"tensorrt": "tensorrt", "tensorrt_rtx": RTX, "tensorrt_rtx_bindings": RTX}
FLAGS: Final = {"fp16": ("FP16",), "bf16": ("BF16",), "int8": ("INT8", "FP16")}
"""Of a builder whose networks are not strongly typed."""

Shape = tuple[int, ...]
Profile = dict[str, tuple[Shape, Shape, Shape]]
"""Smallest, best and largest shape of each input, by name."""


@dataclass(frozen=True)
class Library:
    """TensorRT as it is installed.

    Attributes:
        name: The package.
        version: Of the package.
        module: What it imports as.
    """

    name: str
    version: str
    module: Any

    @property
    def typed(self) -> bool:
        """Whether precision is the types in the graph (9 and later) and no flag of the builder."""
        return hasattr(self.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built.

    Attributes:
        precision: tf32 is float32 whose convolutions round their factors to 10 bits; int8 is a
            graph that says itself what is rounded and how.
        shapes: `MIN,OPT,MAX`, each a batch or BxTxHxW; None is 1,1,8.
        workspace: The most memory for building, in GiB; None leaves it to TensorRT.
        timing_cache: A file of measured kernels, read if it is there, and written.
        compatible: For GPUs from Ampere on, for later versions of the library, or both, at some
            cost in speed.
        refittable: Weights can be replaced without building again.
    """

    precision: Literal["fp32", "tf32", "fp16", "bf16", "int8"] = "fp32"
    shapes: str | None = None
    workspace: float | None = None
    timing_cache: Path | None = None
    compatible: Literal["gpus", "versions", "all"] | None = None
    refittable: bool = False


def library() -> Library:
    """Return the TensorRT that is installed; `tensorrt` comes before `tensorrt-rtx`.

    Raises:
        DependencyError: Neither is.
    """
    for name, package in _MODULES.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return Library(package, module.__version__, module)
    raise DependencyError(
        "engines need TensorRT: pip install 'i3dzoo[tensorrt]', or the tensorrt package that fits "
        "your GPU"
    )


def build_engine(
    found: Library,
    model: bytes,
    options: EngineOptions,
    profile: Profile,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[bytes, dict[str, Any]]:
    """Build an engine from an ONNX model.

    Args:
        found: The library.
        model: The ONNX model.
        options: How to build.
        profile: Shapes of the inputs.
        say: Told of the builder's progress.

    Returns:
        The engine, and its inputs and outputs with their shapes and types.

    Raises:
        DeviceError: There is no GPU, which the full library builds on.
        FormatError: TensorRT refuses the graph, or finds no way to compute it.
    """
    trt = found.module
    if found.name != RTX:
        gpu()
    log = logger(trt)
    builder = trt.Builder(log)
    flags = 0
    for flag in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        if hasattr(trt.NetworkDefinitionCreationFlag, flag):
            flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, flag))
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise FormatError(f"{found.name} {found.version} cannot read the ONNX model: {reasons}")
    config = builder.create_builder_config()
    shapes = builder.create_optimization_profile()
    for name, (least, best, most) in profile.items():
        shapes.set_shape(name, least, best, most)
    config.add_optimization_profile(shapes)
    _configure(found, config, options, say)
    if options.precision == "tf32" and not found.typed:
        selector = rounding_selector(trt)  # kept here, since TensorRT does not keep it alive
        config.algorithm_selector = selector
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        remedy = "" if gpu_or_none() else "; there is no GPU, and --refittable builds on one only"
        raise FormatError(
            f"{found.name} {found.version} could not build the engine: {log.last}"
            f"{remedy if options.refittable else ''}"
        )
    if options.timing_cache is not None and (cache := config.get_timing_cache()) is not None:
        with atomic_write(options.timing_cache) as file:
            file.write(bytes(cache.serialize()))
    tensors = {
        "inputs": [network.get_input(i) for i in range(network.num_inputs)],
        "outputs": [network.get_output(i) for i in range(network.num_outputs)],
    }
    described = {
        side: {t.name: {"shape": list(t.shape), "type": t.dtype.name} for t in each}
        for side, each in tensors.items()
    }
    return bytes(plan), described


def refuse(found: Library, options: EngineOptions) -> None:
    """Refuse, before the long work, what the library would ignore or fail at.

    Raises:
        MetadataError: It has no such option.
        DeviceError: It builds refittable engines where they run only, and this GPU runs none.
    """
    if found.name != RTX:
        return
    if options.timing_cache is not None:
        raise MetadataError(
            f"{RTX} measures no kernels while it builds, so it keeps no timing cache; leave "
            "--timing-cache out"
        )
    if options.refittable and gpu_or_none() is not None:
        check_gpu(RTX, "--refittable")
    if options.compatible:
        raise MetadataError(
            f"engines of {RTX} fit every GPU that it knows, and no other version; leave "
            "--compatible out"
        )


def check_gpu(library: str, what: str) -> Gpu:
    """Return the GPU, if engines of a library run on it.

    Args:
        library: The package.
        what: What is to run, for the message.

    Raises:
        DeviceError: There is none, or they do not.
    """
    here = gpu()
    if library == RTX and here.capability.startswith(("9.", "10.")):
        raise DeviceError(
            f"{what}: {RTX} runs on compute capability 7.5, 8.x and 12.x, and this is {here}; "
            "build with the full tensorrt package here"
        )
    return here


def _configure(
    found: Library, config: Any, options: EngineOptions, say: Callable[[str], None]
) -> None:
    trt = found.module
    known = trt.BuilderFlag

    def switch(flag: str, on: bool) -> None:
        if hasattr(known, flag):
            (config.set_flag if on else config.clear_flag)(getattr(known, flag))
        elif on:
            raise MetadataError(f"{found.name} {found.version} has no {flag.lower()} engines")

    switch("TF32", options.precision == "tf32")
    if not found.typed:
        for flag in FLAGS.get(options.precision, ()):
            switch(flag, True)
        # cuBLAS and cuDNN must be installed for theirs, and convolutions win nothing by them
        own = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
        config.set_tactic_sources(sum(1 << int(source) for source in own))
    if options.refittable:
        switch("REFIT", True)
    if options.compatible in ("versions", "all"):
        switch("VERSION_COMPATIBLE", True)
    if options.compatible in ("gpus", "all"):
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.workspace is not None:
        limit = int(options.workspace * (1 << 30))
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    if options.timing_cache is not None:
        old = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(old), ignore_mismatch=False)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, say)


def rounding_selector(trt: Any) -> Any:
    """Return what keeps TensorRT 8 from kernels that cut TF32 off instead of rounding.

    Those are convolutions of inputs that are contiguous along their last axis, as those of
    channels-last inputs round (benchmarks/results/h100.md). A layer which has no other keeps them.
    """

    class Selector(trt.IAlgorithmSelector):  # type: ignore[misc] # the module is found at run time
        def __init__(self) -> None:
            trt.IAlgorithmSelector.__init__(self)

        def select_algorithms(self, context: Any, choices: Any) -> list[int]:
            every = list(range(len(choices)))
            convolves = any(part in context.name for part in (".conv", "Logits.Conv3d"))
            if not convolves or context.name.startswith("Reformatting"):
                return every
            strides = [choices[n].get_algorithm_io_info(0).strides for n in every]
            return [n for n in every if strides[n][len(strides[n]) - 1] != 1] or every

        def report_algorithms(self, contexts: Any, choices: Any) -> None:
            """Do nothing: the engine can be asked."""

    return Selector()


def logger(trt: Any) -> Any:
    """Return a logger that prints nothing and keeps the last error, for the message."""

    class Logger(trt.ILogger):  # type: ignore[misc] # the module is found at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last = message

    return Logger()


def _monitor(trt: Any, say: Callable[[str], None]) -> Any:
    """Return a progress monitor that tells of each phase's beginning."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the module is found at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                say(f"TensorRT: {phase}, {steps} steps")

        def step_complete(self, phase: str, step: int) -> bool:  # noqa: ARG002 - TensorRT's
            return True

        def phase_finish(self, phase: str) -> None:
            """Do nothing: the next phase's beginning says it."""

    return Monitor()


def gpu_or_none() -> dict[str, str] | None:
    """Return the GPU as JSON has it, or None where there is none."""
    try:
        return dataclasses.asdict(gpu())
    except DeviceError:
        return None
