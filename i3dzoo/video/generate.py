"""Generate test data in the shape of HMDB51: its names, lists and encoding; classes are motions.

`i3dzoo prepare hmdb51` and training treat it as the real dataset, but it is small and needs no
download, and a network that cannot see motion does no better than chance.
"""

import contextlib
import functools
import hashlib
import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import msgspec

from i3dzoo.checkpoints.labels import labels
from i3dzoo.errors import DatasetError
from i3dzoo.files import atomic_write, make_folder
from i3dzoo.files.exclusive import exclusive_folder
from i3dzoo.progress import SILENT, Progress
from i3dzoo.records import Record, read_json
from i3dzoo.video.info import Frames
from i3dzoo.video.motions import MOTIONS, render
from i3dzoo.video.parallel import parallel_map
from i3dzoo.video.splits import ListedClip, Role, SplitLists

CLIPS_FOLDER = "hmdb51_org"
LISTS_FOLDER = "testTrainMulti_7030_splits"  # both as the official archives name them

_SHAPE_NAME = ".generated.json"
_MAX_PIXELS = 200_000_000  # of a clip, which is drawn at once
_DIGITS = {None: 0, "train": 1, "test": 2}


class Shape(Record, frozen=True):
    """Size in pixels (even numbers), average number of frames, and seed of all generated clips.

    As in real data, the lengths of clips differ, by up to 40 %.
    """

    height: int = 60
    width: int = 80
    frames: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 16 or self.height % 2 or self.width % 2:
            raise DatasetError(
                f"expected a width and height of even numbers of at least 16 pixels, "
                f"found {self.width}x{self.height}"
            )
        if self.frames < 2:
            raise DatasetError(f"expected clips of 2 frames or more, found {self.frames}")
        if self.width * self.height * self.frames > _MAX_PIXELS:
            raise DatasetError(
                f"expected clips of at most {_MAX_PIXELS:,} pixels, "
                f"found {self.frames} frames of {self.width}x{self.height}"
            )

    def __str__(self) -> str:
        return f"{self.frames} frames of {self.width}x{self.height} pixels, seed {self.seed}"


def invent(per_class: int, classes: Sequence[str] = ()) -> SplitLists:
    """Make up names and splits of 70 % training and 30 % test clips; each split is shifted."""
    known = labels("hmdb51")
    if unknown := sorted(set(classes) - set(known)):
        raise DatasetError(
            f"HMDB51 has no class {unknown[0]!r}; expected {known[0]}, {known[1]}, ..."
        )
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
    """Keep `per_class` clips of each class, 70 % training clips of split 1; None keeps all."""
    if per_class is None:
        return lists
    kept: list[ListedClip] = []
    train = _train_share(per_class)
    for label in lists.classes:
        for role, count in (("train", train), ("test", per_class - train)):
            clips = [c for c in lists.clips if c.label == label and c.roles[0] == role]
            if len(clips) < count:
                raise DatasetError(
                    f"{label} has {len(clips)} {role} clips in split 1; expected {count} or more, "
                    f"for {per_class} clips a class"
                )
            kept += clips[:count]
    return SplitLists(lists.dataset, lists.classes, tuple(kept))


def _train_share(per_class: int) -> int:
    return min(max(round(per_class * 0.7), 1), per_class)


def generate(
    out: str | Path,
    lists: SplitLists,
    shape: Shape | None = None,
    jobs: int | None = 1,
    progress: Progress = SILENT,
) -> int:
    """Write clips and split lists in the shape of HMDB51, and return the number of new clips.

    A clip depends only on its name, its class and the shape. A class of HMDB51 always has the
    motion of its place among the 51 classes; other classes that of their place in the lists.
    """
    out, shape = Path(out), shape or Shape()
    if len(lists.classes) > len(MOTIONS):
        raise DatasetError(f"expected at most {len(MOTIONS)} classes, found {len(lists.classes)}")
    with exclusive_folder(out):
        return _generate(out, lists, shape, jobs, progress)


def _generate(
    out: Path, lists: SplitLists, shape: Shape, jobs: int | None, progress: Progress
) -> int:
    """Write clips and lists to a folder that no other process writes to."""
    for folder in (LISTS_FOLDER, *(f"{CLIPS_FOLDER}/{label}" for label in lists.classes)):
        make_folder(out / folder)
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
    progress.start("clips", len(work), "items")
    folders = {path.parent for path, _ in work}
    made = parallel_map(functools.partial(_make, shape), work, jobs, folders)
    with contextlib.closing(made):
        for count, _ in enumerate(made, 1):
            progress.update(count)
    return len(work)


def _keep_shape(path: Path, shape: Shape) -> None:
    """Record the shape of a folder's clips, or check it against the recorded one."""
    if not path.exists():
        with atomic_write(path) as file:
            file.write(msgspec.json.encode(shape))
        return
    recorded = read_json(path, Shape, error=DatasetError)
    if recorded != shape:
        raise DatasetError(
            f"{path.parent}: holds generated clips of {recorded}; expected {shape}: "
            "name another folder, or remove this one"
        )


def _make(shape: Shape, item: tuple[Path, int]) -> None:
    path, motion = item
    # From the name only, so that the same name has the same anchor frame in every class.
    name = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8], "big")
    share = 0.6 + 0.8 * (name % 1009) / 1008
    frames = max(round(shape.frames * share), 2)
    drawn, _ = render(MOTIONS[motion], (shape.seed, name), frames, shape.height, shape.width)
    write_clip(path, drawn)


def write_clip(path: Path, frames: Frames, fps: int = 30) -> None:
    """Encode uint8 [T, H, W, 3] as in HMDB51: MPEG-4 (DX50) with B-frames in an AVI file."""
    encoded = io.BytesIO()  # PyAV prints the errors of a file with their tracebacks
    with av.open(encoded, "w", format="avi") as container:
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
    with atomic_write(path) as file:
        file.write(encoded.getbuffer())
