"""Replacing the weights of a built engine, which takes seconds where building takes minutes."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from i3dzoo._files import check_output
from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.errors import DeviceError, FormatError, MetadataError
from i3dzoo.export.cuda import gpu
from i3dzoo.export.describe import describe, read_description
from i3dzoo.export.engine_build import Library, library, logger
from i3dzoo.export.targets import Export, check_path, is_plain
from i3dzoo.export.tensorrt import prove_engine, sidecar, write_engine
from i3dzoo.export.tensorrt_engine import check_library, read_engine

__all__ = ["refit_engine", "refit_export"]


def refit_export(
    checkpoints: Sequence[Checkpoint],
    old: Path,
    path: Path,
    *,
    clip: Path | None = None,
    seed: int = 0,
    atol: float | None = None,
    force: bool = False,
) -> Export:
    """Write an engine like another, with the weights, labels and origin of other checkpoints.

    Args:
        checkpoints: With as many classes, and clips of the same size.
        old: An engine that was exported to be refittable.
        path: The new engine; `path` with `.json` added is its sidecar.
        clip: A video for the comparison with PyTorch; None takes seeded noise.
        seed: Of the noise.
        atol: Largest difference that passes, in logits.
        force: Replace the files if they exist.

    Raises:
        DeviceError: There is no GPU, or another than the engine was built for.
        MetadataError: The engine is of another library, not refittable, or takes other clips.
        FormatError: The weights do not fit, or the comparison fails.
    """
    check_path(path, "tensorrt", force)
    check_output(sidecar(path), force)
    plan, about = read_engine(old)
    streams, options = read_description(str(old), about["description"])
    if not about["refittable"]:
        raise MetadataError(
            f"{old}: its weights cannot be replaced; build it once with --refittable"
        )
    for had, checkpoint in zip(streams, checkpoints, strict=False):
        new = checkpoint.metadata
        same = [(m.stream, m.num_classes, m.input.frames, m.input.crop) for m in (had, new)]
        if len(streams) != len(checkpoints) or same[0] != same[1]:
            raise MetadataError(
                f"{old}: takes {len(streams)} checkpoints, the first a {had.stream} one of "
                f"{had.num_classes} classes and {had.input.frames}x{had.input.crop} clips; was "
                f"given {new.stream}, {new.num_classes}, {new.input.frames}x{new.input.crop}"
            )
    found = library()
    check_library(str(old), about, found)
    from onnx import numpy_helper

    from i3dzoo.export.onnx import build

    graph = build(checkpoints, options).graph
    plan = refit_engine(found, plan, {t.name: numpy_helper.to_array(t) for t in graph.initializer})
    about["description"] = describe(checkpoints, options)
    about["sha256"] = hashlib.sha256(plan).hexdigest()
    told = {"clip": clip, "seed": seed, "atol": atol}
    proof, remarks = prove_engine(path, plan, about, checkpoints, options, **told)
    write_engine(path, plan, about)
    plain = is_plain(checkpoints, options)
    return Export(path, "tensorrt", proof, len(graph.node), remarks, plain=plain)


def refit_engine(found: Library, plan: bytes, weights: Mapping[str, Array]) -> bytes:
    """Return an engine that computes with other weights.

    Args:
        found: The library that built it.
        plan: An engine that was built to be refittable.
        weights: The constants of an ONNX model with the same graph, by name.

    Raises:
        DeviceError: There is no GPU, or the library cannot load the engine on it.
        MetadataError: The engine was not built to be refittable.
        FormatError: The weights are of another network.
    """
    trt = found.module
    gpu()
    log = logger(trt)
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise DeviceError(f"{found.name} {found.version} cannot load the engine here: {log.last}")
    if not engine.refittable:
        raise MetadataError(
            "the engine's weights cannot be replaced; build it once with --refittable"
        )
    refitter = trt.Refitter(engine, log)
    kept = []  # TensorRT copies nothing
    for name in refitter.get_all_weights():
        if name not in weights:
            raise FormatError(f"the engine holds {name}, and the checkpoint has no such weights")
        array = np.ascontiguousarray(weights[name])
        kept.append((array, _weights(trt, array)))
        if not refitter.set_named_weights(name, kept[-1][1]):
            raise FormatError(f"the engine does not take {name} of the checkpoint: {log.last}")
    if not refitter.refit_cuda_engine():
        raise FormatError(f"TensorRT could not replace the weights: {log.last}")
    return bytes(engine.serialize())


def _weights(trt: Any, array: Array) -> Any:
    """Return an array as TensorRT takes it; numpy has no bfloat16, so that goes by address."""
    if array.dtype.kind == "f":
        return trt.Weights(array)
    return trt.Weights(trt.DataType.BF16, array.ctypes.data, array.size)
