"""Read the members of uncompressed zip archives, which PyTorch and Keras write.

Every size is compared with the size of the file before memory is taken, and every member that is
read is checked against its CRC32. Source of the format: PKWARE's APPNOTE.TXT.
"""

import io
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from i3dzoo.errors import FormatError, UnsafeFileError
from i3dzoo.formats.container import check_crc, mapped
from i3dzoo.formats.limits import MAX_DIRECTORY
from i3dzoo.text import shorten

_HEADER: Final = 30  # bytes before the name of a member


class ZipArchive:
    """A zip archive.

    Attributes:
        path: The file.
        data: The file, mapped.
        names: Names of the members, in the order of the archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = mapped(path)
        with warnings.catch_warnings(), _Source(path) as source:
            warnings.simplefilter("ignore", UserWarning)  # from zipfile, about duplicate names
            with zipfile.ZipFile(source) as archive:
                self._members = {member.filename: member for member in archive.infolist()}
        self.names = tuple(self._members)

    def spans(self, wanted: Callable[[str], bool]) -> dict[str, tuple[int, int]]:
        """Return where the wanted members are: first byte, and the one after the last."""
        members = [self._members[name] for name in self.names if wanted(name)]
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise UnsafeFileError(
                    f"{self.path}: {shorten(member.filename)} unpacks to {member.file_size} bytes "
                    f"from {member.compress_size}; expected uncompressed tensors: save it again "
                    "with torch.save or Keras"
                )
        total = sum(member.file_size for member in members)
        if total > self.data.size:
            raise UnsafeFileError(
                f"{self.path}: has {self.data.size} bytes, but its members claim {total}"
            )
        return {member.filename: self._span(member) for member in members}

    def _span(self, member: zipfile.ZipInfo) -> tuple[int, int]:
        header = self.data[member.header_offset : member.header_offset + _HEADER]
        name, extra = (int.from_bytes(header[at : at + 2].tobytes(), "little") for at in (26, 28))
        start = member.header_offset + _HEADER + name + extra
        raw = self.data[start : start + member.file_size]
        label = shorten(member.filename)
        if raw.size != member.file_size:
            raise FormatError(f"{self.path}: is truncated: {label} ends after the end of the file")
        check_crc(self.path, label, zlib.crc32(raw.data), member.CRC, "CRC32")
        return start, start + raw.size


class _Source(io.FileIO):
    """A file that refuses to read much at once, as zipfile does with a directory."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = self.path.stat().st_size - self.tell()
        if size > MAX_DIRECTORY:
            raise UnsafeFileError(
                f"{self.path}: has a zip directory of {size} bytes; expected at most "
                f"{MAX_DIRECTORY}: save it again with torch.save or Keras"
            )
        return super().read(size) or b""
