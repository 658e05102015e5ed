"""Walk through the files of a folder that a user named."""

import os
from collections.abc import Iterator
from pathlib import Path


def walk_files(source: Path, links: bool = True, broken: bool = False) -> Iterator[Path]:
    """Yield files in order of their names, without hidden files.

    Links are followed in the user's folders, but not in extracted archives. A folder is read once,
    and one that holds `source` is not read, so links may form cycles. With `broken`, links
    that lead nowhere are yielded, too.
    """
    if source.is_file():
        yield source
        return
    known = {_identity(parent) for parent in source.resolve().parents}
    for folder, folders, names in os.walk(source, followlinks=links):
        if (identity := _identity(folder)) in known:
            folders.clear()
            continue
        known.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if name.startswith("."):
                continue
            is_link = path.is_symlink()
            if (path.is_file() and (links or not is_link)) or (
                broken and is_link and not path.exists()
            ):
                yield path


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 - also of text
    return status.st_dev, status.st_ino
