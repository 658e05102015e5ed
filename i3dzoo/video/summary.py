"""Describe a dataset in a few lines: classes, videos, seconds, sizes and rates."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from i3dzoo.text import listing
from i3dzoo.video.index import Entry, Index
from i3dzoo.video.splits import Role

_PARTS: Final[tuple[tuple[Role, str], ...]] = (
    ("train", "training"),
    ("val", "validation"),
    ("test", "test"),
)


@dataclass(frozen=True)
class Summary:
    """What is in a dataset.

    Attributes:
        classes: Number of usable videos by class.
        parts: Number of usable videos by role in the split; empty without a split.
        unusable: Videos that cannot be used, with the reason.
        seconds: Seconds of all usable videos, the shortest and the longest; None without rates.
        sizes: Number of videos by size, such as `320x240`.
        rates: Number of videos by frames per second, such as `29.97`.
        chance: Accuracy of guessing, 0..1.
        majority: Accuracy of always guessing the most frequent class of the evaluated part, 0..1.
    """

    classes: dict[str, int]
    parts: dict[str, int]
    unusable: dict[str, str]
    seconds: tuple[float, float, float] | None
    sizes: dict[str, int]
    rates: dict[str, int]
    chance: float
    majority: float

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain data."""
        document = {key: getattr(self, key) for key in self.__dataclass_fields__}
        names = ("total", "shortest", "longest")
        seconds = dict(zip(names, self.seconds, strict=True)) if self.seconds else None
        return document | {"seconds": seconds}

    def __str__(self) -> str:
        videos = sum(self.classes.values())
        counts = sorted(self.classes.values())
        most = f"{counts[0]:,} to {counts[-1]:,}" if counts[0] < counts[-1] else f"{counts[0]:,}"
        lines = [f"{videos:,} videos of {len(counts):,} classes, {most} in each"]
        if self.seconds:
            total, least, longest = self.seconds
            lines.append(f"{_duration(total)} in all, {least:.1f} to {longest:.1f} s each")
        lines.append(f"sizes: {_most(self.sizes)}; frames per second: {_most(self.rates)}")
        if self.parts:
            parts = (f"{self.parts[role]:,} {name}" for role, name in _PARTS if role in self.parts)
            lines.append(f"split: {', '.join(parts)}")
        lines.append(
            f"chance is {self.chance:.1%}; always predicting the most frequent class gives "
            f"{self.majority:.1%}"
        )
        if self.unusable:
            file, reason = next(iter(self.unusable.items()))
            count = len(self.unusable)
            what = "1 video is" if count == 1 else f"{count:,} videos are"
            lines.append(f"{what} unusable, such as {file}: {reason}")
        if single := [label for label, count in self.classes.items() if count == 1]:
            lines.append(f"classes with one video: {listing(single, 5)}")
        return "\n".join(lines)


def summarise(index: Index, split: int = 1) -> Summary:
    """Return the summary of a dataset of one class a video."""
    usable = [entry for entry in index.entries if entry.error is None]
    classes = Counter(entry.label for entry in usable)
    roles = Counter(str(role) for entry in usable if (role := entry.roles[split - 1]))
    seconds = [length for entry in usable if (length := _seconds(entry))]
    evaluated = _evaluated(usable, split)
    most = Counter(entry.label for entry in evaluated).most_common(1)
    return Summary(
        classes={label: classes[label] for label in index.classes},
        parts=dict(roles),
        unusable={entry.name: entry.error for entry in index.entries if entry.error is not None},
        seconds=(sum(seconds), min(seconds), max(seconds)) if seconds else None,
        sizes=dict(Counter(f"{entry.width}x{entry.height}" for entry in usable).most_common()),
        rates=dict(Counter(_rate(entry.fps) for entry in usable).most_common()),
        chance=1 / max(len(index.classes), 1),
        majority=most[0][1] / len(evaluated) if most else 0.0,
    )


def _evaluated(entries: Sequence[Entry], split: int) -> Sequence[Entry]:
    """Return the videos of the part that training evaluates, or all without parts."""
    for role in ("val", "test"):
        if chosen := [entry for entry in entries if entry.roles[split - 1] == role]:
            return chosen
    return entries


def _seconds(entry: Entry) -> float | None:
    if entry.fps is None:
        return None
    length = entry.frames / entry.fps
    return min(length, entry.end or length) - (entry.start or 0)


def _rate(fps: float | None) -> str:
    return "none" if fps is None else f"{fps:.2f}".rstrip("0").rstrip(".")


def _most(counts: dict[str, int]) -> str:
    return listing([f"{name} ({count:,})" for name, count in counts.items()], 4) or "none"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
