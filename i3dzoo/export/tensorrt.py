"""TensorRT engines: one path for the packages `tensorrt` and `tensorrt-rtx`.

An engine runs on the kind of GPU and with the version of the library that built it. Beside it lies
a JSON file that says which, with shapes, labels and preprocessing, so that another is refused in a
sentence. The builder of `tensorrt-rtx` needs no GPU; its engines run on GPUs of compute capability
7.5, 8.x and 12.x.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from i3dzoo._files import atomic_write, check_output
from i3dzoo.architecture import MIN_FRAMES
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.errors import DeviceError, MetadataError
from i3dzoo.export.describe import describe
from i3dzoo.export.engine_build import (
    FLAGS,
    EngineOptions,
    Library,
    Profile,
    Shape,
    build_engine,
    gpu_or_none,
    library,
    refuse,
)
from i3dzoo.export.options import ExportOptions, Precision
from i3dzoo.export.rounding import BITS, Rounding
from i3dzoo.export.targets import Export, check_path, is_plain

if TYPE_CHECKING:
    from i3dzoo.export.prove import Proof

__all__ = [
    "EngineOptions",
    "Library",
    "build_engine",
    "document",
    "export_engine",
    "graph_options",
    "library",
    "parse_shapes",
    "prove_engine",
    "sidecar",
    "write_engine",
]

SIDECAR_VERSION: Final = 1
_DIGITS: Final = 6  # of a number in shapes: TensorRT counts elements in 64 bits


def export_engine(
    checkpoints: Sequence[Checkpoint],
    path: Path,
    options: ExportOptions,
    engine: EngineOptions,
    *,
    rounding: Mapping[str, Rounding] | None = None,
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
        rounding: For int8, from `i3dzoo.export.calibrate`.
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
    check_path(path, "tensorrt", force)
    check_output(sidecar(path), force)
    found = library()
    refuse(found, engine)
    from i3dzoo.export import onnx
    from i3dzoo.export.prove import prove
    from i3dzoo.export.runtime import OnnxEngine

    typed = graph_options(options, engine, found)
    profile = parse_shapes(engine.shapes, checkpoints, options)
    model = onnx.build(checkpoints, typed, rounding)
    data = model.SerializeToString()
    runnable = onnx.widened(model).SerializeToString()
    proof = prove(
        str(path),
        OnnxEngine(runnable).run,
        "the engine's graph in onnxruntime",
        checkpoints,
        typed,
        clip=clip,
        seed=seed,
        atol=atol,
    )
    plan, network = build_engine(found, data, engine, profile, say)
    about = document(found, plan, engine, profile, network)
    about["description"] = describe(checkpoints, typed)
    told = {"clip": clip, "seed": seed, "atol": atol}
    ran, remarks = prove_engine(path, plan, about, checkpoints, typed, **told)
    write_engine(path, plan, about)
    nodes = len(model.graph.node)
    plain = is_plain(checkpoints, options)
    runs = ran is not None
    return Export(path, "tensorrt", ran or proof, nodes, remarks, runs_here=runs, plain=plain)


def prove_engine(
    path: Path,
    plan: bytes,
    about: dict[str, Any],
    checkpoints: Sequence[Checkpoint],
    options: ExportOptions,
    **told: Any,
) -> tuple["Proof | None", tuple[str, ...]]:
    """Compare an engine with PyTorch if it can run here, and note in its sidecar what was done.

    Args:
        path: The engine to be, for messages.
        plan: The engine.
        about: Its sidecar; `proved` is set.
        checkpoints: What is in it.
        options: Of its graph.
        told: What `prove` is told of clips and tolerance.

    Returns:
        The proof, None where the engine cannot run; and remarks.
    """
    from i3dzoo.export.prove import prove
    from i3dzoo.export.tensorrt_engine import TensorRTEngine

    remark = f"{sidecar(path).name} says what the engine needs; keep it beside the engine"
    # what the engine keeps of a float32 graph, also where its description is older than `bits`
    kept = dataclasses.replace(options, bits=BITS.get(about["precision"]))
    # an engine takes nothing outside of its shapes
    shapes = dict.fromkeys(map(tuple, next(iter(about["shapes"].values()))))
    first = 1 if options.pixels else 2  # the axis of frames, behind the channels or before them
    shown = [(shape[0], shape[first : first + 3]) for shape in shapes]
    try:
        proof = prove(
            str(path),
            TensorRTEngine(plan, about).run,
            f"{about['library']} {about['version']}",
            checkpoints,
            kept,
            shown=shown,
            **told,
        )
    except DeviceError as error:
        about["proved"] = "graph"
        return None, (f"the engine itself was not run: {error}", remark)
    about["proved"] = "engine"
    return proof, (remark,)


def write_engine(path: Path, plan: bytes, about: dict[str, Any]) -> None:
    """Write an engine and its sidecar, or neither.

    Raises:
        OutputError: One of them cannot be written.
    """
    with atomic_write(path) as engine, atomic_write(sidecar(path)) as beside:
        engine.write(plan)
        beside.write(json.dumps(about, indent=1).encode())


def document(
    found: Library,
    plan: bytes,
    options: EngineOptions,
    profile: Profile,
    network: dict[str, Any],
) -> dict[str, Any]:
    """Return what an engine needs, takes and gives, as it is written beside it.

    Args:
        found: The library that built it.
        plan: The engine.
        options: How it was built.
        profile: Shapes of the inputs.
        network: Its inputs and outputs, from `build_engine`.
    """
    return {
        "format": SIDECAR_VERSION,
        "library": found.name,
        "version": found.version,
        "gpu": gpu_or_none(),
        "precision": options.precision,
        "shapes": {name: [list(shape) for shape in shapes] for name, shapes in profile.items()},
        **network,
        "compatible": options.compatible,
        "refittable": options.refittable,
        "sha256": hashlib.sha256(plan).hexdigest(),
    }


def parse_shapes(
    text: str | None, checkpoints: Sequence[Checkpoint], options: ExportOptions
) -> Profile:
    """Read `MIN,OPT,MAX`, each a batch or BxTxHxW, into the shapes of the inputs.

    Raises:
        MetadataError: It is malformed, falls, asks for sizes of axes that are not dynamic, or for
            none of those that are.
    """
    from i3dzoo.export.onnx import input_shapes

    parts = ("1,1,8" if text is None else text).split(",")
    parts = parts * 3 if len(parts) == 1 else parts
    found: list[dict[str, Shape]] = []
    if options.dynamic and "x" not in parts[0]:
        raise MetadataError(
            f"the shapes are {','.join(parts)}, which leaves the dynamic "
            f"{', '.join(options.dynamic)} as they are; pass --shapes MIN,OPT,MAX of clips, each "
            "BxTxHxW such as 8x64x224x224"
        )
    for part in parts:
        numbers = part.strip().split("x")
        sound = all(n.isdecimal() and len(n) <= _DIGITS for n in numbers)
        if len(parts) != 3 or len(numbers) not in (1, 4) or not sound:
            raise MetadataError(
                f"the shapes are {text!r}; expected MIN,OPT,MAX, each a batch such as 8 or "
                f"BxTxHxW such as 8x64x224x224, in numbers of {_DIGITS} digits at most"
            )
        batch, *size = map(int, numbers)
        asked = (size[0], size[1], size[2]) if size else (None, None, None)
        shapes = input_shapes(checkpoints, options, batch, asked)
        for name, shape in shapes.items():
            fits = not size or options.pixels or shape[2:] == tuple(size)
            if size and size[0] < MIN_FRAMES:
                raise MetadataError(
                    f"the shape {part} is of {size[0]} frames; I3D takes {MIN_FRAMES} or more"
                )
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


def graph_options(options: ExportOptions, engine: EngineOptions, found: Library) -> ExportOptions:
    """Return the options of an engine's graph, split for GPUs, its weights rounded beforehand.

    In a strongly typed network the types of the graph are the precision.
    """
    flags = FLAGS.get(engine.precision, ())
    precision: Precision = "fp32"
    if engine.precision == "int8" or (flags and found.typed and engine.precision != "tf32"):
        precision = engine.precision
    if not found.typed and not all(hasattr(found.module.BuilderFlag, flag) for flag in flags):
        raise MetadataError(
            f"{found.name} {found.version} has no {engine.precision}; use fp16 or a later version"
        )
    bits = BITS.get(engine.precision)
    return dataclasses.replace(options, precision=precision, bits=bits, split=True)
