"""SHA256SUMS: the digests of a repository's files, as `sha256sum --check` reads them."""

import hashlib
import re
from pathlib import Path
from typing import Final

from i3dzoo.digests import sha256
from i3dzoo.errors import ChecksumError, FormatError, MissingFileError
from i3dzoo.files import atomic_write, read_text, split_lines

SUMS: Final = "SHA256SUMS"
_UNLISTED: Final = "README.md"  # people edit it on the pages of the Hub


def read_sums(path: Path) -> dict[str, str]:
    """Read a SHA256SUMS file, and return the digests by name."""
    sums = {}
    for number, line in enumerate(split_lines(read_text(path)), 1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](\S.*)", line)
        if not match:
            raise FormatError(
                f"{path}: line {number}: expected a sha256, two spaces and a name, "
                f"found {line[:80]!r}"
            )
        sums[match[2]] = match[1]
    return sums


def write_sums(folder: Path, names: list[str]) -> tuple[tuple[str, int, str], ...]:
    """Write the SHA256SUMS of files in a folder; return name, size and sha256 of all files."""
    digests = {name: sha256(folder / name) for name in names}
    lines = [f"{digests[name]}  {name}\n" for name in sorted(names) if name != _UNLISTED]
    text = "".join(lines).encode()
    with atomic_write(folder / SUMS) as file:
        file.write(text)
    digests[SUMS] = hashlib.sha256(text).hexdigest()
    return tuple((name, (folder / name).stat().st_size, digests[name]) for name in sorted(digests))


def verify_folder(folder: Path) -> None:
    """Compare the files of a folder with its SHA256SUMS, if it has one.

    Raises:
        FormatError: SHA256SUMS is malformed, or lists a file outside of the folder.
        MissingFileError: A listed file is missing.
        ChecksumError: A file has another digest.
    """
    if not (folder / SUMS).exists():
        return
    for name, expected in read_sums(folder / SUMS).items():
        if "/" in name:
            raise FormatError(f"{folder / SUMS}: lists {name}, which is outside of the folder")
        if not (folder / name).is_file():
            raise MissingFileError(f"{folder / name}: is missing, but {SUMS} lists it; save again")
        if (actual := sha256(folder / name)) != expected:
            raise ChecksumError(
                f"{folder / name}: has sha256 {actual}, expected {expected}, as {SUMS} lists it; "
                "it was changed; save or download it again"
            )
