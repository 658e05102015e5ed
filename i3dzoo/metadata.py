"""What a canonical file says of itself: stream, classes, labels, input, origin and history."""

import dataclasses
import json
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from i3dzoo.errors import MetadataError

__all__ = ["FORMAT_VERSION", "Input", "Metadata", "Source", "Stream", "default_input"]

FORMAT_VERSION = 1
ARCHITECTURE: Final = "inception_i3d"

Stream = Literal["rgb", "flow"]

_CHANNELS: Final = {"rgb": "rgb", "flow": "xy"}
_LARGEST: Final = 1 << 31
_Test = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    # NaN and infinity are not below any number
    return isinstance(value, int | float) and type(value) is not bool and abs(value) < _LARGEST


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and _positive(value)


def _each(test: _Test) -> _Test:
    return lambda value: isinstance(value, tuple | list) and all(map(test, value))


def _none_or(test: _Test) -> _Test:
    return lambda value: value is None or test(value)


def _check(owner: Any, prefix: str, fields: "Mapping[str, tuple[_Test, str]]") -> None:
    for key, (test, expected) in fields.items():
        value = getattr(owner, key)
        if not test(value):
            found = reprlib.repr(value)
            raise MetadataError(f"{prefix}{key} is {found}; expected {expected}")


@dataclass(frozen=True)
class Input:
    """How a clip becomes the network's input.

    Pixels p in 0..255 become `(p / 255 - mean) / std`; mean and std of 0.5 give [-1, 1]. Optical
    flow is first clipped to ±`flow_bound` pixels a frame and quantised to 0..255.

    Attributes:
        channels: Channel order, `rgb` or `xy` (horizontal flow, then vertical).
        mean: Of each channel, in 0..1.
        std: Of each channel, in 0..1.
        resize: Short side in pixels after bilinear resizing; None leaves frames as they are.
        crop: Edge in pixels of the square crop.
        frames: Frames of one clip.
        fps: Frames a second of the clip; None takes the video's own.
        flow_bound: Largest displacement in pixels a frame; None for RGB.
    """

    channels: Literal["rgb", "xy"] = "rgb"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resize: int | None = 256
    crop: int = 224
    frames: int = 64
    fps: float | None = 25.0
    flow_bound: float | None = None

    def __post_init__(self) -> None:
        _check(self, "input.", _INPUT)
        channels = {"rgb": 3, "xy": 2}[self.channels]
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise MetadataError(
                    f"input.{key} has {len(values)} values; expected {channels} for {self.channels}"
                )

    def __str__(self) -> str:
        scaled = set(self.mean) == {0.5} and set(self.std) == {0.5}
        values = "[-1, 1]" if scaled else f"mean {list(self.mean)} std {list(self.std)}"
        rate = f"{self.fps:g} fps" if self.fps else "native fps"
        bound = f", flow clipped to ±{self.flow_bound:g}" if self.flow_bound else ""
        size = f"short side {self.resize}, " if self.resize else ""
        return (
            f"{self.channels}, {self.frames} frames at {rate}, {size}"
            f"crop {self.crop}, values {values}{bound}"
        )


_INPUT: Final = {
    "channels": (lambda value: value in ("rgb", "xy"), "'rgb' or 'xy'"),
    "mean": (_each(_number), "numbers"),
    "std": (_each(_positive), "positive numbers"),
    "resize": (_none_or(_count), "a positive whole number or nothing"),
    "crop": (_count, "a positive whole number"),
    "frames": (_count, "a positive whole number"),
    "fps": (_none_or(_positive), "a positive number or nothing"),
    "flow_bound": (_none_or(_positive), "a positive number or nothing"),
}


def default_input(stream: Stream) -> Input:
    """Return the published input of a stream: 25 fps, 256 to 224, [-1, 1], flow within ±20."""
    if stream == "rgb":
        return Input()
    return Input(channels="xy", mean=(0.5, 0.5), std=(0.5, 0.5), flow_bound=20.0)


@dataclass(frozen=True)
class Source:
    """The file that the tensors came from.

    Attributes:
        layout: Name of its converter table.
        sha256: Of the file; of a TensorFlow bundle, of its index, which holds every tensor's CRC.
    """

    layout: str
    sha256: str

    def __post_init__(self) -> None:
        _check(self, "source.", {"layout": (_text, "text"), "sha256": (_text, "text")})


@dataclass(frozen=True)
class Metadata:
    """The description that travels inside a canonical file.

    Attributes:
        stream: `rgb` or `flow`.
        num_classes: Classes of the head; 0 where there is no head.
        labels: Their names in the order of the logits, where known.
        input: How clips become input.
        source: Where the tensors came from.
        zoo: Name of the published checkpoint these tensors are, where they are one.
        base: Name of the published checkpoint that they were made from, where they are none.
        history: What was done to them since, oldest first.
        writer: Program and version that wrote the file.
        architecture: Always `inception_i3d`.
        format_version: Of this description.
    """

    stream: Stream
    num_classes: int
    labels: tuple[str, ...] | None
    input: Input
    source: Source
    zoo: str | None = None
    history: tuple[str, ...] = ()
    writer: str = ""
    architecture: str = ARCHITECTURE
    base: str | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check(self, "", _METADATA)
        if self.input.channels != _CHANNELS[self.stream]:
            raise MetadataError(
                f"input.channels is {self.input.channels!r}; expected {_CHANNELS[self.stream]!r} "
                f"for {self.stream}"
            )
        if self.labels is not None and len(self.labels) != self.num_classes:
            raise MetadataError(
                f"there are {len(self.labels)} labels for {self.num_classes} classes"
            )

    def to_json(self) -> str:
        """Return the description as one JSON object."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Metadata":
        """Read the description.

        Raises:
            MetadataError: It is no JSON object, has unknown, missing or mistyped keys, or is of a
                newer version.
        """
        try:
            document: dict[str, Any] = json.loads(text)
            version = document.get("format_version")
            if version != FORMAT_VERSION:
                raise MetadataError(
                    f"the metadata is of version {version}, this i3dzoo reads {FORMAT_VERSION}; "
                    "upgrade i3dzoo"
                )
            fields = _tuples(document)
            fields["input"] = Input(**_tuples(fields["input"]))
            fields["source"] = Source(**fields["source"])
            return cls(**fields)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            if isinstance(error, MetadataError):
                raise
            raise MetadataError(f"the metadata is malformed: {error}") from error


_METADATA: Final = {
    "stream": (lambda value: value in ("rgb", "flow"), "'rgb' or 'flow'"),
    "num_classes": (
        lambda value: _count(value) or (type(value) is int and not value),
        "a whole number",
    ),
    "labels": (_none_or(_each(_text)), "texts or nothing"),
    "input": (lambda value: isinstance(value, Input), "an Input"),
    "source": (lambda value: isinstance(value, Source), "a Source"),
    "zoo": (_none_or(_text), "text or nothing"),
    "history": (_each(_text), "texts"),
    "writer": (_text, "text"),
    "architecture": (lambda value: value == ARCHITECTURE, repr(ARCHITECTURE)),
    "base": (_none_or(_text), "text or nothing"),
}


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}
