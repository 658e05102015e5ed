"""Loading TensorRT engines with what lies beside them, and refusing those that cannot run here."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from i3dzoo.arrays import Array
from i3dzoo.errors import ChecksumError, DeviceError, MetadataError, MissingFileError, ShapeError
from i3dzoo.export.describe import check_features, read_description
from i3dzoo.export.engine_build import RTX, Library, check_gpu, library
from i3dzoo.export.engine_runner import EngineRunner
from i3dzoo.export.options import INPUT, OUTPUT
from i3dzoo.export.tensorrt import SIDECAR_VERSION, sidecar
from i3dzoo.metadata import Metadata

if TYPE_CHECKING:
    import torch

__all__ = ["TensorRTEngine", "check_library", "read_engine"]

_KEYS: Final = {
    "library": str,
    "version": str,
    "gpu": dict | None,
    "precision": str,
    "shapes": dict,
    "outputs": dict,
    "compatible": str | None,
    "refittable": bool,
    "sha256": str,
    "description": dict,
}
"""Types of what is read of a sidecar."""


class TensorRTEngine:
    """An engine that i3dzoo exported, ready to run.

    Args:
        engine: Its file, or its bytes.
        document: Its description, where it is not in the file beside it.

    Attributes:
        streams: The description of each stream's checkpoint.
        options: How the graph was exported.
        metadata: The description of the first stream.
        has_steps: Whether `step_logits` gives steps; otherwise it gives their mean as one.

    Raises:
        MissingFileError: The engine, or its description, is not there.
        ChecksumError: The description is of another engine.
        MetadataError: It was built by another library or version, or its labels do not fit.
        DeviceError: There is no GPU, or another than it was built for.
    """

    def __init__(self, engine: str | Path | bytes, document: dict[str, Any] | None = None) -> None:
        self.where = "the engine" if isinstance(engine, bytes) else str(engine)
        if isinstance(engine, bytes) and document is not None:
            self._data, self.document = engine, document
        else:
            self._data, self.document = read_engine(Path(str(engine)))
        self.streams, self.options = read_description(self.where, self.document["description"])
        self.metadata: Metadata | None = self.streams[0]
        self.has_steps = self.options.steps
        self._check_labels()
        self._library = library()
        check_library(self.where, self.document, self._library)
        self._check_gpu()
        self._runners: dict[tuple[Any, ...], EngineRunner] = {}

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
            A float32 array for each output, by its name.

        Raises:
            ShapeError: The engine was not built for these inputs or shapes.
        """
        shapes = {name: tuple(array.shape) for name, array in inputs.items()}
        return self._named(shapes, self._runner(shapes).run(_contiguous(inputs)))

    def run_all(self, batches: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Run batches one after another and yield their outputs in order.

        While one is computed, the next is made and copied to the GPU.

        Args:
            batches: Inputs as for `run`; taken as they are needed.

        Raises:
            ShapeError: As for `run`.
        """

        def shapes_of(inputs: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
            return {name: tuple(array.shape) for name, array in inputs.items()}

        for shapes, group in itertools.groupby(batches, shapes_of):
            for found in self._runner(shapes).stream(map(_contiguous, group)):
                yield self._named(shapes, found)

    def _runner(self, shapes: dict[str, tuple[int, ...]]) -> EngineRunner:
        """Return what runs inputs of these shapes; each is set up once."""
        self._check_shapes(shapes)
        key = tuple(sorted(shapes.items()))
        if key not in self._runners:
            self._runners[key] = EngineRunner(self._library.module, self._data, shapes)
        return self._runners[key]

    def _named(
        self, shapes: dict[str, tuple[int, ...]], found: Mapping[str, bytes]
    ) -> dict[str, Array]:
        outputs = self._runner(shapes).outputs
        return {
            name: np.frombuffer(data, "f4").reshape(outputs[name]) for name, data in found.items()
        }

    def _check_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if set(shapes) != set(self.document["shapes"]):
            raise ShapeError(
                f"{self.where}: takes {', '.join(self.document['shapes'])}; was given "
                f"{', '.join(shapes)}"
            )
        for name, (least, _, most) in self.document["shapes"].items():
            inside = len(shapes[name]) == len(least) and all(
                a <= n <= b for a, n, b in zip(least, shapes[name], most, strict=True)
            )
            if not inside:
                raise ShapeError(
                    f"{self.where}: {name} has shape {list(shapes[name])}; the engine takes "
                    f"{least} to {most}: build one with other --shapes"
                )

    def step_logits(self, x: "torch.Tensor") -> "torch.Tensor":
        """Return logits [B, steps, classes] of float clips [B, C, T, H, W].

        Raises:
            ShapeError: The engine takes clips of another size, two streams, or uint8 frames.
        """
        (steps,) = self.stream([x])
        return steps

    def features(self, x: "torch.Tensor") -> "torch.Tensor":
        """Return the pooled features [B, 1024] of float clips [B, C, T, H, W].

        Raises:
            MetadataError: The engine was exported without them.
            ShapeError: As for `step_logits`.
        """
        (pooled,) = self.stream([x], features=True)
        return pooled

    def stream(
        self, clips: "Iterable[torch.Tensor]", features: bool = False
    ) -> "Iterator[torch.Tensor]":
        """Yield the `step_logits` of each, or the `features`, computing while the next is made."""
        import torch

        if features:
            check_features(self.where, self.options, self.num_classes)
        name = INPUT[self.streams[0].stream]
        for outputs in self.run_all({name: x.cpu().float().numpy()} for x in clips):
            if features:
                yield torch.from_numpy(outputs["features"].copy())
            elif self.has_steps:
                yield torch.from_numpy(outputs["fc_steps"].copy())
            else:
                yield torch.from_numpy(outputs[OUTPUT].copy())[:, None]

    def _check_labels(self) -> None:
        given = self.document["outputs"].get(OUTPUT)
        if given is not None and given["shape"][-1] != self.num_classes:
            raise MetadataError(
                f"{self.where}: gives {given['shape'][-1]} logits, and its description names "
                f"{self.num_classes} classes; export it again"
            )

    def _check_gpu(self) -> None:
        here = check_gpu(self.document["library"], self.where)
        if self.document["library"] == RTX:
            return
        built = self.document["gpu"]
        anywhere = built is None or self.document["compatible"] in ("gpus", "all")
        if not anywhere and built != vars(here):
            raise DeviceError(
                f"{self.where}: was built on {built['name']} ({built['capability']}), and this is "
                f"{here}; export again here, or with --compatible gpus"
            )


def _contiguous(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.ascontiguousarray(array) for name, array in inputs.items()}


def check_library(where: str, document: dict[str, Any], found: Library) -> None:
    """Refuse an engine of another library or version.

    Version-compatible engines run on later versions of the same major one.

    Raises:
        MetadataError: It is.
    """
    built = f"{document['library']} {document['version']}"
    here = f"{found.name} {found.version}"
    old, new = (
        [int(n) for n in each.split(".") if n.isdigit()]
        for each in (document["version"], found.version)
    )
    later = found.name == document["library"] and old[:1] == new[:1] and old <= new
    if built != here and not (later and document["compatible"] in ("versions", "all")):
        raise MetadataError(
            f"{where}: was built by {built}, and {here} is installed; install the former or export "
            "again"
        )


def read_engine(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Read an engine and its sidecar.

    Raises:
        MissingFileError: One of them is not there.
        MetadataError: The sidecar is malformed.
        ChecksumError: It is of another engine.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such file")
    data = path.read_bytes()
    return data, _read_sidecar(path, data)


def _read_sidecar(path: Path, data: bytes) -> dict[str, Any]:
    beside = sidecar(path)
    if not beside.is_file():
        raise MissingFileError(
            f"{beside}: is not there, and without it nothing is known of {path.name}: export again"
        )
    try:
        document: dict[str, Any] = json.loads(beside.read_bytes())
        version = document["format"]
        wrong = [key for key, kind in _KEYS.items() if not isinstance(document[key], kind)]
    except (ValueError, KeyError, TypeError) as error:
        raise MetadataError(f"{beside}: is malformed: {error}; export again") from error
    if version != SIDECAR_VERSION:
        raise MetadataError(f"{beside}: is of version {version}; this i3dzoo reads 1: upgrade")
    if wrong:
        raise MetadataError(f"{beside}: is malformed: {', '.join(wrong)}; export again")
    if hashlib.sha256(data).hexdigest() != document["sha256"]:
        raise ChecksumError(
            f"{beside}: describes another engine than {path.name}; keep the two that were exported "
            "together, or export again"
        )
    return document
