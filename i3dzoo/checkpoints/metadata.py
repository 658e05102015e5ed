"""The metadata of a checkpoint: stream, classes, labels, input, origin and history."""

from typing import Any, Final, Literal

import msgspec

from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.errors import MetadataError
from i3dzoo.limits import MAX_CLIP_FRAMES, MAX_CLIP_PIXELS, MAX_EDGE, MAX_FPS
from i3dzoo.network.architecture import DEEPMIND, Variant
from i3dzoo.records import Record, convert, parse_json

FORMAT_VERSION = 2
ARCHITECTURE: Final = "inception_i3d"

Stream = Literal["rgb", "flow"]
Scores = Literal["softmax", "sigmoid"]

_CHANNELS: Final = {"rgb": ("rgb", "bgr"), "flow": ("xy",)}
_MAXIMUM: Final = 1 << 31
_SIZES: Final = {
    "resize": MAX_EDGE,
    "crop": MAX_EDGE,
    "frames": MAX_CLIP_FRAMES,
    "fps": MAX_FPS,
    "flow_bound": _MAXIMUM,
}


class Input(Record, frozen=True):
    """How a clip becomes the network's input.

    Pixels p in 0..255 become `(p / 255 - mean) / std`; mean and std of 0.5 give [-1, 1]. Optical
    flow is first clipped to ±`flow_bound` pixels a frame and quantised to 0..255.

    Examples:
        >>> import i3dzoo
        >>> print(i3dzoo.Input(frames=32, fps=None))
        rgb, 32 frames at native fps, short side 256, crop 224, values [-1, 1]

    Attributes:
        channels: Order of the channels of the input: `rgb`, `bgr`, or `xy` (horizontal flow, then
            vertical). Decoded frames are RGB, and reversed for `bgr`.
        mean: Of each channel in this order, in 0..1.
        std: Of each channel in this order; 1 leaves the range of p / 255 as it is.
        resize: Short side in pixels after bilinear resizing; None leaves frames as they are.
        crop: Edge in pixels of the square crop.
        frames: Frames of one clip.
        fps: Frames a second of the clip; None takes the video's own rate.
        flow_bound: Largest displacement in pixels a frame; None for RGB.
        resize_mode: `short` resizes the short side to `resize` and keeps the aspect; `squash`
            resizes both sides to `crop`, as NVIDIA TAO does without a crop.
        sampling: `consecutive` frames, or one frame from each of `frames` equal parts of the video
            (`interval`), as NVIDIA TAO's `random_interval`.

    Raises:
        MetadataError: A value is out of range, or the channels are not as many as `mean` and `std`.
    """

    channels: Literal["rgb", "bgr", "xy"] = "rgb"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resize: int | None = 256
    crop: int = 224
    frames: int = 64
    fps: float | None = 25.0
    flow_bound: float | None = None
    resize_mode: Literal["short", "squash"] = "short"
    sampling: Literal["consecutive", "interval"] = "consecutive"

    def __post_init__(self) -> None:
        channels = 2 if self.channels == "xy" else 3
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise MetadataError(
                    f"{key} has {len(values)} values; expected {channels} for {self.channels}"
                )
        for std in self.std:
            if not 0 < std < _MAXIMUM:
                raise MetadataError(f"std is {std}; expected a number greater than 0")
        for key, most in _SIZES.items():
            value = getattr(self, key)
            if value is not None and not 0 < value <= most:
                raise MetadataError(
                    f"{key} is {value}; expected a number greater than 0 and at most {most:g}"
                )
        if self.frames * self.crop**2 > MAX_CLIP_PIXELS:
            raise MetadataError(
                f"{self.frames} frames of {self.crop}x{self.crop} pixels exceed the "
                f"{MAX_CLIP_PIXELS:,} pixels of the largest clip"
            )

    @property
    def decoded(self) -> Literal["rgb", "xy"]:
        """The channels of decoded frames, before they are put into the order of the input."""
        return "xy" if self.channels == "xy" else "rgb"

    def same_pixels(self, other: "Input") -> bool:
        """Whether both turn a pixel into the same number, in the same channel."""
        return (self.channels, self.mean, self.std) == (other.channels, other.mean, other.std)

    def __str__(self) -> str:
        scaled = set(self.mean) == {0.5} and set(self.std) == {0.5}
        values = "[-1, 1]" if scaled else f"mean {list(self.mean)} std {list(self.std)}"
        rate = f"{self.fps:g} fps" if self.fps else "native fps"
        bound = f", flow clipped to ±{self.flow_bound:g}" if self.flow_bound else ""
        size = f"short side {self.resize}, " if self.resize else ""
        size += f"crop {self.crop}"
        if self.resize_mode == "squash":
            size = f"resized to {self.crop}x{self.crop}"
        spread = " spread over the video" if self.sampling == "interval" else ""
        return (
            f"{self.channels}, {self.frames} frames{spread} at {rate}, {size}, "
            f"values {values}{bound}"
        )


