"""TensorRT engines: one path for the packages `tensorrt` and `tensorrt-rtx`.

An engine runs on the kind of GPU and with the version of the library that built it. Beside it lies
a JSON file that says which, with shapes, labels and preprocessing, so that another is refused in a
sentence. The builder of `tensorrt-rtx` needs no GPU; its engines run on GPUs of compute capability
7.5, 8.x and 12.x.
"""

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from i3dzoo._files import atomic_write, check_output, output_error
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.errors import DependencyError, DeviceError, FormatError, MetadataError
from i3dzoo.export.cuda import gpu
from i3dzoo.export.describe import describe
from i3dzoo.export.options import ExportOptions, Precision
from i3dzoo.export.targets import Export

__all__ = [
    "EngineOptions",
    "Library",
    "build_engine",
    "export_engine",
    "library",
    "parse_shapes",
    "sidecar",
]

SIDECAR_VERSION: Final = 1
RTX: Final = "tensorrt-rtx"
_MODULES: Final = {"tensorrt": "tensorrt", "tensorrt_rtx": RTX, "tensorrt_rtx_bindings": RTX}
_FLAGS: Final = {"fp16": "FP16", "bf16": "BF16"}

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
        precision: tf32 is float32 whose convolutions round their factors to 10 bits.
        shapes: `MIN,OPT,MAX`, each a batch or BxTxHxW; None is 1,1,8.
        workspace: The most memory for building, in GiB; None leaves it to TensorRT.
        timing_cache: A file of measured kernels, read if it is there, and written.
        compatible: For later versions and for GPUs from Ampere on, at some cost in speed.
        refittable: Weights can be replaced without building again.
    """

    precision: Literal["fp32", "tf32", "fp16", "bf16"] = "fp32"
    shapes: str | None = None
    workspace: float | None = None
    timing_cache: Path | None = None
    compatible: bool = False
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


def export_engine(
    checkpoints: Sequence[Checkpoint],
    path: Path,
    options: ExportOptions,
    engine: EngineOptions,
    *,
    clip: Path | None = None,
    seed: int = 0,
    atol: float | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Export:
    """Build an engine, compare it with PyTorch where it can run, and write it with its sidecar.

    The graph that it is built from is always compared; the engine itself only beside a GPU that
    runs it, and the sidecar says which of the two it was.

    Args:
        checkpoints: One, or one of each stream.
        path: The engine; the sidecar is `path` with `.json` added.
        options: What the network takes and gives.
        engine: How it is built.
        clip: A video for the comparison; None takes seeded noise.
        seed: Of the noise.
        atol: Largest difference that passes, in logits.
        force: Replace the files if they exist.
        say: Told of the builder's progress.

    Raises:
        DependencyError: TensorRT, onnx or onnxruntime is not installed.
        FormatError: TensorRT refuses the graph, or a comparison fails.
        MetadataError: The library has no such precision, or the shapes are wrong.
    """
    check_output(path, force)
    check_output(sidecar(path), force)
    if not path.parent.is_dir():
        raise output_error(path, FileNotFoundError(2, "no such folder"))
    found = library()
    _refuse(found, engine)
    from i3dzoo.export import onnx
    from i3dzoo.export.prove import prove
    from i3dzoo.export.runtime import OnnxEngine

    graph_options = _graph_options(options, engine, found)
    model = onnx.build(checkpoints, graph_options)
    data = model.SerializeToString()
    profile = parse_shapes(engine.shapes, checkpoints, options)
    runnable = onnx.widened(model).SerializeToString()
    proof = prove(
        str(path),
        OnnxEngine(runnable).run,
        "the engine's graph in onnxruntime",
        checkpoints,
        graph_options,
        clip=clip,
        seed=seed,
        atol=atol,
    )
    plan, network = build_engine(found, data, engine, profile, say)
    document = {
        "format": SIDECAR_VERSION,
        "library": found.name,
        "version": found.version,
        "gpu": _gpu_or_none(),
        "precision": engine.precision,
        "shapes": {name: [list(shape) for shape in shapes] for name, shapes in profile.items()},
        **network,
        "compatible": engine.compatible,
        "refittable": engine.refittable,
        "sha256": hashlib.sha256(plan).hexdigest(),
        "description": describe(checkpoints, graph_options),
    }
    remarks = []
    try:
        from i3dzoo.export.tensorrt_engine import TensorRTEngine

        proof = prove(
            str(path),
            TensorRTEngine(plan, document).run,
            f"{found.name} {found.version}",
            checkpoints,
            dataclasses.replace(graph_options, precision=_proof_precision(engine)),
            clip=clip,
            seed=seed,
            atol=atol,
            batches=_batches(profile),
        )
        document["proved"] = "engine"
    except DeviceError as error:
        document["proved"] = "graph"
        remarks.append(f"the engine itself was not run: {error}")
    with atomic_write(path) as file:
        file.write(plan)
    with atomic_write(sidecar(path)) as file:
        file.write(json.dumps(document, indent=1).encode())
    remarks.append(f"{sidecar(path).name} says what the engine needs; keep it beside the engine")
    return Export(path, "tensorrt", proof, len(model.graph.node), tuple(remarks))


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
        FormatError: TensorRT refuses the graph, or finds no way to compute it.
    """
    trt = found.module
    log = _logger(trt)
    builder = trt.Builder(log)
    flags = 0
    for flag in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        if hasattr(trt.NetworkDefinitionCreationFlag, flag):
            flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, flag))
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise FormatError(f"TensorRT {found.version} cannot read the ONNX model: {reasons}")
    config = builder.create_builder_config()
    shapes = builder.create_optimization_profile()
    for name, (least, best, most) in profile.items():
        shapes.set_shape(name, least, best, most)
    config.add_optimization_profile(shapes)
    _configure(found, config, options, say)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        remedy = "" if _gpu_or_none() else "; there is no GPU, and --refittable builds on one only"
        raise FormatError(
            f"TensorRT {found.version} could not build the engine: {log.last}"
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


def parse_shapes(
    text: str | None, checkpoints: Sequence[Checkpoint], options: ExportOptions
) -> Profile:
    """Read `MIN,OPT,MAX`, each a batch or BxTxHxW, into the shapes of the inputs.

    Raises:
        MetadataError: It is malformed, falls, or asks for sizes of axes that are not dynamic.
    """
    from i3dzoo.export.onnx import input_shapes

    parts = (text or "1,1,8").split(",")
    parts = parts * 3 if len(parts) == 1 else parts
    found: list[dict[str, Shape]] = []
    for part in parts:
        numbers = part.strip().split("x")
        if len(parts) != 3 or len(numbers) not in (1, 4) or not all(n.isdecimal() for n in numbers):
            raise MetadataError(
                f"the shapes are {text!r}; expected MIN,OPT,MAX, each a batch such as 8 or "
                "BxTxHxW such as 8x64x224x224"
            )
        batch, *size = map(int, numbers)
        asked = (size[0], size[1], size[2]) if size else (None, None, None)
        shapes = input_shapes(checkpoints, options, batch, asked)
        for name, shape in shapes.items():
            fits = not size or options.pixels or shape[2:] == tuple(size)
            if not fits or 0 in shape:
                raise MetadataError(
                    f"the shape {part} does not fit {name}, which is {list(shape)}; make the axes "
                    "that shall vary --dynamic"
                )
        found.append(shapes)
    least, best, most = found
    for name in least:
        if not all(
            a <= b <= c for a, b, c in zip(least[name], best[name], most[name], strict=True)
        ):
            raise MetadataError(f"the shapes {text!r} do not rise from MIN over OPT to MAX")
    return {name: (least[name], best[name], most[name]) for name in least}


def sidecar(path: Path) -> Path:
    """Return where an engine's description lies."""
    return path.with_name(f"{path.name}.json")


def _graph_options(options: ExportOptions, engine: EngineOptions, found: Library) -> ExportOptions:
    """Return the options of the graph: in a strongly typed network its types are the precision."""
    flag = _FLAGS.get(engine.precision)
    precision: Precision = "fp32"
    if flag is not None and found.typed:
        precision = "fp16" if engine.precision == "fp16" else "bf16"
    elif flag is not None and not hasattr(found.module.BuilderFlag, flag):
        raise MetadataError(
            f"{found.name} {found.version} has no {engine.precision}; use fp16 or a later version"
        )
    return dataclasses.replace(options, precision=precision)


def _refuse(found: Library, options: EngineOptions) -> None:
    """Refuse, before the long work, what the library would ignore or fail at."""
    if found.name != RTX:
        return
    if options.timing_cache is not None:
        raise MetadataError(
            f"{RTX} measures no kernels while it builds, so it keeps no timing cache; leave "
            "--timing-cache out"
        )
    if options.compatible:
        raise MetadataError(
            f"engines of {RTX} fit every GPU that it knows, and no other version; leave "
            "--compatible out"
        )


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
    if not found.typed and options.precision in _FLAGS:
        switch(_FLAGS[options.precision], True)
    if options.refittable:
        switch("REFIT", True)
    if options.compatible:
        switch("VERSION_COMPATIBLE", True)
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.workspace is not None:
        limit = int(options.workspace * (1 << 30))
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    if options.timing_cache is not None:
        old = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(old), ignore_mismatch=False)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, say)


def _logger(trt: Any) -> Any:
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


def _gpu_or_none() -> dict[str, str] | None:
    try:
        return dataclasses.asdict(gpu())
    except DeviceError:
        return None


def _proof_precision(engine: EngineOptions) -> Precision:
    """Return whose tolerance holds; tf32 keeps as many bits of a factor as fp16."""
    return "fp16" if engine.precision == "tf32" else engine.precision


def _batches(profile: Profile) -> tuple[int, int]:
    """Return the smallest and largest batch of a profile."""
    least, _, most = next(iter(profile.values()))
    return least[0], most[0]
