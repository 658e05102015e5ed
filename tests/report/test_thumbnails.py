"""Small pictures of the frames of a video."""

from pathlib import Path

import av
import numpy as np
import pytest
from helpers.video_files import write_video

from i3dzoo.errors import VideoError
from i3dzoo.report.thumbnails import film_strip


def test_frames_are_spread_over_the_video(tmp_path: Path) -> None:
    """The strip shows frames from the first to the last third, in order."""
    frames = np.zeros((30, 48, 64, 3), np.uint8)
    frames[:10, ..., 0] = frames[10:20, ..., 1] = frames[20:, ..., 2] = 255
    data = film_strip(write_video(tmp_path / "a.mov", frames), height=48)
    decoder = av.CodecContext.create("mjpeg", "r")
    (frame,) = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    picture = frame.to_ndarray(format="rgb24").astype(int)
    assert picture.shape == (48, 3 * 64, 3)
    for third in range(3):
        colour = picture[8:-8, 64 * third + 8 : 64 * third + 56].mean((0, 1))
        assert colour.argmax() == third
        assert colour.max() > 200


def test_flow_and_odd_shapes(tmp_path: Path) -> None:
    """Optical flow becomes a picture, too; a very wide video is squeezed."""
    np.save(tmp_path / "flow.npy", np.full((9, 20, 30, 2), 128, np.uint8))
    assert film_strip(tmp_path / "flow.npy", "xy").startswith(b"\xff\xd8")
    np.save(tmp_path / "wide.npy", np.zeros((3, 2, 900, 3), np.uint8))
    assert film_strip(tmp_path / "wide.npy").startswith(b"\xff\xd8")


def test_broken_videos(tmp_path: Path) -> None:
    """A file that is no video is an error in words."""
    (tmp_path / "a.avi").write_bytes(b"nothing")
    with pytest.raises(VideoError, match=r"a\.avi"):
        film_strip(tmp_path / "a.avi")
