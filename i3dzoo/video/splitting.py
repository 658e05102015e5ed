"""Split videos into training and validation, class by class, without leaks."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from i3dzoo.errors import DatasetError, OptionError
from i3dzoo.text import listing
from i3dzoo.video.index import Entry, SplitSettings
from i3dzoo.video.splits import Role


def split_videos(
    entries: Sequence[Entry],
    settings: SplitSettings,
    same: Iterable[Sequence[str]] = (),
    earlier: Mapping[str, Role] | None = None,
) -> tuple[list[Role], list[str]]:
    """Return the role of each video, `train` or `val`, and remarks.

    About `val_fraction` of each class is for validation: at least one video, and never all of them.
    Segments of one file, files with the same content, and videos of one group are on one side.

    Args:
        entries: The videos.
        settings: The share, the seed, and the expression that finds the group of a video.
        same: Groups of files with the same content.
        earlier: Roles to keep, by name of the video.

    Raises:
        OptionError: The expression is malformed, or matches no video.
        DatasetError: No class has two videos that may be on different sides.
    """
    earlier = earlier or {}
    groups = _groups(entries, settings, same)
    sizes = Counter(entry.label for entry in entries)
    wanted = {
        label: min(max(round(size * settings.val_fraction), 1), size - 1)
        for label, size in sizes.items()
    }
    roles: dict[int, Role] = {}
    chosen: Counter[str] = Counter()
    undecided = []
    for key in sorted(groups, key=lambda key: _draw(settings.seed, key)):
        members = groups[key]
        role = next((earlier[e.name] for e in members if e.name in earlier), None)
        if role is None:
            undecided.append(members)
        else:
            roles |= {id(entry): role for entry in members}
            chosen.update(entry.label for entry in members if role == "val")
    for slack in (False, True):  # a large group may exceed the share only if a class has nothing
        for members in undecided:
            counts = Counter(entry.label for entry in members)
            if id(members[0]) in roles:
                continue
            if slack:
                fits = any(not chosen[label] for label in counts) and all(
                    chosen[label] + count < sizes[label] for label, count in counts.items()
                )
            else:
                fits = all(
                    chosen[label] + count <= wanted[label] for label, count in counts.items()
                )
            if fits:
                roles |= {id(entry): "val" for entry in members}
                chosen.update(counts)
    if not chosen:
        raise DatasetError(
            "no class has two videos of different sources, so none can be for validation; add "
            "videos, or name other ones with --test-data"
        )
    notes = []
    if alone := sorted(label for label in sizes if not chosen[label]):
        notes.append(
            f"{'1 class has' if len(alone) == 1 else f'{len(alone)} classes have'} no video for "
            f"validation, because all its videos are one group: {listing(alone, 5)}"
            if any(sizes[label] > 1 for label in alone)
            else f"classes with one video, which is for training: {listing(alone, 5)}"
        )
    return [roles.get(id(entry), "train") for entry in entries], notes


def _draw(seed: int, key: str) -> bytes:
    """Return what orders the groups; that of a group does not depend on the other groups."""
    return hashlib.sha256(f"{seed} {key}".encode()).digest()


def _groups(
    entries: Sequence[Entry], settings: SplitSettings, same: Iterable[Sequence[str]]
) -> dict[str, list[Entry]]:
    """Return the videos that must be on one side, by a name of the group."""
    parents: dict[str, str] = {}

    def find(key: str) -> str:
        while parents.setdefault(key, key) != key:
            key = parents[key]
        return key

    def join(keys: Sequence[str]) -> None:
        for key in keys[1:]:
            parents[find(key)] = find(keys[0])

    for files in same:
        join([f"file {file}" for file in files])
    if settings.group_by is not None:
        _join_matches(entries, settings.group_by, join)
    groups = defaultdict(list)
    for entry in entries:
        groups[find(f"file {entry.file}")].append(entry)
    return {min(entry.file for entry in members): members for members in groups.values()}


def _join_matches(
    entries: Sequence[Entry], expression: str, join: Callable[[Sequence[str]], None]
) -> None:
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise OptionError(
            f"--group-by {expression!r}: is not a regular expression: {error}"
        ) from error
    matches = [(entry, pattern.search(entry.file)) for entry in entries]
    if not any(match for _, match in matches):
        raise OptionError(f"--group-by {expression!r}: matches no video, such as {entries[0].file}")
    for entry, match in matches:
        if match:
            texts = match.groups("") or (match[0],)
            join([f"group {texts}", f"file {entry.file}"])
