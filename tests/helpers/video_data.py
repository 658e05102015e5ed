"""Generated and prepared datasets, and archives, for tests."""

import struct
import zipfile
import zlib
from pathlib import Path

from i3dzoo.video.extract import Settings
from i3dzoo.video.generate import Shape, generate
from i3dzoo.video.prepare import Prepared, prepare
from i3dzoo.video.splits import ListedClip, Role, SplitLists

CLASSES = ("brush_hair", "cartwheel", "wave")
SHAPE = Shape(height=48, width=64, frames=20)


def small_lists(per_class: int = 4) -> SplitLists:
    """List three classes: in every split, one clip is unused, one is test, the others training."""
    clips = []
    for label in CLASSES:
        for number in range(per_class):
            role: Role | None = {0: None, 1: "test"}.get(number, "train")  # type: ignore[assignment] # roles
            clips.append(ListedClip(f"{label}_clip_{number}.avi", label, (role, role, role)))
    return SplitLists("hmdb51", CLASSES, tuple(clips))


def small_prepared(folder: Path, settings: Settings | None = None, per_class: int = 4) -> Prepared:
    """Generate three classes in `folder`/source and prepare them in `folder`/out."""
    generate(folder / "source", small_lists(per_class), SHAPE)
    return prepare("hmdb51", folder / "source", folder / "out", settings)


def write_rar(path: Path, files: dict[str, bytes]) -> Path:
    """Write files to a RAR 4 archive without compression."""

    def block(kind: int, flags: int, fields: bytes, data: bytes = b"") -> bytes:
        body = struct.pack("<BHH", kind, flags, 7 + len(fields)) + fields
        return struct.pack("<H", zlib.crc32(body) & 0xFFFF) + body + data

    blocks = [b"Rar!\x1a\x07\x00", block(0x73, 0, bytes(6))]
    for name, data in files.items():
        encoded = name.encode()
        fields = struct.pack("<IIB", len(data), len(data), 3)  # of Unix
        fields += struct.pack("<IIBB", zlib.crc32(data), 0x5A6B7C8D, 20, 0x30)
        fields += struct.pack("<HI", len(encoded), 0o100644) + encoded
        blocks.append(block(0x74, 0x8000, fields, data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join([*blocks, block(0x7B, 0x4000, b"")]))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    """Write files to a zip archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path
