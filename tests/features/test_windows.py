"""The rules of windows against loops over frames that say the same as their sources."""

import math

import numpy as np
import pytest

from i3dzoo.errors import OptionError
from i3dzoo.features.settings import Chunks, FeatureSettings, Pad, make_settings
from i3dzoo.features.windows import chunk_frames, window_frames, window_starts


@pytest.mark.parametrize("count", [1, 15, 16, 17, 31, 32, 33, 64, 65])
@pytest.mark.parametrize(("window", "stride"), [(16, 16), (16, 4), (16, 1), (21, 5)])
def test_tails(count: int, window: int, stride: int) -> None:
    """Each tail makes the windows of the loop that describes it."""
    whole = [start for start in range(0, count, stride) if start + window <= count]
    left_over = bool(whole) and whole[-1] + window < count
    short = [] if whole else [0]
    for tail, expected in (
        ("drop", whole or short),
        ("flush", [*whole, count - window] if left_over else whole or short),
        ("pad", [*whole, whole[-1] + stride] if left_over else whole or short),
    ):
        settings = make_settings({"tail": tail, "pad": "edge"})
        assert window_starts(count, window, stride, settings) == expected, tail
    # Finspire13/pytorch-i3d-feature-extraction: n = (N - 16) // stride + 1
    dropped = FeatureSettings(tail="drop", pad="none")
    starts = window_starts(count, window, stride, dropped)
    assert len(starts) == max((count - window) // stride + 1, 0)
    # gulvarol/bsl1k, demo.py: ceil((N - w) / stride) + 1 windows, the last one flush
    flushed = window_starts(count, window, stride, FeatureSettings(tail="flush", pad="edge"))
    assert len(flushed) == math.ceil((max(count, window) - window) / stride) + 1


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129, 200])
def test_a_frame_more_than_a_window(count: int) -> None:
    """video_features collects frames, and makes a window once it has one more than it needs."""
    stack: list[int] = []
    expected = []
    for frame in range(count):
        stack.append(frame)
        if len(stack) - 1 == 64:
            expected.append(stack[0])
            stack = stack[32:]
    settings = FeatureSettings(tail="drop", pad="none", lookahead=1)
    assert window_starts(count, 64, 32, settings) == expected


@pytest.mark.parametrize(
    ("pad", "numpy_mode"), [("zero", "constant"), ("edge", "edge"), ("loop", "wrap")]
)
def test_padding(pad: Pad, numpy_mode: str) -> None:
    """Frames outside of the video are those of numpy.pad; a window is around every frame."""
    count, window = 7, 21
    options = {"constant_values": -1} if numpy_mode == "constant" else {}
    padded = np.pad(np.arange(count), 10, numpy_mode, **options)  # type: ignore[call-overload] # a mode as text
    starts = window_starts(count, window, 1, FeatureSettings(align="center", pad=pad))
    assert len(starts) == count
    for frame, start in enumerate(starts):
        expected = padded[frame : frame + window]
        np.testing.assert_array_equal(window_frames(start, window, count, pad), expected)
    inside = window_starts(30, window, 1, FeatureSettings(align="center", pad="none"))
    assert inside == list(range(30 - window + 1))


@pytest.mark.parametrize("count", [5, 1600, 1601, 1657, 1658, 3300, 5000])
def test_chunks(count: int) -> None:
    """Videos of more than 1,600 frames are cut as by extract_features.py of pytorch-i3d."""
    expected = [(0, count)]
    if count > 1600:
        expected = []
        for start in range(1, count - 56, 1600):
            end = min(count - 1, start + 1600 + 56)
            expected.append((max(1, start - 48), end))
    chunks = Chunks(frames=1600, before=48, after=56, skip=1)
    assert chunk_frames(count, chunks) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tail": "pad", "pad": "none"}, "tail pad needs frames to pad with"),
        ({"window": "all", "stride": 4}, "a window of the whole video has no stride"),
        ({"clips": 2, "stride": 4}, "clips and stride exclude each other"),
        ({"naming": "{stream}"}, r"naming: expected \{name\} in it"),
        ({"naming": "{name}_{rgb}"}, r"naming: expected a name with \{name\}"),
        ({"order": "CT", "crops": 5}, "order: expected the axes T, N, C once each, found CT"),
        ({"order": "TT"}, "order: expected the axes T, C once each"),
        ({"resize": "340"}, "resize: expected short, short:N, enlarge:N, squash, WxH or none"),
        ({"window": 0}, "window: "),
        ({"windows": 16}, "windows"),
        ({"format": "safetensors", "keys": {"v": "name"}}, "safetensors holds numbers only"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, object], message: str) -> None:
    """A setting that is unknown, not possible, or contradicts another is named."""
    with pytest.raises(OptionError, match=message):
        make_settings(settings)
