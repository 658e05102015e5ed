"""The folder in which a command runs: its inputs and output, and others that it must not touch."""

import fnmatch
import os
import shutil
from collections.abc import Collection
from pathlib import Path

_SMALL = 1 << 20


class Box:
    """A folder made anew for each mutant.

    `work` has the inputs and is the working folder, `work/out` is the output folder; `home` holds
    caches, `tmp` is for temporary files, and `canary` has files of the user's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work, self.out = folder / "work", folder / "work" / "out"
        self.home, self.tmp = folder / "home", folder / "tmp"
        own = (self.out, self.home, self.tmp)
        self._free = {"seeds", "shared", *(str(path.relative_to(folder.parent)) for path in own)}
        self._before: dict[str, tuple[int, int]] = {}
        self._output_before: dict[str, tuple[int, int]] = {}

    def fill(self, seed: Path, damaged: Path | None = None, content: bytes = b"") -> None:
        """Copy the files of a seed, with one of them damaged."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in (self.home, self.tmp, self.folder / "canary" / "below"):
            folder.mkdir(parents=True)
        for name in ("notes.txt", "below/notes.txt"):
            (self.folder / "canary" / name).write_text("mine")
        shutil.copytree(seed, self.work, copy_function=_copy)
        self.out.mkdir(exist_ok=True)
        if damaged is not None:
            path = self.work / damaged
            path.unlink()  # it may be a link to the seed's file
            path.write_bytes(content)
        self._before, self._output_before = self._snapshot(), _stats(self.out)

    def changed(self) -> tuple[str, ...]:
        """Return the files outside of the output folder that were created, changed or removed."""
        after = self._snapshot()
        names = self._before.keys() | after.keys()
        return tuple(sorted(n for n in names if self._before.get(n) != after.get(n)))

    def left(self, failed: bool, partial: tuple[str, ...]) -> tuple[str, ...]:
        """Return temporary files, and if the command failed, also what it created or changed."""
        names = [f"tmp/{name}" for name in _stats(self.tmp)]
        for name, stat in _stats(self.out).items():
            temporary = name.endswith((".part", ".tmp")) or "/." in f"/{name}"
            fresh = failed and self._output_before.get(name) != stat
            if (temporary or fresh) and not any(fnmatch.fnmatch(name, p) for p in partial):
                names.append(f"out/{name}")
        return tuple(names)

    def _snapshot(self) -> dict[str, tuple[int, int]]:
        return _stats(self.folder.parent, self._free)


def _copy(source: str, target: str) -> None:
    """Copy a small file, and link a large one; a command that changes it is found out."""
    if os.path.getsize(source) > _SMALL:  # noqa: PTH202 - copytree gives texts
        os.link(source, target)
    else:
        shutil.copyfile(source, target)


def _stats(folder: Path, skip: Collection[str] = ()) -> dict[str, tuple[int, int]]:
    """Return sizes and times of files by their names below a folder, but not in folders to skip."""
    stats, folders = {}, [(str(folder), "")]
    while folders:
        path, prefix = folders.pop()
        for entry in os.scandir(path):
            name = prefix + entry.name
            if not entry.is_dir(follow_symlinks=False):
                stat = entry.stat(follow_symlinks=False)
                stats[name] = (stat.st_size, stat.st_mtime_ns)
            elif name not in skip:
                folders.append((entry.path, f"{name}/"))
    return stats
