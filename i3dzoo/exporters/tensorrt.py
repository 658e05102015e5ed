"""Export to TensorRT, with the packages `tensorrt` and `tensorrt-rtx`.

An engine runs on the kind of GPU and with the version of the library that built it. A sidecar, a
JSON file beside the engine, records both, with shapes, labels and preprocessing, so that another
GPU or version is refused with a clear message. The builder of `tensorrt-rtx` needs no GPU; its
engines run on compute capability 7.5, 8.x and 12.x.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from typing import Final

from onnx import numpy_helper

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.onnxruntime import OnnxEngine
from i3dzoo.engines.tensorrt import TensorRTEngine
from i3dzoo.engines.tensorrt_library import Library, library
from i3dzoo.engines.tensorrt_sidecar import (
    Shape,
    Sidecar,
    check_library,
    read_engine,
    sidecar_path,
)
from i3dzoo.errors import DeviceError, MetadataError, OptionError
from i3dzoo.exporters.job import Export, ExportJob, Parity
from i3dzoo.exporters.parity import check_parity
from i3dzoo.exporters.tensorrt_builder import (
    FLAGS,
    Profile,
    build_engine,
    check_options,
    refit_engine,
)
from i3dzoo.network.architecture import DEEPMIND, MIN_FRAMES
from i3dzoo.onnx.description import describe, read_description
from i3dzoo.onnx.model import build_model, to_float32
from i3dzoo.onnx.options import ExportOptions

# at most 6 digits, since TensorRT counts elements in 64 bits
_SHAPE: Final = re.compile(r"[0-9]{1,6}(x[0-9]{1,6}){3}|[0-9]{1,6}")


def build(job: ExportJob) -> Export:
    """Build and write an engine whose output equals PyTorch's.

    The graph that it is built from is always compared, in onnxruntime; the engine itself only if
    there is a GPU that runs it. The sidecar's `compared` is `engine` or `graph`.
    """
    installed = library()
    check_options(installed, job.engine)
    job = dataclasses.replace(job, options=graph_options(job.options, installed))
    profile = parse_shapes(job.engine.shapes, job.checkpoints, job.options)
    model = build_model(job.checkpoints, job.options)
    run = OnnxEngine(to_float32(model).SerializeToString(), device=job.device).run
    graph_parity = check_parity(job, run, "the engine's graph in onnxruntime")
    description = describe(job.checkpoints, job.options)
    plan, sidecar = build_engine(
        installed, model.SerializeToString(), description, job.engine, profile, job.progress
    )
    return write_engine(job, plan, sidecar, len(model.graph.node), graph_parity)


def refit(job: ExportJob) -> Export:
    """Copy an engine with the weights, labels and origin of other checkpoints, in seconds."""
    assert job.refit is not None  # noqa: S101 - `export` chose this function because of it
    plan, sidecar = read_engine(job.refit)
    streams, options = read_description(str(job.refit), sidecar.description)
    if not sidecar.refittable:
        raise MetadataError(
            f"{job.refit}: the weights of this engine cannot be replaced; build it once with "
            "--refittable"
        )
    expected, found = (
        " and ".join(
            f"{m.stream} with {m.num_classes} classes and clips of "
            f"{m.input.frames}x{m.input.crop}x{m.input.crop}"
            + (f", {m.variant}" if m.variant != DEEPMIND else "")
            for m in metadata
        )
        for metadata in (streams, [checkpoint.metadata for checkpoint in job.checkpoints])
    )
    if found != expected:
        raise MetadataError(f"{job.refit}: expected checkpoints of {expected}, found {found}")
    installed = library()
    check_library(str(job.refit), sidecar, installed)
    graph = build_model(job.checkpoints, options).graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    plan = refit_engine(installed, plan, weights)
    description, digest = describe(job.checkpoints, options), hashlib.sha256(plan).hexdigest()
    sidecar = sidecar.replace(description=description, sha256=digest)
    return write_engine(dataclasses.replace(job, options=options), plan, sidecar, len(graph.node))


def graph_options(options: ExportOptions, installed: Library) -> ExportOptions:
    """Return the options of an engine's graph: operators with fast kernels, and rounded weights.

    The types of the graph are the precision of a strongly typed network (TensorRT 9 and later).
    Before that, precision is a flag of the builder, and the graph is float32; its weights are
    rounded beforehand, so that their biases can be corrected.
    """
    precision = options.precision
    if not installed.typed:
        flags = FLAGS.get(precision, ())
        if not all(hasattr(installed.module.BuilderFlag, flag) for flag in flags):
            raise OptionError(
                f"{installed.name} {installed.version} has no --precision {precision}; use fp16, "
                "or a later version of TensorRT"
            )
        if flags:
            precision = "tf32"  # which keeps as many bits of mantissa as fp16
    return options.replace(precision=precision, space_to_depth=True)


def write_engine(
    job: ExportJob, plan: bytes, sidecar: Sidecar, nodes: int, graph_parity: Parity | None = None
) -> Export:
    """Compare an engine with PyTorch at its own shapes, if it can run here; write both files."""
    shapes = dict.fromkeys(map(tuple, next(iter(sidecar.shapes.values()))))
    first = 1 if job.options.pixels else 2  # the axis of frames
    batches = [(shape[0], (shape[first], shape[first + 1], shape[first + 2])) for shape in shapes]
    beside = sidecar_path(job.path)
    remarks = [f"Keep {beside.name} beside the engine; it describes what the engine needs."]
    parity = None
    try:
        engine = TensorRTEngine(str(job.path), plan, sidecar)
        parity = check_parity(job, engine.run, f"{sidecar.library} {sidecar.version}", batches)
    except DeviceError as error:
        remarks.insert(0, f"The engine itself was not run: {error}.")
    text = sidecar.replace(compared="engine" if parity else "graph").to_json()
    files = {job.path: plan, beside: text}
    return job.write(files, parity or graph_parity, nodes, tuple(remarks), parity is not None)


def parse_shapes(
    text: str | None, checkpoints: Sequence[Checkpoint], options: ExportOptions
) -> Profile:
    """Read `MIN,OPT,MAX`, each a batch size or BxTxHxW, as the shapes of the inputs."""
    parts = ("1,1,8" if text is None else text).split(",")
    parts = parts * 3 if len(parts) == 1 else parts
    if options.dynamic and "x" not in parts[0]:
        raise OptionError(
            f"--shapes: expected sizes of the dynamic {', '.join(options.dynamic)}, found "
            f"{','.join(parts)}; pass MIN,OPT,MAX, each BxTxHxW such as 8x64x224x224"
        )
    if len(parts) != 3 or not all(_SHAPE.fullmatch(part.strip()) for part in parts):
        raise OptionError(
            f"--shapes: expected MIN,OPT,MAX, each a batch size such as 8 or BxTxHxW such as "
            f"8x64x224x224, in numbers of at most 6 digits, found {text!r}"
        )
    smallest, best, largest = (_parse_shape(part, checkpoints, options) for part in parts)
    for name in smallest:
        axes = zip(smallest[name], best[name], largest[name], strict=True)
        if not all(low <= middle <= high for low, middle, high in axes):
            raise OptionError(f"--shapes: expected MIN <= OPT <= MAX, found {text!r}")
    return {name: (smallest[name], best[name], largest[name]) for name in smallest}


def _parse_shape(
    part: str, checkpoints: Sequence[Checkpoint], options: ExportOptions
) -> dict[str, Shape]:
    """Read a batch size or BxTxHxW as the shape of each input."""
    batch, *size = map(int, part.split("x"))
    if size and size[0] < MIN_FRAMES:
        raise OptionError(f"--shapes: I3D takes {MIN_FRAMES} frames or more, found {part}")
    wanted = (size[0], size[1], size[2]) if size else (None, None, None)
    shapes = dict(options.input_shape(c.metadata, batch, wanted) for c in checkpoints)
    for name, shape in shapes.items():
        fits = not size or options.pixels or shape[2:] == tuple(size)
        if not fits or 0 in shape:
            raise OptionError(
                f"--shapes: {part} does not fit {name}, which is {list(shape)}; make the axes that "
                "vary --dynamic"
            )
    return shapes
