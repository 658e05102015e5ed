"""Small videos whose frames are numbered by their colour."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from i3dzoo.video import Frames

REAL = {
    "R6llTwEh07w.mp4": (303, 340, 256, 30),
    "RATRACE_wave_f_nm_np1_fr_goo_37.avi": (72, 560, 240, 30),
    "SOX5yA1l24A.mp4": (332, 340, 256, 29.97),
    "SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi": (74, 320, 240, 30),
    "TrumanShow_wave_f_nm_np1_fr_med_26.avi": (48, 432, 240, 30),
    "WUzgd7C1pWA.mp4": (327, 340, 256, 29.97),
    "arm_wrestling.mp4": (280, 427, 256, 28),  # stored as 340x256 with pixels of 64:51
    "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi": (83, 320, 240, 30),
    "v_CricketShot_g04_c01_flow.gif": (79, 224, 224, 25),
    "v_CricketShot_g04_c01_rgb.gif": (79, 224, 224, 25),
    "v_SoccerJuggling_g23_c01.avi": (240, 320, 240, 29.97),
    "v_SoccerJuggling_g24_c01.avi": (251, 320, 240, 29.97),
}
"""Frames, width, height and frame rate of the real clips."""


def numbered(count: int, height: int = 48, width: int = 64) -> Frames:
    """Return frames of one colour each: frame i has red i, green 2i and blue 3i, modulo 256."""
    colours = np.arange(count)[:, None] * np.array([1, 2, 3]) % 256
    return np.broadcast_to(
        colours[:, None, None].astype(np.uint8), (count, height, width, 3)
    ).copy()


def write_video(
    path: Path,
    frames: Frames,
    fps: int = 25,
    milliseconds: Sequence[int] | None = None,
    codec: str = "png",
    pixels: str = "rgb24",
) -> Path:
    """Encode frames, losslessly by default (PNG in a .mov), evenly or at given times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000 if milliseconds else fps)
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts = milliseconds[index] if milliseconds else index
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
