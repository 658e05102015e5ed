"""Read the official split lists of HMDB51 and UCF101."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from i3dzoo.errors import DatasetError, MissingFileError
from i3dzoo.files import read_text, split_lines
from i3dzoo.files.output_names import name_key

DatasetName = Literal["hmdb51", "ucf101"]
Role = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Official:
    """Numbers of the complete dataset; `train` and `test` are for splits 1, 2 and 3."""

    title: str
    classes: int
    clips: int
    train: tuple[int, int, int]
    test: tuple[int, int, int]


OFFICIAL: dict[DatasetName, Official] = {
    "hmdb51": Official("HMDB51", 51, 6766, (3570,) * 3, (1530,) * 3),
    "ucf101": Official("UCF101", 101, 13320, (9537, 9586, 9624), (3783, 3734, 3696)),
}
"""Numbers of the official lists of 2011 (HMDB51) and 2013 (UCF101)."""


@dataclass(frozen=True)
class ListedClip:
    """A clip of the lists: file name, class, and role in splits 1, 2 and 3 (None if left out)."""

    file: str
    label: str
    roles: tuple[Role | None, Role | None, Role | None]


@dataclass(frozen=True)
class SplitLists:
    """The three splits of a dataset.

    Attributes:
        dataset: `hmdb51` or `ucf101`.
        classes: Names in the order of the logits: alphabetical for HMDB51, `classInd.txt`'s
            for UCF101.
        clips: By class, then by name.
    """

    dataset: DatasetName
    classes: tuple[str, ...]
    clips: tuple[ListedClip, ...]

    def count(self, split: int, role: Role) -> int:
        """Return how many clips have this role in split 1, 2 or 3."""
        return sum(clip.roles[split - 1] == role for clip in self.clips)

    def differences(self) -> tuple[str, ...]:
        """Return how the numbers of the lists differ from the official ones, in words."""
        official = OFFICIAL[self.dataset]
        pairs = [
            ("classes", len(self.classes), official.classes),
            ("clips", len(self.clips), official.clips),
        ]
        for split in (1, 2, 3):
            train, test = official.train[split - 1], official.test[split - 1]
            pairs.append((f"training clips in split {split}", self.count(split, "train"), train))
            pairs.append((f"test clips in split {split}", self.count(split, "test"), test))
        return tuple(
            f"{count:,} {what}, {official.title} has {expected:,}"
            for what, count, expected in pairs
            if count != expected
        )


def read_splits(folder: str | Path, dataset: DatasetName) -> SplitLists:
    """Read the official text files of a dataset.

    HMDB51 has `<class>_test_split<1|2|3>.txt` with lines `<file> <0|1|2>`: unused, train, test.
    UCF101 has `classInd.txt`, `trainlist0<1|2|3>.txt` with lines `<class>/<file> <class number>`
    and `testlist0<1|2|3>.txt` with lines `<class>/<file>`.

    Raises:
        MissingFileError: The folder or one of its lists is missing.
        DatasetError: A line is malformed, a clip is listed twice or in two classes, or the three
            lists of a class of HMDB51 do not have the same clips.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(
            f"{folder}: no such folder; expected a folder with the official split lists"
        )
    return _read_hmdb51(folder) if dataset == "hmdb51" else _read_ucf101(folder)


_BLANKS = " \t\r"
_HMDB51_ROLES: dict[str, Role | None] = {"0": None, "1": "train", "2": "test"}


