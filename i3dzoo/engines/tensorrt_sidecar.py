"""The sidecar of a TensorRT engine: a JSON file beside it with all that is needed to run it."""

import hashlib
import json
from pathlib import Path
from typing import Final, Literal

import msgspec

from i3dzoo.engines.tensorrt_library import Gpu, Library
from i3dzoo.errors import ChecksumError, MetadataError, MissingFileError
from i3dzoo.files import open_input
from i3dzoo.records import Record, convert, read_json

VERSION: Final = 1

Shape = tuple[int, ...]


class TensorType(Record, frozen=True):
    """An input or an output of an engine."""

    shape: Shape  # -1 for axes that vary
    type: str  # TensorRT's name, such as FLOAT


class Sidecar(Record, frozen=True, kw_only=True):
    """The description of an engine.

    Attributes:
        format: Version of this description.
        library: Package that built the engine, `tensorrt` or `tensorrt-rtx`.
        version: Version of the package.
        gpu: The GPU that the engine was built on; None if there was none.
        shapes: Smallest, best and largest shape of each input, by name.
        compatible: Whether the engine runs on other GPUs, on later versions, or both.
        refittable: Whether the weights can be replaced.
        sha256: Digest of the engine.
        description: The description of the network; see `i3dzoo.onnx.description`.
        compared: What was compared with PyTorch: the engine itself, or the graph it was built from.
    """

    format: Literal[1] = VERSION
    library: str
    version: str
    gpu: Gpu | None
    precision: str
    shapes: dict[str, tuple[Shape, Shape, Shape]]
    inputs: dict[str, TensorType]
    outputs: dict[str, TensorType]
    compatible: Literal["gpus", "versions", "all"] | None
    refittable: bool
    sha256: str
    description: dict[str, str]
    compared: Literal["engine", "graph"] | None = None

    def to_json(self) -> bytes:
        """Return the content of the file."""
        return json.dumps(msgspec.to_builtins(self), indent=1).encode()


def sidecar_path(engine: Path) -> Path:
    """Return the path of an engine's sidecar."""
    return engine.with_name(f"{engine.name}.json")


def read_engine(path: Path) -> tuple[bytes, Sidecar]:
    """Read an engine and its sidecar; raise ChecksumError if they are not of one export."""
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such file")
    beside = sidecar_path(path)
    if not beside.is_file():
        raise MissingFileError(
            f"{beside}: this file is missing, and {path.name} cannot be run without it; copy it "
            "from where the engine was exported, or export again"
        )
    with open_input(path) as file:
        plan = file.read()
    sidecar = _read_sidecar(beside)
    if hashlib.sha256(plan).hexdigest() != sidecar.sha256:
        raise ChecksumError(
            f"{beside}: describes another engine than {path.name}; keep the two files of an export "
            "together, or export again"
        )
    return plan, sidecar


def _read_sidecar(path: Path) -> Sidecar:
    document = read_json(path, dict[str, object])
    version = document.get("format")
    if version != VERSION:
        raise MetadataError(
            f"{path}: format: expected {VERSION}, found {version}; update i3dzoo, or export again"
        )
    if "proved" in document:  # an earlier name
        document["compared"] = document.pop("proved")
    return convert(document, Sidecar, str(path))


def check_library(where: str, sidecar: Sidecar, installed: Library) -> None:
    """Check that the library and version that built an engine is installed.

    Version-compatible engines run on later versions with the same major version.
    """
    built = f"{sidecar.library} {sidecar.version}"
    here = f"{installed.name} {installed.version}"
    old, new = (
        [int(number) for number in version.split(".") if number.isdigit()]
        for version in (sidecar.version, installed.version)
    )
    later = installed.name == sidecar.library and old[:1] == new[:1] and old <= new
    if built != here and not (later and sidecar.compatible in ("versions", "all")):
        raise MetadataError(
            f"{where}: was built by {built}, and {here} is installed; install {built} or export "
            "again"
        )
