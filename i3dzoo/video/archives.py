"""Find the files of a dataset: extracted, in archives of classes, or in the official archive."""

import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from i3dzoo.errors import DatasetError, DependencyError, MissingFileError
from i3dzoo.files import missing_error
from i3dzoo.files.output_names import name_key
from i3dzoo.progress import Progress
from i3dzoo.video.splits import DatasetName, SplitLists, read_splits
from i3dzoo.video.walk import walk_files

_ARCHIVES = frozenset({".rar", ".zip", ".7z", ".tar"})
_MARKS = {"hmdb51": "_test_split1.txt", "ucf101": "classInd.txt"}
_LISTS = {"hmdb51": "split", "ucf101": "traintestsplit"}  # in the names of archives of lists


def _commands(archive: Path, folder: Path) -> Iterator[list[str]]:
    """Yield a command that extracts an archive for each installed program."""
    source, target = str(archive.absolute()), str(folder.absolute())
    for name in ("unrar", "7zz", "7z", "bsdtar"):
        if (tool := shutil.which(name)) is None:
            continue
        if name == "unrar":
            yield [tool, "x", "-o+", "-y", "-idq", "-p-", source, target + os.sep]
        elif name == "bsdtar":
            yield [tool, "-x", "-f", source, "-C", target]
        else:
            yield [tool, "x", "-y", "-bd", "-bso0", "-p", f"-o{target}", source]


def extract(archive: Path, folder: Path) -> None:
    """Extract an archive to a folder, which appears when it is complete, unless it exists."""
    if folder.exists():
        return
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if archive.suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(archive) as file:
                file.extractall(part)
        except (zipfile.BadZipFile, OSError, RuntimeError) as error:
            raise DatasetError(f"{archive}: cannot be extracted: {error}") from error
        part.rename(folder)
        return
    failures = []
    for command in _commands(archive, part):
        # A list of arguments without a shell, so names of files cannot become commands.
        result = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if result.returncode == 0:
            part.rename(folder)
            return
        words = (result.stderr or result.stdout).decode(errors="replace").split()
        failures.append(f"{Path(command[0]).name}: {' '.join(words)[:200] or result.returncode}")
    shutil.rmtree(part, ignore_errors=True)
    if not failures:
        raise DependencyError(
            f"{archive}: extracting it needs 7z, unrar or bsdtar, and none is installed; "
            "run apt install libarchive-tools (or unrar) on Debian and Ubuntu, or conda install "
            "libarchive; or extract it yourself and pass the folder"
        )
    raise DatasetError(f"{archive}: cannot be extracted; {'; '.join(failures)}")


def find_clips(
    source: Path, names: Iterable[str], staging: Path, progress: Progress
) -> dict[str, Path]:
    """Return the paths of files under a folder; extract archives if some are missing.

    Of several files of a name, the first is taken; that they differ in size is said.
    """
    if not source.exists():
        raise missing_error(source)
    wanted = {name_key(name): name for name in names}
    files: dict[str, Path] = {}
    archives: list[Path] = []
    differing = _collect(source, wanted, files, archives)
    if differing:
        name, path = next(iter(differing.items()))
        progress.message(
            f"{len(differing):,} of the clips have several files that differ in size; the first is "
            f"taken: {files[name]}, and not {path}"
        )
    if staging.is_dir():
        _collect(staging, wanted, files, [], links=False)
    while archives and len(files) < len(wanted):
        archive = archives.pop(0)
        if any(word in archive.stem.lower() for word in _LISTS.values()):
            continue  # an archive of split lists
        folder = _extracted(archive, staging)
        if not folder.exists():
            progress.message(f"extracting {archive.name}")
        extract(archive, folder)
        _collect(folder, wanted, files, archives, links=False)
    return files


def find_splits(
    source: Path, dataset: DatasetName, splits: Path | None, staging: Path
) -> SplitLists:
    """Find and read the official lists, in `splits` or else anywhere under `source`."""
    where = splits or source
    if not where.exists():
        raise missing_error(where)
    mark = _MARKS[dataset]
    folder = _folder_with(where, mark)
    if folder is None:
        archives = sorted(walk_files(where), key=lambda path: len(path.parts))
        for archive in archives:
            named = _LISTS[dataset] in archive.stem.lower() or archive == splits
            if archive.suffix.lower() in _ARCHIVES and named:
                extract(archive, _extracted(archive, staging))
                folder = _folder_with(_extracted(archive, staging), mark)
                if folder is not None:
                    break
    if folder is None:
        expected = "<class>_test_split1.txt" if dataset == "hmdb51" else "classInd.txt"
        raise MissingFileError(
            f"{where}: holds no official split lists ({expected}, ...); "
            "pass their folder or archive with --splits"
        )
    return read_splits(folder, dataset)


def _extracted(archive: Path, staging: Path) -> Path:
    """Return the folder to which an archive is extracted; others may have the same name."""
    digest = hashlib.sha256(os.fsencode(archive.absolute())).hexdigest()[:8]
    return staging / f"{archive.stem}-{digest}"


def _collect(
    source: Path,
    wanted: dict[str, str],
    files: dict[str, Path],
    archives: list[Path],
    links: bool = True,
) -> dict[str, Path]:
    """Add the wanted files and the archives; return other files of a name that differ in size."""
    differing = {}
    for path in walk_files(source, links):
        suffix = path.suffix.lower()
        if suffix in _ARCHIVES:
            archives.append(path)
        elif name := wanted.get(name_key(path.name)):
            first = files.setdefault(name, path)
            if first != path and first.stat().st_size != path.stat().st_size:
                differing[name] = path
    return differing


def _folder_with(source: Path, mark: str) -> Path | None:
    for path in walk_files(source):
        if path.name.endswith(mark):
            return path.parent
    return None
