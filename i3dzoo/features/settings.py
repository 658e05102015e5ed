"""How features are extracted and written: the settings, as plain data with defaults."""

import re
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from i3dzoo.checkpoints.metadata import Input
from i3dzoo.errors import OptionError
from i3dzoo.limits import MAX_EDGE
from i3dzoo.network.architecture import POOLED
from i3dzoo.records import Record, convert
from i3dzoo.video.plan import Resize, resize_of

Align = Literal["start", "center"]
Pad = Literal["none", "zero", "edge", "loop"]
Tail = Literal["drop", "flush", "pad"]
Streams = Literal["rgb", "flow", "both"]
FlowSource = Literal["tvl1", "farneback", "torch", "frames"]
DType = Literal["float16", "float32", "float64"]
Format = Literal["npy", "npz", "safetensors", "hdf5", "parquet", "pt"]
Steps = Literal["mean", "max", "keep"]
Quantity = Literal["features", "frames", "name", "fps", "spans", "end_ms"]
"""What a file can hold: the features; the number of frames and the name of the video; frames per
second; start and end of each row in seconds, [rows, 2]; the end of each row in milliseconds."""

LOGITS: Final = "logits"
"""The endpoint after the head."""

SUFFIXES: Final[dict[Format, str]] = {
    "npy": ".npy",
    "npz": ".npz",
    "safetensors": ".safetensors",
    "hdf5": ".h5",
    "parquet": ".parquet",
    "pt": ".pt",
}

_Count = Annotated[int, Meta(ge=1, le=1 << 20)]
_RESIZE: Final = re.compile(r"(short|enlarge)(?::(\d{1,4}))?|(\d{1,4})x(\d{1,4})|squash|none")
_NAMING: Final = re.compile(r"[^{}]*(\{(name|stream|crop)\}[^{}]*)+")
_ORDER: Final = re.compile("[TNC1]{2,6}")


class Chunks(Record, frozen=True, kw_only=True):
    """Long videos in overlapping parts, as in piergiaj's extract_features.py.

    A video of more than `frames` frames is cut into parts that start at `skip`, `skip + frames` and
    so on, while they are before the last `after` frames. Each part also has the `before` frames
    ahead of it and the `after` frames behind it, without the first and the last `skip` frames of
    the video. A shorter video is one part.
    """

    frames: _Count
    before: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    after: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    skip: Annotated[int, Meta(ge=0, le=1 << 20)] = 0


