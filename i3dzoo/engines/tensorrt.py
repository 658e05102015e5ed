"""Run TensorRT engines, and refuse those that cannot run here."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from i3dzoo.arrays import Array
from i3dzoo.engines.exported import ExportedEngine
from i3dzoo.engines.tensorrt_library import RTX, check_gpu, library
from i3dzoo.engines.tensorrt_session import Shapes, TensorRTSession
from i3dzoo.engines.tensorrt_sidecar import Sidecar, check_library, read_engine
from i3dzoo.errors import DeviceError


class TensorRTEngine(ExportedEngine):
    """A TensorRT engine that i3dzoo exported.

    Args:
        where: The file of the engine, for messages.
        plan: The serialized engine.
        sidecar: The description of the engine.

    Raises:
        MetadataError: Another library or version built it, or its labels do not fit.
        DeviceError: There is no GPU, or it is not the one that the engine was built for.
    """

    def __init__(self, where: str, plan: bytes, sidecar: Sidecar) -> None:
        outputs = {name: output.shape for name, output in sidecar.outputs.items()}
        super().__init__(where, sidecar.description, outputs)
        self.sidecar = sidecar
        self._plan = plan
        self._library = library()
        check_library(where, sidecar, self._library)
        here, built = check_gpu(sidecar.library, where), sidecar.gpu
        anywhere = built is None or sidecar.compatible in ("gpus", "all")
        if sidecar.library != RTX and not anywhere and built != here:
            raise DeviceError(
                f"{where}: was built on {built}, and this GPU is {here}; export again here, or "
                "with --compatible gpus"
            )
        self._sessions: dict[tuple[Any, ...], TensorRTSession] = {}

    @property
    def batch_limit(self) -> int:
        """Most clips of a batch, which the engine was built for."""
        return min(high[0] for _, _, high in self.sidecar.shapes.values())

    @classmethod
    def from_file(cls, path: Path) -> "TensorRTEngine":
        """Load an engine and its sidecar; see `read_engine`."""
        return cls(str(path), *read_engine(path))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one batch."""
        return self.session(_shapes(inputs)).run(inputs)

    def run_all(self, batches: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """Run batches in order; the next is prepared and copied while one is computed."""
        for shapes, group in itertools.groupby(batches, _shapes):
            yield from self.session(shapes).run_all(group)

    def session(self, shapes: Shapes) -> TensorRTSession:
        """Return the session for inputs of these shapes; each is set up once."""
        limits = {name: (low, high) for name, (low, _, high) in self.sidecar.shapes.items()}
        self.check_shapes(shapes, limits, "build an engine with other --shapes")
        key = tuple(sorted(shapes.items()))
        if key not in self._sessions:
            self._sessions[key] = TensorRTSession(self._library.module, self._plan, shapes)
        return self._sessions[key]


def _shapes(inputs: Mapping[str, Array]) -> Shapes:
    return {name: tuple(array.shape) for name, array in inputs.items()}
