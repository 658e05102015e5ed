"""Run ONNX models in onnxruntime."""

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.devices import Device
from i3dzoo.engines.exported import ExportedEngine
from i3dzoo.errors import DependencyError, FormatError, MetadataError, OptionError
from i3dzoo.formats.onnx_file import read_graph
from i3dzoo.onnx.description import read_description
from i3dzoo.onnx.model import any_size, build_endpoint, build_model
from i3dzoo.onnx.operators import check_nodes
from i3dzoo.onnx.options import OUTPUT, Precision

try:
    import onnxruntime
except ImportError as error:
    raise DependencyError("ONNX models need onnxruntime: pip install 'i3dzoo[onnx]'") from error


if TYPE_CHECKING:
    import onnx

GPU: Final = "CUDAExecutionProvider"


class OnnxEngine(ExportedEngine):
    """An ONNX model that i3dzoo exported.

    Args:
        model: Its file, or its bytes.
        threads: Number of threads; None leaves it to onnxruntime.
        device: The name of a device, as in `i3dzoo.devices`; `auto` is CUDA if onnxruntime has it.
        tf32: Whether a GPU may round the inputs of convolutions to TF32.

    Raises:
        MissingFileError: There is no such file.
        FormatError: It is not an ONNX model, or onnxruntime cannot run it.
        MetadataError: It has no description by i3dzoo.
    """

    name = "onnxruntime"

    def __init__(
        self,
        model: str | Path | bytes,
        threads: int | None = None,
        device: Device = "auto",
        tf32: bool = False,
    ) -> None:
        where = "the ONNX model" if isinstance(model, bytes) else str(model)
        graph = None if isinstance(model, bytes) else read_graph(Path(model))
        if graph is not None:
            read_description(where, graph.properties)
            check_nodes(where, graph.nodes, graph.constants)
        self._session = _session(where, model, threads, _providers(device, tf32))
        texts = self._session.get_modelmeta().custom_metadata_map
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        super().__init__(where, texts, outputs)
        expected = {OUTPUT} if self.num_classes else set()
        expected |= {"fc_steps"} if self.has_steps and self.num_classes else set()
        if len(self.streams) == 1 and (self.options.features or not self.num_classes):
            expected.add("features")
        if not expected <= set(outputs):
            raise MetadataError(
                f"{where}: has the outputs {', '.join(sorted(outputs))}; its description has "
                f"{', '.join(sorted(expected))}: the file was altered, export it again"
            )

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint,
        threads: int | None = None,
        device: Device = "auto",
        precision: Precision = "fp32",
    ) -> "OnnxEngine":
        """Export a checkpoint in memory, for clips of any size and for every endpoint.

        Raises:
            OptionError: The precision is neither fp32 nor, on a GPU, tf32.
        """
        providers = _providers(device, tf32=False)
        possible = ("fp32", "tf32") if GPU in providers else ("fp32",)
        if precision not in possible:
            where = "with its provider for GPUs" if GPU in providers else "on a CPU"
            raise OptionError(
                f"the engine onnxruntime runs checkpoints in {' or '.join(possible)} {where}, not "
                f"in {precision}; export other precisions with i3dzoo export --precision"
            )

        def load(model: "onnx.ModelProto") -> OnnxEngine:
            return cls(model.SerializeToString(), threads, device, precision == "tf32")

        engine = load(build_model([checkpoint], any_size(checkpoint)))
        engine.precision = precision
        engine.build_endpoint = lambda endpoint: load(build_endpoint(checkpoint, endpoint)[0])
        return engine

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch; raise FormatError if onnxruntime fails."""
        limits = {}
        for node in self._session.get_inputs():
            # the length of an axis that is dynamic is a name
            smallest = [0 if isinstance(axis, str) else axis for axis in node.shape]
            largest = [math.inf if isinstance(axis, str) else axis for axis in node.shape]
            limits[node.name] = (smallest, largest)
        shapes = {name: array.shape for name, array in inputs.items()}
        self.check_shapes(shapes, limits, "export with --dynamic for other sizes")
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        try:
            outputs = self._session.run(None, arrays)
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise FormatError(f"{self.where}: onnxruntime cannot run it: {_line(error)}") from error
        names = [node.name for node in self._session.get_outputs()]
        return dict(zip(names, outputs, strict=True))

    def run_all(self, batches: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Run batches in order, one at a time."""
        return map(self.run, batches)


def _providers(device: Device, tf32: bool) -> dict[str, dict[str, str]]:
    """Return what may run nodes, in the order of preference, with its options."""
    # onnxruntime finds the libraries of CUDA and cuDNN that PyTorch has loaded
    options: dict[str, dict[str, str]] = {}
    if device.startswith(("auto", "cuda")):
        number = device.partition(":")[2]
        options[GPU] = {"use_tf32": str(int(tf32))} | ({"device_id": number} if number else {})
    options["CPUExecutionProvider"] = {}
    available = onnxruntime.get_available_providers()
    return {name: own for name, own in options.items() if name in available}


def _session(
    where: str,
    model: str | Path | bytes,
    threads: int | None,
    providers: Mapping[str, Mapping[str, str]],
) -> "onnxruntime.InferenceSession":
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only, which are raised as well
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=list(providers.items()),
        )
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise FormatError(f"{where}: onnxruntime cannot load it: {_line(error)}") from error


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
