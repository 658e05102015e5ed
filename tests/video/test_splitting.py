"""Splits of videos without parts: each class, groups, files with the same content."""

from collections import Counter

import pytest

from i3dzoo.errors import DatasetError, OptionError
from i3dzoo.video.index import Entry, SplitSettings
from i3dzoo.video.splitting import split_videos


def videos(**classes: int) -> list[Entry]:
    """Return entries of classes with so many videos, four clips of each source."""
    return [
        Entry(f"{label}/v_{label}_g{number // 4:02}_c{number % 4}.avi", label, error="not opened")
        for label, count in classes.items()
        for number in range(count)
    ]


def settings(seed: int = 0, fraction: float = 0.25, group_by: str | None = None) -> SplitSettings:
    """Return how to split."""
    return SplitSettings(val_fraction=fraction, seed=seed, group_by=group_by)


def test_every_class_has_its_share() -> None:
    """Each class has its share, at least one video, and never all; the seed chooses which."""
    entries = videos(run=40, wave=10, rare=2, single=1)
    roles, notes = split_videos(entries, settings())
    chosen = [e for e, role in zip(entries, roles, strict=True) if role == "val"]
    assert Counter(e.label for e in chosen) == {"run": 10, "wave": 2, "rare": 1}
    assert notes == ["classes with one video, which is for training: single"]
    assert split_videos(entries, settings())[0] == roles
    assert split_videos(entries, settings(seed=1))[0] != roles


def test_groups_are_on_one_side() -> None:
    """Clips of one source are on one side, and each class still has a validation part."""
    entries = videos(run=40, wave=12)
    roles, _ = split_videos(entries, settings(group_by=r"_g\d+"))
    sides: dict[str, set[str]] = {}
    for entry, role in zip(entries, roles, strict=True):
        sides.setdefault(entry.file.rpartition("_c")[0], set()).add(role)
    # the expression finds g00 in both classes, so these groups are joined over the classes
    assert all(len(side) == 1 for side in sides.values())
    of_val = Counter(e.label for e, r in zip(entries, roles, strict=True) if r == "val")
    assert set(of_val) == {"run", "wave"}
    assert of_val["run"] <= 12


def test_a_class_of_one_group() -> None:
    """A class whose videos are one group is for training, and is named."""
    roles, notes = split_videos(videos(run=16, wave=4), settings(group_by=r"v_\w+_g\d+"))
    assert "wave" in notes[0]
    assert roles[-4:] == ["train"] * 4


def test_same_files_and_segments_are_on_one_side() -> None:
    """Files with the same content, and segments of one file, are on one side."""
    entries = videos(run=20)
    same = [[entries[0].file, entries[7].file], [entries[7].file, entries[9].file]]
    for seed in range(20):
        roles, _ = split_videos(entries, settings(seed), same)
        assert len({roles[0], roles[7], roles[9]}) == 1
    long = [entry.replace(start=float(k), end=k + 1.0) for entry in entries for k in range(3)]
    roles, _ = split_videos(long, settings())
    for first in range(0, 60, 3):
        assert len(set(roles[first : first + 3])) == 1


def test_earlier_roles_are_kept() -> None:
    """Videos that were added later do not move the others."""
    entries = videos(run=40)
    before, _ = split_videos(entries[:30], settings())
    earlier = {entry.name: role for entry, role in zip(entries, before, strict=False)}
    after, _ = split_videos(entries, settings(), earlier=earlier)
    assert after[:30] == before
    assert after.count("val") == 10


def test_nothing_to_split() -> None:
    """Single videos and expressions that do not fit are refused with a remedy."""
    with pytest.raises(DatasetError, match=r"no class has two videos.*--test-data"):
        split_videos(videos(a=1, b=1), settings())
    with pytest.raises(OptionError, match=r"--group-by '_x\\\\d': matches no video"):
        split_videos(videos(a=4), settings(group_by=r"_x\d"))
    with pytest.raises(OptionError, match=r"--group-by '\(': is not a regular expression"):
        split_videos(videos(a=4), settings(group_by="("))
