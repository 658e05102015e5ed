"""Stand-in for bsdtar, unrar or 7z: extracts uncompressed RAR 4, and tar.

It takes the arguments of the program under whose name it is called.
"""

import struct
import sys
import tarfile
import zlib
from pathlib import Path

_MARKER = b"Rar!\x1a\x07\x00"


def extract_rar(data: bytes, target: Path) -> None:
    """Write the files of an archive, and check the checksums of its headers."""
    at = len(_MARKER)
    while at < len(data):
        crc, kind, _, size = struct.unpack_from("<HBHH", data, at)
        if zlib.crc32(data[at + 2 : at + size]) & 0xFFFF != crc:
            raise ValueError(f"the header at byte {at} is damaged")
        stored = 0
        if kind == 0x74:
            (stored,) = struct.unpack_from("<I", data, at + 7)
            (length,) = struct.unpack_from("<H", data, at + 26)
            path = target / data[at + 32 : at + 32 + length].decode()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data[at + size : at + size + stored])
        at += size + stored


def parse(tool: str, arguments: list[str]) -> tuple[Path, Path]:
    """Return the archive and the folder from the arguments of each program."""
    if tool == "bsdtar":
        extract, flag, archive, change, folder = arguments
        if (extract, flag, change) != ("-x", "-f", "-C"):
            raise ValueError(f"unknown arguments {arguments}")
    elif tool == "unrar":
        *_, archive, folder = arguments
        if arguments[0] != "x" or not folder.endswith("/"):
            raise ValueError(f"unknown arguments {arguments}")
    else:
        command, *_, output, archive = arguments
        if command != "x" or not output.startswith("-o"):
            raise ValueError(f"unknown arguments {arguments}")
        folder = output.removeprefix("-o")
    return Path(archive), Path(folder)


def main() -> None:
    """Extract an archive, or exit with an error."""
    try:
        archive, folder = parse(Path(sys.argv[0]).name, sys.argv[1:])
        data = archive.read_bytes()
        if data.startswith(_MARKER):
            extract_rar(data, folder)
        else:
            with tarfile.open(archive) as tar:
                # The archive is a test's own, and its links are what the test is about.
                tar.extractall(folder, filter="fully_trusted")  # noqa: S202
    except (ValueError, struct.error, tarfile.TarError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
