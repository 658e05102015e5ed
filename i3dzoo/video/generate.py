"""Test data in the shape of HMDB51: its names, lists and encoding; its classes are motions.

What is made looks to `i3dzoo prepare hmdb51` and to training as the real thing does, but it weighs
little, needs no download, and a network that cannot see motion cannot do better than chance on it.
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import av

from i3dzoo._files import atomic_write, output_error
from i3dzoo._parallel import run
from i3dzoo.errors import DatasetError
from i3dzoo.labels import labels
from i3dzoo.progress import Progress, Quiet
from i3dzoo.video.motions import MOTIONS, render
from i3dzoo.video.records import Frames
from i3dzoo.video.splits import ListedClip, Role, SplitLists

__all__ = ["CLIPS_FOLDER", "LISTS_FOLDER", "Shape", "choose", "generate", "invent", "write_clip"]

CLIPS_FOLDER = "hmdb51_org"
LISTS_FOLDER = "testTrainMulti_7030_splits"  # both as the official archives name them

_SHAPE_NAME = ".generated.json"
_MOST_PIXELS = 200_000_000  # which are drawn at once
_DIGITS = {None: 0, "train": 1, "test": 2}


@dataclass(frozen=True)
class Shape:
    """What every generated clip has in common.

    Attributes:
        height: Pixels, even.
        width: Pixels, even.
        frames: Of the average clip; the real ones differ in length, and so do these by up to 40 %.
        seed: Another seed, other clips.
    """

    height: int = 60
    width: int = 80
    frames: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 16 or self.height % 2 or self.width % 2:
            raise DatasetError(
                f"generated clips of {self.width}x{self.height} pixels are wanted; "
                "expected even numbers of at least 16"
            )
        if self.frames < 2:
            raise DatasetError(f"clips of {self.frames} frames are wanted; expected 2 or more")
        if self.width * self.height * self.frames > _MOST_PIXELS:
            raise DatasetError(
                f"clips of {self.frames} frames of {self.width}x{self.height} pixels are wanted; "
                f"expected at most {_MOST_PIXELS:,} pixels in a clip"
            )

    def __str__(self) -> str:
        return f"{self.frames} frames of {self.width}x{self.height} pixels, seed {self.seed}"


def invent(per_class: int, classes: Sequence[str] = ()) -> SplitLists:
    """Make up names and splits: 70 % training, 30 % test, each split shifted.

    Args:
        per_class: Clips of each class.
        classes: Some of HMDB51's; none means all 51.

    Raises:
        DatasetError: A class is none of HMDB51's.
    """
    known = labels("hmdb51")
    if unknown := sorted(set(classes) - set(known)):
        raise DatasetError(f"{unknown[0]!r}: is no class of HMDB51, such as {known[0]}, {known[1]}")
    clips = []
    chosen = tuple(label for label in known if label in (classes or known))
    for label in chosen:
        for number in range(per_class):
            roles: list[Role | None] = []
            for split in range(3):
                place = (number + split * per_class // 3) % per_class
                roles.append("train" if place < _train_share(per_class) else "test")
            file = f"generated_{label}_f_nm_np1_fr_goo_{number}.avi"
            clips.append(ListedClip(file, label, (roles[0], roles[1], roles[2])))
    return SplitLists("hmdb51", chosen, tuple(clips))


def choose(lists: SplitLists, per_class: int | None) -> SplitLists:
    """Keep `per_class` clips of each class, 70 % of them training clips of split 1; None for all.

    Raises:
        DatasetError: A class has fewer clips of a role.
    """
    if per_class is None:
        return lists
    kept: list[ListedClip] = []
    train = _train_share(per_class)
    for label in lists.classes:
        for role, count in (("train", train), ("test", per_class - train)):
            clips = [c for c in lists.clips if c.label == label and c.roles[0] == role]
            if len(clips) < count:
                raise DatasetError(
                    f"{per_class} clips a class are wanted; {label} has {len(clips)} {role} "
                    f"clips in split 1, which makes {count} too many"
                )
            kept += clips[:count]
    return SplitLists(lists.dataset, lists.classes, tuple(kept))


def _train_share(per_class: int) -> int:
    return min(max(round(per_class * 0.7), 1), per_class)


def generate(
    out: str | Path,
    lists: SplitLists,
    shape: Shape | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> int:
    """Write clips and split lists; clips of this shape that are there already are left alone.

    The result is `OUT/hmdb51_org/<class>/<file>` and
    `OUT/testTrainMulti_7030_splits/<class>_test_split<N>.txt`. A clip depends on its name, its
    class and the shape alone, not on what else is made or by how many processes. A class of HMDB51
    always has the motion of its place among the 51; other classes have those of their place in the
    lists.

    Args:
        out: The folder; created where it is not there.
        lists: Which clips: of `invent`, or `choose` of `read_splits`; at most 51 classes.
        shape: Of the clips.
        jobs: Processes.
        progress: Watches, counted in clips.

    Returns:
        How many clips were made.

    Raises:
        DatasetError: There are more classes than motions, or the folder holds clips of another
            shape.
        OutputError: The folder cannot be written.
    """
    out, shape, progress = Path(out), shape or Shape(), progress or Quiet()
    if len(lists.classes) > len(MOTIONS):
        raise DatasetError(f"{len(lists.classes)} classes; there are {len(MOTIONS)} motions")
    try:
        (out / LISTS_FOLDER).mkdir(parents=True, exist_ok=True)
        for label in lists.classes:
            (out / CLIPS_FOLDER / label).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    _keep_shape(out / _SHAPE_NAME, shape)
    for label in lists.classes:
        chosen = [clip for clip in lists.clips if clip.label == label]
        for split in range(3):
            text = "".join(f"{clip.file} {_DIGITS[clip.roles[split]]} \n" for clip in chosen)
            with atomic_write(out / LISTS_FOLDER / f"{label}_test_split{split + 1}.txt") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
    known = labels("hmdb51")
    order = known if set(lists.classes) <= set(known) else lists.classes
    numbers = {label: number for number, label in enumerate(order)}
    work = [
        (out / CLIPS_FOLDER / clip.label / clip.file, numbers[clip.label]) for clip in lists.clips
    ]
    work = [(path, motion) for path, motion in work if not path.exists()]
    progress.start("clips", len(work))
    for done, _ in enumerate(run(functools.partial(_make, shape), work, jobs), 1):
        progress.update(done)
    return len(work)


def _keep_shape(path: Path, shape: Shape) -> None:
    """Note the shape of a folder's clips, or make sure that it is the one noted before."""
    if not path.exists():
        with atomic_write(path) as file:
            file.write(json.dumps(asdict(shape)).encode())
        return
    try:
        found = Shape(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path}: is malformed ({error}); name another folder") from error
    if found != shape:
        raise DatasetError(
            f"{path.parent}: holds generated clips of {found}; {shape} is asked for: name another "
            "folder, or remove this one"
        )


def _make(shape: Shape, item: tuple[Path, int]) -> None:
    path, number = item
    # Of the name alone, so that the same name looks the same at the anchor in every class.
    name = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8], "big")
    share = 0.6 + 0.8 * (name % 1009) / 1008
    frames = max(round(shape.frames * share), 2)
    drawn, _ = render(MOTIONS[number], (shape.seed, name), frames, shape.height, shape.width)
    write_clip(path, drawn)


def write_clip(path: Path, frames: Frames, fps: int = 30) -> None:
    """Encode frames as HMDB51's are: MPEG-4 (DX50) with B-frames in an AVI.

    Args:
        path: The file; it appears whole or not at all.
        frames: uint8 [T, H, W, 3]; H and W even.
        fps: Frames a second.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic_write(path) as file, av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, fps)
        context.gop_size, context.max_b_frames = 250, 1
        context.qmin = context.qmax = 4
        context.codec_tag = "DX50"
        context.thread_count = 1
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = index, context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
