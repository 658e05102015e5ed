"""The page about security states the bounds that the code has."""

import re
from pathlib import Path

import pytest

from i3dzoo import limits, text
from i3dzoo.formats import limits as formats
from i3dzoo.records import _load

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "security.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("row", "bounds"),
    [
        ("tensors of a checkpoint", [formats.MAX_TENSORS, formats.MAX_NAME, formats.MAX_AXES]),
        ("header of safetensors", [formats.MAX_HEADER >> 20]),
        ("index of a TensorFlow checkpoint", [formats.MAX_INDEX >> 20]),
        ("directory of a ZIP archive", [formats.MAX_DIRECTORY >> 20]),
        ("opcodes of a pickle", [formats.MAX_OPCODES]),
        ("a pickle besides its tensors", [formats.MAX_PICKLE >> 20]),
        ("fields of protocol buffers", [formats.MAX_FIELDS]),
        ("compressed HDF5", [formats.MAX_UNPACKED >> 20]),
        ("a frame, stored or resized", [limits.MAX_PIXELS]),
        ("frames of a video", [limits.MAX_FRAMES, int(limits.MAX_FPS)]),
        ("time from frame to frame", [int(limits.MAX_SECONDS_A_FRAME)]),
        ("an animation", [limits.MAX_ANIMATION_PIXELS]),
        ("an image file", [limits.MAX_IMAGE_BYTES >> 20]),
        (
            "input of a network",
            [limits.MAX_CLIP_FRAMES, limits.MAX_EDGE, limits.MAX_CLIP_PIXELS],
        ),
        ("a whole video as one clip", [limits.MAX_WHOLE_PIXELS]),
        ("JSON and TOML", [_load.MAX_DEPTH, _load._MAX_NUMBER_LENGTH]),
        ("YAML", [_load._MAX_YAML_NODES]),
        ("a message", [text._LONGEST]),
    ],
)
def test_bounds(row: str, bounds: list[int]) -> None:
    """Each row of the table has the numbers of the code."""
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {row}"))
    for bound in bounds:
        assert re.search(rf"\b{bound:,}\b", line)
