"""Replacing the weights of a built engine, which takes seconds where building takes minutes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.errors import DeviceError, FormatError, MetadataError
from i3dzoo.export.cuda import gpu
from i3dzoo.export.engine_build import Library, logger

__all__ = ["refit_engine"]


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