def _read_hmdb51(folder: Path) -> SplitLists:
    files = {normalize("NFC", path.name): path for path in folder.iterdir()}
    suffix = "_test_split1.txt"
    classes = sorted(name.removesuffix(suffix) for name in files if name.endswith(suffix))
    if not classes:
        raise MissingFileError(
            f"{folder}: holds no HMDB51 split lists; expected <class>_test_split1.txt, ...2, ...3"
        )
    clips: list[ListedClip] = []
    for label in classes:
        columns = []
        for split in (1, 2, 3):
            name = f"{label}_test_split{split}.txt"
            if name not in files:
                raise MissingFileError(
                    f"{folder / name}: the list is missing; expected three lists for each class"
                )
            columns.append(_hmdb51_list(files[name]))
        for split, column in enumerate(columns[1:], 2):
            if odd := sorted(column.keys() ^ columns[0].keys()):
                raise DatasetError(
                    f"{folder / f'{label}_test_split{split}.txt'}: {odd[0]!r} is not in "
                    "both this list and that of split 1; expected the same clips in all splits"
                )
        clips += (
            ListedClip(file, label, (columns[0][file], columns[1][file], columns[2][file]))
            for file in sorted(columns[0])
        )
    return _checked(folder, SplitLists("hmdb51", tuple(classes), tuple(clips)))


def _hmdb51_list(path: Path) -> dict[str, Role | None]:
    roles: dict[str, Role | None] = {}
    for number, line in _lines(path):
        file, _, digit = line.rpartition(" ")
        file = file.strip(_BLANKS)
        if digit not in _HMDB51_ROLES or not _is_name(file):
            raise DatasetError(
                f"{path}, line {number}: expected '<file> <0, 1 or 2>', found {line!r}"
            )
        if file in roles:
            raise DatasetError(f"{path}, line {number}: {file!r} is listed twice")
        roles[file] = _HMDB51_ROLES[digit]
    return roles


def _read_ucf101(folder: Path) -> SplitLists:
    index = folder / "classInd.txt"
    if not index.is_file():
        raise MissingFileError(
            f"{index}: the list is missing; expected the lists of UCF101 in this folder"
        )
    classes: list[str] = []
    for number, line in _lines(index):
        digits, _, label = line.partition(" ")
        if digits != str(len(classes) + 1) or not _is_name(label):
            raise DatasetError(
                f"{index}, line {number}: expected '{len(classes) + 1} <class>', found {line!r}"
            )
        classes.append(label)
    roles: dict[tuple[str, str], list[Role | None]] = {}
    kinds: tuple[Role, Role] = ("train", "test")
    for split in (1, 2, 3):
        for role in kinds:
            path = folder / f"{role}list0{split}.txt"
            if not path.is_file():
                raise MissingFileError(
                    f"{path}: the list is missing; expected two lists for each split"
                )
            for number, line in _lines(path):
                label, _, rest = line.partition("/")
                # Only training lists have the number of the class after the name.
                file = re.sub(r" \d+$", "", rest) if role == "train" else rest
                if label not in classes or not _is_name(file):
                    raise DatasetError(
                        f"{path}, line {number}: expected '<class>/<file>' with a class of "
                        f"classInd.txt, found {line!r}"
                    )
                entry = roles.setdefault((label, file), [None, None, None])
                if entry[split - 1] is not None:
                    raise DatasetError(
                        f"{path}, line {number}: {file!r} is already in split {split}, "
                        f"as {entry[split - 1]}"
                    )
                entry[split - 1] = role
    order = {label: position for position, label in enumerate(classes)}
    keys = sorted(roles, key=lambda key: (order[key[0]], key[1]))
    clips = (ListedClip(key[1], key[0], (*roles[key],)) for key in keys)  # type: ignore[arg-type] # three by construction
    return _checked(folder, SplitLists("ucf101", tuple(classes), tuple(clips)))


def _checked(folder: Path, lists: SplitLists) -> SplitLists:
    most = Counter(name_key(clip.file) for clip in lists.clips).most_common(1)
    if most and most[0][1] > 1:
        raise DatasetError(f"{folder}: {most[0][0]!r} is listed in {most[0][1]} classes")
    return lists


def _lines(path: Path) -> list[tuple[int, str]]:
    # macOS writes accents as characters of their own, and other systems do not
    text = normalize("NFC", read_text(path, DatasetError, fallback="latin-1"))
    lines = split_lines(text)
    return [(number, line) for number, line in enumerate(lines, 1) if line]


def _is_name(text: str) -> bool:
    """Whether a name is one path component, so that a list cannot lead out of a folder."""
    return bool(text) and text not in (".", "..") and not set(text) & {"/", "\\", "\0"}