class FeatureSettings(Record, frozen=True, kw_only=True):
    """How features are extracted and written; None takes what the checkpoint says.

    Attributes:
        endpoint: `pooled`, `logits`, or one of `i3dzoo.network.architecture.ENDPOINTS`, whose
            activations are averaged over positions.
        steps: What becomes of the steps that the network makes of a window, 8 frames apart: their
            `mean` or their `max` is the row of the window, or each is a row (`keep`).
        window: Frames of a window, or `all` for the whole video.
        stride: Frames from one window to the next; None is the length of a window.
        clips: Number of windows spread over the video, instead of a stride.
        chunks: Parts of long videos, if the window is `all`.
        mean: Average the rows of a video.
        fps: Frames a second, or `native` for the video's own.
        align: Window k starts at frame k * stride, or has this frame in its centre: frames
            k * stride - window // 2 and on.
        pad: What stands for frames before the first and after the last: a frame of zeros, after
            normalisation (`zero`), the nearest frame (`edge`), or the video again (`loop`). `none`
            makes no window that has such frames: a video shorter than a window has no row.
        tail: What becomes of the frames after the last whole window, if `align` is `start`: no
            window (`drop`), one that ends with the video (`flush`), or one that starts a stride
            later, and is padded (`pad`).
        lookahead: Frames that must follow a window, though it does not have them.
        crops: Squares of a frame; see `i3dzoo.video.plan.CROPS`.
        resize: `short` or `short:N`: the short side becomes N pixels; `enlarge:N`: the same, only
            for smaller frames; `squash`: both sides become the edge of the crop; `WxH`; `none`.
        interpolation: See `i3dzoo.video.plan.Resize`.
        mirrored_flow: Whether the x of mirrored optical flow is negated.
        streams: The networks that run: `both` gives rows of RGB features, then those of flow.
        flow: How flow is computed, or `frames` for flow that is kept beside the video; None takes
            kept flow if there is any, and TV-L1 otherwise. On a GPU, `tvl1` computes as `torch`.
        network: A preset of `converters/presets`, such as `bsl1k`, whose values of pixels, order of
            channels and variant of the network replace those of the checkpoint.
        dtype: Number type of the features in the files.
        order: Axes of the features: T rows, N crops, C channels, and 1 for an axis of length 1.
            None is `TC`, or `TNC` with several crops.
        format: Kind of the files; `hdf5` is one file for all videos.
        naming: Name of a file: `{name}` is that of the video. With `{stream}` or `{crop}`, each
            stream or crop has a file of its own. None is `{name}`.
        keys: Names of the arrays in a file of several; None has `features` and `spans`.
        files: Further .npy files, by name.
    """

    endpoint: str = POOLED
    steps: Steps = "mean"
    window: _Count | Literal["all"] | None = None
    stride: _Count | None = None
    clips: _Count | None = None
    chunks: Chunks | None = None
    mean: bool = False
    fps: Annotated[float, Meta(gt=0, le=1000)] | Literal["native"] | None = None
    align: Align = "start"
    pad: Pad = "loop"
    tail: Tail = "flush"
    lookahead: Annotated[int, Meta(ge=0, le=64)] = 0
    crops: Literal[1, 3, 5, 10] = 1
    resize: str | None = None
    interpolation: Literal["bilinear", "opencv", "pillow"] = "bilinear"
    mirrored_flow: Literal["negate", "keep"] = "negate"
    streams: Streams | None = None
    flow: FlowSource | None = None
    network: str | None = None
    dtype: DType = "float32"
    order: str | None = None
    format: Format = "npy"
    naming: str | None = None
    keys: dict[str, Quantity] | None = None
    files: dict[str, Quantity] | None = None

    def __post_init__(self) -> None:
        for name, value, pattern, expected in (
            ("resize", self.resize, _RESIZE, "short, short:N, enlarge:N, squash, WxH or none"),
            ("order", self.order, _ORDER, "letters such as TC, CT or TNC"),
            ("naming", self.naming, _NAMING, "a name with {name}, and maybe {stream} and {crop}"),
        ):
            if value is not None and not pattern.fullmatch(value):
                raise OptionError(f"{name}: expected {expected}, found {value!r}")
        self._check_order()
        if self.naming is not None and "{name}" not in self.naming:
            raise OptionError(f"naming: expected {{name}} in it, found {self.naming!r}")
        if self.tail == "pad" and self.pad == "none":
            raise OptionError("tail pad needs frames to pad with; choose pad zero, edge or loop")
        if self.clips is not None and (self.stride is not None or self.align == "center"):
            raise OptionError("clips and stride exclude each other; leave one of them out")
        if self.window == "all" and (self.clips is not None or self.stride is not None):
            raise OptionError("a window of the whole video has no stride and no clips")
        if self.format == "safetensors" and "name" in (self.keys or {}).values():
            raise OptionError("keys: safetensors holds numbers only; leave the name out")
        if self.chunks is not None and self.window != "all":
            raise OptionError("chunks are of windows of the whole video; set window to all")

    def _check_order(self) -> None:
        axes = self.axes.replace("1", "")
        expected = "TNC" if self.crops > 1 and not self.file_per_crop else "TC"
        if sorted(axes) not in (sorted(expected), sorted("TNC")) or (
            self.file_per_crop and "N" in axes
        ):
            raise OptionError(
                f"order: expected the axes {', '.join(expected)} once each, found {self.order}"
            )

    @property
    def axes(self) -> str:
        """The order of the axes."""
        return self.order or ("TNC" if self.crops > 1 and not self.file_per_crop else "TC")

    @property
    def needs_pytorch(self) -> bool:
        """Whether only PyTorch returns what is asked for."""
        steps = self.endpoint != LOGITS and self.steps != "mean"
        return self.network is not None or steps

    @property
    def file_per_crop(self) -> bool:
        """Whether each crop has a file of its own."""
        return self.naming is not None and "{crop}" in self.naming

    @property
    def file_per_stream(self) -> bool:
        """Whether each stream has a file of its own."""
        return self.naming is not None and "{stream}" in self.naming

    def resize_rule(self, spec: Input) -> Resize:
        """Return how frames are resized for a network."""
        if self.resize is None:
            rule = resize_of(spec)
            return Resize(rule.mode, rule.size, self.interpolation)
        if self.resize == "none":
            return Resize()
        if self.resize == "squash":
            return Resize("exact", (spec.crop, spec.crop), self.interpolation)
        match = _RESIZE.fullmatch(self.resize)
        mode, side, width, height = match.groups() if match else (None,) * 4
        if width and height:
            size: int | tuple[int, int] = (int(height), int(width))
            numbers = (int(height), int(width))
        else:
            size = int(side) if side else spec.resize or spec.crop
            numbers = (size, size)
        if not all(spec.crop <= number <= MAX_EDGE for number in numbers):
            raise OptionError(
                f"resize: expected sides from {spec.crop}, the edge of the crop, to {MAX_EDGE} "
                f"pixels, found {self.resize}"
            )
        if width:
            return Resize("exact", size, self.interpolation)
        return Resize("short" if mode == "short" else "enlarge", size, self.interpolation)


def make_settings(values: dict[str, Any], where: str = "settings") -> FeatureSettings:
    """Check settings and return them as a record.

    Raises:
        OptionError: A name is unknown, or a value is not possible; the message names it.
    """
    return convert(values, FeatureSettings, where, OptionError)
