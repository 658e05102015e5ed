"""Build TensorRT engines and replace their weights, with `tensorrt` and `tensorrt-rtx`.

Both packages have the same interface, except for a few options. A network is strongly typed if the
library can do it (9 and later); otherwise precision is a flag of the builder.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.engines.tensorrt_library import RTX, Library, check_gpu, gpu, gpu_or_none, logger
from i3dzoo.engines.tensorrt_sidecar import Shape, Sidecar, TensorType
from i3dzoo.errors import DeviceError, FormatError, MetadataError, OptionError
from i3dzoo.exporters.job import EngineOptions
from i3dzoo.files import atomic_write
from i3dzoo.progress import SILENT, Progress

FLAGS: Final = {"fp16": ("FP16",), "bf16": ("BF16",)}
"""Flags of a builder whose networks are not strongly typed, by precision."""

Profile = dict[str, tuple[Shape, Shape, Shape]]
"""Smallest, best and largest shape of each input, by name."""


def build_engine(
    installed: Library,
    model: bytes,
    description: Mapping[str, str],
    options: EngineOptions,
    profile: Profile,
    progress: Progress = SILENT,
) -> tuple[bytes, Sidecar]:
    """Build an engine from an ONNX model; return it and its sidecar.

    `description` comes from `i3dzoo.onnx.description.describe`. The full library builds on a GPU
    only.
    """
    trt = installed.module
    if installed.name != RTX:
        gpu()
    log = logger(trt)
    builder = trt.Builder(log)
    flags = 0
    for flag in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        if hasattr(trt.NetworkDefinitionCreationFlag, flag):
            flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, flag))
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    name = f"{installed.name} {installed.version}"
    if not parser.parse(model):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise FormatError(f"{name} cannot read the ONNX model: {reasons}")
    config = builder.create_builder_config()
    optimization = builder.create_optimization_profile()
    for input_name, (smallest, best, largest) in profile.items():
        optimization.set_shape(input_name, smallest, best, largest)
    config.add_optimization_profile(optimization)
    _configure(installed, config, options, progress)
    if options.precision == "tf32" and not installed.typed:
        selector = rounding_selector(trt)  # a variable, since TensorRT does not keep it alive
        config.algorithm_selector = selector
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        remedy = "" if gpu_or_none() else "; --refittable needs a GPU to build, and there is none"
        raise FormatError(
            f"{name} could not build the engine: {log.last}{remedy if options.refittable else ''}"
        )
    if options.timing_cache is not None and (cache := config.get_timing_cache()) is not None:
        with atomic_write(options.timing_cache) as file:
            file.write(bytes(cache.serialize()))
    return bytes(plan), Sidecar(
        library=installed.name,
        version=installed.version,
        gpu=gpu_or_none(),
        precision=options.precision,
        shapes=profile,
        inputs=_types(network.get_input, network.num_inputs),
        outputs=_types(network.get_output, network.num_outputs),
        compatible=options.compatible,
        refittable=options.refittable,
        sha256=hashlib.sha256(plan).hexdigest(),
        description=dict(description),
    )


def _types(get: Callable[[int], Any], count: int) -> dict[str, TensorType]:
    """Return the shapes and types of TensorRT's tensors, by name."""
    return {t.name: TensorType(tuple(t.shape), t.dtype.name) for t in map(get, range(count))}


def check_options(installed: Library, options: EngineOptions) -> None:
    """Refuse, before any long work, options that the library would ignore or fail at."""
    if installed.name != RTX:
        return
    if options.timing_cache is not None:
        raise OptionError(
            f"{RTX} does not time kernels while it builds, so it has no timing cache; leave "
            "--timing-cache out"
        )
    if options.refittable and gpu_or_none() is not None:
        check_gpu(RTX, "--refittable")
    if options.compatible:
        raise OptionError(
            f"engines of {RTX} run on every GPU that it supports, and with no other version; leave "
            "--compatible out"
        )


