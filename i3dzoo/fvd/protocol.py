"""Protocols: the conventions by which tools compute FVD, each a file `protocols/NAME.toml`.

Two tools give other numbers for the same videos because they resize, crop, round, sample and divide
otherwise. A protocol says all of it, so that a number can be compared.
"""

import functools
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta

from i3dzoo.errors import OptionError, UnknownNameError
from i3dzoo.limits import MAX_CLIP_FRAMES, MAX_EDGE
from i3dzoo.network.architecture import MIN_FRAMES
from i3dzoo.records import Record, parse_toml, read_toml

EDGE: Final = 224
"""Edge in pixels of the frames that the network takes."""

Kernel = Literal["tf1", "half-pixel", "antialias"]
"""Bilinear interpolation: TensorFlow 1's, PyTorch's, or PyTorch's with antialiasing."""

Edge = Annotated[int, Meta(ge=1, le=MAX_EDGE)]
Count = Annotated[int, Meta(ge=1)]


class Squash(Record, frozen=True, tag_field="step", tag="squash"):
    """Resize both sides to `edge`, without keeping the aspect."""

    edge: Edge
    kernel: Kernel


class ShortSide(Record, frozen=True, tag_field="step", tag="short-side"):
    """Resize the short side to `edge`; the long side is rounded up."""

    edge: Edge
    kernel: Kernel


class CentreCrop(Record, frozen=True, tag_field="step", tag="centre-crop"):
    """Cut the middle square; an odd margin leaves one more pixel at the bottom or right."""

    edge: Edge


class Truncate(Record, frozen=True, tag_field="step", tag="truncate"):
    """Cut the values to whole numbers, towards 0, as a cast to uint8 does."""


class Round(Record, frozen=True, tag_field="step", tag="round"):
    """Round the values to whole numbers."""


Step = Squash | ShortSide | CentreCrop | Truncate | Round


class Protocol(Record, frozen=True, kw_only=True):
    """How videos become features, and features a number.

    Attributes:
        title: One line about it.
        source: Where the convention is defined.
        steps: What is done to a frame, in order; values are floats in 0..255. The last frame must
            be 224x224. The network takes 2 p / 255 - 1.
        ddof: 1 divides the covariance by N - 1, 0 by N.
        frames: Frames of a clip, 9 or more.
        every: Take every n-th frame of a video, at the video's own rate.
        offset: First frame of the clip: the `start` of the video, its `center`, or `random`.
        clips_per_video: Clips of each video; with `center` they are spread over the video.
        short_videos: `error` refuses a video with fewer frames than a clip, `skip` leaves it out.
        videos: Number of videos of each set, drawn without repetition; None takes all.
        seed: Seed of the videos and of the offsets.
    """

    title: str = "a protocol of your own"
    source: str = ""
    steps: Annotated[tuple[Step, ...], Meta(max_length=16)]
    ddof: Literal[0, 1] = 1
    frames: Annotated[int, Meta(ge=MIN_FRAMES, le=MAX_CLIP_FRAMES)] = 16
    every: Count = 1
    offset: Literal["start", "center", "random"] = "start"
    clips_per_video: Count = 1
    short_videos: Literal["error", "skip"] = "error"
    videos: Count | None = None
    seed: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        if not self.frames >= MIN_FRAMES:
            raise OptionError(f"frames is {self.frames}; I3D takes clips of {MIN_FRAMES} or more")
        if self.clips_per_video > 1 and self.offset == "start":
            raise OptionError(
                f"clips_per_video is {self.clips_per_video} but offset is start, which gives one "
                "clip; use --offset center or --offset random"
            )

    @property
    def span(self) -> int:
        """Frames of a video from the first to the last of a clip."""
        return (self.frames - 1) * self.every + 1

    @property
    def inputs(self) -> dict[str, object]:
        """All that the features depend on; not how the number is computed of them."""
        document = {k: v for k, v in self.to_dict().items() if k not in ("title", "source", "ddof")}
        return {**document, "steps": list(document["steps"])}  # as JSON gives it back


@functools.cache
def protocol_names() -> tuple[str, ...]:
    """Return the names of the protocols that ship; the first is the definition."""
    names = (entry.name for entry in (files("i3dzoo.fvd") / "protocols").iterdir())
    stems = {name.removesuffix(".toml") for name in names if name.endswith(".toml")}
    return ("tf", *sorted(stems - {"tf"}))


def load_protocol(name: str | Path) -> Protocol:
    """Return a protocol that ships, by name, or of a TOML file of your own.

    Raises:
        UnknownNameError: There is neither.
        OptionError: The file has unknown or wrong keys.
    """
    if str(name) in protocol_names():
        text = (files("i3dzoo.fvd") / "protocols" / f"{name}.toml").read_bytes()
        return parse_toml(text, Protocol, f"{name}.toml", error=OptionError)
    if Path(name).is_file():
        return read_toml(name, Protocol, error=OptionError)
    raise UnknownNameError(
        f"{name}: not a protocol and not a file; the protocols are {', '.join(protocol_names())}"
    )
