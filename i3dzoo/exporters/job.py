"""Records of one export: its options, its checkpoints and its result."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.metadata import Metadata
from i3dzoo.devices import Device
from i3dzoo.errors import OptionError
from i3dzoo.files import atomic_write
from i3dzoo.onnx.options import ExportOptions, Precision
from i3dzoo.progress import SILENT, Progress
from i3dzoo.records import Record

Target = Literal["onnx", "tensorrt", "tao", "torchscript", "pt2"]


class EngineOptions(Record, frozen=True, kw_only=True):
    """Options of building a TensorRT engine; `i3dzoo.export` describes them."""

    precision: Precision = "fp32"
    shapes: str | None = None
    workspace: float | None = None
    timing_cache: Path | None = None
    compatible: Literal["gpus", "versions", "all"] | None = None
    refittable: bool = False

    def __post_init__(self) -> None:
        if self.workspace is not None and not 0 < self.workspace <= 1 << 20:  # also if it is NaN
            raise OptionError(f"--workspace: expected GiB, such as 4, found {self.workspace}")


class ParityOptions(Record, frozen=True, kw_only=True):
    """Options of the comparison with PyTorch; `i3dzoo.export` describes them."""

    clip: Path | None = None
    seed: int = 0
    atol: float | None = None


class Case(Record, frozen=True):
    """The comparison of one batch.

    Attributes:
        shapes: Shape of each input, by name.
        error: Largest difference of any output from PyTorch's.
        largest: Largest magnitude of PyTorch's main output.
        same_top: Whether the first class of every clip is the same.
        tolerance: The difference that was allowed.
    """

    shapes: dict[str, tuple[int, ...]]
    error: float
    largest: float
    same_top: bool
    tolerance: float

    def __str__(self) -> str:
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.shapes.values())
        top = "same top-1" if self.same_top else "another top-1"
        return (
            f"{shapes}: largest difference {self.error:.2g} of {self.largest:.3g} "
            f"({self.error / max(self.largest, 1e-30):.2g}), {top}"
        )


class Parity(Record, frozen=True):
    """A comparison with PyTorch that passed.

    Attributes:
        runner: Name of what ran the exported network.
        clip: The video, or the seed of the noise.
        cases: The comparison of each batch.
    """

    runner: str
    clip: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Export:
    """An exported file.

    Attributes:
        path: The file.
        target: The target.
        metadata: Description of the checkpoint; of the first, if two streams were fused.
        parity: The comparison with PyTorch; None if only tensors were compared.
        nodes: Number of nodes of the ONNX graph, if there is one.
        remarks: Further facts for the user, one sentence each.
        runs_here: Whether this machine can run the file.
        takes_clips: Whether the network takes float clips of one stream, as the commands that run
            exports pass them.
    """

    path: Path
    target: Target
    metadata: Metadata
    parity: Parity | None
    nodes: int | None
    remarks: tuple[str, ...]
    runs_here: bool
    takes_clips: bool


@dataclass(frozen=True)
class ExportJob:
    """What to export, and where.

    `checkpoints` is one checkpoint, or one of each stream. `refit` is a refittable engine whose
    weights are to be replaced. The comparison with PyTorch runs on `device`.
    """

    checkpoints: tuple[Checkpoint, ...]
    target: Target
    path: Path
    options: ExportOptions = field(default_factory=ExportOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    parity: ParityOptions = field(default_factory=ParityOptions)
    refit: Path | None = None
    device: Device = "cpu"
    progress: Progress = SILENT

    def write(
        self,
        files: Mapping[Path, bytes],
        parity: Parity | None,
        nodes: int | None = None,
        remarks: tuple[str, ...] = (),
        runs_here: bool = True,
    ) -> Export:
        """Write all files, or none if one of them cannot be written, and return the result."""
        with contextlib.ExitStack() as stack:
            for path, data in files.items():
                stack.enter_context(atomic_write(path)).write(data)
        metadata = self.checkpoints[0].metadata
        clips = len(self.checkpoints) == 1 and self.options.pixels is None
        return Export(self.path, self.target, metadata, parity, nodes, remarks, runs_here, clips)