def refit_engine(installed: Library, plan: bytes, weights: Mapping[str, Array]) -> bytes:
    """Return a refittable engine with the constants of an ONNX model that has the same graph."""
    trt = installed.module
    gpu()
    log = logger(trt)
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise DeviceError(
            f"{installed.name} {installed.version} cannot load the engine on this GPU: {log.last}"
        )
    if not engine.refittable:
        raise MetadataError(
            "the weights of this engine cannot be replaced; build it once with --refittable"
        )
    refitter = trt.Refitter(engine, log)
    alive = []  # TensorRT does not copy the weights
    for name in refitter.get_all_weights():
        if name not in weights:
            raise FormatError(f"the engine has {name}, and the checkpoint has no such weights")
        array = np.ascontiguousarray(weights[name])
        # NumPy has no bfloat16, so that goes by address
        bf16 = (trt.DataType.BF16, array.ctypes.data, array.size)
        alive.append((array, trt.Weights(*((array,) if array.dtype.kind == "f" else bf16))))
        if not refitter.set_named_weights(name, alive[-1][1]):
            raise FormatError(f"the engine does not accept {name} of the checkpoint: {log.last}")
    if not refitter.refit_cuda_engine():
        raise FormatError(f"TensorRT could not replace the weights: {log.last}")
    return bytes(engine.serialize())


def _configure(installed: Library, config: Any, options: EngineOptions, progress: Progress) -> None:
    trt = installed.module

    def set_flag(flag: str, on: bool) -> None:
        if hasattr(trt.BuilderFlag, flag):
            (config.set_flag if on else config.clear_flag)(getattr(trt.BuilderFlag, flag))
        elif on:
            raise OptionError(
                f"{installed.name} {installed.version} has no builder flag {flag}; use a later "
                "version of TensorRT"
            )

    set_flag("TF32", options.precision == "tf32")
    flags = [] if installed.typed else list(FLAGS.get(options.precision, ()))
    flags += ["REFIT"] if options.refittable else []
    flags += ["VERSION_COMPATIBLE"] if options.compatible in ("versions", "all") else []
    for flag in flags:
        set_flag(flag, True)
    if not installed.typed:
        # kernels of cuBLAS and cuDNN need those libraries, and do not make convolutions faster
        own = (trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
        config.set_tactic_sources(sum(1 << int(source) for source in own))
    if options.compatible in ("gpus", "all"):
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.workspace is not None:
        limit = int(options.workspace * (1 << 30))
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    if options.timing_cache is not None:
        old = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(old), ignore_mismatch=False)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, progress)


def rounding_selector(trt: Any) -> Any:
    """Return a selector that keeps TensorRT 8 from kernels that truncate to TF32.

    Kernels for inputs that are contiguous along their last axis truncate, and those for
    channels-last inputs round (benchmarks/results/h100.md). A layer that has no others keeps them.
    """

    class Selector(trt.IAlgorithmSelector):  # type: ignore[misc] # the module is found at run time
        def __init__(self) -> None:
            trt.IAlgorithmSelector.__init__(self)

        def select_algorithms(self, context: Any, choices: Any) -> list[int]:
            numbers = list(range(len(choices)))
            is_convolution = any(part in context.name for part in (".conv", "Logits.Conv3d"))
            if not is_convolution or context.name.startswith("Reformatting"):
                return numbers
            strides = [choices[n].get_algorithm_io_info(0).strides for n in numbers]
            return [n for n in numbers if strides[n][len(strides[n]) - 1] != 1] or numbers

        def report_algorithms(self, contexts: Any, choices: Any) -> None:
            """Do nothing; the interface requires the method."""

    return Selector()


def _monitor(trt: Any, progress: Progress) -> Any:
    """Return a progress monitor that reports the beginning of each phase."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # the module is found at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                progress.message(f"TensorRT: {phase}, {steps} steps")

        def step_complete(self, phase: str, step: int) -> bool:  # noqa: ARG002 - TensorRT's interface
            return True

        def phase_finish(self, phase: str) -> None:
            """Do nothing; the next phase reports its own beginning."""

    return Monitor()