def default_input(stream: Stream) -> Input:
    """Return the published input of a stream: 25 fps, 256 to 224, [-1, 1], flow within ±20."""
    if stream == "rgb":
        return Input()
    return Input(channels="xy", mean=(0.5, 0.5), std=(0.5, 0.5), flow_bound=20.0)


def scores_of(multi_label: bool, num_classes: int) -> Scores:
    """Return how the logits of a head become probabilities; see `Metadata.scores`."""
    return "sigmoid" if multi_label or num_classes == 1 else "softmax"


def explicit_input(table: Any) -> Any:
    """Return the TOML table of an input; a `resize` or `fps` that is left out means None there."""
    return {"resize": None, "fps": None, **table} if isinstance(table, dict) else table


class Source(Record, frozen=True):
    """The file that the tensors came from.

    Attributes:
        layout: Name of its converter table.
        sha256: Of the file; of a TensorFlow bundle, of its index, which holds every tensor's CRC.
    """

    layout: str
    sha256: str


class Metadata(Record, frozen=True):
    """The description inside a canonical file.

    Examples:
        >>> import i3dzoo
        >>> metadata = i3dzoo.open_checkpoint("mine.safetensors").metadata
        >>> metadata.stream, metadata.labels
        ('rgb', ('walk', 'wave'))

    Attributes:
        stream: `rgb` or `flow`.
        num_classes: Classes of the head; 0 if there is no head.
        labels: Their names in the order of the logits, if known.
        input: How clips become input.
        source: Where the tensors came from.
        zoo: Name of the published checkpoint that these tensors are, if they are one.
        history: What was done to the tensors since, oldest first.
        writer: Program and version that wrote the file.
        architecture: Always `inception_i3d`.
        base: Name of the published checkpoint that they were made from, if they are none.
        variant: BatchNorm epsilon, padding and pooling of the network.
        multi_label: Whether a clip can have several classes at once, or none.
        format_version: Of this description.

    Raises:
        MetadataError: Labels or input contradict the number of classes or the stream.
    """

    stream: Stream
    num_classes: int
    labels: tuple[str, ...] | None
    input: Input
    source: Source
    zoo: str | None = None
    history: tuple[HistoryStep, ...] = ()
    writer: str = ""
    architecture: Literal["inception_i3d"] = ARCHITECTURE
    base: str | None = None
    variant: Variant = DEEPMIND
    multi_label: bool = False
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not 0 <= self.num_classes < _MAXIMUM:
            raise MetadataError(f"num_classes is {self.num_classes}; expected 0 or more")
        if self.input.channels not in (expected := _CHANNELS[self.stream]):
            raise MetadataError(
                f"input.channels is {self.input.channels!r}; expected "
                f"{' or '.join(map(repr, expected))} for {self.stream}"
            )
        if self.labels is not None and len(self.labels) != self.num_classes:
            raise MetadataError(
                f"labels has {len(self.labels)} names; expected {self.num_classes}, one a class"
            )

    @property
    def origin(self) -> str | None:
        """Name of the published checkpoint that the tensors are, or were made from."""
        return self.zoo or self.base

    @property
    def scores(self) -> Scores:
        """How logits become probabilities.

        `softmax` shares 1 among the classes. `sigmoid` takes each class by itself: those of a
        multi-label head, and a single class, whose share would always be 1.
        """
        return scores_of(self.multi_label, self.num_classes)

    def changed(self, step: HistoryStep, **fields: object) -> "Metadata":
        """Return the metadata after a change: it is no longer that of a published checkpoint."""
        history = (*self.history, step)
        return self.replace(zoo=None, base=self.origin, history=history, **fields)

    def to_json(self) -> str:
        """Return the description as one JSON object."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str, where: str = "metadata") -> "Metadata":
        """Read the description, one JSON object; a MetadataError says what is wrong with it."""
        document = parse_json(text, dict[str, object], where)
        version = document.get("format_version")
        if version != FORMAT_VERSION:
            raise MetadataError(
                f"{where}: format_version: expected {FORMAT_VERSION}, found {version!r:.80}; "
                "use the i3dzoo version that wrote the file, or convert the original weights again"
            )
        return convert(document, cls, where)
