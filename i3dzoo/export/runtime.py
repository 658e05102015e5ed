"""Running ONNX models with onnxruntime."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.errors import DependencyError, FormatError, MetadataError, MissingFileError, ShapeError
from i3dzoo.export.describe import check_features, read_description
from i3dzoo.export.onnx import build
from i3dzoo.export.options import AXES, INPUT, OUTPUT, ExportOptions
from i3dzoo.metadata import Metadata

if TYPE_CHECKING:
    import torch

try:
    import onnxruntime
except ImportError as error:
    raise DependencyError("ONNX models run on onnxruntime: pip install 'i3dzoo[onnx]'") from error

__all__ = ["OnnxEngine"]


class OnnxEngine:
    """An ONNX model that i3dzoo exported, ready to run.

    Args:
        model: Its file, or its bytes.
        threads: Threads to run on; None leaves it to onnxruntime.

    Attributes:
        streams: The description of each stream's checkpoint.
        options: How it was exported.
        metadata: The description of the first stream.
        has_steps: Whether `step_logits` gives steps; otherwise it gives their mean as one.

    Raises:
        MissingFileError: There is no such file.
        FormatError: It is no ONNX model, or one that onnxruntime cannot run.
        MetadataError: It carries no description by i3dzoo.
    """

    def __init__(self, model: str | Path | bytes, threads: int | None = None) -> None:
        self.where = "the ONNX model" if isinstance(model, bytes) else str(model)
        self._session = _session(self.where, model, threads)
        texts = self._session.get_modelmeta().custom_metadata_map
        self.streams, self.options = read_description(self.where, texts)
        self.metadata: Metadata | None = self.streams[0]
        self.has_steps = self.options.steps
        self._check_classes()

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, threads: int | None = None) -> "OnnxEngine":
        """Return an engine for clips of any size, made in memory."""
        steps = checkpoint.metadata.num_classes > 0
        options = ExportOptions(dynamic=AXES, steps=steps, features=True)
        return cls(build([checkpoint], options).SerializeToString(), threads)

    @property
    def num_classes(self) -> int:
        """Classes of the head, 0 where there is none."""
        return self.streams[0].num_classes

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the logits, where they are known."""
        return self.streams[0].labels

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network.

        Args:
            inputs: An array for each input, by its name.

        Returns:
            An array for each output, by its name.

        Raises:
            ShapeError: An input is missing, or has a shape or type that the model does not take.
        """
        wanted = {each.name: each for each in self._session.get_inputs()}
        if set(wanted) != set(inputs):
            raise ShapeError(
                f"{self.where}: takes {', '.join(wanted)}; was given {', '.join(inputs)}"
            )
        for name, array in inputs.items():
            expected = wanted[name].shape
            fits = len(expected) == array.ndim and all(
                isinstance(axis, str) or axis == found
                for axis, found in zip(expected, array.shape, strict=False)
            )
            if not fits:
                raise ShapeError(
                    f"{self.where}: {name} has shape {list(array.shape)}; expected {expected}: "
                    "export with --dynamic for other sizes"
                )
        try:
            outputs = self._session.run(None, dict(inputs))
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise FormatError(f"{self.where}: onnxruntime cannot run it: {_line(error)}") from error
        names = [each.name for each in self._session.get_outputs()]
        return dict(zip(names, outputs, strict=True))

    def step_logits(self, x: "torch.Tensor") -> "torch.Tensor":
        """Return logits [B, steps, classes] of float clips [B, C, T, H, W].

        Raises:
            ShapeError: The model takes clips of another size, two streams, or uint8 frames.
        """
        import torch

        outputs = self._show(x)
        if self.has_steps:
            return torch.from_numpy(outputs["fc_steps"])
        return torch.from_numpy(outputs[OUTPUT])[:, None]

    def features(self, x: "torch.Tensor") -> "torch.Tensor":
        """Return the pooled features [B, 1024] of float clips [B, C, T, H, W].

        Raises:
            MetadataError: The model was exported without them.
            ShapeError: As for `step_logits`.
        """
        import torch

        check_features(self.where, self.options, self.num_classes)
        return torch.from_numpy(self._show(x)["features"])

    def _show(self, x: "torch.Tensor") -> dict[str, Array]:
        """Run the network on clips of its one stream."""
        stream = self.streams[0].stream
        if len(self.streams) > 1 or self.options.pixels:
            raise ShapeError(
                f"{self.where}: takes {', '.join(i.name for i in self._session.get_inputs())}; one "
                f"clip of floats ({INPUT[stream]}) is what there is: export one stream, without "
                "--pixels"
            )
        return self.run({INPUT[stream]: np.ascontiguousarray(x.cpu().float().numpy())})

    def _check_classes(self) -> None:
        """Refuse outputs, or numbers of classes, other than the description says."""
        given = {output.name for output in self._session.get_outputs()}
        wanted = {OUTPUT} if self.num_classes else set()
        wanted |= {"fc_steps"} if self.options.steps and self.num_classes else set()
        if len(self.streams) == 1 and (self.options.features or not self.num_classes):
            wanted.add("features")
        if not wanted <= given:
            raise MetadataError(
                f"{self.where}: gives {', '.join(sorted(given))} and describes "
                f"{', '.join(sorted(wanted))}; the file was altered, export it again"
            )
        for output in self._session.get_outputs():
            if output.name == OUTPUT and output.shape[-1] != self.num_classes:
                raise MetadataError(
                    f"{self.where}: gives {output.shape[-1]} logits and describes "
                    f"{self.num_classes} classes; the file was altered, export it again"
                )


def _session(
    where: str, model: str | Path | bytes, threads: int | None
) -> "onnxruntime.InferenceSession":
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise MissingFileError(f"{where}: there is no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: they are raised as well
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=_providers(onnxruntime.get_available_providers()),
        )
    except Exception as error:  # onnxruntime's errors have no common class of their own
        raise FormatError(f"{where}: onnxruntime cannot load it: {_line(error)}") from error


def _providers(available: Sequence[str]) -> list[str]:
    known = ("CUDAExecutionProvider", "CPUExecutionProvider")
    if known[0] in available:
        importlib.import_module("torch")  # brings the libraries of CUDA and cuDNN with it
    return [name for name in known if name in available]


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
