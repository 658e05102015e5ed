"""Run checkpoints and ONNX models in OpenVINO, on CPUs."""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.engines.exported import ExportedEngine
from i3dzoo.errors import DependencyError, FormatError, OptionError
from i3dzoo.formats.onnx_file import read_graph
from i3dzoo.onnx.description import describe, read_description
from i3dzoo.onnx.model import any_size, build_endpoint, build_model
from i3dzoo.onnx.operators import check_nodes
from i3dzoo.onnx.options import Precision

try:
    import openvino
except ImportError as error:
    raise DependencyError(
        "the engine openvino needs OpenVINO: pip install 'i3dzoo[openvino]'"
    ) from error

_ELEMENTS: Final[dict[Precision, str]] = {"fp32": "f32", "bf16": "bf16"}


class OpenVINOEngine(ExportedEngine):
    """An ONNX model of i3dzoo, compiled by OpenVINO for this CPU.

    OpenVINO itself would choose bfloat16 where the CPU computes with it; this engine computes in
    float32 unless it is told otherwise.

    Args:
        where: Name of the model, for messages.
        model: The ONNX model.
        texts: Its metadata.
        threads: Number of threads; None leaves it to OpenVINO.
        precision: `fp32` or `bf16`.

    Raises:
        FormatError: OpenVINO cannot compile it.
        MetadataError: It has no description by i3dzoo.
        OptionError: The precision is another one, or this CPU has no instructions for it.
    """

    name = "openvino"

    def __init__(
        self,
        where: str,
        model: bytes,
        texts: Mapping[str, str],
        threads: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        check_precision(precision)
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _ELEMENTS[precision]}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            core = find_core()
            self._model = core.compile_model(core.read_model(model), "CPU", settings)
        except Exception as error:  # OpenVINO raises RuntimeError and classes of its own
            raise FormatError(f"{where}: OpenVINO cannot compile it: {_line(error)}") from error
        outputs = {
            output.get_any_name(): [_largest(axis) for axis in output.get_partial_shape()]
            for output in self._model.outputs
        }
        super().__init__(where, texts, outputs)
        self.precision = precision

    @classmethod
    def from_file(
        cls, path: Path, threads: int | None = None, precision: Precision = "fp32"
    ) -> "OpenVINOEngine":
        """Load an .onnx file that i3dzoo exported, after checking that it is one."""
        graph = read_graph(path)
        read_description(str(path), graph.properties)
        check_nodes(str(path), graph.nodes, graph.constants)
        return cls(str(path), path.read_bytes(), graph.properties, threads, precision)

    @classmethod
    def from_checkpoint(
        cls, checkpoint: Checkpoint, threads: int | None = None, precision: Precision = "fp32"
    ) -> "OpenVINOEngine":
        """Export a checkpoint in memory, for clips of any size and for every endpoint."""
        options = any_size(checkpoint)
        model = build_model([checkpoint], options).SerializeToString()
        engine = cls("the checkpoint", model, describe([checkpoint], options), threads, precision)

        def build(endpoint: str) -> OpenVINOEngine:
            part, texts = build_endpoint(checkpoint, endpoint)
            return cls(engine.where, part.SerializeToString(), texts, threads, precision)

        engine.build_endpoint = build
        return engine

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; raise FormatError if OpenVINO fails."""
        limits = {
            node.get_any_name(): (
                [axis.get_min_length() for axis in node.get_partial_shape()],
                [_largest(axis) for axis in node.get_partial_shape()],
            )
            for node in self._model.inputs
        }
        shapes = {name: array.shape for name, array in inputs.items()}
        self.check_shapes(shapes, limits, "export with --dynamic for other sizes")
        try:
            results = self._model(dict(inputs))
        except Exception as error:  # OpenVINO raises RuntimeError and classes of its own
            raise FormatError(f"{self.where}: OpenVINO cannot run it: {_line(error)}") from error
        return {output.get_any_name(): results[output] for output in self._model.outputs}

    def run_all(self, batches: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Run batches in order, one at a time."""
        return map(self.run, batches)


@functools.cache
def find_core() -> Any:
    """Return OpenVINO's runtime, which is kept until the process ends.

    OpenVINO gives the thread that first uses a CPU a stack for signals, and frees it with its
    runtime. If another thread does that, such as by garbage collection, the next signal ends the
    process, be it Ctrl-C or the end of a child.
    """
    return openvino.Core()


def check_precision(precision: Precision) -> None:
    """Check that OpenVINO computes in a precision on this CPU, rather than in another one."""
    if precision not in _ELEMENTS:
        raise OptionError(f"the engine openvino computes in fp32 or bf16, not in {precision}")
    if precision == "bf16" and not has_bf16():
        raise OptionError(
            "this CPU has no instructions for bfloat16 that OpenVINO uses (AVX512_BF16 or AMX), so "
            "it would compute in float32; leave --precision bf16 out"
        )


def has_bf16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this CPU."""
    return "BF16" in find_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _largest(axis: Any) -> float:
    longest: int = axis.get_max_length()
    return math.inf if longest < 0 else longest


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
