"""The options of `i3dzoo features` that are settings: those not given are the preset's."""

from collections.abc import Callable
from typing import Any

import click

from i3dzoo.cli._parameters import ENDPOINT

_count = click.IntRange(min=1)


class _CountOrAll(click.ParamType):  # type: ignore[type-arg] # generic only in new versions
    """A number of frames, or `all`."""

    name = "frames"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return value if value == "all" else _count.convert(value, param, ctx)


class _RateOrNative(click.ParamType):  # type: ignore[type-arg] # likewise
    """A frame rate, or `native`."""

    name = "rate"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        return value if value == "native" else click.FLOAT.convert(value, param, ctx)


def _choice(*names: str) -> click.Choice[str]:
    return click.Choice(names)


_OPTIONS = (
    click.option(
        "--endpoint",
        type=ENDPOINT,
        metavar="NAME",
        help="Layer to extract: pooled (1024 values before the head), logits, or a layer such as "
        "Mixed_4f, averaged over positions.  [default: pooled]",
    ),
    click.option(
        "--window",
        type=_CountOrAll(),
        metavar="N|all",
        help="Frames per window.  [default: the checkpoint's]",
    ),
    click.option(
        "--stride",
        type=_count,
        help="Frames from one window to the next.  [default: the window's length]",
    ),
    click.option(
        "--clips",
        type=_count,
        help="Number of windows spread over the video, instead of --stride.",
    ),
    click.option(
        "--fps",
        type=_RateOrNative(),
        metavar="native|N",
        help="Frame rate to sample at.  [default: the checkpoint's]",
    ),
    click.option(
        "--align",
        type=_choice("start", "center"),
        help="Whether frame k * stride is the first or the middle frame of window k.  [default: "
        "start]",
    ),
    click.option(
        "--pad",
        type=_choice("none", "zero", "edge", "loop"),
        help="How frames outside of the video are filled in; none leaves such windows out.  "
        "[default: loop]",
    ),
    click.option(
        "--tail",
        type=_choice("drop", "flush", "pad"),
        help="What to do with the frames after the last full window: drop them, take a window "
        "that ends with the video, or pad a window.  [default: flush]",
    ),
    click.option(
        "--crops",
        type=_choice("1", "3", "5", "10"),
        help="Number of crops of each frame.  [default: 1]",
    ),
    click.option(
        "--resize",
        metavar="short|squash|WxH",
        help="short:N resizes the short side to N pixels, and enlarge:N only if it is smaller; "
        "squash resizes to the crop.  [default: the checkpoint's]",
    ),
    click.option(
        "--interpolation",
        type=_choice("bilinear", "opencv", "pillow"),
        help="Interpolation method of the resizing.  [default: bilinear]",
    ),
    click.option(
        "--steps",
        type=_choice("mean", "max", "keep"),
        help="The time steps of a window: write their mean, their maximum, or a row for each.  "
        "[default: mean]",
    ),
    click.option(
        "--mean",
        is_flag=True,
        default=None,
        help="Write one row per video: the mean of its rows.",
    ),
    click.option(
        "--streams",
        type=_choice("rgb", "flow", "both"),
        help="Streams to extract; both needs an RGB and a flow model.  [default: those of the "
        "models]",
    ),
    click.option(
        "--flow",
        type=_choice("tvl1", "farneback", "torch", "frames"),
        help="How to compute optical flow; frames reads stored flow.  [default: stored flow, "
        "else tvl1]",
    ),
    click.option(
        "--dtype",
        type=_choice("float16", "float32", "float64"),
        help="Number format of the files.  [default: float32]",
    ),
    click.option(
        "--order",
        metavar="TC|CT|TNC|…",
        help="Axes of the files: T rows, N crops, C channels, 1 an axis of length 1.  [default: "
        "TC, with several crops TNC]",
    ),
    click.option(
        "--format",
        type=_choice("npy", "npz", "safetensors", "hdf5", "parquet", "pt"),
        help="hdf5 is one file for all videos.  [default: npy]",
    ),
    click.option(
        "--naming",
        metavar="PATTERN",
        help="Names of the files, such as {name}_{stream}; {stream} and {crop} write a file for "
        "each.  [default: {name}]",
    ),
)


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, in order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, by name."""
    given = {name: value for name, value in options.items() if value is not None}
    if "crops" in given:
        given["crops"] = int(given["crops"])
    return given
