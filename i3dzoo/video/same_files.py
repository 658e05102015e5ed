"""Find files with the same content, by size and then by digest, and what is wrong with them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from i3dzoo.digests import sha256
from i3dzoo.video.index import Entry


def same_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of two or more files with the same content; paths that fail are left out.

    Two links to one file are two files with the same content.
    """
    by_size = defaultdict(list)
    for path in dict.fromkeys(paths):
        if path.is_file() and (size := path.stat().st_size):
            by_size[size].append(path)
    groups = []
    for candidates in by_size.values():
        if len(candidates) > 1:
            by_digest = defaultdict(list)
            for path in candidates:
                by_digest[sha256(path)].append(path)
            groups += [group for group in by_digest.values() if len(group) > 1]
    return groups


def find_leaks(entries: Sequence[Entry], same: Iterable[Sequence[str]]) -> list[str]:
    """Return remarks on files with the same content in different parts, or in different classes."""
    of_file: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        of_file[entry.file].append(entry)
    parts, classes = [], []
    for group in same:
        members = [entry for file in group for entry in of_file[file]]
        first = members[0]
        parts += [(first, other) for other in members if other.roles[0] != first.roles[0]][:1]
        classes += [(first, other) for other in members if other.label != first.label][:1]
    notes = []
    if parts:
        one, other = parts[0]
        notes.append(
            f"{_files_are(len(parts))} in two parts, so the accuracy will be too high: "
            f"{one.file} ({one.roles[0]}) is the same as {other.file} ({other.roles[0]})"
        )
    if classes:
        one, other = classes[0]
        notes.append(
            f"{_files_are(len(classes))} in two classes: {one.file} is the same as {other.file}; "
            "keep each video in one class"
        )
    return notes


def _files_are(count: int) -> str:
    return "1 file is" if count == 1 else f"{count:,} files are"
