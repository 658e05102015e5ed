"""Finding a dataset's files: extracted, in class archives, or in the one official archive."""

import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from i3dzoo.errors import DatasetError, DependencyError, MissingFileError
from i3dzoo.progress import Progress
from i3dzoo.video.splits import DatasetName, SplitLists, read_splits

__all__ = ["extract", "find_clips", "find_splits"]

_ARCHIVES = frozenset({".rar", ".zip", ".7z", ".tar"})
_VIDEOS = frozenset({".avi", ".mp4", ".mkv", ".mov", ".webm", ".mpg", ".mpeg"})
_MARKS = {"hmdb51": "_test_split1.txt", "ucf101": "classInd.txt"}
_LISTS = {"hmdb51": "split", "ucf101": "traintestsplit"}  # in the names of archives of lists


def _commands(archive: Path, folder: Path) -> Iterator[list[str]]:
    """Yield what extracts an archive, for each extractor that is present."""
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
    """Extract an archive into a folder; one that was extracted before is left as it is.

    Args:
        archive: .rar, .zip, .7z or .tar.
        folder: Becomes the archive's contents when all of it is there, not before.

    Raises:
        DependencyError: No program that extracts it is installed.
        DatasetError: None of those that are could extract it.
    """
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
    complaints = []
    for command in _commands(archive, part):
        # Our own list of arguments, no shell: names of files cannot become commands.
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode == 0:
            part.rename(folder)
            return
        words = (done.stderr or done.stdout).decode(errors="replace").split()
        complaints.append(f"{Path(command[0]).name}: {' '.join(words)[:200] or done.returncode}")
    shutil.rmtree(part, ignore_errors=True)
    if not complaints:
        raise DependencyError(
            f"{archive}: extracting it needs 7z, unrar or bsdtar, and none is installed; "
            "on Debian and Ubuntu: apt install libarchive-tools (or unrar), on macOS bsdtar is "
            "there, with conda: conda install libarchive; or extract it and name the folder"
        )
    raise DatasetError(f"{archive}: cannot be extracted; {'; '.join(complaints)}")


def find_clips(
    source: Path, names: Iterable[str], staging: Path, progress: Progress
) -> dict[str, Path]:
    """Find the files of these names under a folder, extracting archives where they must be.

    Class archives are extracted only when a clip of theirs is wanted and not there already.

    Args:
        source: A folder or an archive.
        names: Of the files, which differ even when case is ignored.
        staging: Where archives are extracted.
        progress: Hears of every archive.

    Returns:
        Where each file is, for those that were found.

    Raises:
        MissingFileError: There is nothing at `source`.
        DependencyError: An archive must be extracted and no extractor is installed.
        DatasetError: An archive cannot be extracted.
    """
    if not source.exists():
        raise MissingFileError(f"{source}: no such file or folder")
    wanted = {name.lower(): name for name in names}
    found: dict[str, Path] = {}
    archives: list[Path] = []
    _look(source, wanted, found, archives)
    if staging.is_dir():
        _look(staging, wanted, found, [], links=False)
    while archives and len(found) < len(wanted):
        archive = archives.pop(0)
        if any(word in archive.stem.lower() for word in _LISTS.values()):
            continue  # the split lists, not clips
        folder = staging / archive.stem
        if not folder.exists():
            progress.say(f"extracting {archive.name}")
        extract(archive, folder)
        _look(folder, wanted, found, archives, links=False)
    return found


def find_splits(
    source: Path, dataset: DatasetName, splits: Path | None, staging: Path
) -> SplitLists:
    """Find and read the official lists: where the user says, or anywhere under the source.

    Raises:
        MissingFileError: They are not there.
        DatasetError: They are malformed, or their archive cannot be extracted.
    """
    where = splits or source
    if not where.exists():
        raise MissingFileError(f"{where}: no such file or folder")
    mark = _MARKS[dataset]
    folder = _folder_with(where, mark)
    if folder is None:
        archives = sorted(_files(where), key=lambda path: len(path.parts))
        for archive in archives:
            named = _LISTS[dataset] in archive.stem.lower() or archive == splits
            if archive.suffix.lower() in _ARCHIVES and named:
                extract(archive, staging / archive.stem)
                folder = _folder_with(staging / archive.stem, mark)
                if folder is not None:
                    break
    if folder is None:
        expected = "<class>_test_split1.txt" if dataset == "hmdb51" else "classInd.txt"
        raise MissingFileError(
            f"{where}: the official split lists are not there ({expected}, ...); "
            "pass --splits with the folder or archive that holds them"
        )
    return read_splits(folder, dataset)


def _look(
    source: Path,
    wanted: dict[str, str],
    found: dict[str, Path],
    archives: list[Path],
    links: bool = True,
) -> None:
    for path in _files(source, links):
        suffix = path.suffix.lower()
        if suffix in _ARCHIVES:
            archives.append(path)
        elif suffix in _VIDEOS and (name := wanted.get(path.name.lower())):
            found.setdefault(name, path)


def _folder_with(source: Path, mark: str) -> Path | None:
    for path in _files(source):
        if path.name.endswith(mark):
            return path.parent
    return None


def _files(source: Path, links: bool = True) -> Iterator[Path]:
    """Yield files in order of their names, hidden ones left out; linked folders are not entered.

    Links to files are followed in a folder of the user's, not in what an archive has made.
    """
    if source.is_file():
        yield source
        return
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file() and (links or not path.is_symlink()):
                yield path
